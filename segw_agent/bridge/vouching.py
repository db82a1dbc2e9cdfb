"""The bridge's judge of self-signed certificates, by the ledger and the operator's rules, for issuing and OCSP.

Every judgement uses a new, proved answer. If a node gives no valid answer, the next one is asked.
"""

import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from segw_agent.bridge.serial import prefix_of, serial_of
from segw_agent.policy import STEPS, Policy, Question, Side
from voice_dpki.effects import Clock
from voice_dpki.ikev2.events import SaName, Untrusted
from voice_dpki.ledger.admission import check_authority
from voice_dpki.ledger.answers import InquiryCode, InquiryError, PrefixResolution, Resolution
from voice_dpki.ledger.records import CertRecord, CertStatus
from voice_dpki.ledger.refusals import Refused
from voice_dpki.names import CertDigest
from voice_dpki.wire.ledger.client import LedgerClient
from voice_dpki.x509.profile import read_profile

log = logging.getLogger(__name__)

_STEP = STEPS[Side.GATEWAY, "certificate"]
_NO_SA = SaName(bytes(8), bytes(8))


@dataclass(frozen=True, slots=True)
class DatedJudgement:
    """A judgement, proved by a header of time `time_s` (Unix time): trusted if `refusal` is None."""

    refusal: Untrusted | None
    time_s: float
    record: CertRecord | None = None
    changed_s: float | None = None
    """When the record last changed, in Unix time, as the node says; only the block's height is proved."""


class Vouching:
    """The judge; it asks the nodes of `clients`, in their order."""

    def __init__(self, clients: Sequence[LedgerClient], policy: Policy, clock: Clock) -> None:
        self._clients, self._policy, self._clock = clients, policy, clock

    async def about(self, digest: CertDigest) -> DatedJudgement:
        """Judge a self-signed certificate; raises InquiryError if no node gives a valid answer."""
        return await self._from_any(lambda client: self._about(client, digest))

    async def about_serial(self, serial: int) -> DatedJudgement:
        """Judge the self-signed certificate that a serial number stands for; raises InquiryError."""

        async def ask(client: LedgerClient) -> DatedJudgement:
            prefix = await client.resolve_prefix(prefix_of(serial))
            digests = _meant(prefix, serial)
            if len(digests) == 1:
                return await self._about(client, digests[0])
            sentence = "no certificate, or more than one, is recorded that has this serial number"
            return DatedJudgement(Untrusted("not-recorded", _STEP, sentence), prefix.header.time_ns / 1e9)

        return await self._from_any(ask)

    async def _from_any(self, ask: Callable[[LedgerClient], Awaitable[DatedJudgement]]) -> DatedJudgement:
        problem = InquiryError(InquiryCode.UNREACHABLE, "there is no inquiry node to ask")
        for client in self._clients:
            try:
                return await ask(client)
            except InquiryError as error:
                problem = error
        raise problem

    async def _about(self, client: LedgerClient, digest: CertDigest) -> DatedJudgement:
        found = await client.resolve(digest)
        refusal = self._refusal(found)
        changed_s = None
        if refusal is not None and found.record is not None and found.record.status is not CertStatus.VALID:
            changed_s = await _time_of(client, found.record.changed_height)
        return DatedJudgement(refusal, found.time_s, found.record, changed_s)

    def _refusal(self, found: Resolution) -> Untrusted | None:
        refusal = self._policy.check_certificate(Side.GATEWAY, found, self._clock.now_s())
        if refusal is not None:
            return refusal
        assert found.certificate is not None
        assert found.member is not None
        profile = read_profile(found.certificate)
        try:
            check_authority(profile, found.member)
        except Refused:
            return Untrusted("authority", _STEP, "its names are not, or no longer, its organisation's")
        for name in profile.dns_names:
            denied = self._policy.check_identity(Question(Side.GATEWAY, _NO_SA, name, profile))
            if denied is not None:
                return denied
        return None


def _meant(prefix: PrefixResolution, serial: int) -> list[CertDigest]:
    """Return the recorded certificates with a serial number; raises InquiryError if the node withheld a record."""
    if any(serial_of(CertDigest(key)) == serial for key in prefix.others):
        raise InquiryError(InquiryCode.UNPROVEN, "the answer does not show the certificate's record")
    return [digest for digest in prefix.recorded if serial_of(digest) == serial]


async def _time_of(client: LedgerClient, height: int) -> float | None:
    """Fetch the Unix time of a block, for the answer's revocation time; None if the node does not give it."""
    try:
        return (await client.light_block(height)).signed_header.header.time_ns / 1e9
    except InquiryError:
        return None
