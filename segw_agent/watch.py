"""Following the ledger's blocks, to know at once which certificates changed, without asking about each.

Every block's header is verified and its transactions are those that the header commits to, so that a node cannot
hide a revocation from whoever follows it; it can only fall silent, and then nothing is fresh any more.
"""

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Sequence
from typing import TypeVar

import msgspec

from voice_dpki.effects import Clock
from voice_dpki.errors import MalformedError, PeerError
from voice_dpki.http_client import HttpClient, HttpError
from voice_dpki.ledger.block import data_hash
from voice_dpki.ledger.client import light_client
from voice_dpki.ledger.genesis import Genesis
from voice_dpki.ledger.light import ForkError
from voice_dpki.ledger.refusals import Refused
from voice_dpki.ledger.replica import SignedBlock
from voice_dpki.ledger.transactions import Batch, ChangeStatus, OwnerStatus, Renew, Submit, Transaction
from voice_dpki.names import CertDigest
from voice_dpki.x509.profile import digest_of

log = logging.getLogger(__name__)

MAX_CHANGES = 100_000
"""Changes that are remembered; what was asked before the oldest of them is asked again."""

BLOCKS_PER_REQUEST = 64
MAX_ANSWER_BYTES = 16 * 1024 * 1024
RETRY_S = 0.2


class Changes:
    """Which certificates the blocks so far changed, and when. Pure."""

    def __init__(self) -> None:
        self.height = 0
        """The last block that was seen."""
        self._floor = 0
        self._changed: OrderedDict[CertDigest, int] = OrderedDict()

    def start(self, height: int) -> None:
        """Begin after block `height`: of what happened before, nothing is known."""
        self.height = self._floor = height
        self._changed.clear()

    def take(self, height: int, transactions: Sequence[bytes]) -> "frozenset[CertDigest] | None":
        """Note the next block; returns the certificates that it may have changed, None if it may be any."""
        self.height = height
        found = [_changed_by(raw) for raw in transactions]
        if None in found:
            self._floor = height
            return None
        changed = frozenset(digest for digests in found for digest in digests or ())
        for digest in changed:
            self._changed[digest] = height
            self._changed.move_to_end(digest)
        while len(self._changed) > MAX_CHANGES:
            self._floor = max(self._floor, self._changed.popitem(last=False)[1])
        return changed

    def unchanged_since(self, digest: CertDigest, height: int) -> bool:
        """Whether an answer that header `height` proves is still the ledger's word, as far as the blocks go.

        A header proves the state before its own block.
        """
        return height > self._floor and self._changed.get(digest, 0) < height


def _changed_by(raw: bytes) -> tuple[CertDigest, ...] | None:
    """Return the certificates that a transaction is about, None if it may be about any."""
    try:
        body = Transaction.parse(raw).body
    except Refused:
        return None
    match body:
        case Submit(certificate=der):
            return (digest_of(der),)
        case Batch(certificates=certificates):
            return tuple(map(digest_of, certificates))
        case Renew(certificate=der, replaces=digest):
            return digest_of(der), digest
        case ChangeStatus(digest=digest) | OwnerStatus(digest=digest):
            return (digest,)
    return None


class Watch:
    """Follows the blocks of the first node that answers; `run` until cancelled."""

    def __init__(
        self, urls: Sequence[str], genesis: Genesis, clock: Clock, *, bound_s: float, max_age_s: float
    ) -> None:
        """Nothing is fresh if no node was heard within `bound_s` or the newest block is older than `max_age_s`."""
        self.changes = Changes()
        self.tip_time_s = 0.0
        self._urls = tuple(urls)
        self._clock = clock
        self._bound_s, self._max_age_s = bound_s, max_age_s
        self._light = light_client(genesis)
        self._heard_s = 0.0
        self._news: set[CertDigest] = set()
        self._any_changed = False
        self._woken = asyncio.Event()

    def is_fresh(self) -> bool:
        """Whether what the blocks say can be relied on now."""
        now_s = self._clock.now_s()
        return now_s - self._heard_s <= self._bound_s and now_s - self.tip_time_s <= self._max_age_s

    async def next_change(self) -> "frozenset[CertDigest] | None":
        """Wait until something has changed, and return what has since the last time; None: it may be anything."""
        await self._woken.wait()
        self._woken.clear()
        news, any_changed = frozenset(self._news), self._any_changed
        self._news.clear()
        self._any_changed = False
        return None if any_changed else news

    async def run(self) -> None:
        """Follow until cancelled; a node that fails or lies is left for the next one."""
        at, failed = 0, False
        while self._urls:
            url = self._urls[at]
            try:
                async with HttpClient(url, timeout_s=2 * self._bound_s, max_answer_bytes=MAX_ANSWER_BYTES) as http:
                    await self._follow(http)
            except ForkError as error:
                log.critical("fork", extra={"fields": {"evidence": error.evidence.to_json()}})
            except PeerError as error:
                if not failed:
                    log.warning("cannot follow the ledger", extra={"fields": {"node": url, "reason": str(error)}})
            failed = True
            at = (at + 1) % len(self._urls)
            await asyncio.sleep(RETRY_S)

    async def _follow(self, http: HttpClient) -> None:
        if not self.changes.height:
            self.changes.start(max(await self._height(http) - 1, 0))
        while True:
            for block in await self._fetch(http):
                self._take(block)
            self._heard_s = self._clock.now_s()

    async def _height(self, http: HttpClient) -> int:
        return _decode(await _get(http, "/ledger/v1/node"), _NodeForm).height

    async def _fetch(self, http: HttpClient) -> list[SignedBlock]:
        """Ask for the next blocks; the node keeps the question for half the bound where there are none yet."""
        wait_ms = int(self._bound_s * 500)
        query = f"from={self.changes.height + 1}&count={BLOCKS_PER_REQUEST}&wait_ms={wait_ms}"
        form = _decode(await _get(http, f"/ledger/v1/blocks?{query}"), _BlocksForm)
        return [SignedBlock.from_json(bytes(raw)) for raw in form.blocks[:BLOCKS_PER_REQUEST]]

    def _take(self, block: SignedBlock) -> None:
        header = block.header
        if header.height != self.changes.height + 1 or header.data_hash != data_hash(block.transactions):
            raise MalformedError("a block is not the next one, or not what its header commits to")
        self._light.verify(block.signed_header, None, self._clock.now_s())
        changed = self.changes.take(header.height, block.transactions)
        self.tip_time_s = header.time_ns / 1e9
        if changed is None or len(self._news) > MAX_CHANGES:
            self._any_changed = True
            self._news.clear()
            self._woken.set()
        elif changed:
            self._news |= changed
            self._woken.set()


class _NodeForm(msgspec.Struct):
    height: int


class _BlocksForm(msgspec.Struct):
    blocks: list[msgspec.Raw]


async def _get(http: HttpClient, target: str) -> bytes:
    answer = await http.request("GET", target)
    if answer.status != 200:
        raise HttpError(f"the ledger node answers {answer.status}")
    return answer.body


_Form = TypeVar("_Form", _NodeForm, _BlocksForm)


def _decode(data: bytes, kind: type[_Form]) -> _Form:
    try:
        return msgspec.json.decode(data, type=kind)
    except ValueError as error:
        raise MalformedError(f"blocks: {error}") from None
