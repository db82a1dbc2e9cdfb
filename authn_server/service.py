"""The authentication service: a signing request in, a signed Identity out (RFC 8224 §6.1)."""

from time import perf_counter

from authn_server.standing import Standing
from voice_dpki.effects import Clock
from voice_dpki.shell.metrics import Health
from voice_dpki.shell.trace import Tracer, ms_since
from voice_dpki.stir.faults import error_of_refusal
from voice_dpki.stir.forms import read_signing
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
        began_s = perf_counter()
        asked = read_signing(body)
        try:
            await self._standing.check()
            identity = sign_call(asked.what, self._credential, self._clock.now_s(), self._max_iat_skew_s)
        except SigningRefused as refusal:
            self._tracer.note(f"no signature: {refusal}", step=refusal.code, ok=False, ms=ms_since(began_s))
            raise asked.refused(error_of_refusal(refusal)) from None
        self._tracer.note("sign", step="sign", ok=True, ms=ms_since(began_s), attest=asked.what.attest)
        return asked.answer(identity)

    def health(self) -> Health:
        """Return whether calls can be signed now, and if not, why."""
        health = self._standing.health()
        if self._credential.profile.valid_at(self._clock.now_s()):
            return health
        return Health(ok=False, facts={"reason": "this server's certificate is not valid now"} | health.facts)
