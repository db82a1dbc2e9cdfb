"""The verification service: a verification request in, a verdict out (RFC 8224 §6.2)."""

import logging
from collections.abc import Awaitable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from time import perf_counter
from typing import Protocol

from verify_server.export import Export
from verify_server.operators import count_operator
from verify_server.out_of_band import Retriever
from verify_server.outside import OutsideSigners
from verify_server.replay_store import SharedReplays
from verify_server.rules import TREATED
from voice_dpki.clock_health import HEALTH
from voice_dpki.effects import Clock
from voice_dpki.metrics import counters
from voice_dpki.names import CertDigest, Tn
from voice_dpki.shell.current import work_on
from voice_dpki.shell.reload import Live
from voice_dpki.shell.trace import Tracer, ms_since
from voice_dpki.stir.call import NO_CALLER_NUMBER, Call
from voice_dpki.stir.div_o import Unfolded, unfold
from voice_dpki.stir.examine import Examined, Policy
from voice_dpki.stir.forms import Asked, read_verification
from voice_dpki.stir.handling import Handling, treatment_of
from voice_dpki.stir.national import Country
from voice_dpki.stir.replay import ReplayCache, Uses, settle
from voice_dpki.stir.several import Found, Records, examine_all, judging, numbers_of, signed_numbers
from voice_dpki.stir.treatment import Act
from voice_dpki.stir.unverified import NO_CALLER, NO_IDENTITY
from voice_dpki.stir.verdict import SdpBinding, Step, Trust, Verdict, VerificationFailed, Verstat, overall
from voice_dpki.wire.seldom import Seldom
from voice_dpki.x509.recorded import RecordedCertificate

log = logging.getLogger(__name__)

STEPS = ("", NO_IDENTITY.step, *(step.label for step in Step))
"""The steps that can fail; "" where none does."""

USED = frozenset(step.label for step in (Step.REPLAY, Step.REPEATED, Step.REPLAY_MEMORY))
"""The steps that fail if a token was used before, or if that is not known."""

BINDINGS = counters("sdp_bindings", "Verified calls, by what is known of their SDP.", sdp=SdpBinding)
VERDICTS = counters(
    "verdicts",
    "Verdicts, by verstat and by the step that failed; none failed where it is empty.",
    verstat=Verstat,
    step=STEPS,
)
for _step in Step:
    VERDICTS.labels(_step.verstat, _step.label)  # starts at 0, like what passes
VERDICTS.labels(Verstat.PASSED, "")
TRUSTS = counters(
    "verdict_trusts",
    "Verdicts, by what the signer was judged by; it is empty where it was not.",
    trust=("", *Trust),
    verstat=Verstat,
)


class Resolver(Protocol):
    """Something that looks signers up on the ledger."""

    def held(self, digest: CertDigest) -> RecordedCertificate | None:
        """Return what the ledger proves about H(CERT), None if the ledger must be asked for that."""
        ...

    async def look_up(self, digest: CertDigest) -> RecordedCertificate:
        """Return what the ledger proves about H(CERT); raises VerificationFailed where it proves nothing."""
        ...

    def with_numbers(self, recorded: RecordedCertificate, numbers: Collection[Tn]) -> RecordedCertificate | None:
        """Return a signer with what the ledger says of who holds these numbers, None if it must be asked."""
        ...

    async def ask_numbers(self, recorded: RecordedCertificate, numbers: Collection[Tn]) -> RecordedCertificate:
        """Return a signer as `with_numbers` does, after an inquiry; raises VerificationFailed without proof."""
        ...


class VerifyService:
    """Verifies calls to one domain."""

    def __init__(
        self,
        resolver: Resolver,
        policy: Policy,
        replays: ReplayCache | SharedReplays,
        clock: Clock,
        tracer: Tracer,
        handling: Live[Handling | None] | None = None,
        exports: Sequence[Export] = (),
        outside: OutsideSigners | None = None,
        out_of_band: Retriever | None = None,
        country: Country | None = None,
    ) -> None:
        """Without `handling`, the answers have verdicts, and no treatment of the call.

        `outside` has the signers of whom the ledger knows nothing; without it, none of them is trusted.
        `out_of_band` finds PASSporTs of calls that have no Identity. `country` is the one by whose dialling plan
        numbers in JSON requests are read.
        """
        self._country = country
        self._out_of_band = out_of_band
        self._outside = outside
        self._exports = exports
        self._handling = handling if handling is not None else Live(None)
        self._resolver = resolver
        self._policy = policy if outside is None else outside.policy(policy)
        self._shared = replays if isinstance(replays, SharedReplays) else None
        self._replays = replays.cache if isinstance(replays, SharedReplays) else replays
        self._clock = clock
        self._tracer = tracer
        self._treatments = Seldom(log)
        self._unverified = {step: Seldom(log) for step in STEPS}
        """Rate-limited logs of calls that failed, by step: any domain can send as many as it likes."""

    def verify(self, body: bytes, client: str = "") -> bytes | Awaitable[bytes]:
        """Answer the body of a verification request from the `client` of that name; raises RequestError.

        Returns an awaitable if the call has no Identity, or if the ledger must be asked about a signer or a store
        about the token.
        """
        asked = read_verification(body, client, self._country)
        work_on(asked.what.call_id)
        if not asked.what.identities:
            return self._verify_without(asked)
        case = self._opened(asked.what)
        if case.unknown or self._shared is not None:
            return self._verify_later(asked, case)
        return asked.answer(self._closed(case))

    async def _verify_later(self, asked: Asked[Call, Sequence[Verdict]], case: "_Case") -> bytes:
        work_on(case.call.call_id)
        return asked.answer(await self._finished(case))

    async def _verify_without(self, asked: Asked[Call, Sequence[Verdict]]) -> bytes:
        return asked.answer(await self.verdicts_on(asked.what))

    async def verdicts_on(self, call: Call) -> Sequence[Verdict]:
        """Return the verdict on each Identity of a call, in their order; one if it has none, or names no caller."""
        work_on(call.call_id)
        if call.orig == NO_CALLER_NUMBER:
            return self._told(call, [NO_CALLER], perf_counter())
        if self._out_of_band is not None and self._out_of_band.wants(call):
            return await self._retrieved(call, self._out_of_band, perf_counter())
        return await self._finished(self._opened(call))

    async def _retrieved(self, call: Call, out_of_band: Retriever, began_s: float) -> Sequence[Verdict]:
        """Return the verdict on a call without an Identity, by the first PASSporT out of band that proves it.

        The call did not present them, so one that another call has used says nothing about this one. If none proves
        the caller, the newest of the others decides.
        """
        decided = NO_IDENTITY
        for identities in await out_of_band.identities(call):
            found = overall(await self._found(self._opened(replace(call, identities=identities))))
            if found.ok or (decided is NO_IDENTITY and found.step not in USED):
                decided = replace(found, retrieved=identities[0])
            if found.ok:
                break
        return self._told(call, [decided], began_s)

    async def _finished(self, case: "_Case") -> Sequence[Verdict]:
        return self._told(case.call, await self._found(case), case.began_s)

    async def _found(self, case: "_Case") -> Sequence[Verdict]:
        """Return the verdicts on a call, after inquiries about the signers that are not known."""
        for digest in case.unknown:
            case.records[digest] = await self._looked_up(digest, case)
        if self._shared is None:
            return self._folded(case, settle(self._judging(case), self._replays, self._clock.steady_s()))
        return self._folded(case, await self._shared.settle(self._judging(case)))

    def _opened(self, call: Call) -> "_Case":
        """Run the steps that need no ledger, and find out which signers are known."""
        began_s = perf_counter()
        unfolded = unfold(call)
        found = [_blamed(each) for each in examine_all(unfolded.call, self._policy, self._clock.now_s())]
        case = _Case(call, unfolded, began_s, found, numbers_of(found))
        for digest in dict.fromkeys(each.digest for each in found if isinstance(each, Examined)):
            held = self._held(digest, case.numbers.get(digest, frozenset()))
            if held is None:
                case.unknown.append(digest)
            else:
                case.records[digest] = held
        return case

    def _held(self, digest: CertDigest, numbers: Collection[Tn]) -> RecordedCertificate | None:
        """Return what the ledger says of a signer and these numbers, None if it must be asked for any of that."""
        held = self._resolver.held(digest)
        return None if held is None else self._resolver.with_numbers(held, numbers)

    def _judging(self, case: "_Case") -> Uses[list[Verdict]]:
        """Run the remaining steps on a call whose signers are known."""
        return judging(case.unfolded.call, case.found, self._vouched(case), self._policy, self._clock.now_s())

    def _closed(self, case: "_Case") -> Sequence[Verdict]:
        """Return the verdicts on a call whose signers are known, by the replay cache in this process."""
        judged = settle(self._judging(case), self._replays, self._clock.steady_s())
        return self._told(case.call, self._folded(case, judged), case.began_s)

    def _folded(self, case: "_Case", judged: Sequence[Verdict]) -> Sequence[Verdict]:
        return case.unfolded.fold(judged) or [NO_IDENTITY]

    def _told(self, call: Call, judged: Sequence[Verdict], began_s: float) -> Sequence[Verdict]:
        """Return the verdicts on a call with its treatment; they are exported, counted and traced.

        The answer to a call is not a call: rules and exports do not see it.
        """
        if call.is_answer:
            return self._settle(judged, ms_since(began_s))
        verdicts = self._treated(judged, call)
        for export in self._exports:
            export.add(call, verdicts, self._clock.now_s())
        return self._settle(verdicts, ms_since(began_s))

    def _treated(self, verdicts: Sequence[Verdict], call: Call) -> Sequence[Verdict]:
        """Return the verdicts with their treatment; count it, and log it if it rejects or has `instead_of`."""
        handling = self._handling.value
        if handling is None:
            return verdicts
        treatment = treatment_of(handling, verdicts, call)
        TREATED.labels(treatment.act, treatment.rule).inc()
        facts = {"act": treatment.act, "rule": treatment.rule, "instead_of": treatment.instead_of}
        self._tracer.note(f"call: {treatment.act}", **{name: value for name, value in facts.items() if value})
        if treatment.act is Act.REJECT or treatment.instead_of:
            self._treatments.info("call treated by a rule", **facts, status=treatment.status)
        return [replace(verdict, treatment=treatment) for verdict in verdicts]

    def _settle(self, verdicts: Sequence[Verdict], ms: float) -> Sequence[Verdict]:
        """Count and trace the verdicts on a call, which took `ms`, and return them."""
        verdict = overall(verdicts)
        VERDICTS.labels(verdict.verstat, verdict.step).inc()
        TRUSTS.labels(verdict.trust or "", verdict.verstat).inc()
        count_operator(verdict)
        if verdict.ok:
            BINDINGS.labels(verdict.sdp).inc()
        self._tell(verdict, ms)
        return verdicts

    async def _looked_up(self, digest: CertDigest, case: "_Case") -> RecordedCertificate | VerificationFailed:
        """Return what the ledger says of a signer, and of the numbers in those tokens that it has signed.

        Only those: anybody can name a member's certificate beside any number, and each inquiry costs the node work
        and takes an entry among the held numbers.
        """
        try:
            found = await self._resolver.look_up(digest)
            told = self._resolver.with_numbers(found, case.numbers.get(digest, frozenset()))
            if told is not None:
                return told
            numbers = signed_numbers(case.found, found, self._clock.now_s())
            return await self._resolver.ask_numbers(found, numbers) if numbers else found
        except VerificationFailed as failure:
            return failure

    def _vouched(self, case: "_Case") -> Records:
        """Return the records that vouch for the signers of a call. The ledger has precedence."""
        outside = self._outside
        if outside is None:
            return case.records
        signed = [each for each in case.found if isinstance(each, Examined)]
        return {
            digest: outside.vouch([each for each in signed if each.digest == digest], recorded)
            for digest, recorded in case.records.items()
        }

    def _tell(self, verdict: Verdict, ms: float) -> None:
        if not (verdict.step or self._tracer.on):
            return
        bound = ", SDP as signed" if verdict.sdp is SdpBinding.VERIFIED else ""
        what = f"Identity {verdict.attest}".rstrip()
        way = " out of band" if verdict.out_of_band else ""
        text = f"{what} valid{bound}{way}" if verdict.ok else verdict.reasondesc
        facts = {"step": verdict.step, "reasoncode": verdict.reasoncode, "signer": verdict.signer}
        facts["trust"] = verdict.trust if verdict.trust is Trust.LIST else None
        facts["sdp"] = verdict.sdp if verdict.ok else None
        facts["outOfBand"] = verdict.out_of_band
        facts = {name: value for name, value in facts.items() if value}
        self._tracer.note(text, ok=verdict.ok, ms=ms, verstat=verdict.verstat, attest=verdict.attest, **facts)
        if verdict.step:
            said = self._unverified[verdict.step]
            said.info("call not verified", **facts, reason=verdict.reasondesc)


@dataclass(frozen=True, slots=True)
class _Case:
    """A call under verification."""

    call: Call
    unfolded: Unfolded
    """The call, with nested tokens placed beside those that contain them."""
    began_s: float
    found: Sequence[Found]
    numbers: Mapping[CertDigest, frozenset[Tn]]
    """The numbers over which each signer needs authority."""
    records: dict[CertDigest, RecordedCertificate | VerificationFailed] = field(default_factory=dict)
    """What the ledger says of the signers."""
    unknown: list[CertDigest] = field(default_factory=list)
    """The signers of whom the ledger must be asked."""


def _blamed(found: Found) -> Found:
    """Blame a stale time on our own clock, not the caller's, while ours is known to be wrong."""
    if not isinstance(found, VerificationFailed) or found.step not in (Step.TIME, Step.IAT):
        return found
    problem = HEALTH.problem()
    return VerificationFailed(Step.LEDGER, f"the call cannot be verified: {problem}") if problem else found
