"""The process that verifies certificates ahead: what it finds, and how it and its node end."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from typing import Any

import pytest

from ledger_node.order.verifier import Verifier, running_verifier
from voice_dpki.effects import SystemRandom
from voice_dpki.ledger import admission
from voice_dpki.ledger.refusals import Refusal, Refused
from voice_dpki.ledger.transactions import Batch, ChangeStatus, Submit, endorse
from voice_dpki.names import CertDigest
from voice_dpki.x509.keys import generate_es256
from voice_dpki.x509.profile import build_certificate, read_profile

KEY = generate_es256()


def certificate() -> bytes:
    return build_certificate(
        KEY,
        organization="Operator A",
        common_name="device",
        uris=("sip:+493023125001@a.example",),
        not_before_s=1_790_000_000,
        not_after_s=1_790_086_400,
        random=SystemRandom(),
    )


def batch(*certificates: bytes) -> bytes:
    return endorse(Batch("test", "Operator A", certificates), [KEY])


async def test_the_node_knows_a_verdict_without_having_verified(monkeypatch: pytest.MonkeyPatch) -> None:
    ders = [certificate() for _ in range(3)]
    profiles, verifier = [read_profile(der) for der in ders], Verifier()
    async with running_verifier(verifier):
        raw = batch(*ders)
        verifier.schedule(raw)
        assert verifier.is_waiting(raw)
        await verifier.verify(raw)
        assert not verifier.is_waiting(raw)
        assert not verifier.has_refused(raw)
    monkeypatch.setattr(admission, "read_profile", lambda _: pytest.fail("verified again"))
    assert [admission.read_admitted(der) for der in ders] == profiles


async def test_bad_certificates_are_refused_by_the_same_name_as_here() -> None:
    forged = certificate()[:-1] + b"\0"
    sound, bad = batch(certificate()), batch(certificate(), forged)
    verifier = Verifier()
    async with running_verifier(verifier):
        await asyncio.gather(verifier.verify(sound), verifier.verify(bad), verifier.verify(bad))
        assert (verifier.has_refused(sound), verifier.has_refused(bad)) == (False, True)
        verifier.forget([bad])
        assert not verifier.has_refused(bad), "a block has decided: nobody asks any more"
    with pytest.raises(Refused) as refused:
        admission.read_admitted(forged)
    assert refused.value.refusal in (Refusal.CERTIFICATE_SIGNATURE, Refusal.CERTIFICATE_MALFORMED)


async def test_what_brings_no_certificate_does_not_wait() -> None:
    change = endorse(ChangeStatus("test", "A", CertDigest(bytes(32)), 0, "revoked", "unspecified"), [KEY])
    verifier = Verifier()
    async with running_verifier(verifier):
        for raw in (change, b"garbage", b""):
            verifier.schedule(raw)
            assert not verifier.is_waiting(raw)


async def test_what_a_block_has_decided_is_not_verified_any_more() -> None:
    many = [endorse(Submit("test", "Operator A", certificate()), [KEY]) for _ in range(50)]
    verifier = Verifier()
    async with running_verifier(verifier):
        waiting = [asyncio.ensure_future(verifier.verify(raw)) for raw in many]
        await asyncio.sleep(0)
        verifier.forget(many)
        await asyncio.gather(*waiting[10:])
        assert not any(verifier.is_waiting(raw) for raw in many[10:])


async def test_a_hangup_ends_the_process_no_more_than_the_node() -> None:
    verifier = Verifier()
    async with running_verifier(verifier) as pid:
        await verifier.verify(batch(certificate()))
        os.kill(pid, signal.SIGHUP)
        raw = batch(certificate())
        await verifier.verify(raw)
        assert not verifier.is_waiting(raw)
        assert not verifier.ended.is_set()


async def test_nobody_waits_for_a_process_that_is_gone() -> None:
    verifier = Verifier()
    async with running_verifier(verifier) as pid:
        os.kill(pid, signal.SIGSTOP)
        waiting = asyncio.ensure_future(verifier.verify(batch(certificate())))
        await asyncio.sleep(0)
        assert not waiting.done()
        os.kill(pid, signal.SIGKILL)
        await asyncio.wait_for(waiting, 60)
        assert verifier.ended.is_set()
        await verifier.verify(batch(certificate()))


NODE = """
import asyncio
from ledger_node.order.verifier import Verifier, running_verifier

async def main():
    async with running_verifier(Verifier()) as pid:
        print(pid, flush=True)
        await asyncio.sleep(60)

asyncio.run(main())
"""


def test_the_process_ends_when_its_node_is_killed() -> None:
    with subprocess.Popen([sys.executable, "-c", NODE], stdout=subprocess.PIPE, text=True) as node:
        assert node.stdout is not None
        pid = int(node.stdout.readline())
        node.kill()
    _wait_until_gone(pid)


def _wait_until_gone(pid: int, deadline_s: float = 60) -> None:
    end: Any = time.monotonic() + deadline_s
    while time.monotonic() < end:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return
        time.sleep(0.02)
    pytest.fail("the process is still there")
