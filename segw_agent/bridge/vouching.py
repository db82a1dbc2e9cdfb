"""The bridge's judge of self-signed certificates, by the ledger and the operator's rules, for issuing and OCSP.

Every judgement uses a new, proved answer. If a node gives no valid answer within its share of the timeout, the next
node is asked.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from segw_agent.bridge.serial import prefix_of, serial_of
from segw_agent.metrics import INQUIRIES
from segw_agent.nodes import Nodes
from segw_agent.peer_names import PeerNames
from segw_agent.policy import CertificatePolicy, Side
from segw_agent.rules import Peer, PeerRefusedError, Step, check_vouched
from voice_dpki.effects import Clock
from voice_dpki.ledger.answers import InquiryCode, InquiryError, PrefixResolution, Resolution
from voice_dpki.ledger.records import CertRecord, CertStatus
from voice_dpki.names import CertDigest
from voice_dpki.wire.ledger.client import LedgerClient
from voice_dpki.x509.recorded import CertificateRefused, Distrust, profile_of


@dataclass(frozen=True, slots=True)
class Vouched:
    """A certificate is trusted, as a header of time `time_s` (Unix time) proves."""

    time_s: float


class NotVouchedError(PeerRefusedError):
    """A certificate is refused, as a header of time `time_s` (Unix time) proves."""

    def __init__(
        self, refusal: PeerRefusedError, time_s: float, record: CertRecord | None, changed_s: float | None
    ) -> None:
        """Take the reason, and the certificate's record if there is one.

        `changed_s` is when the record last changed, in Unix time. It is the node's claim: only the block's height
        is proved. None if the record did not change, or the node does not say.
        """
        super().__init__(refusal.code, refusal.step, refusal.sentence)
        self.time_s, self.record, self.changed_s = time_s, record, changed_s


class Vouching:
    """The judge; a judgement with all its inquiries ends within the timeout of `nodes`."""

    def __init__(self, nodes: Nodes, policy: CertificatePolicy, clock: Clock) -> None:
        self._nodes, self._policy, self._clock = nodes, policy, clock

    async def about(self, digest: CertDigest) -> Vouched:
        """Judge a self-signed certificate.

        Raises NotVouchedError if it is not trusted, and InquiryError if no node gives a valid answer.
        """
        return await self._from_any(lambda client: self._about(client, digest))

    async def about_serial(self, serial: int) -> Vouched:
        """Judge the self-signed certificate that a serial number stands for; raises as `about` does."""

        async def ask(client: LedgerClient) -> Vouched:
            prefix = await client.resolve_prefix(prefix_of(serial))
            digests = _meant(prefix, serial)
            if len(digests) == 1:
                return await self._about(client, digests[0])
            refused = CertificateRefused(Distrust.NOT_RECORDED)
            refusal = PeerRefusedError(str(refused.code), Step.CERTIFICATE.named(Side.GATEWAY), str(refused))
            raise NotVouchedError(refusal, prefix.header.time_ns / 1e9, None, None)

        return await self._from_any(ask)

    async def _from_any(self, ask: Callable[[LedgerClient], Awaitable[Vouched]]) -> Vouched:
        async def judged(_address: str, client: LedgerClient) -> Vouched | NotVouchedError:
            try:
                return await ask(client)
            except NotVouchedError as refused:  # a valid answer: the node is not counted as silent
                return refused

        outcome = await self._nodes.ask(judged, _failed)
        if isinstance(outcome, NotVouchedError):
            raise outcome
        return outcome

    async def _about(self, client: LedgerClient, digest: CertDigest) -> Vouched:
        found = await client.resolve(digest)
        try:
            check_vouched(self._policy, _peer(found, self._clock.now_s()))
        except PeerRefusedError as refusal:
            changed_s = await _changed_s(client, found.record)
            raise NotVouchedError(refusal, found.time_s, found.record, changed_s) from None
        return Vouched(found.time_s)


def _failed(error: InquiryError) -> None:
    INQUIRIES.labels("inquiry", error.code).inc()


def _peer(found: Resolution, now_s: float) -> Peer:
    """Return the peer in the form of the rules. Clients of a CA can accept it by any name of the certificate."""
    try:
        names = PeerNames() if found.certificate is None else PeerNames.of(profile_of(found.certificate))
    except CertificateRefused:
        names = PeerNames()  # a certificate that breaks the profile is refused before its names matter
    return Peer(side=Side.GATEWAY, names=names, found=found, now_s=now_s)


def _meant(prefix: PrefixResolution, serial: int) -> list[CertDigest]:
    """Return the recorded certificates with a serial number; raises InquiryError if the node withheld a record."""
    if any(serial_of(CertDigest(key)) == serial for key in prefix.others):
        raise InquiryError(InquiryCode.UNPROVEN, "the answer does not show the certificate's record")
    return [digest for digest in prefix.recorded if serial_of(digest) == serial]


async def _changed_s(client: LedgerClient, record: CertRecord | None) -> float | None:
    """Fetch when a record changed, for the answer's revocation time; None if it did not change or is unknown."""
    if record is None or record.status is CertStatus.VALID:
        return None
    try:
        return (await client.light_block(record.changed_height)).signed_header.header.time_ns / 1e9
    except InquiryError:
        return None
