"""The submission role: endorses the requests of one member's own systems, and waits until the ledger holds them.

Repeating a request is harmless: if the ledger holds it already, the answer is the present record.
"""

import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from time import monotonic

from ledger_node.keep.chain import Chain, TxOutcome
from ledger_node.order.orderer import RefusedByLedgerError, UnavailableError
from voice_dpki.effects import Signer
from voice_dpki.errors import LocalError
from voice_dpki.ledger.records import CertRecord, CertStatus
from voice_dpki.ledger.refusals import Refusal
from voice_dpki.ledger.transactions import Body, ChangeStatus, Renew, Submit, endorse
from voice_dpki.names import CertDigest, Height
from voice_dpki.shell.readiness import Finding, failed_if
from voice_dpki.shell.signing import HsmConfig, SigningThreads
from voice_dpki.shortfalls import SHORTFALLS
from voice_dpki.x509.keys import KeyUnavailableError, fault_of
from voice_dpki.x509.profile import digest_of

log = logging.getLogger(__name__)

OWN_STORE_WAIT_S = 3.0
"""How long to wait until this node has stored the block too, so that its own answers include it."""

Order = Callable[[bytes], Awaitable[TxOutcome]]
"""Hands a transaction to the ordering node and returns its verdict."""


@dataclass(frozen=True, slots=True)
class Recorded:
    """The certificate as recorded on the ledger; `repeated` if it was so before the request."""

    digest: CertDigest
    status: CertStatus
    height: Height
    repeated: bool


class Submission:
    """Endorses for `organization` with `signer`.

    A node that is new, or was down while the member was admitted or its key was changed, learns of it from the
    blocks that it fetches. Until its store lists the key as the member's, it endorses nothing and says why.
    """

    def __init__(self, chain: Chain, organization: str, signer: Signer, order: Order) -> None:
        self._chain = chain
        self._organization = organization
        self._signer = signer
        self._order = order
        self._threads = SigningThreads(HsmConfig())
        SHORTFALLS.watch(self)
        if lacking := self.shortfall():
            log.warning("endorses nothing yet", extra={"fields": {"reason": lacking}})

    async def close(self) -> None:
        """Stop endorsing; wait a moment for a token that does not answer."""
        await self._threads.close()

    def shortfall(self) -> str:
        """Return a warning while this node's store does not list the signer's key as the member's endorsing key."""
        if self._chain.closed:
            return ""
        with self._chain.snapshot() as view:
            member, height = view.member(self._organization), view.height
        if member is not None and self._signer.public_key_der in member.endorsing_keys:
            return ""
        return (
            f"at block {height}, the newest here, {self._organization!r} is no member with this endorsing key: "
            "the node endorses once it has a block at which it is, if the key is the right one"
        )

    def check(self) -> Finding:
        """Find out whether this node can endorse now: what the ledger lists, and whether the token has the key."""
        return failed_if(self.shortfall() or fault_of(self._signer))

    async def watch(self) -> None:
        """Ask the token of the key now and then whether it is there, until cancelled."""
        await self._threads.watch(lambda: self._signer)

    def _check_member(self) -> None:
        """Raise UnavailableError while this node cannot endorse for the member."""
        if lacking := self.shortfall():
            raise UnavailableError(lacking)

    async def submit(self, der: bytes) -> Recorded:
        """Have a certificate recorded; raises RefusedByLedgerError, BusyError or UnavailableError."""
        self._check_member()
        digest = digest_of(der)
        if own := self._own(digest):
            return Recorded(digest, own.status, own.recorded_height, repeated=True)
        body = Submit(self._chain.genesis.chain_id, self._organization, der)
        verdict = await self._endorse(body, Refusal.RECORDED.code)
        if verdict.result.code == Refusal.RECORDED.code:
            return await self._recorded_meanwhile(digest, verdict)
        return Recorded(digest, CertStatus.VALID, _height(verdict), repeated=False)

    async def renew(self, der: bytes, replaces: CertDigest, owner_key: bytes, owner_signature: bytes) -> Recorded:
        """Have a certificate follow `replaces`, whose owner signs `renewal_bytes`; raises as `submit`."""
        self._check_member()
        digest = digest_of(der)
        own = self._own(digest)
        if own and own.replaces == replaces:
            return Recorded(digest, own.status, own.recorded_height, repeated=True)
        chain_id = self._chain.genesis.chain_id
        verdict = await self._endorse(
            Renew(chain_id, self._organization, der, replaces, owner_key, owner_signature)
        )
        return Recorded(digest, CertStatus.VALID, _height(verdict), repeated=False)

    async def change_status(self, digest: CertDigest, status: CertStatus, reason: str) -> Recorded:
        """Have a certificate's status changed; raises RefusedByLedgerError, BusyError or UnavailableError."""
        self._check_member()
        own = self._own(digest)
        if own and own.status is status:
            return Recorded(digest, status, own.changed_height, repeated=True)
        revision = own.revision if own else 0
        body = ChangeStatus(self._chain.genesis.chain_id, self._organization, digest, revision, status, reason)
        verdict = await self._endorse(body)
        return Recorded(digest, status, _height(verdict), repeated=False)

    async def _endorse(self, body: Body, *tolerated: int) -> TxOutcome:
        verdict = await self._order(await self._endorsed(body))
        if verdict.height is not None:
            await self._chain.wait_for(verdict.height, OWN_STORE_WAIT_S)
        if verdict.result.code not in (0, *tolerated):
            raise RefusedByLedgerError(verdict.result)
        return verdict

    async def _endorsed(self, body: Body) -> bytes:
        """Sign a transaction; raises UnavailableError where the key is in a token that does not sign."""
        try:
            return await self._threads.run(self._signer, lambda: endorse(body, [self._signer]))
        except KeyUnavailableError as error:
            raise UnavailableError(f"this node cannot use its endorsing key: {error.told}") from None

    async def _recorded_meanwhile(self, digest: CertDigest, verdict: TxOutcome) -> Recorded:
        """Answer for a certificate that the ledger holds but this node did not know, once its store has caught up.

        Raises RefusedByLedgerError where another member recorded it, and UnavailableError after OWN_STORE_WAIT_S.
        """
        end_s = monotonic() + OWN_STORE_WAIT_S
        while True:
            height = self._chain.height
            with self._chain.snapshot() as view:
                record = view.record(digest)
            if record is not None:
                if record.organization != self._organization:
                    raise RefusedByLedgerError(verdict.result)
                return Recorded(digest, record.status, record.recorded_height, repeated=True)
            if not await self._chain.wait_for(height + 1, end_s - monotonic()):
                raise UnavailableError(
                    "this node has yet to store the block with this certificate; repeat the request"
                )

    def _own(self, digest: CertDigest) -> CertRecord | None:
        with self._chain.snapshot() as view:
            record = view.record(digest)
        return record if record and record.organization == self._organization else None


def _height(verdict: TxOutcome) -> Height:
    if verdict.height is None:
        raise LocalError("the ordering node did not say in which block the transaction is")
    return verdict.height
