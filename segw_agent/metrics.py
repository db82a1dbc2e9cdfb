"""Metrics of judging, in Prometheus' form."""

from segw_agent.policy import Side
from segw_agent.rules import RULES
from voice_dpki.ledger.answers import InquiryCode
from voice_dpki.ledger.records import CertStatus
from voice_dpki.metrics import counters, gauge, histogram

REFUSALS = (
    *{code for rule in RULES for code in rule.codes},
    *(f"ledger-{code}" for code in InquiryCode),
    "internal",
)
"""The codes of all refusals: of the rules, of the inquiry, and of our own failures."""

VERDICTS = counters(
    "segw_verdicts", "Certificates judged, by side and outcome.", side=Side, outcome=("trusted", *REFUSALS)
)
INQUIRIES = counters(
    "segw_inquiries",
    "What the ledger was asked, by source and outcome.",
    source=("cache", "stapled", "inquiry"),
    outcome=(*CertStatus, *InquiryCode),
)
SECONDS = histogram(
    "segw_judging_seconds",
    "Time from the question to the verdict.",
    buckets=(0.0002, 0.0005, 0.001, 0.002, 0.003, 0.005, 0.01, 0.03, 0.1, 0.3, 1, 3),
)
LIVE = gauge("segw_live_sas", "IKE SAs that were admitted and are watched.")
UNCHECKED = gauge(
    "segw_unchecked_certificates",
    "Certificates of live SAs that the last sweep had to check and could not.",
)
STATE_BEHIND = gauge(
    "segw_state_behind",
    "1 while the list of live SAs cannot be written: after a restart, SAs admitted now would not be ended.",
)
REPLACED = "replaced"
"""The reason for which a device's agent ends an old SA."""

ENDED = counters("segw_ended_sas", "Live IKE SAs that were ended, by reason.", reason=(*REFUSALS, REPLACED))
