"""The admission policy of the configuration, and the question that it answers. Pure.

A peer that is not allowed is refused. `segw_agent.rules` has the rules, and where each of them applies.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated

import msgspec

from segw_agent.peer_names import PeerNames, allowed, check_pattern, denied
from voice_dpki.ikev2.events import SaName
from voice_dpki.shell.config import Config, PositiveSeconds
from voice_dpki.x509.profile import CertificateProfile


class Side(StrEnum):
    """Which side judges the other."""

    GATEWAY = "gateway"
    """A gateway judges a device."""
    DEVICE = "device"
    """A device judges a gateway."""


class IntegrityPolicy(StrEnum):
    """How N(INTEGRITY_INFO) is treated."""

    REQUIRE = "require"
    CHECK_IF_PRESENT = "check-if-present"
    IGNORE = "ignore"


_STRICTNESS = (IntegrityPolicy.IGNORE, IntegrityPolicy.CHECK_IF_PRESENT, IntegrityPolicy.REQUIRE)


@dataclass(frozen=True, slots=True)
class Question:
    """A certificate to judge. It contains `identity`, and AUTH verified under it, or the daemon will verify AUTH.

    `integrity` is the caller's rule for N(INTEGRITY_INFO); it applies if it is stricter than the policy's.
    `unique_id` is the daemon's own number of the IKE SA.
    """

    side: Side
    sa: SaName
    identity: str
    certificate: CertificateProfile
    integrity_info: bytes | None = None
    ledger_answer: bytes | None = None
    integrity: IntegrityPolicy = IntegrityPolicy.IGNORE
    unique_id: int = 0
    connection: str = ""
    """The daemon's name of the connection, empty if it has none."""


class CertificatePolicy(Config, frozen=True, kw_only=True):
    """`[policy]` of the bridge: which certificates are admitted, by their content and the ledger's.

    A pattern is an exact name, `*.` and a domain for every DNS name below it, or `*` for every name
    (`segw_agent.peer_names`). Each key's description and example are written into the example of the configuration.
    """

    organizations: Annotated[
        frozenset[str],
        msgspec.Meta(description="under whom a certificate must be recorded", examples=[["Vendor V"]]),
    ]
    allow: Annotated[
        tuple[str, ...],
        msgspec.Meta(description="names that are admitted; no others are", examples=[["*.vendor.example"]]),
    ]
    deny: Annotated[tuple[str, ...], msgspec.Meta(description="and of these not even they", examples=[[]])] = ()

    def __post_init__(self) -> None:
        for pattern in (*self.allow, *self.deny):
            check_pattern(pattern)

    def denies(self, names: PeerNames) -> bool:
        """Tell whether any name of a peer is on the deny list."""
        return denied(self.deny, names)

    def allows(self, names: PeerNames) -> bool:
        """Tell whether all names that a peer shows, or could show, are on the allow list."""
        return allowed(self.allow, names)


class Policy(CertificatePolicy, frozen=True, kw_only=True):
    """`[policy]` of agent, gateway and device: which peers are admitted."""

    integrity: Annotated[
        IntegrityPolicy,
        msgspec.Meta(
            description='N(INTEGRITY_INFO): or "check-if-present", "ignore"', examples=[IntegrityPolicy.REQUIRE]
        ),
    ] = IntegrityPolicy.CHECK_IF_PRESENT
    integrity_max_age_s: Annotated[
        PositiveSeconds,
        msgspec.Meta(description="how old a device's statement may be", examples=[300]),
    ] = 300.0
    measurements: Annotated[
        dict[str, frozenset[str]],
        msgspec.Meta(
            description="if given: digests that a component may have",
            examples=[{"boot": ["9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"]}],
        ),
    ] = msgspec.field(default_factory=dict)
    """SHA-256 in hexadecimal digits, by the component's name."""

    def __post_init__(self) -> None:
        CertificatePolicy.__post_init__(self)
        for digests in self.measurements.values():
            for text in digests:
                measured(text)

    def integrity_for(self, question: Question) -> IntegrityPolicy:
        """Return the stricter of the policy's treatment of N(INTEGRITY_INFO) and the caller's."""
        return max(self.integrity, question.integrity, key=_STRICTNESS.index)

    def admits_measurement(self, component: str, digest: bytes | None) -> bool:
        """Tell whether a component may have this digest; `digest` is None if the component was not measured."""
        admitted = self.measurements.get(component)
        return admitted is None or digest in set(map(measured, admitted))


def measured(text: str) -> bytes:
    """Read a digest of a component, SHA-256 in hexadecimal digits; raises ValueError."""
    try:
        digest = bytes.fromhex(text)
    except ValueError:
        digest = b""
    if len(digest) != 32:
        raise ValueError(f"a measurement is a SHA-256 of 64 hexadecimal digits, not {text[:70]!r}")
    return digest
