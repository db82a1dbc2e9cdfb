"""The way from the genesis's validators to today's: a chain of headers for a device that has only the genesis.

If the validators have changed since the genesis, a gateway adds these headers to the answer that it staples. The
answer's JSON then has one more member, which other readers ignore.

    "way": [{"signed_header", "validators"}, ...]   ascending heights, at most MAX_WAY

Each header follows from the previous one, or from the genesis, by the light client's rules
(`voice_dpki.ledger.light`), so a device need not trust the gateway that sent it. A device that already trusts a
later header begins there.
"""

from collections.abc import Sequence
from math import inf
from typing import Annotated

import msgspec

from voice_dpki.errors import MalformedError
from voice_dpki.ledger.answers import InquiryCode, InquiryError, inquiry_error
from voice_dpki.ledger.genesis import Genesis
from voice_dpki.ledger.header import SignedHeader
from voice_dpki.ledger.light import LightBlock, LightClient, LightCode, LightError, TrustPoint
from voice_dpki.wire.ledger.client import LedgerClient

MAX_WAY = 16
"""Headers on a way: enough for seven complete changes of the validators, each of which takes two."""

HELP = (
    "the validators have changed since the header that is trusted here, and what came with the answer does not "
    "lead to today's: put a newer header, from GET /ledger/v1/headers/HEIGHT of a node that you trust, into the "
    "file that `trust` in [ledger] names, or configure `urls` to ask a node"
)
"""What the log of a device says if the way does not lead it to today's validators."""


class _HeaderForm(msgspec.Struct):
    signed_header: msgspec.Raw


class _WayForm(msgspec.Struct):
    way: Annotated[tuple[msgspec.Raw, ...], msgspec.Meta(max_length=MAX_WAY)] = ()


def header_of(answer: bytes) -> SignedHeader:
    """Read the header of an answer that was verified before."""
    return SignedHeader.from_json(msgspec.json.decode(msgspec.json.decode(answer, type=_HeaderForm).signed_header))


async def find_way(
    client: LedgerClient, genesis: Genesis, target: SignedHeader, now_s: float
) -> tuple[LightBlock, ...]:
    """Find the shortest way from the genesis to a header, with headers from a node; raises InquiryError.

    The age of the genesis does not matter here: each device decides how long it trusts it.
    """
    blocks: list[LightBlock] = []
    trust = TrustPoint.genesis(genesis.validators, genesis.time_ns)
    light = LightClient(genesis.chain_id, trust, trusting_period_s=inf)
    steps = light.approach(target, now_s, min_height=0)
    try:
        height = next(steps)
        while True:
            blocks.append(await client.light_block(height))
            height = steps.send(blocks[-1])
    except StopIteration:
        pass
    except LightError as error:
        raise inquiry_error(error) from None
    return tuple(_shortest(genesis.chain_id, trust, sorted(blocks, key=lambda block: block.height), now_s))


def _shortest(chain_id: str, trust: TrustPoint, blocks: list[LightBlock], now_s: float) -> list[LightBlock]:
    """Leave out headers that can be skipped: from each one, go on to the last one that follows from it."""
    kept: list[LightBlock] = []
    while blocks:
        at = next((at for at in reversed(range(len(blocks))) if _follows(chain_id, trust, blocks[at], now_s)), 0)
        kept.append(blocks[at])
        trust = TrustPoint.at(blocks[at].signed_header, blocks[at].validators)
        blocks = blocks[at + 1 :]
    return kept


def _follows(chain_id: str, trust: TrustPoint, block: LightBlock, now_s: float) -> bool:
    light = LightClient(chain_id, trust, trusting_period_s=inf)
    try:
        light.verify(block.signed_header, block.validators, now_s, min_height=0)
    except LightError:
        return False
    return True


def with_way(answer: bytes, way: Sequence[LightBlock], max_bytes: int) -> bytes:
    """Add a way to an answer, in at most `max_bytes`.

    If it is too long, its first headers are dropped: the rest still serves devices that trust a later header.
    """
    texts = [msgspec.json.encode(block.to_json()) for block in way[-MAX_WAY:]]
    while texts:
        out = b'%s,"way":[%s]}' % (answer.rstrip()[:-1], b",".join(texts))
        if len(out) <= max_bytes:
            return out
        texts.pop(0)
    return answer


def follow_way(answer: bytes, light: LightClient, now_s: float) -> None:
    """Let a light client verify, and then trust, the headers that came with an answer; raises InquiryError."""
    try:
        for text in msgspec.json.decode(answer, type=_WayForm).way:
            block = LightBlock.from_json(msgspec.json.decode(text))
            if block.height > light.latest.height:
                light.verify(block.signed_header, block.validators, now_s)
    except (MalformedError, RecursionError, ValueError) as error:
        raise InquiryError(InquiryCode.MALFORMED, f"the answer is malformed: {error}") from None
    except LightError as error:
        if error.code is LightCode.FUTURE:
            raise inquiry_error(error) from None
        raise InquiryError(InquiryCode.UNPROVEN, f"{HELP} ({error})") from None
