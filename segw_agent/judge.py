"""The judge of IKE peers: inquires at the ledger in one step of the flow, and checks the rules in all others."""

import logging
from dataclasses import replace
from time import perf_counter

from segw_agent.ledger import Found, Ledger
from segw_agent.metrics import SECONDS, VERDICTS
from segw_agent.policy import IntegrityPolicy, Policy, Question, Side
from segw_agent.rules import PROVED_STEPS, Attaching, PeerRefusedError, Step, check_step, inquiry_refusal
from segw_agent.tracer import IkeTracer
from voice_dpki.effects import Clock
from voice_dpki.ledger.answers import InquiryError
from voice_dpki.shell.reload import Live

log = logging.getLogger(__name__)

INQUIRY_STEPS = {Side.GATEWAY: "5", Side.DEVICE: "8"}


class Judge:
    """The judge of IKE peers' certificates. It refuses what it cannot check."""

    def __init__(self, ledger: Ledger, policy: Live[Policy], clock: Clock, tracer: IkeTracer) -> None:
        self.ledger = ledger
        self._policy, self._clock, self._tracer = policy, clock, tracer

    @property
    def policy(self) -> Policy:
        """The policy as of the last SIGHUP."""
        return self._policy.value

    async def judge(self, question: Question) -> Found:
        """Return what the ledger proves of a certificate that is trusted.

        Raises PeerRefusedError, and no other error. It has the code, the step and the sentence that the log shows.
        """
        began_s = perf_counter()
        code = "trusted"
        try:
            return await self._admitted(question)
        except PeerRefusedError as refusal:
            code = refusal.code
            self._tracer.note(f"{refusal.step}: {refusal.sentence}", ok=False, step=refusal.step, code=code)
            raise
        finally:
            SECONDS.observe(perf_counter() - began_s)
            VERDICTS.labels(question.side, code).inc()

    async def _admitted(self, question: Question) -> Found:
        try:
            stranger, before = Attaching.of(question, self._clock.now_s()), self.policy
            check_step(Step.IDENTITY, before, stranger)
            found = await self._found(question)
            peer = replace(stranger, now_s=self._clock.now_s(), found=found.resolution)
            policy = self.policy
            if policy is not before:  # the lists may have changed while the ledger was asked
                check_step(Step.IDENTITY, policy, peer)
            for step in PROVED_STEPS:
                check_step(step, policy, peer)
                self._note_passed(step, question, found)
        except PeerRefusedError:
            raise
        except Exception:  # fail closed, and always give the caller a judgement
            log.exception("a certificate could not be judged")
            sentence = "the certificate could not be judged; the log says more"
            raise PeerRefusedError("internal", Step.CERTIFICATE.named(question.side), sentence) from None
        return found

    async def _found(self, question: Question) -> Found:
        # A gateway always inquires itself: a device's stapled answer can be max_age_s old, and revoked since.
        stapled = question.ledger_answer if question.side is Side.DEVICE else None
        digest, step = question.certificate.digest, INQUIRY_STEPS[question.side]
        try:
            return await self.ledger.find(digest, step=step, stapled=stapled)
        except InquiryError as error:
            raise inquiry_refusal(question.side, error) from None

    def _note_passed(self, step: Step, question: Question, found: Found) -> None:
        """Trace that a step was passed, with the flow's number."""
        record = found.resolution.record
        if step is Step.CERTIFICATE and record is not None:
            number, whose = ("5.4", "certificate") if question.side is Side.GATEWAY else ("8", "SeGW's certificate")
            text = f"{number} {whose} verified: valid, of {record.organization}"
            self._tracer.note(text, ok=True, source=found.source)
        ignored = self.policy.integrity_for(question) is IntegrityPolicy.IGNORE
        stated = question.side is Side.GATEWAY and question.integrity_info is not None
        if step is Step.INTEGRITY and stated and not ignored:
            self._tracer.note("6 INTEGRITY_INFO verified", ok=True)
