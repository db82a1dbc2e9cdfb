"""All validators are down: what is verified and signed by the operator's own replica, and for how long."""

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.delegation import Delegation, Proxy, Verdict
from tests.verify_server.conftest import Caller

MAX_AGE_S = 6.0
REFUSED = ("No-TN-Validation", 436, "E8 ledger")


@pytest.fixture
def delegation(tmp_path: Path) -> Iterator[Delegation]:
    made = Delegation(tmp_path, max_age_s=MAX_AGE_S, has_replica=True)
    yield made
    made.stop()


@pytest.fixture
def newcomer(delegation: Delegation) -> str:
    """The Identity of a signer that is recorded, and that the verification server has never met."""
    caller = Caller()
    der = caller.der()
    delegation.record(der)
    return caller.identity(der)


def outcome(verdict: Verdict) -> tuple[object, ...]:
    return verdict["verstat"], verdict.get("reasoncode"), verdict.get("step")


async def test_calls_go_on_by_the_replica_until_it_is_too_old_and_signing_goes_on_then(
    delegation: Delegation, newcomer: str
) -> None:
    assert delegation.replica is not None
    async with Proxy(delegation) as proxy:
        assert (await proxy.call())["verstat"] == "TN-Validation-Passed"
        delegation.ledger.node.kill()
        down_s, passed_s = time.monotonic(), [-1.0]
        assert (await proxy.verified(newcomer))["verstat"] == "TN-Validation-Passed", "the replica knows it"
        while True:
            asked_s = time.monotonic() - down_s
            verdict = await proxy.call()
            if verdict["verstat"] != "TN-Validation-Passed":
                break
            passed_s.append(asked_s)
            await asyncio.sleep(0.1)
        assert 0 <= passed_s[-1] <= MAX_AGE_S, "its newest header was made before"
        assert outcome(verdict) == REFUSED
        assert "too old to be believed" in verdict["reasondesc"]
        print(f"{len(passed_s) - 1} calls, the last one {passed_s[-1]:.1f} s after the last validator")
        assert delegation.replica.stop() == 0
        verdict = await proxy.call()  # which was signed all the same
        assert outcome(verdict) == REFUSED
        assert "does not answer" in verdict["reasondesc"]
