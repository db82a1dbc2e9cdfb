"""Scenarios: the good call, and attacks on it, by somebody between the operators, a thief or the callee's operator.

No program of a victim has a setting for an attack. An element on the path (`sip_testbed.path`) makes the attacks,
with keys that a thief might hold and with certificates that are really recorded, or really revoked, on the ledger.
One attack is made by the callee's own operator, with nobody on the path: the operator records a second certificate
for the callee, and answers with a telephone of its own.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum

from sip_testbed.conversation import SILENCE
from sip_testbed.provision import OUTSIDE
from sip_testbed.report import Outcome
from voice_dpki.names import Tn
from voice_dpki.stir.verdict import Verstat

SIGNED = "MIKEY SIGN"
"""The step that verifies the signature of a MIKEY message; modes with a shared key have a MAC in its place."""

PINNED = "MIKEY pin"
"""The step that compares the other side's key with the one of earlier calls."""

PASSED = Verstat.PASSED.value
FAILED = Verstat.FAILED.value
NONE = Verstat.NONE.value


class Key(Enum):
    """The key that the attacker signs with."""

    NONE = "no key"
    STOLEN = "Operator A's signing key"
    UNRECORDED = "a key whose certificate was never recorded"
    REVOKED = "a key of Operator A whose certificate was revoked a moment ago"
    SECOND = "a key whose certificate for the callee's number Operator B recorded a moment ago"


@dataclass(frozen=True, slots=True)
class Attack:
    """An attack: what is done, with which key and claims."""

    mode: str | None
    """A mode of `sip-testbed path`; None for an attack by the callee's operator, with `Key.SECOND`."""
    does: str
    goal: str
    """The attacker's gain if the check that refuses the attack were missing."""
    key: Key = Key.NONE
    caller: Tn | None = None
    """The number that the attacker claims instead of the caller's."""
    age_s: int = 0
    """Age of the signature."""
    listens_first: bool = False
    """Whether there is an earlier call, which nobody tampers with."""
    rewrites_sdp: bool = False
    """Whether the call takes the route on which SBCs rewrite addresses, so that Operator A signs key-mgmt alone."""


@dataclass(frozen=True, slots=True)
class Scenario:
    """A call to place, what it shows, and how it must end."""

    name: str
    shows: str
    expected: Outcome
    attack: Attack | None = None
    protected: bool = True
    """False for the call without any protection, which is the baseline for measurements."""


def _silent() -> Outcome:
    return Outcome(PASSED, None, SILENCE, 200, "No authenticated SRTP or SRTCP came within 2 s of the ACK.")


def _refused(step: str, reasoncode: int, verstat: str, sentence: str) -> Outcome:
    return Outcome(verstat, reasoncode, step, reasoncode, sentence)


_TABLE = (
    Scenario(
        "authenticated",
        "A call between two operators: signed by A, verified by B on the ledger, keyed by MIKEY, heard both ways.",
        Outcome(PASSED, None, None, 200, "The call is answered and its caller's number is verified."),
    ),
    Scenario(
        "number-outside-range",
        "A thief with Operator A's key signs for a number that the ledger allots to nobody at Operator A.",
        _refused(
            "E17 authority", 437, FAILED, "The signer's certificate has no authority over the caller's number."
        ),
        Attack(
            "resign",
            "signs for a number of somebody else",
            "the callee sees a number of somebody else as verified",
            Key.STOLEN,
            caller=OUTSIDE,
        ),
    ),
    Scenario(
        "identity-replayed",
        "Somebody on the path listened to an earlier call, and sends its signed INVITE again as another call.",
        _refused("E21 replay", 438, FAILED, "The same signature has already set up a call."),
        Attack(
            "replay",
            "sends an earlier call's INVITE again",
            "the callee sees a verified number of somebody who does not call",
            listens_first=True,
        ),
    ),
    Scenario(
        "sdp-changed",
        "Somebody on the path changes the address for the media in offer and answer, and nothing else.",
        _refused(
            "E22 SDP", 438, FAILED, "The session description is not the one that the caller's operator signed."
        ),
        Attack(
            "change-sdp",
            "changes the addresses for the media",
            "both speak to the attacker in a call that is verified",
        ),
    ),
    Scenario(
        "media-redirected",
        "The same on a way whose SBCs rewrite addresses, where Operator A signs the key management alone.",
        _silent(),
        Attack(
            "change-sdp",
            "changes the addresses for the media",
            "both speak to the attacker, and hear silence",
            rewrites_sdp=True,
        ),
    ),
    Scenario(
        "signer-not-recorded",
        "A thief makes a certificate in Operator A's name that no quorum of validators ever recorded.",
        _refused("E17 certificate", 437, FAILED, "The signer's certificate is not recorded on the ledger."),
        Attack(
            "resign",
            "signs with a certificate of their own making",
            "the callee sees a number as verified that a thief signed for",
            Key.UNRECORDED,
        ),
    ),
    Scenario(
        "signer-revoked",
        "A key of Operator A was stolen, and its certificate was revoked on the ledger a moment ago.",
        _refused("E17 certificate", 437, FAILED, "The signer's certificate was revoked on the ledger."),
        Attack(
            "resign",
            "signs with the stolen key",
            "the callee sees a number as verified that a thief signed for",
            Key.REVOKED,
        ),
    ),
    Scenario(
        "stale-date",
        "A signature is used five minutes after it was made.",
        _refused("E15 iat", 403, NONE, "The signature lies too far before the verifier's clock."),
        Attack(
            "resign",
            "uses a signature of five minutes ago",
            "the callee sees a number as verified by a signature of long ago",
            Key.STOLEN,
            age_s=300,
        ),
    ),
    Scenario(
        "key-mgmt-stripped",
        "On a way whose SBCs rewrite addresses, somebody takes MIKEY out of the offer, for a call in clear.",
        _refused(
            "E20 key-mgmt", 438, FAILED, "The key management that the caller signed was taken out of the SDP."
        ),
        Attack(
            "strip-key-mgmt",
            "takes the keys out of the offer",
            "an offer of speech in clear reaches the callee as verified",
            rewrites_sdp=True,
        ),
    ),
    Scenario(
        "mikey-changed",
        "On a way whose SBCs rewrite addresses, somebody changes the MIKEY message of the offer.",
        _refused("E20 key-mgmt", 438, FAILED, "The SDP's key management is not what the caller signed."),
        Attack(
            "change-key-mgmt",
            "changes the MIKEY message",
            "keys that the caller did not send reach the callee as verified",
            rewrites_sdp=True,
        ),
    ),
    Scenario(
        "media-added",
        "On a way whose SBCs rewrite addresses, somebody adds a section of video to the offer of a call of speech.",
        _refused("E20 key-mgmt", 438, FAILED, "The SDP carries 3 key management values, and the caller signed 1."),
        Attack(
            "add-media",
            "adds a section of video to the offer",
            "a section that the caller did not offer reaches the callee as verified",
            rewrites_sdp=True,
        ),
    ),
    Scenario(
        "mikey-answer-changed",
        "Somebody on the path changes the MIKEY message of the answer, which no Identity covers.",
        Outcome(PASSED, None, SIGNED, 200, "The callee's signature on the MIKEY message does not verify."),
        Attack(
            "change-answer-key-mgmt",
            "changes the MIKEY message of the answer",
            "the caller speaks under keys that nobody has vouched for",
        ),
    ),
    Scenario(
        "second-certificate",
        "The callee's own operator records a second certificate for the callee's number, and answers with its key.",
        Outcome(
            PASSED,
            None,
            PINNED,
            200,
            "The Responder's key is not the one of earlier calls, which has not signed for it; its certificate is "
            "valid on the ledger, too.",
        ),
        Attack(
            None,
            "records a second certificate for the callee's number and answers in the callee's place",
            "the caller speaks to the callee's operator in a call that is verified",
            Key.SECOND,
            listens_first=True,
        ),
    ),
    Scenario(
        "no-identity",
        "Somebody on the path takes the Identity away, as if nobody had signed.",
        _refused("E2 Identity present", 428, NONE, "The INVITE has no Identity header field."),
        Attack(
            "strip-identity", "takes the Identity away", "the callee answers a call whose number nobody has signed"
        ),
    ),
    Scenario(
        "plain",
        "The same call with nothing of all this: no signature, no ledger, RTP in clear; to measure against.",
        Outcome(None, None, None, 200, "The call is answered, and nobody knows who calls."),
        protected=False,
    ),
)

SCENARIOS: Mapping[str, Scenario] = {scenario.name: scenario for scenario in _TABLE}
"""All scenarios by name, in the order of the list."""

DEFAULT = "authenticated"
PLAIN = "plain"
