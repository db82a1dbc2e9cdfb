"""Answers about many certificates leave the event loop to others half of the time, and say what short ones say."""

import asyncio
import hashlib
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from ledger_node.answer.inquiry import SLICE_S, Inquiry
from ledger_node.keep.chain import Chain
from ledger_node.keep.store import Store
from tests.clocks import SettableClock
from voice_dpki.ledger.answer_forms import BatchForm, PrefixForm
from voice_dpki.names import CertDigest
from voice_dpki.x509.profile import digest_of

STEP_S = SLICE_S / 4
"""What one certificate takes, by the clock of these tests."""

UNKNOWN = [CertDigest(hashlib.sha256(bytes([number])).digest()) for number in range(200)]


class Loop:
    """The time that the work takes, and the pauses that it makes."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.resumed_s = 0.0
        self.slices_s: list[float] = []
        self.pauses_s: list[float] = []

    def perf_counter(self) -> float:
        self.now_s += STEP_S
        return self.now_s

    async def sleep(self, pause_s: float) -> None:
        self.slices_s.append(self.now_s - self.resumed_s)
        self.pauses_s.append(pause_s)
        self.now_s += pause_s
        self.resumed_s = self.now_s
        await asyncio.sleep(0)


@pytest.fixture
def loop(monkeypatch: pytest.MonkeyPatch) -> Loop:
    loop = Loop()
    monkeypatch.setattr("ledger_node.answer.inquiry.time", loop)
    monkeypatch.setattr("ledger_node.answer.inquiry.asyncio", SimpleNamespace(sleep=loop.sleep, Lock=asyncio.Lock))
    return loop


@pytest.fixture
def ders(network: Any) -> list[bytes]:
    return [network.certificate() for _ in range(24)]


@pytest.fixture
def inquiry(network: Any, ders: list[bytes], tmp_path: Path, loop: Loop) -> Iterator[Inquiry]:
    chain = Chain(Store(tmp_path / "data", network.genesis), network.genesis)
    for step in network.maker().steps(tuple(network.submission_of(der) for der in ders), ()):
        chain.store.commit(step)
    block = chain.store.view.block(chain.height)
    assert block is not None
    yield Inquiry(chain, SettableClock(block.signed_header().header.time_ns / 1e9 + 1))
    chain.close()


def check_halves(loop: Loop) -> None:
    """Check that each pause is about as long as the slice before it, and that no slice is long."""
    assert len(loop.pauses_s) > 3
    assert max(loop.slices_s) <= SLICE_S + 4 * STEP_S
    assert sum(loop.pauses_s) > 0.6 * sum(loop.slices_s)


async def test_a_long_list_of_certificates_takes_half_of_the_loop(
    inquiry: Inquiry, loop: Loop, ders: list[bytes]
) -> None:
    digests = [*UNKNOWN, *map(digest_of, ders)]
    answer = msgspec.json.decode(await inquiry.batch(digests), type=BatchForm)
    assert [entry.digest for entry in answer.entries] == [digest.hex() for digest in digests]
    assert [entry.record is not None for entry in answer.entries] == [False] * len(UNKNOWN) + [True] * len(ders)
    check_halves(loop)


async def test_a_prefix_of_many_certificates_takes_half_of_the_loop(
    inquiry: Inquiry, loop: Loop, ders: list[bytes]
) -> None:
    found: set[str] = set()
    for digit in "0123456789abcdef":
        answer = msgspec.json.decode(await inquiry.prefix(digit, lambda _: None), type=PrefixForm)
        found |= {leaf.key for leaf in answer.leaves if leaf.value is not None}
    assert found == {digest_of(der).hex() for der in ders}
    loop.pauses_s = [pause_s for pause_s in loop.pauses_s if pause_s]
    assert loop.pauses_s, "pauses are made between the leaves, too"
