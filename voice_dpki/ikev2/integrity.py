"""N(INTEGRITY_INFO): a device's signed statement of its own integrity (docs/integrity-info.md).

    content   = version(1) = 1, result(1), time(8: seconds since the Unix epoch), count(1), count * measurement,
                signature length(2), signature
    measurement = name length(1), name (UTF-8), SHA-256 digest(32)

The signature is made by the key of the certificate in the same message, over "voice-dpki/integrity-info/v1", a zero
byte, SPIi, SPIr, H(CERT) and the content up to the signature length. The gateway chooses SPIr, so a statement
cannot be replayed in another IKE SA.
"""

from dataclasses import dataclass
from enum import IntEnum

from voice_dpki.codec.cursor import Cursor
from voice_dpki.effects import Signer
from voice_dpki.errors import LocalError, MalformedError
from voice_dpki.ikev2.events import SaName
from voice_dpki.x509.keys import verify_signature
from voice_dpki.x509.profile import CertificateProfile

VERSION = 1
DOMAIN = b"voice-dpki/integrity-info/v1\0"
"""Domain separation: distinguishes these signatures from all others by a device's key."""

MAX_BYTES = 4096
"""Longest content; 16 measurements and an RSA signature of 8192 bits take about 2600."""

MAX_MEASUREMENTS = 16
MAX_NAME_BYTES = 64
_DIGEST_BYTES = 32


class Result(IntEnum):
    """Result of the device's own integrity check."""

    PASSED = 0
    FAILED = 1


@dataclass(frozen=True, slots=True)
class Measurement:
    """A measured component, and its SHA-256 digest."""

    name: str
    digest: bytes


@dataclass(frozen=True, slots=True)
class IntegrityInfo:
    """A statement of integrity; the constructor raises MalformedError for measurements outside the format."""

    result: Result
    time_s: int
    measurements: tuple[Measurement, ...]
    signature: bytes = b""

    def __post_init__(self) -> None:
        names = [measurement.name.encode("utf-8") for measurement in self.measurements]
        if len(names) > MAX_MEASUREMENTS or len(set(names)) != len(names):
            raise MalformedError(f"integrity info: more than {MAX_MEASUREMENTS} measurements, or one of them twice")
        if any(not 1 <= len(name) <= MAX_NAME_BYTES for name in names):
            raise MalformedError(f"integrity info: a measurement's name has 1 to {MAX_NAME_BYTES} bytes")

    @classmethod
    def parse(cls, data: bytes) -> "IntegrityInfo":
        """Parse the content, without verifying the signature; raises MalformedError."""
        if len(data) > MAX_BYTES:
            raise MalformedError(f"integrity info: more than {MAX_BYTES} bytes")
        cursor = Cursor(data, "integrity info")
        if (version := cursor.uint(1)) != VERSION:
            raise MalformedError(f"integrity info: version {version} is not known")
        result, time_s, count = cursor.uint(1), cursor.uint(8), cursor.uint(1)
        if result not in set(Result):
            raise MalformedError(f"integrity info: result {result} is not known")
        measurements = tuple(_measurement(cursor) for _ in range(count))
        signature = cursor.take(cursor.uint(2))
        cursor.finish()
        return cls(Result(result), time_s, measurements, signature)

    def unsigned(self) -> bytes:
        """Write the content up to the signature's length."""
        out = [bytes((VERSION, self.result)), self.time_s.to_bytes(8, "big"), bytes((len(self.measurements),))]
        for measurement in self.measurements:
            name = measurement.name.encode("utf-8")
            out += [bytes((len(name),)), name, measurement.digest]
        return b"".join(out)

    def serialize(self) -> bytes:
        """Write the content."""
        return self.unsigned() + len(self.signature).to_bytes(2, "big") + self.signature

    def signed_octets(self, sa: SaName, digest: bytes) -> bytes:
        """Return the octets that the signature covers; `digest` is H(CERT), `sa` the IKE SA."""
        return DOMAIN + sa.spi_i + sa.spi_r + digest + self.unsigned()

    def sign(self, signer: Signer, sa: SaName, digest: bytes) -> bytes:
        """Sign and write the content; raises LocalError if it is too long."""
        signature = signer.sign(self.signed_octets(sa, digest))
        content = IntegrityInfo(self.result, self.time_s, self.measurements, signature).serialize()
        if len(content) > MAX_BYTES:
            raise LocalError(f"an integrity statement has at most {MAX_BYTES} bytes")
        return content

    def verify(self, sa: SaName, profile: CertificateProfile) -> None:
        """Verify the signature under the certificate's key; raises SignatureError or KeyKindError."""
        octets = self.signed_octets(sa, profile.digest)
        verify_signature(profile.public_key_der, profile.key_algorithm, octets, self.signature)


def _measurement(cursor: Cursor) -> Measurement:
    try:
        name = cursor.take(cursor.uint(1)).decode("utf-8")
    except UnicodeDecodeError:
        raise MalformedError("integrity info: a measurement's name is not UTF-8") from None
    return Measurement(name, cursor.take(_DIGEST_BYTES))
