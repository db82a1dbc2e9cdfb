"""The verdicts on INVITEs that give no Identity or no caller to verify, so that no step runs (RFC 8224 §6.2.2)."""

from typing import Final

from voice_dpki.stir.verdict import Step, Verdict, Verstat

NO_IDENTITY: Final = Verdict(
    Verstat.NONE,
    reasoncode=428,
    reasontext="Use Identity Header",
    reasondesc="The INVITE has no Identity header field.",
    step="E2 Identity present",
)
"""The call has no Identity."""

NO_CALLER: Final = Verdict(
    Verstat.NONE,
    reasoncode=438,
    reasontext="Invalid Identity Header",
    reasondesc="From holds no telephone number.",
    step=Step.NUMBERS.label,
)
"""The call names no caller whose number an Identity could prove."""
