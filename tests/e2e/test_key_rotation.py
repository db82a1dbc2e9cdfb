"""A signing key is replaced while calls go on: no call is without TN-Validation-Passed."""

import argparse
import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from authn_server.rotate import add_rotate_arguments, rotate
from tests.e2e.delegation import Delegation, Proxy
from voice_dpki.effects import SystemClock, SystemRandom
from voice_dpki.errors import LocalError, PeerError
from voice_dpki.wire.ledger.client import LedgerClient
from voice_dpki.x509.profile import digest_of
from voice_dpki.x509.recorded import CertStatus

RATE = 100.0
PASSED = {"TN-Validation-Passed"}


@pytest.fixture
def delegation(tmp_path: Path) -> Iterator[Delegation]:
    made = Delegation(tmp_path)
    yield made
    made.stop()


def arguments(delegation: Delegation, *more: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    add_rotate_arguments(parser)
    given = {
        "config": delegation.folder / "authn.toml",
        "token": delegation.folder / "net/tokens-operator-a",
        "server": delegation.authn.url,
        "pid": delegation.authn.pid,
        "spread-s": 1,
        "overlap-s": 2,
    }
    return parser.parse_args([*(f"--{name}={value}" for name, value in given.items()), *more])


async def status(delegation: Delegation, der: bytes) -> CertStatus:
    async with LedgerClient.of_genesis(delegation.ledger.url, delegation.ledger.genesis) as client:
        return (await client.resolve(digest_of(der))).status


async def test_no_call_is_lost_while_the_key_is_replaced(delegation: Delegation) -> None:
    said: list[str] = []
    async with Proxy(delegation) as proxy, asyncio.TaskGroup() as group:
        stop, in_flight = asyncio.Event(), await proxy.signed()
        group.create_task(proxy.calls(RATE, stop))
        await proxy.until(20, delegation.der)
        work = group.create_task(rotate(arguments(delegation), SystemClock(), SystemRandom(), said.append))
        while not any("signs with it" in line for line in said):
            await asyncio.sleep(0.05)
        late = await proxy.verified(in_flight)
        await work
        new = (delegation.folder / "authn.der").read_bytes()
        await proxy.until(20, new)
        stop.set()
    assert {each["verstat"] for each in proxy.verdicts} == PASSED
    certificates = [each["certificate"] for each in proxy.verdicts]
    assert set(certificates) == {digest_of(delegation.der).hex(), digest_of(new).hex()}
    assert (late["verstat"], late["certificate"]) == ("TN-Validation-Passed", digest_of(delegation.der).hex())
    assert await status(delegation, delegation.der) is CertStatus.REVOKED
    assert await status(delegation, new) is CertStatus.VALID
    assert sorted(path.name for path in delegation.folder.glob("authn.*.*")) == ["authn.der.lock"]
    print(f"{len(certificates)} calls, {certificates.count(digest_of(new).hex())} of them with the new key")


async def test_a_rotation_that_was_broken_off_goes_on(delegation: Delegation) -> None:
    said: list[str] = []
    deaf = arguments(delegation, f"--server={delegation.verify.url}", "--wait-s=0.5")
    with pytest.raises(PeerError, match=r"does not sign with it: .* Nothing is revoked"):
        await rotate(deaf, SystemClock(), SystemRandom(), said.append)
    new = (delegation.folder / "authn.der").read_bytes()
    assert await status(delegation, delegation.der) is CertStatus.VALID
    said.clear()
    await rotate(arguments(delegation), SystemClock(), SystemRandom(), said.append)
    assert (delegation.folder / "authn.der").read_bytes() == new, "it makes no third one"
    assert not any("recorded" in line for line in said)
    assert await status(delegation, delegation.der) is CertStatus.REVOKED
    async with Proxy(delegation) as proxy:
        verdict = await proxy.call()
        assert (verdict["verstat"], verdict["certificate"]) == ("TN-Validation-Passed", digest_of(new).hex())


async def test_a_certificate_that_is_not_recorded_is_never_used(delegation: Delegation) -> None:
    token = delegation.folder / "wrong-token"
    token.write_text("not-the-token\n")
    options = arguments(delegation, f"--token={token}")
    with pytest.raises(PeerError):
        await rotate(options, SystemClock(), SystemRandom(), lambda line: None)
    assert (delegation.folder / "authn.der").read_bytes() == delegation.der
    async with Proxy(delegation) as proxy:
        assert (await proxy.call())["verstat"] == "TN-Validation-Passed"


async def test_a_rotation_needs_to_know_the_ledger(delegation: Delegation) -> None:
    config = delegation.folder / "authn.toml"
    config.write_text(config.read_text().partition("[ledger]")[0])
    with pytest.raises(LocalError, match=r"needs \[ledger\]"):
        await rotate(arguments(delegation), SystemClock(), SystemRandom(), lambda line: None)
