"""Offer and choice of algorithms for the IKE SA and its child SA (RFC 7296 §2.7, §3.3).

The algorithms are those that common gateways support, too: AES-GCM-16, AES-CBC with HMAC-SHA-256-128, HMAC-SHA-256
as PRF, P-256 and P-384.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from voice_dpki.ikev2.failures import Failure, IkeError
from voice_dpki.ikev2.payloads import Proposal, SecurityAssociation, Transform
from voice_dpki.ikev2.registry import Encr, Esn, Group, Integ, Prf, Protocol, TransformType

_INTEG = Transform(TransformType.INTEG, Integ.HMAC_SHA2_256_128)


@dataclass(frozen=True, slots=True)
class CipherSuite:
    """An encryption algorithm, with HMAC-SHA-256-128 for integrity unless it is an AEAD."""

    encr: Encr
    key_bits: int

    @property
    def is_aead(self) -> bool:
        """Whether the cipher protects integrity by itself."""
        return self.encr is Encr.AES_GCM_16

    @property
    def name(self) -> str:
        """Name for people."""
        return f"AES-GCM-16-{self.key_bits}" if self.is_aead else f"AES-CBC-{self.key_bits}-HMAC-SHA-256-128"

    def transforms(self) -> tuple[Transform, ...]:
        """Return the transforms that make up the cipher."""
        encr = Transform(TransformType.ENCR, self.encr, self.key_bits)
        return (encr,) if self.is_aead else (encr, _INTEG)


@dataclass(frozen=True, slots=True)
class IkeSuite:
    """Algorithms of an IKE SA; the PRF is HMAC-SHA-256."""

    cipher: CipherSuite
    group: Group

    @property
    def name(self) -> str:
        """Name for people."""
        return f"{self.cipher.name}, PRF-HMAC-SHA-256, {self.group.name}"

    def transforms(self) -> tuple[Transform, ...]:
        """Return all transforms of the suite."""
        prf = Transform(TransformType.PRF, Prf.HMAC_SHA2_256)
        return (*self.cipher.transforms(), prf, Transform(TransformType.KE, self.group))


@dataclass(frozen=True, slots=True)
class EspSuite:
    """Algorithms of a child SA without extended sequence numbers; `group` is for its own key exchange, if any."""

    cipher: CipherSuite
    group: Group | None = None

    @property
    def name(self) -> str:
        """Name for people."""
        return self.cipher.name

    def transforms(self) -> tuple[Transform, ...]:
        """Return all transforms of the suite."""
        exchange = () if self.group is None else (Transform(TransformType.KE, self.group),)
        return (*self.cipher.transforms(), *exchange, Transform(TransformType.ESN, Esn.NO))


GCM_128, GCM_256 = CipherSuite(Encr.AES_GCM_16, 128), CipherSuite(Encr.AES_GCM_16, 256)
CBC_128, CBC_256 = CipherSuite(Encr.AES_CBC, 128), CipherSuite(Encr.AES_CBC, 256)
CIPHERS = (GCM_128, GCM_256, CBC_128, CBC_256)
"""All ciphers, best first."""

IKE_SUITES = tuple(IkeSuite(cipher, group) for group in (Group.ECP_256, Group.ECP_384) for cipher in CIPHERS)
"""All suites of IKE SAs, best first."""

ESP_SUITES = tuple(EspSuite(cipher) for cipher in CIPHERS)
"""All suites of child SAs, best first."""

Suite = TypeVar("Suite", IkeSuite, EspSuite)


def offer(suites: Sequence[Suite], protocol: Protocol, spi: bytes = b"") -> SecurityAssociation:
    """Return an offer with one proposal per suite, so that the peer must choose one suite and cannot mix them."""
    proposals = (Proposal(at, protocol, spi, suite.transforms()) for at, suite in enumerate(suites, 1))
    return SecurityAssociation(tuple(proposals))


def choose(offered: SecurityAssociation, suites: Iterable[Suite], protocol: Protocol) -> tuple[Suite, Proposal]:
    """Choose the first of `suites` that the peer offers; returns it and the proposal to answer with.

    The answered proposal holds the peer's SPI. Raises IkeError with PROPOSAL.
    """
    for suite in suites:
        for proposal in offered.proposals:
            if proposal.protocol == protocol and _admits(proposal, suite.transforms()):
                return suite, Proposal(proposal.number, protocol, proposal.spi, suite.transforms())
    raise IkeError(Failure.PROPOSAL, "none of the proposed combinations of algorithms is accepted")


def chosen(answered: SecurityAssociation, suites: Iterable[Suite], protocol: Protocol) -> tuple[Suite, Proposal]:
    """Return the offered suite that the peer chose, and the peer's proposal; raises IkeError with PROPOSAL."""
    if len(answered.proposals) == 1:
        proposal = answered.proposals[0]
        for suite in suites:
            if proposal.protocol == protocol and _is(proposal, suite.transforms()):
                return suite, proposal
    raise IkeError(Failure.PROPOSAL, "the peer chose something that was not proposed")


def _admits(proposal: Proposal, wanted: Sequence[Transform]) -> bool:
    """Return whether a proposal allows exactly `wanted`; its other types must allow NONE (§3.3.6)."""
    kinds = {transform.type for transform in wanted}
    others = (transform.type for transform in proposal.transforms if transform.type not in kinds)
    optional = all(_may_be_none(proposal, kind) for kind in others)
    return optional and all(transform in proposal.transforms for transform in wanted)


def _may_be_none(proposal: Proposal, kind: int) -> bool:
    """Return whether a proposal also offers NONE for this type (NONE is 0 for all types that have it)."""
    return any(transform.type == kind and transform.id == 0 for transform in proposal.transforms)


def _is(proposal: Proposal, wanted: Sequence[Transform]) -> bool:
    """Return whether an answer is exactly `wanted`; NONE for a type is the same as leaving the type out."""
    given = [transform for transform in proposal.transforms if transform.type not in _OPTIONAL or transform.id]
    wanted_given = [transform for transform in wanted if transform.type not in _OPTIONAL or transform.id]
    return sorted(given, key=_order) == sorted(wanted_given, key=_order)


_OPTIONAL = frozenset({TransformType.INTEG, TransformType.KE, TransformType.ESN})


def _order(transform: Transform) -> tuple[int, int]:
    return transform.type, transform.id
