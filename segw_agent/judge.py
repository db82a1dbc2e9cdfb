"""The judge: checks the lists, the ledger's record, the organisation and the integrity statement, in this order."""

import logging
from time import perf_counter

from segw_agent.ledger import Ledger
from segw_agent.metrics import SECONDS, VERDICTS
from segw_agent.policy import STEPS, IntegrityPolicy, Policy, Question, Side, inquiry_refusal
from segw_agent.tracer import IkeTracer
from voice_dpki.effects import Clock
from voice_dpki.ikev2.events import Trusted, Untrusted, Verdict
from voice_dpki.ledger.answers import InquiryError

log = logging.getLogger(__name__)

INQUIRY_STEPS = {Side.GATEWAY: "5", Side.DEVICE: "8"}


class Judge:
    """The judge of IKE peers' certificates. It refuses what it cannot check."""

    def __init__(self, ledger: Ledger, policy: Policy, clock: Clock, tracer: IkeTracer) -> None:
        self.ledger, self.policy = ledger, policy
        self._clock, self._tracer = clock, tracer

    async def judge(self, question: Question) -> Verdict:
        """Return the verdict; a refusal has the code, the step and the sentence that the log shows too."""
        began_s = perf_counter()
        try:
            refusal = await self._refusal(question)
        except Exception:  # fail closed, and always give the caller a verdict
            log.exception("a certificate could not be judged")
            step = STEPS[question.side, "certificate"]
            refusal = Untrusted("internal", step, "the certificate could not be judged; the log says more")
        seconds = perf_counter() - began_s
        SECONDS.observe(seconds)
        VERDICTS.labels(question.side, refusal.code if refusal else "trusted").inc()
        if refusal is not None:
            self._tracer.note(f"{refusal.step}: {refusal.sentence}", ok=False, step=refusal.step, code=refusal.code)
        return refusal or Trusted()

    async def _refusal(self, question: Question) -> Untrusted | None:
        refusal = self.policy.check_identity(question)
        if refusal is not None:
            return refusal
        # A gateway always asks itself: an answer that a device staples may be max_age_s old, and revoked since.
        stapled = question.ledger_answer if question.side is Side.DEVICE else None
        digest, step = question.certificate.digest, INQUIRY_STEPS[question.side]
        try:
            found = await self.ledger.find(digest, step=step, stapled=stapled)
        except InquiryError as error:
            return inquiry_refusal(question, error)
        now_s = self._clock.now_s()
        refusal = self.policy.check_certificate(question.side, found.resolution, now_s)
        if refusal is not None:
            return refusal
        record = found.resolution.record
        assert record is not None
        number, whose = ("5.4", "certificate") if question.side is Side.GATEWAY else ("8", "SeGW's certificate")
        self._tracer.note(
            f"{number} {whose} verified: valid, of {record.organization}", ok=True, source=found.source
        )
        return self._check_integrity(question, now_s)

    def _check_integrity(self, question: Question, now_s: float) -> Untrusted | None:
        if question.side is Side.DEVICE:
            return None
        refusal = self.policy.check_integrity(question, now_s)
        ignored = self.policy.wanted_integrity(question) is IntegrityPolicy.IGNORE
        if refusal is None and question.integrity_info is not None and not ignored:
            self._tracer.note("6 INTEGRITY_INFO verified", ok=True)
        return refusal
