"""Verification of INVITEs: the same service as for JSON over HTTP, with the INVITE itself as the request."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from hmac import compare_digest

from sipmessage import Request, Response

from verify_server.config import Bypasses
from verify_server.service import VerifyService
from voice_dpki.effects import Clock, Random, SystemRandom
from voice_dpki.errors import MalformedError
from voice_dpki.shell.reload import Live
from voice_dpki.shell.stir_sip import SipPeer
from voice_dpki.sip.message import encode, make_response, reason_value
from voice_dpki.sip.redirect import Additions
from voice_dpki.stir.faults import RequestError
from voice_dpki.stir.national import Country
from voice_dpki.stir.profile import Profile
from voice_dpki.stir.treatment import Act, Treatment
from voice_dpki.stir.verdict import Verdict, overall
from voice_dpki.wire.sip.asked import asserted, assertion_of, bypass_of, call_of, read_invite


@dataclass(frozen=True, slots=True)
class InviteVerifier:
    """Verifies INVITEs."""

    service: VerifyService
    clock: Clock
    profile: Profile = Profile.ATIS
    bypass: Live[Bypasses] = field(default_factory=lambda: Live(()))
    """Operators, each with its token for calls that it could not sign."""
    random: Random = SystemRandom()  # noqa: RUF009 - it has no state
    country: Country | None = None
    """The country by whose dialling plan numbers are read."""

    async def verify_text(self, body: bytes, client: str = "") -> bytes:
        """Return the text of an INVITE from a `client` with the caller's verstat; raises RequestError.

        For a call that the operator's rules reject, it is the text of the response that refuses it.
        """
        request = read_invite(body)
        assertion, verdicts = await self.verify(request, client)
        treatment = verdicts[0].treatment
        if treatment is not None and treatment.act is Act.REJECT:
            return encode(self._refusal(request, treatment))
        return encode(asserted(request, assertion, withheld=_is_withheld(treatment)))

    def _bypassing(self, request: Request) -> str:
        """Return the operator whose token an INVITE has, "" for none; each is compared in constant time."""
        given = bypass_of(request).encode("utf-8", "surrogateescape")
        names = [name for name, token in self.bypass.value if compare_digest(token.encode(), given)]
        return names[0] if names else ""

    def _refusal(self, request: Request, treatment: Treatment) -> Response:
        tag, reasons = self.random.token(8).hex(), [("Reason", value) for value in treatment.reasons]
        try:
            return make_response(request, treatment.status, treatment.text, to_tag=tag, headers=reasons)
        except MalformedError as error:
            raise RequestError("SVC4006", str(error)) from None

    async def additions(self, request: Request, peer: SipPeer) -> Additions:
        """Return what a SIP peer is to put into its INVITE, a Reason for each failure too; raises RequestError.

        A call that the operator's rules reject is refused instead.
        """
        assertion, verdicts = await self.verify(request, peer.name)
        failed = [(each.reasoncode, each.reasondesc) for each in verdicts if each.reasoncode is not None]
        reasons = tuple(reason_value("STIR", cause, text) for cause, text in failed)
        treatment = verdicts[0].treatment
        if treatment is not None and treatment.act is Act.REJECT:
            return Additions(reasons=reasons, refusal=(treatment.status, treatment.text))
        hidden = (("Privacy", "id"),) if _is_withheld(treatment) else ()
        return Additions((("P-Asserted-Identity", assertion), *hidden), reasons=reasons)

    async def verify(self, request: Request, client: str) -> tuple[str, Sequence[Verdict]]:
        """Return the P-Asserted-Identity with the caller's verstat, and the verdicts; raises RequestError."""
        from_first = self.profile.from_first
        call = call_of(request, self.clock.now_s(), from_first=from_first, country=self.country)
        source = replace(call.source, peer=client, bypass=self._bypassing(request))
        verdicts = await self.service.verdicts_on(replace(call, source=source))
        treatment = verdicts[0].treatment
        verstat = overall(verdicts).verstat if treatment is None else treatment.verstat
        try:
            return assertion_of(request, verstat, from_first=from_first), verdicts
        except MalformedError as error:
            raise RequestError("SVC4006", str(error)) from None


def _is_withheld(treatment: Treatment | None) -> bool:
    return treatment is not None and treatment.act is Act.WITHHOLD
