"""Signing the calls that leave a domain and verifying those that enter it, with notes for the trace."""

from dataclasses import replace
from time import perf_counter

from sipmessage import Request

from sip_testbed import proxy_rules as rules
from sip_testbed.proxy_config import SigningConfig, VerificationConfig
from sip_testbed.proxy_rules import RequestRefusal
from sip_testbed.proxy_stir import CallFacts, ServiceError, StirService
from voice_dpki.effects import Clock, Random
from voice_dpki.metrics import histograms
from voice_dpki.names import Tn
from voice_dpki.shell.trace import Tracer
from voice_dpki.stir.unverified import NO_CALLER, NO_IDENTITY
from voice_dpki.stir.verdict import Verdict, Verstat, overall
from voice_dpki.wire.sip.invite import caller_uri, date_of, number_of

STIR_SECONDS = histograms(
    "sip_stir_seconds",
    "Time that the STIR services took",
    operation=("sign", "verify"),
    result=("signed", "failed", *Verstat),
)


class CallSigner:
    """Adds an Identity to the INVITEs of a domain's own users."""

    def __init__(
        self, config: SigningConfig, service: StirService, tracer: Tracer, clock: Clock, random: Random
    ) -> None:
        self._config = config
        self._service = service
        self._tracer = tracer
        self._clock = clock
        self._random = random

    async def sign(self, request: Request, caller: Tn, *, bind_sdp: bool = True) -> None:
        """Add Date and Identity to `request`; raises RequestRefusal if that fails and the call may not go unsigned.

        Without `bind_sdp` the signature covers the key management of the SDP alone.
        """
        time_s = rules.date_call(request, self._clock.now_s())
        facts = rules.call_facts(request, caller, time_s)
        facts = facts if bind_sdp else replace(facts, sdp=None)
        began_s = perf_counter()
        try:
            identity = await self._service.sign(facts, self._config.attest, self._random)
        except ServiceError as error:
            self._observe("failed", began_s)
            self._give_up(str(error))
        else:
            ms = self._observe("signed", began_s)
            request.headers.set("Identity", identity)
            self._tracer.note(
                f"INVITE signed by {self._service.name}", step="sign", ok=True, ms=ms, attest=self._config.attest
            )

    def _give_up(self, sentence: str) -> None:
        """Refuse the call, or let it go unsigned, as the operator has configured."""
        forward = self._config.on_failure == "forward"
        outcome = "the call goes unsigned" if forward else "the call is refused"
        self._tracer.note(f"{sentence}; {outcome}", step="sign", ok=False)
        if not forward:
            phrase = "Server Internal Error: the call gets no signature"
            raise RequestRefusal(500, phrase, (rules.reason(500, sentence, "SIP"),))

    def _observe(self, result: str, began_s: float) -> float:
        return _observe("sign", result, began_s)


class CallVerifier:
    """Verifies the Identity header fields of INVITEs from other domains."""

    def __init__(self, config: VerificationConfig, service: StirService, tracer: Tracer, clock: Clock) -> None:
        self._config = config
        self._service = service
        self._tracer = tracer
        self._clock = clock

    async def verify(self, request: Request, called: Tn) -> str:
        """Return the verstat for the callee; raises RequestRefusal if the policy refuses the call.

        `called` is the number of the local user that the call goes to.
        """
        try:
            verdicts = await self._verdicts(request, called)
        except ServiceError as error:
            self._tracer.note(f"not verified: {error}", step="verify", ok=False)
            if self._config.policy == "refuse":
                phrase = "Server Internal Error: the caller cannot be verified now"
                raise RequestRefusal(500, phrase, (rules.reason(500, str(error), "SIP"),)) from None
            return Verstat.NONE
        verdict = overall(verdicts)
        if not verdict.ok and self._config.policy == "refuse":
            raise rules.refusal_of(verdicts)
        return verdict.verstat

    async def _verdicts(self, request: Request, called: Tn) -> list[Verdict]:
        caller = number_of(caller_uri(request))
        identities, others = rules.identities_of(request)
        if not (identities or self._config.out_of_band):
            verdicts = [NO_IDENTITY]
        elif caller is None:
            verdicts = [NO_CALLER]
        elif rules.called_number(request) != called:
            verdicts = [rules.retargeted()]
        else:
            facts = rules.call_facts(request, caller, date_of(request, self._clock.now_s()))
            verdicts = [await self._ask(facts, identity) for identity in identities or (None,)]
            if not others:
                return verdicts
            verdicts.append(rules.not_asked(others))
        self._tell(verdicts[-1], None)
        return verdicts

    async def _ask(self, facts: CallFacts, identity: str | None) -> Verdict:
        began_s = perf_counter()
        try:
            verdict = await self._service.verify(facts, identity)
        except ServiceError:
            _observe("verify", "failed", began_s)
            raise
        self._tell(verdict, _observe("verify", verdict.verstat, began_s))
        return verdict

    def _tell(self, verdict: Verdict, ms: float | None) -> None:
        who = self._service.name
        if verdict.ok:
            signer = f", signed by {verdict.signer}" if verdict.signer else ""
            text = f"Identity valid by {who}{signer}"
        else:
            failure = f"{verdict.reasoncode} {verdict.reasontext}: " if verdict.reasoncode else ""
            text = failure + verdict.reasondesc
        self._tracer.note(text, step=verdict.step or "verify", ok=verdict.ok, ms=ms, verstat=verdict.verstat)


def _observe(operation: str, result: str, began_s: float) -> float:
    """Record the time since `began_s` in the metric and return it in milliseconds."""
    took_s = perf_counter() - began_s
    STIR_SECONDS.labels(operation, result).observe(took_s)
    return round(took_s * 1000, 3)
