"""The authentication service: a signing request in, a signed Identity out (RFC 8224 §6.1)."""

from time import perf_counter

from authn_server.standing import Standing
from voice_dpki.effects import Clock
from voice_dpki.shell.metrics import Health
from voice_dpki.shell.trace import Tracer, ms_since
from voice_dpki.stir.call import SigningRequest
from voice_dpki.stir.faults import RequestError, error_of_refusal
from voice_dpki.stir.forms import read_signing
from voice_dpki.stir.identity import IdentityHeader
from voice_dpki.stir.sign import Credential, SigningRefused, sign_call


class AuthnService:
    """Signs calls from the numbers that one credential has authority over."""

    def __init__(
        self, credential: Credential, standing: Standing, max_iat_skew_s: float, clock: Clock, tracer: Tracer
    ) -> None:
        self._standing = standing
        self._credential = credential
        self._max_iat_skew_s = max_iat_skew_s
        self._clock = clock
        self._tracer = tracer

    async def sign(self, body: bytes) -> bytes:
        """Answer the body of a signing request; raises RequestError."""
        asked = read_signing(body)
        try:
            return asked.answer(await self.identity_for(asked.what))
        except RequestError as error:
            raise asked.refused(error) from None

    async def identity_for(self, call: SigningRequest) -> IdentityHeader:
        """Return the Identity of a call; raises RequestError."""
        began_s = perf_counter()
        try:
            await self._standing.check()
            identity = sign_call(call, self._credential, self._clock.now_s(), self._max_iat_skew_s)
        except SigningRefused as refusal:
            self._tracer.note(f"no signature: {refusal}", step=refusal.code, ok=False, ms=ms_since(began_s))
            raise error_of_refusal(refusal) from None
        self._tracer.note("sign", step="sign", ok=True, ms=ms_since(began_s), attest=call.attest)
        return identity

    def health(self) -> Health:
        """Return whether calls can be signed now, and if not, why."""
        health = self._standing.health()
        if self._credential.profile.valid_at(self._clock.now_s()):
            return health
        return Health(ok=False, facts={"reason": "this server's certificate is not valid now"} | health.facts)
