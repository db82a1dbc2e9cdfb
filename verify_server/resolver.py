"""Looking signers up on the operator's own inquiry node; an answer without proof counts as none (fails closed).

The subscription keeps the proved records of signers that were looked up before, and updates them with the ledger.
"""

from collections.abc import Collection
from time import perf_counter

from voice_dpki.ledger.answers import InquiryCode, InquiryError
from voice_dpki.metrics import counter, counters, histogram
from voice_dpki.names import CertDigest, Tn
from voice_dpki.shell.trace import Tracer
from voice_dpki.stir.verdict import Step, VerificationFailed
from voice_dpki.wire.ledger.subscription import Subscription
from voice_dpki.x509.recorded import CertStatus, RecordedCertificate

LOOKUPS = counters(
    "signer_lookups",
    "Signers looked up on the ledger, by status or failure.",
    outcome=(*CertStatus, *InquiryCode),
)
HELD = counter("signers_held", "Lookups that needed no question to the ledger, for the signer is known.")
NUMBERS = counters(
    "number_lookups",
    "Questions to the ledger who holds a number that members hold one by one, by outcome.",
    outcome=("told", *InquiryCode),
)
SECONDS = histogram(
    "signer_lookup_seconds",
    "Time until the ledger's answer was there and proved.",
    buckets=(0.0005, 0.001, 0.002, 0.003, 0.005, 0.01, 0.03, 0.1, 0.3, 1, 3),
)

_SENTENCES = {
    InquiryCode.UNREACHABLE: "this domain's inquiry node does not answer, so the signer could not be looked up",
    InquiryCode.STALE: "this domain's inquiry node is behind the ledger, and its answer is too old to be believed",
    InquiryCode.UNPROVEN: "this domain's inquiry node gave an answer that the ledger's validators do not prove",
    InquiryCode.FORK: "the ledger's validators contradict themselves, so nothing on it can be believed",
    InquiryCode.CLOCK: "this verifier's clock is wrong, so it cannot tell how old the ledger's answer is",
    InquiryCode.NEWER_RULES: "the ledger follows newer rules than this verifier's release can read",
    InquiryCode.MALFORMED: "this domain's inquiry node gave an answer that cannot be understood",
}


class LedgerResolver:
    """Looks signers up with a subscription, which the caller keeps running."""

    def __init__(self, subscription: Subscription, tracer: Tracer) -> None:
        self._subscription = subscription
        self._tracer = tracer

    def held(self, digest: CertDigest) -> RecordedCertificate | None:
        """Return what the ledger proves about H(CERT), None if the ledger must be asked for that."""
        began_s = perf_counter()
        held = self._subscription.recorded(digest)
        if held is not None:
            HELD.inc()
            self._note_found(held, began_s, held=True)
        return held

    async def look_up(self, digest: CertDigest) -> RecordedCertificate:
        """Return what the ledger proves about H(CERT); raises VerificationFailed if it proves nothing."""
        if (held := self.held(digest)) is not None:
            return held
        began_s = perf_counter()
        try:
            found = (await self._subscription.look_up(digest)).recorded
        except InquiryError as error:
            self._note(error.code, began_s, ok=False)
            raise VerificationFailed(Step.LEDGER, _SENTENCES[error.code]) from None
        self._note_found(found, began_s, held=False)
        return found

    def with_numbers(self, recorded: RecordedCertificate, numbers: Collection[Tn]) -> RecordedCertificate | None:
        """Return a signer with what the ledger says of who holds these numbers, None if it must be asked."""
        return self._subscription.with_numbers(recorded, numbers)

    async def ask_numbers(self, recorded: RecordedCertificate, numbers: Collection[Tn]) -> RecordedCertificate:
        """Return a signer as `with_numbers` does, after an inquiry; raises VerificationFailed without proof."""
        try:
            found = await self._subscription.ask_numbers(recorded, numbers)
        except InquiryError as error:
            NUMBERS.labels(error.code).inc()
            raise VerificationFailed(Step.LEDGER, _SENTENCES[error.code]) from None
        NUMBERS.labels("told").inc()
        return found

    def _note_found(self, found: RecordedCertificate, began_s: float, *, held: bool) -> None:
        ok = found.status is CertStatus.VALID
        self._note(found.status, began_s, ok=ok, height=found.height, held=held)

    def _note(self, outcome: str, began_s: float, *, ok: bool, **facts: object) -> None:
        seconds = perf_counter() - began_s
        LOOKUPS.labels(outcome).inc()
        SECONDS.observe(seconds)
        if self._tracer.on:
            self._tracer.note(f"signer on the ledger: {outcome}", ok=ok, ms=round(seconds * 1000, 3), **facts)
