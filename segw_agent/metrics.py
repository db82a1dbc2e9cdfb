"""Metrics of judging, in Prometheus' form."""

from prometheus_client import Counter, Gauge, Histogram

VERDICTS = Counter("voice_dpki_segw_verdicts", "Certificates judged, by side and outcome.", ["side", "outcome"])
INQUIRIES = Counter(
    "voice_dpki_segw_inquiries", "What the ledger was asked, by source and outcome.", ["source", "outcome"]
)
SECONDS = Histogram(
    "voice_dpki_segw_judging_seconds",
    "Time from the question to the verdict.",
    buckets=(0.0002, 0.0005, 0.001, 0.002, 0.003, 0.005, 0.01, 0.03, 0.1, 0.3, 1, 3),
)
LIVE = Gauge("voice_dpki_segw_live_sas", "IKE SAs that were admitted and are watched.")
UNCHECKED = Gauge(
    "voice_dpki_segw_unchecked_certificates",
    "Certificates of live SAs that the last sweep had to check and could not.",
)
STATE_BEHIND = Gauge(
    "voice_dpki_segw_state_behind",
    "1 while the list of live SAs cannot be written: after a restart, SAs admitted now would not be ended.",
)
ENDED = Counter("voice_dpki_segw_ended_sas", "Live IKE SAs that were ended, by reason.", ["reason"])
