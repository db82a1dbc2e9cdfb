"""Inputs and outputs of the state machines: addresses, datagrams, events and verdicts."""

from dataclasses import dataclass, field
from ipaddress import IPv4Address
from typing import NamedTuple, TypeAlias

from voice_dpki.ikev2.crypto import ChildKeys
from voice_dpki.ikev2.failures import IkeError
from voice_dpki.ikev2.payloads import Selector
from voice_dpki.ikev2.proposals import EspSuite, IkeSuite
from voice_dpki.x509.profile import CertificateProfile


class Address(NamedTuple):
    """An IP address, as text, and a UDP port."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"


class Path(NamedTuple):
    """A datagram's two addresses, and whether it carries the non-ESP marker (RFC 3948 §2.2).

    The shell writes and reads the marker, because it is part of the sockets of port 4500.
    """

    local: Address
    remote: Address
    marked: bool = False


class SaName(NamedTuple):
    """The name of an IKE SA: both SPIs."""

    spi_i: bytes
    spi_r: bytes

    def __str__(self) -> str:
        return f"{self.spi_i.hex()}_i {self.spi_r.hex()}_r"


@dataclass(frozen=True, slots=True)
class Datagram:
    """A datagram to send; the other members describe it for traces."""

    path: Path
    data: bytes
    exchange: str
    is_response: bool
    payloads: tuple[str, ...]
    fragment: tuple[int, int] = (1, 1)
    repeated: bool = False


@dataclass(frozen=True, slots=True)
class Child:
    """A negotiated child SA, with its keys; `address` is the inner address that CP assigned to the Initiator.

    `spi_i` is the Initiator's inbound SPI, `spi_r` the Responder's.
    """

    suite: EspSuite
    spi_i: bytes
    spi_r: bytes
    keys: ChildKeys = field(repr=False)
    ts_i: tuple[Selector, ...]
    ts_r: tuple[Selector, ...]
    address: IPv4Address | None = None


@dataclass(frozen=True, slots=True)
class CertificateToJudge:
    """A request for the verdict whether a certificate may be trusted; the exchange waits for it.

    The certificate bears `identity`, and AUTH was verified with its key. `integrity_info` is the content of
    N(INTEGRITY_INFO), `ledger_answer` the answer that the peer stapled; both are unverified.
    """

    sa: SaName
    identity: str
    certificate: CertificateProfile
    integrity_info: bytes | None
    ledger_answer: bytes | None


@dataclass(frozen=True, slots=True)
class Established:
    """The IKE SA is established. If there is no child SA, `child_error` gives the reason."""

    sa: SaName
    identity: str
    certificate: CertificateProfile
    suite: IkeSuite
    child: Child | None
    child_error: str | None = None
    initial_contact: bool = False
    """At a Responder: whether the peer states that this is its only IKE SA (RFC 7296 §2.4)."""


@dataclass(frozen=True, slots=True)
class Failed:
    """The exchange failed before the SA was established."""

    sa: SaName
    error: IkeError


@dataclass(frozen=True, slots=True)
class Closed:
    """An established SA has ended."""

    sa: SaName
    identity: str
    reason: str


@dataclass(frozen=True, slots=True)
class Rekeyed:
    """An IKE SA has a new name and new keys; its peer and its child SAs stay the same."""

    old: SaName
    sa: SaName
    identity: str
    suite: IkeSuite


@dataclass(frozen=True, slots=True)
class ChildRekeyed:
    """A child SA has replaced another one, whose inbound SPI was `old_spi`."""

    sa: SaName
    identity: str
    old_spi: bytes
    child: Child


@dataclass(frozen=True, slots=True)
class ChildClosed:
    """A child SA has ended without a successor; `spi` was its inbound SPI."""

    sa: SaName
    identity: str
    spi: bytes
    reason: str


Event: TypeAlias = CertificateToJudge | Established | Failed | Closed | Rekeyed | ChildRekeyed | ChildClosed


@dataclass(frozen=True, slots=True)
class Trusted:
    """The certificate may be trusted. A gateway may add a `ledger_answer` to staple for its peer."""

    ledger_answer: bytes | None = None


@dataclass(frozen=True, slots=True)
class Untrusted:
    """The certificate is refused, with a stable code, the step and a sentence; the peer gets none of them."""

    code: str
    step: str
    sentence: str


Judged: TypeAlias = Trusted | Untrusted
"""The answer to a CertificateToJudge."""
