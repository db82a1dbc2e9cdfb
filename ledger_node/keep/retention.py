"""Which blocks a store keeps. The state stays whole whatever is removed: the tree does not depend on blocks.

Clients need recent blocks or headers only: light clients those of their trusting period, a node that begins with a
snapshot those after it, a node that was down those that it missed. Older ones are for an archive.
"""

import logging
from bisect import bisect_left
from dataclasses import dataclass

import msgspec

from ledger_node.keep.store import Blocks
from voice_dpki.ledger.header import parse_time
from voice_dpki.ledger.light import TRUSTING_PERIOD_S
from voice_dpki.names import Height

log = logging.getLogger(__name__)

MAX_PRUNED = 64
"""Most blocks that one commit removes: far more than it adds, so that a former archive shrinks."""

DAY_S = 86_400
KEPT_DAYS = 30
KEPT_BLOCKS = 10_000
SHORTEST_DAYS = TRUSTING_PERIOD_S / DAY_S + 1
"""With less, light clients within their trusting period can miss a header that they need."""


class _HeaderForm(msgspec.Struct):
    time: str


class _SignedHeaderForm(msgspec.Struct):
    header: _HeaderForm


@dataclass(frozen=True, slots=True)
class Retention:
    """Blocks are removed once they are both older than `age_s` and below the newest `blocks` ones."""

    age_s: float = KEPT_DAYS * DAY_S
    blocks: int = KEPT_BLOCKS

    def warn(self) -> None:
        """Log a warning if light clients, or nodes that were down, can miss headers or blocks that they need."""
        if self.age_s < SHORTEST_DAYS * DAY_S:
            reason = f"light clients may ask for headers that are up to {SHORTEST_DAYS:g} days old"
            days = self.age_s / DAY_S
            log.warning("few blocks are kept", extra={"fields": {"days": days, "reason": reason}})

    def first(self, blocks: Blocks) -> Height:
        """Return the lowest block to keep now, at most MAX_PRUNED above the lowest one in the store.

        Ages count by the blocks' own times, back from the newest block, and not by a clock.
        """
        low = blocks.first
        high = min(low + MAX_PRUNED, blocks.height - max(self.blocks, 1) + 1)
        if high <= low:
            return low
        newest_ns = _time_ns(blocks, blocks.height)
        limit_ns = newest_ns - int(self.age_s * 10**9)
        if _time_ns(blocks, low) >= limit_ns:
            return low
        return Height(low + bisect_left(range(low, high), limit_ns, key=lambda height: _time_ns(blocks, height)))


def _time_ns(blocks: Blocks, height: int) -> int:
    """Return a stored block's time; reads nothing else of its header, which has each validator's signature."""
    block = blocks.block(height)
    assert block is not None, "the store has every block from `first` on"
    return parse_time(msgspec.json.decode(block.signed_header_json, type=_SignedHeaderForm).header.time)
