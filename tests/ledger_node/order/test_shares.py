"""Each member's share of the places where transactions wait."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from ledger_node.keep.chain import TxOutcome
from ledger_node.order.shares import Shares
from voice_dpki.ledger.state import OK
from voice_dpki.ledger.transactions import OwnerStatus, Submit, endorse
from voice_dpki.names import CertDigest, Height
from voice_dpki.shell.limits import TooManyError
from voice_dpki.x509.keys import generate_es256

KEY = generate_es256()


class Orderer:
    """Takes transactions and decides them when it is told to."""

    def __init__(self) -> None:
        self.waiting: list[bytes] = []
        self.decide = asyncio.Event()

    async def submit(self, raw: bytes) -> TxOutcome:
        self.waiting.append(raw)
        await self.decide.wait()
        return TxOutcome(OK, Height(1))

    async def run(self) -> None:
        self.decide.set()


def submission(by: str) -> bytes:
    return endorse(Submit("test-1", by, b"certificate"), [KEY])


def by_owner(by: str) -> bytes:
    body = OwnerStatus("test-1", by, CertDigest(bytes(32)), 0, "revoked", "unspecified", KEY.public_key_der)
    return endorse(body, [KEY])


@asynccontextmanager
async def waiting(shares: Shares, orderer: Orderer, *raws: bytes) -> AsyncIterator[None]:
    tasks = [asyncio.create_task(shares.submit(raw)) for raw in raws]
    while len(orderer.waiting) < len(raws):
        await asyncio.sleep(0)
    yield
    orderer.decide.set()
    assert [verdict.height for verdict in await asyncio.gather(*tasks)] == [1] * len(raws)


async def test_a_member_with_its_share_waiting_has_to_come_back_and_others_do_not() -> None:
    orderer = Orderer()
    shares = Shares(orderer, share=3)
    async with waiting(shares, orderer, *[submission("A")] * 3):
        with pytest.raises(TooManyError, match="of this member") as caught:
            await shares.submit(submission("A"))
        assert caught.value.retry_after_s == 1
        others = [asyncio.create_task(shares.submit(raw)) for raw in (*[submission("B")] * 3, by_owner("A"), b"")]
        while len(orderer.waiting) < 8:
            await asyncio.sleep(0)
        with pytest.raises(TooManyError):
            await shares.submit(submission("B"))
    await asyncio.gather(*others)
    assert (await shares.submit(submission("A"))).height == 1


async def test_who_gives_up_leaves_the_place() -> None:
    orderer = Orderer()
    shares = Shares(orderer, share=1)
    given_up = asyncio.create_task(shares.submit(submission("A")))
    while not orderer.waiting:
        await asyncio.sleep(0)
    given_up.cancel()
    await asyncio.gather(given_up, return_exceptions=True)
    await shares.run()
    assert (await shares.submit(submission("A"))).height == 1
