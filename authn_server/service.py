"""The authentication service: a signing request in, a signed Identity out (RFC 8224 §6.1)."""

from collections.abc import Awaitable
from time import perf_counter

from authn_server.out_of_band import Publisher
from authn_server.rules import ATTESTED, REFUSED
from authn_server.switching import Signing, Switch
from voice_dpki.effects import Clock
from voice_dpki.metrics import counter
from voice_dpki.shell.current import work_on
from voice_dpki.shell.metrics import Health
from voice_dpki.shell.reload import Live
from voice_dpki.shell.signing import HsmConfig, SigningThreads
from voice_dpki.shell.trace import Tracer, ms_since
from voice_dpki.stir.attestation import AttestationRule, RuleRefused, attested
from voice_dpki.stir.call import SigningRequest
from voice_dpki.stir.faults import RequestError, error_of_refusal
from voice_dpki.stir.forms import Asked, read_signing
from voice_dpki.stir.identity import IdentityHeader
from voice_dpki.stir.national import Country
from voice_dpki.stir.sign import SigningRefused, sign_call
from voice_dpki.x509.keys import KeyUnavailableError, fault_of, is_elsewhere

BYPASSED = counter("bypasses", "Calls that got a token for P-Identity-Bypass in the place of an Identity.")


class AuthnService:
    """Signs calls from the numbers that its credential has authority over."""

    def __init__(
        self,
        switch: Switch,
        max_iat_skew_s: float,
        clock: Clock,
        tracer: Tracer,
        rules: Live[tuple[AttestationRule, ...] | None] | None = None,
        bypass: Live[str] | None = None,
        publisher: Publisher | None = None,
        country: Country | None = None,
        threads: SigningThreads | None = None,
    ) -> None:
        """Without `rules`, a call gets the attestation that its proxy asks for.

        `bypass` is the P-Identity-Bypass of a call that this server cannot sign through its own fault. `publisher`
        publishes the PASSporTs of calls whose path loses them. Numbers in JSON are read by the dialling plan of
        `country`. `threads` sign if the key is in a token.
        """
        self._threads = threads if threads is not None else SigningThreads(HsmConfig())
        self._publisher = publisher
        self._country = country
        self._bypass = bypass if bypass is not None else Live("")
        self._rules = rules if rules is not None else Live(None)
        self._switch = switch
        self._max_iat_skew_s = max_iat_skew_s
        self._clock = clock
        self._tracer = tracer

    def sign(self, body: bytes, client: str = "") -> bytes | Awaitable[bytes]:
        """Answer the body of a signing request from the `client` of that name; raises RequestError.

        The answer is there at once unless the ledger has to be asked about this server's own certificate, or its
        key is in a token.
        """
        asked, signing = read_signing(body, peer=client, country=self._country), self._switch.current
        work_on(asked.what.call_id)
        if not signing.standing.is_good or is_elsewhere(signing.credential.signer):
            return self._sign_later(asked)
        try:
            return asked.answer(self._signed(asked.what, signing, perf_counter()))
        except RequestError as error:
            raise asked.refused(error) from None

    async def _sign_later(self, asked: Asked[SigningRequest, IdentityHeader]) -> bytes:
        try:
            return asked.answer(await self.identity_for(asked.what))
        except RequestError as error:
            raise asked.refused(error) from None

    async def identity_for(self, call: SigningRequest) -> IdentityHeader:
        """Return the Identity of a call; raises RequestError."""
        work_on(call.call_id)
        began_s = perf_counter()
        try:
            signing = self._switch.current
            await signing.standing.check()
        except SigningRefused as refusal:
            raise self._refused(refusal, began_s) from None
        if is_elsewhere(signing.credential.signer):
            return await self._signed_elsewhere(call, signing, began_s)
        return self._signed(call, signing, began_s)

    def _signed(self, call: SigningRequest, signing: Signing, began_s: float) -> IdentityHeader:
        """Return the Identity of a call that this server may sign; raises RequestError."""
        try:
            call, rule = self._attested(call)
            identity = sign_call(call, signing.credential, self._clock.now_s(), self._max_iat_skew_s)
        except SigningRefused as refusal:
            raise self._refused(refusal, began_s) from None
        return self._told(call, identity, signing, began_s, rule)

    async def _signed_elsewhere(self, call: SigningRequest, signing: Signing, began_s: float) -> IdentityHeader:
        """Do as `_signed` with a key in a token, beside the event loop; raises RequestError."""
        try:
            call, rule = self._attested(call)
            now_s, skew_s = self._clock.now_s(), self._max_iat_skew_s
            identity = await self._threads.wait_for(lambda: sign_call(call, signing.credential, now_s, skew_s))
        except SigningRefused as refusal:
            raise self._refused(refusal, began_s) from None
        except KeyUnavailableError as error:
            raise self._refused(SigningRefused("key-unavailable", error.told), began_s) from None
        return self._told(call, identity, signing, began_s, rule)

    def _told(
        self, call: SigningRequest, identity: IdentityHeader, signing: Signing, began_s: float, rule: dict[str, str]
    ) -> IdentityHeader:
        """Return the Identity, after it was offered to the publisher and traced."""
        if self._publisher is not None:
            self._publisher.offer(call, identity, signing.credential)
        if self._tracer.on:
            self._tracer.note("sign", step="sign", ok=True, ms=ms_since(began_s), attest=call.attest, **rule)
        return identity

    def _refused(self, refusal: SigningRefused, began_s: float) -> RequestError:
        self._tracer.note(f"no signature: {refusal}", step=refusal.code, ok=False, ms=ms_since(began_s))
        error = error_of_refusal(refusal, self._bypass.value)
        if error.bypass:
            BYPASSED.inc()
        return error

    def _attested(self, call: SigningRequest) -> tuple[SigningRequest, dict[str, str]]:
        """Return a call with the attestation that the rules give it, and the trace's fields about the rule."""
        rules = self._rules.value
        if rules is None:
            ATTESTED.labels(call.attest, "").inc()
            return call, {}
        try:
            call, rule = attested(rules, call)
        except SigningRefused as refusal:
            ATTESTED.labels(REFUSED, refusal.rule if isinstance(refusal, RuleRefused) else "").inc()
            raise
        ATTESTED.labels(call.attest, rule).inc()
        return call, {"rule": rule}

    def health(self) -> Health:
        """Return whether calls can be signed now, and if not, why."""
        signing = self._switch.current
        health, profile = signing.standing.health(), signing.credential.profile
        facts = health.facts | {"certificate": profile.digest.hex()}
        if not profile.valid_at(self._clock.now_s()):
            return Health(ok=False, facts={"reason": "this server's certificate is not valid now"} | facts)
        if fault := fault_of(signing.credential.signer):
            return Health(ok=False, facts={"reason": fault} | facts)
        return Health(health.ok, facts)
