"""Two verification servers of one domain with one memory of used signatures, of which one dies."""

import shlex
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, contextmanager
from pathlib import Path

import httpx
import pytest
import pytest_asyncio

from tests.debians import bare_machine
from tests.e2e.delegation import CALLED, CALLER, TOKEN, Delegation, Proxy
from tests.one_operator import Service
from tests.verify_server.redis_server import Program, redis, redis_server
from voice_dpki.stir.forms import VERIFICATION_PATH

PASSED, REPLAY = "TN-Validation-Passed", "TN-Validation-Failed E21 replay"


STORES = (
    "file",
    pytest.param("redis", marks=pytest.mark.peer("redis-server")),
    pytest.param("valkey", marks=[pytest.mark.peer("debootstrap"), pytest.mark.netns, pytest.mark.long]),
)


@contextmanager
def valkey(scratch: Path, shared: Path) -> Iterator[Program]:
    """The valkey-server of Debian 13, on a machine of its own that has the folder `shared`."""
    with bare_machine("trixie", scratch, shared) as made:
        installed = made.run("apt-get update -qq && apt-get install --yes --no-install-recommends valkey-server")
        assert installed.returncode == 0, installed.stdout + installed.stderr
        yield lambda arguments: made.command(shlex.join(["exec", "valkey-server", *arguments]))


@pytest_asyncio.fixture(params=STORES)
async def store(
    request: pytest.FixtureRequest, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[str]:
    """The URL of a store."""
    async with AsyncExitStack() as opened:
        if request.param == "file":
            yield f"file://{tmp_path}/replay"
            return
        program: Program = redis
        if request.param == "valkey":
            program = opened.enter_context(valkey(tmp_path_factory.mktemp("trixie"), tmp_path))
        server = await opened.enter_async_context(redis_server(tmp_path, program=program))
        told = server.told("INFO", "server")
        assert (b"server_name:valkey" in told) == (request.param == "valkey")
        yield server.url


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
