"""Two verification servers of one domain with one memory of used signatures, of which one dies."""

import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import httpx
import pytest
import pytest_asyncio

from tests.e2e.delegation import CALLED, CALLER, TOKEN, Delegation, Proxy
from tests.one_operator import Service
from tests.verify_server.redis_server import redis_server
from voice_dpki.stir.forms import VERIFICATION_PATH

PASSED, REPLAY = "TN-Validation-Passed", "TN-Validation-Failed E21 replay"


@pytest_asyncio.fixture(params=["file", pytest.param("redis", marks=pytest.mark.peer("redis-server"))])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[str]:
    """The URL of a store."""
    async with AsyncExitStack() as opened:
        if request.param == "file":
            yield f"file://{tmp_path}/replay"
        else:
            yield (await opened.enter_async_context(redis_server(tmp_path))).url


@pytest.fixture
def delegation(tmp_path: Path, store: str) -> Iterator[Delegation]:
    made = Delegation(tmp_path, more=f'\n[replay.store]\nurl = "{store}"\ntimeout_s = 2\n')
    yield made
    made.stop()


def verdict(server: Service, identity: str, call_id: str) -> str:
    """What a server finds about a call: the verstat, and the step that failed."""
    request = {"from": {"tn": CALLER}, "to": {"tn": [CALLED]}, "time": int(time.time()), "identity": identity}
    body = {"verificationRequest": {**request, "callId": call_id}}
    headers = {"Authorization": f"Bearer {TOKEN}"}
    answer = httpx.post(server.url + VERIFICATION_PATH, json=body, headers=headers, trust_env=False, timeout=60)
    told = answer.json()["verificationResponse"]
    return f"{told['verstat']} {told.get('step', '')}".strip()


async def test_what_one_server_has_accepted_is_a_replay_at_the_other(delegation: Delegation) -> None:
    one, two = delegation.verify, delegation.start_verifier("second")
    try:
        async with Proxy(delegation) as proxy:
            identities = [await proxy.signed() for _ in range(3)]
        assert verdict(one, identities[0], "c1") == PASSED
        assert verdict(two, identities[0], "c2") == REPLAY
        assert verdict(two, identities[0], "c1") == PASSED, "the proxy asks the other server for the same call"
        assert verdict(two, identities[1], "c3") == PASSED
        two.kill()
        assert verdict(one, identities[1], "c3") == PASSED
        assert verdict(one, identities[1], "c4") == REPLAY
        two = delegation.start_verifier("second")
        assert verdict(two, identities[0], "c2") == REPLAY, "a new process finds what was used before"
        assert verdict(two, identities[2], "c5") == PASSED, "and takes what was signed before it began"
    finally:
        assert two.stop() == 0
