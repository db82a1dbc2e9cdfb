"""Following another node: its blocks are fetched, verified with the light client and executed again.

A block that does not verify is refused and requested again, because something on the network path may have changed
it. A verified header that contradicts another, or the state that this node computed, ends the node: it would answer
from a state that the validators never agreed on. While the other node is unreachable, this one answers from its own
store.
"""

import asyncio
import json
import logging
import math
import ssl
from functools import partial
from itertools import zip_longest

import httpx
import msgspec

from ledger_node.keep.chain import Chain, TxOutcome
from ledger_node.order import misbehaviour
from ledger_node.order.orderer import MAX_OUTCOME_BYTES, BusyError, OutcomeForm, UnavailableError
from voice_dpki.clock_health import HEALTH
from voice_dpki.effects import Clock
from voice_dpki.errors import LocalError, MalformedError, PeerError
from voice_dpki.ledger.activation import rules_at
from voice_dpki.ledger.clock import ClockError, LedgerClock
from voice_dpki.ledger.evidence import DuplicateVote, EvidenceError
from voice_dpki.ledger.header import Header, ValidatorSet
from voice_dpki.ledger.light import ForkError, LightClient, LightCode, LightError, TrustPoint
from voice_dpki.ledger.replica import BlockError, SignedBlock
from voice_dpki.ledger.state import TxResult, forget_verdicts
from voice_dpki.ledger.validators import validator_sets
from voice_dpki.metrics import counter
from voice_dpki.names import Height
from voice_dpki.shell.again import retry_after_s
from voice_dpki.shell.limits import TooManyError
from voice_dpki.shortfalls import SHORTFALLS
from voice_dpki.wire.bounded import UNPACKED, read_body
from voice_dpki.wire.http_client import check_tls_url, tls_failure

log = logging.getLogger(__name__)

WAIT_MS = 10_000
"""How long the other node may hold a request for blocks that do not exist yet."""

BLOCKS_PER_REQUEST = 64
MAX_BLOCKS_BYTES = 16 * 1024 * 1024
BLOCKS_S = 60.0
"""How long the other node may take to send blocks that exist, so that a slow sender cannot hold the follower."""

RETRY_S = (0.1, 0.2, 0.5, 1.0, 2.0)
"""Pauses after the first failure in a row, the second, and so on; the last value repeats."""

SUBMIT_TIMEOUT_S = 10.0
MAX_SUBMITTING = 64
"""Most transactions that wait for the other node: fewer than a server's and the client's connections."""

MAX_PROBLEM_BYTES = 4096
MAX_DETAIL_CHARACTERS = 300
"""How much of another node's message is reported."""

REFUSED = counter("ledger_blocks_refused", "Fetched blocks that did not verify")


class _BlocksForm(msgspec.Struct):
    blocks: list[msgspec.Raw]


class _ProblemForm(msgspec.Struct):
    detail: str = ""


class GoneError(PeerError):
    """The other node no longer has the next blocks; the message is that node's, or ours if it sent none."""

    @classmethod
    def of(cls, body: bytes) -> "GoneError":
        """Read the other node's problem document; any other body is ignored."""
        try:
            said = msgspec.json.decode(body, type=_ProblemForm).detail[:MAX_DETAIL_CHARACTERS]
        except ValueError:
            said = ""
        return cls(f"the followed node lacks the next block: {said or 'it does not say why'}")


_FAILURES = (httpx.HTTPError, TimeoutError, MalformedError, LightError, BlockError, ClockError, GoneError)
"""Failures of the other node after which the request is retried."""


class Follower:
    """Keeps the chain level with the node at `url`, with `tls` as the TLS context if given; `run` fetches blocks.

    `checkpoint` is a height, and the hash that the header there must have (docs/adr/0013).
    """

    def __init__(
        self,
        chain: Chain,
        url: str,
        clock: Clock,
        *,
        tls: ssl.SSLContext | None = None,
        checkpoint: tuple[int, bytes] | None = None,
    ) -> None:
        """Raise LocalError where TLS is configured and the URL is not https, or the store breaks the checkpoint."""
        if tls is not None:
            check_tls_url(url)
        self._checkpoint = checkpoint
        self._chain = chain
        self._replica = chain.replica()
        last = self._replica.last
        self._clock = LedgerClock(clock, (last.header.time_ns if last else chain.genesis.time_ns) / 1e9)
        HEALTH.watch(self._clock)
        _check_stored(chain, checkpoint)
        self._light = _light_client(chain, self._replica.last is not None)
        self._submitting = 0
        self._lacking = ""
        SHORTFALLS.watch(self)
        self._http = httpx.AsyncClient(base_url=url, trust_env=False, verify=tls or True, headers=UNPACKED)

    async def run(self) -> None:
        """Follow until cancelled.

        Raises LocalError where going on would be wrong: a fork, a diverging state, or rules that this release
        lacks.
        """
        try:
            await self._follow()
        finally:
            await self._http.aclose()

    async def _follow(self) -> None:
        failures = 0
        while True:
            try:
                if blocks := await self._fetch():
                    await self._chain.write(partial(self._take, blocks))
                failures, self._lacking = 0, ""
            except ForkError as error:
                log.critical("fork", extra={"fields": {"evidence": json.dumps(error.evidence.to_json())}})
                raise LocalError(f"the validators contradict themselves: {error}") from None
            except _FAILURES as error:
                self._lacking = str(error) if isinstance(error, GoneError) else ""
                _log_failure(error, first=failures == 0)
                if isinstance(error, LightError) and error.code is LightCode.FUTURE:
                    self._clock.refused(str(error))
                HEALTH.problem()
                pause_s = RETRY_S[min(failures, len(RETRY_S) - 1)]
                wished_s = 0.0
                if isinstance(error, httpx.HTTPStatusError):
                    wished_s = retry_after_s(error.response.headers.get("retry-after", ""))
                await asyncio.sleep(max(pause_s, wished_s))
                failures += 1

    def shortfall(self) -> str:
        """Return a warning if the followed node no longer has the next block: this node then makes no progress."""
        return self._lacking

    async def submit(self, raw: bytes) -> TxOutcome:
        """Hand a transaction to the followed node and return its verdict.

        Raises UnavailableError where that node does not answer, TooManyError where it answers 429, and BusyError
        where MAX_SUBMITTING transactions wait for it already.
        """
        if self._submitting >= MAX_SUBMITTING:
            raise BusyError("too many transactions wait for the ordering node; repeat this one in a moment")
        self._submitting += 1
        try:
            async with asyncio.timeout(SUBMIT_TIMEOUT_S):
                form = await self._verdict(raw)
        except (httpx.HTTPError, TimeoutError, MalformedError, ValueError):  # ValueError: msgspec's, or not UTF-8
            raise UnavailableError("the ordering node does not answer; repeat the request") from None
        finally:
            self._submitting -= 1
        height = None if form.height is None else Height(form.height)
        return TxOutcome(TxResult(form.code, form.name, form.detail), height)

    async def _verdict(self, raw: bytes) -> OutcomeForm:
        async with self._http.stream(
            "POST", "/ledger/v1/transactions", content=raw, timeout=SUBMIT_TIMEOUT_S
        ) as response:
            if response.status_code == 429:
                wait_s = max(1, int(retry_after_s(response.headers.get("retry-after", ""))))
                raise TooManyError("the ordering node takes no more transactions from here now", wait_s)
            return OutcomeForm.parse(await read_body(response, MAX_OUTCOME_BYTES))

    async def _fetch(self) -> list[SignedBlock]:
        """Request the next blocks; the other node holds the request until there is one, for at most WAIT_MS.

        Raises httpx.HTTPError, TimeoutError, GoneError where the other node has removed them, and MalformedError,
        also for more than MAX_BLOCKS_BYTES.
        """
        query = {"from": self._replica.next_height, "count": BLOCKS_PER_REQUEST, "wait_ms": WAIT_MS}
        pause_s = WAIT_MS / 1000 + 5
        async with (
            asyncio.timeout(pause_s + BLOCKS_S),
            self._http.stream("GET", "/ledger/v1/blocks", params=query, timeout=pause_s) as response,
        ):
            if response.status_code == 410:
                raise GoneError.of(await read_body(response, MAX_PROBLEM_BYTES))
            response.raise_for_status()
            data = await read_body(response, MAX_BLOCKS_BYTES)
        try:
            form = msgspec.json.decode(data, type=_BlocksForm)
        except ValueError as error:
            raise MalformedError(f"blocks: {error}") from None
        return [SignedBlock.from_json(bytes(raw)) for raw in form.blocks[:BLOCKS_PER_REQUEST]]

    def _take(self, blocks: list[SignedBlock]) -> None:
        """Verify, execute and store blocks in turn, up to the first that does not verify.

        The light client takes no earlier height after a later one, so it sees a later block only where this one has
        too little power. The state before a block names the validators that must have signed it.
        """
        for block, following in zip_longest(blocks, blocks[1:]):
            if block.height != self._replica.next_height:
                raise BlockError(f"block {block.height} came where {self._replica.next_height} was asked for")
            rules_at(self._replica.state, block.height)
            validators, later = validator_sets(self._replica.state)
            try:
                self._light.verify(block.signed_header, validators, self._clock.checked_s())
            except LightError as error:
                if error.code is not LightCode.TOO_LITTLE_POWER or following is None:
                    raise
                after = self._light.verify(following.signed_header, later, self._clock.checked_s())
                # Votes that fail here count as absent, so the next header must vouch for this one: docs/adr/0006.
                self._light.verify_before(block.signed_header, after)
            check_header(self._checkpoint, block.signed_header.header)
            self._clock.heard(block.signed_header.header.time_ns / 1e9)
            self._chain.store.commit(self._replica.take(block))
            _report_evidence(block, later)
        forget_verdicts()


def check_header(checkpoint: tuple[int, bytes] | None, header: Header) -> None:
    """Raise LocalError where a header is at the checkpoint's height and has another hash."""
    if checkpoint is not None and header.height == checkpoint[0] and header.hash() != checkpoint[1]:
        raise LocalError(
            f"block {header.height} is not that of the checkpoint: this is another history, whoever signed it; "
            "remove the store, and follow a node that has the checkpoint's"
        )


def _check_stored(chain: Chain, checkpoint: tuple[int, bytes] | None) -> None:
    stored = None if checkpoint is None else chain.store.view.block(checkpoint[0])
    if stored is not None:
        check_header(checkpoint, stored.signed_header().header)


def _light_client(chain: Chain, has_blocks: bool) -> LightClient:
    """Return a light client that trusts the last stored header, verified before it was stored, or else the genesis.

    A follower skips no height, so each validator set is named by the state before it. It may therefore start from
    a header of any age, and the trusting period is endless.
    """
    genesis, view = chain.genesis, chain.store.view
    trust = TrustPoint.genesis(genesis.validators, genesis.time_ns)
    last = view.block(view.height) if has_blocks else None
    if last is not None:
        signed_header = last.signed_header()
        kept = view.validators(signed_header.header.validators_hash)
        validators = ValidatorSet.from_json(msgspec.json.decode(kept)) if kept else genesis.validators
        trust = TrustPoint.at(signed_header, validators)
    return LightClient(genesis.chain_id, trust, trusting_period_s=math.inf)


def _report_evidence(block: SignedBlock, validators: ValidatorSet) -> None:
    """Report the validators that a block's evidence convicts; `validators` are those that it could remove.

    Evidence whose signatures do not verify here does not stop the follower. CometBFT accepts signatures that
    RFC 8032 does not, so that a convicted validator could otherwise stop every follower (docs/adr/0011).
    """
    accusable = {validator.address: validator for validator in validators.validators}
    for evidence in block.evidence:
        for address in evidence.misbehaving:
            misbehaviour.report(evidence.KIND, address, evidence.height)
        if isinstance(evidence, DuplicateVote) and (accused := accusable.get(evidence.vote_a.validator_address)):
            try:
                evidence.verify(block.header.chain_id, accused.public_key)
            except EvidenceError:
                misbehaviour.report_unproved(evidence.KIND, accused.address, evidence.height)


def _log_failure(error: Exception, *, first: bool) -> None:
    refused = isinstance(error, LightError | BlockError | MalformedError | ClockError)
    if refused:
        REFUSED.inc()
    if refused or first:
        missing = isinstance(error, GoneError)
        event = (
            "block refused"
            if refused
            else f"followed node {'lacks the next block' if missing else 'does not answer'}"
        )
        reason = tls_failure(error) or str(error) or type(error).__name__
        log.warning(event, extra={"fields": {"reason": reason}})
