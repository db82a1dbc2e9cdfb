"""INVITEs to verify: the same service as over HTTP's other forms, asked by the INVITE itself."""

from collections.abc import Sequence
from dataclasses import dataclass

from sipmessage import Request

from verify_server.service import VerifyService
from voice_dpki.effects import Clock
from voice_dpki.errors import MalformedError
from voice_dpki.sip.message import encode
from voice_dpki.stir.faults import RequestError
from voice_dpki.stir.unverified import NO_CALLER
from voice_dpki.stir.verdict import Verdict, overall
from voice_dpki.wire.sip.asked import NoCallerError, asserted, assertion_of, call_of, read_invite


@dataclass(frozen=True, slots=True)
class InviteVerifier:
    """Verifies INVITEs."""

    service: VerifyService
    clock: Clock

    async def verify_text(self, body: bytes, client: str = "") -> bytes:
        """Return the text of an INVITE from a `client` with the caller's verstat; raises RequestError."""
        request = read_invite(body)
        assertion, _ = await self.verify(request)
        return encode(asserted(request, assertion))

    async def verify(self, request: Request) -> tuple[str, Sequence[Verdict]]:
        """Return the P-Asserted-Identity with the caller's verstat, and the verdicts; raises RequestError."""
        try:
            verdicts = await self.service.verdicts_on(call_of(request, self.clock.now_s()))
        except NoCallerError:
            verdicts = self.service.settle([NO_CALLER])
        try:
            return assertion_of(request, overall(verdicts).verstat), verdicts
        except MalformedError as error:
            raise RequestError("SVC4006", str(error)) from None
