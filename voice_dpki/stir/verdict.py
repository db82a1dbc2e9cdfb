"""Results of verification: the numbered steps, a step's failure, the verdict (RFC 8224 §6.2.2, ATIS-1000082).

The steps have the numbers of ATIS-1000082's table; those from E20 on are this project's own.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum, StrEnum

from voice_dpki.errors import PeerError
from voice_dpki.names import CertDigest
from voice_dpki.stir.treatment import Treatment


class Verstat(StrEnum):
    """What the callee is told about the caller's number (3GPP TS 24.229 §7.2A.20)."""

    PASSED = "TN-Validation-Passed"
    FAILED = "TN-Validation-Failed"
    NONE = "No-TN-Validation"


REASON_TEXTS = {
    403: "Stale Date",
    436: "Bad Identity Info",
    437: "Unsupported Credential",
    438: "Invalid Identity Header",
}
"""Reason phrases of RFC 8224 §6.2.2."""


class Step(Enum):
    """The steps, with the reason code and the verstat of their failure."""

    TIME = ("E3 time", 403, Verstat.NONE)
    FORM = ("E4 form", 438, Verstat.NONE)
    PPT_PARAMETER = ("E5 ppt parameter", 438, Verstat.NONE)
    INFO = ("E6 info", 436, Verstat.NONE)
    INFO_URL = ("E7 info URL", 436, Verstat.NONE)
    LEDGER = ("E8 ledger", 436, Verstat.NONE)
    FETCH = ("E8 certificate", 436, Verstat.NONE)
    HEADER = ("E9 header claims", 436, Verstat.NONE)
    CRITICAL = ("E9 crit", 438, Verstat.NONE)
    X5U = ("E10 x5u", 436, Verstat.NONE)
    TYP = ("E11 typ", 437, Verstat.NONE)
    ALG = ("E12 alg", 437, Verstat.NONE)
    PPT = ("E13 ppt", 438, Verstat.NONE)
    CLAIMS = ("E14 claims", 438, Verstat.NONE)
    IAT = ("E15 iat", 403, Verstat.NONE)
    NUMBERS = ("E16 numbers", 438, Verstat.NONE)
    DIVERSION = ("E16 diversion", 438, Verstat.NONE)
    PRIORITY = ("E16 priority", 438, Verstat.NONE)
    RICH_DATA = ("E16 rich call data", 438, Verstat.NONE)
    CERTIFICATE = ("E17 certificate", 437, Verstat.FAILED)
    AUTHORITY = ("E17 authority", 437, Verstat.FAILED)
    CONSTRAINTS = ("E17 constraints", 437, Verstat.FAILED)
    SIGNATURE = ("E18 signature", 438, Verstat.FAILED)
    COMPACT = ("E18 compact form", 438, Verstat.NONE)
    ATTEST = ("E19 attest", 438, Verstat.NONE)
    KEY_MGMT = ("E20 key-mgmt", 438, Verstat.FAILED)
    REPLAY = ("E21 replay", 438, Verstat.FAILED)
    REPLAY_MEMORY = ("E21 replay memory", 438, Verstat.NONE)
    REPEATED = ("E21 repeated", 438, Verstat.NONE)
    SDP = ("E22 SDP", 438, Verstat.FAILED)

    def __init__(self, label: str, reasoncode: int, verstat: Verstat) -> None:
        self.label = label
        self.reasoncode = reasoncode
        self.verstat = verstat


class VerificationFailed(PeerError):
    """A step failed; the message is the sentence for people, without any subscriber's number."""

    def __init__(self, step: Step, sentence: str) -> None:
        super().__init__(sentence)
        self.step = step


class KeyMgmt(StrEnum):
    """The result of checking the keying in the call's SDP."""

    VERIFIED = "verified"
    """The SDP carries the key management that the caller signed."""
    NONE = "none"
    """The SDP carries no key management, and the caller signed none."""
    NOT_CHECKED = "not-checked"
    """The proxy did not say what the SDP carries; or a step failed, perhaps E20 itself; or the PASSporT is of a
    type that does not prove the caller's number."""


class SdpBinding(StrEnum):
    """The result of checking the session description as a whole."""

    VERIFIED = "verified"
    """It is the one that the caller's operator signed."""
    NOT_SIGNED = "not-signed"
    """The caller's operator did not sign it, for instance because elements on the path rewrite addresses."""
    NOT_CHECKED = "not-checked"
    """It was signed, but the proxy did not say which one arrived; or a step failed, perhaps E22 itself; or the
    PASSporT is of a type that does not prove the caller's number."""


class Trust(StrEnum):
    """The basis of the trust in a signer."""

    LEDGER = "ledger"
    """The ledger's record of its certificate."""
    LIST = "list"
    """This operator's list of certificate authorities: the signer is outside the federation."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """The result for one Identity, or for all of a call's together; only `ok` says that the caller is proven.

    `reasoncode` is None if no step failed.
    """

    verstat: Verstat
    reasoncode: int | None = None
    reasontext: str = ""
    reasondesc: str = ""
    step: str = ""
    """The step that failed, for instance "E17 certificate"."""
    signer: str = ""
    """Organisation that recorded the certificate named by the token; `verstat` says whether it really signed.

    Where `trust` is the list, it is the name that an authority wrote into the certificate.
    """
    certificate: CertDigest | None = None
    """H(CERT) that the token names."""
    attest: str = ""
    key_mgmt: KeyMgmt = KeyMgmt.NOT_CHECKED
    sdp: SdpBinding = SdpBinding.NOT_CHECKED
    about_caller: bool = True
    """Whether the Identity could have proven the caller. A diversion or a priority cannot."""
    trust: Trust | None = None
    """The basis on which the signer was judged; None if it was not judged."""
    retrieved: str = ""
    """The Identity that decided, if it came from a call placement service; "" if it came in the INVITE."""
    treatment: Treatment | None = None
    """The treatment of the call as a whole; None if the operator has no rules for it."""

    @property
    def ok(self) -> bool:
        """Whether the caller's number is proven."""
        return self.verstat is Verstat.PASSED

    @property
    def out_of_band(self) -> bool:
        """Whether the PASSporT came from a call placement service, and not in the INVITE."""
        return bool(self.retrieved)


def verdict_of(
    failure: VerificationFailed,
    signer: str = "",
    certificate: CertDigest | None = None,
    *,
    about_caller: bool = True,
    trust: Trust | None = None,
) -> Verdict:
    """Return the verdict for a failed step."""
    step = failure.step
    return Verdict(
        step.verstat,
        reasoncode=step.reasoncode,
        reasontext=REASON_TEXTS[step.reasoncode],
        reasondesc=f"{str(failure)[0].upper()}{str(failure)[1:]}.",
        step=step.label,
        signer=signer,
        certificate=certificate,
        about_caller=about_caller,
        trust=trust,
    )


def told_trust(verdict: Verdict) -> str:
    """Return the member `trust` of an answer: "list", or "" if the ledger vouches or nothing does."""
    return str(Trust.LIST) if verdict.trust is Trust.LIST else ""


def overall(verdicts: Sequence[Verdict]) -> Verdict:
    """Return the verdict on a call's Identity header fields together: one that proves the caller is enough.

    Those that say nothing about the caller count only if there are no others. The result is 436 only if every one
    failed with 436 (RFC 8224 §6.2.2). There must be at least one.
    """
    return min(verdicts, key=_rank)


def _rank(verdict: Verdict) -> tuple[bool, int]:
    """Rank verdicts, best first: a proof, a fault, neither, an unknown signer; those not about the caller last."""
    if verdict.ok:
        return False, 0
    return not verdict.about_caller, {None: 2, 436: 3}.get(verdict.reasoncode, 1)
