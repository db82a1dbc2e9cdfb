"""What the state machines take and give: addresses, datagrams, events and verdicts."""

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
    """Between which addresses a datagram goes, and whether it carries the non-ESP marker (RFC 3948 §2.2).

    The marker itself is the shell's business: it belongs to the sockets of port 4500.
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
    """The child SA that was negotiated, with its keys; `address` is what CP assigned to the Initiator.

    `spi_i` is the SPI that the Initiator receives with, `spi_r` the Responder's.
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
    """The exchange waits: AUTH verified under this certificate's key, which bears `identity`. May it be trusted?

    `integrity_info` is the content of N(INTEGRITY_INFO), `ledger_answer` what the peer stapled; both unverified.
    """

    sa: SaName
    identity: str
    certificate: CertificateProfile
    integrity_info: bytes | None
    ledger_answer: bytes | None


@dataclass(frozen=True, slots=True)
class Established:
    """The IKE SA stands; without a child SA where `child_error` says why there is none."""

    sa: SaName
    identity: str
    certificate: CertificateProfile
    suite: IkeSuite
    child: Child | None
    child_error: str | None = None


@dataclass(frozen=True, slots=True)
class Failed:
    """The exchange failed before an SA stood."""

    sa: SaName
    error: IkeError


@dataclass(frozen=True, slots=True)
class Closed:
    """An SA that stood is gone."""

    sa: SaName
    identity: str
    reason: str


@dataclass(frozen=True, slots=True)
class Rekeyed:
    """An IKE SA has another name and other keys from now on; who its peer is, and its child SAs, stay."""

    old: SaName
    sa: SaName
    identity: str
    suite: IkeSuite


@dataclass(frozen=True, slots=True)
class ChildRekeyed:
    """A child SA has taken the place of another one, whose SPI in this direction was `old_spi`."""

    sa: SaName
    identity: str
    old_spi: bytes
    child: Child


@dataclass(frozen=True, slots=True)
class ChildClosed:
    """A child SA is gone, and nothing has taken its place; `spi` was that of our direction."""

    sa: SaName
    identity: str
    spi: bytes
    reason: str


Event: TypeAlias = CertificateToJudge | Established | Failed | Closed | Rekeyed | ChildRekeyed | ChildClosed


@dataclass(frozen=True, slots=True)
class Trusted:
    """The certificate may be trusted. A gateway may add `ledger_answer`, to be stapled for its peer."""

    ledger_answer: bytes | None = None


@dataclass(frozen=True, slots=True)
class Untrusted:
    """The certificate is refused, with a stable code, the step and a sentence; the peer learns nothing of it."""

    code: str
    step: str
    sentence: str


Verdict: TypeAlias = Trusted | Untrusted
