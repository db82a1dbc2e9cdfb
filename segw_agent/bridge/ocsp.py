"""OCSP requests and answers (RFC 6960), with the nonces of RFC 9654. Pure.

    OCSPRequest  ::= SEQUENCE { tbsRequest { requestList of { reqCert CertID }, requestExtensions }, signature? }
    CertID       ::= SEQUENCE { hashAlgorithm, issuerNameHash, issuerKeyHash, serialNumber }
    OCSPResponse ::= SEQUENCE { responseStatus, responseBytes { BasicOCSPResponse }? }

One certificate is asked about at a time, as RFC 5019 §2.1.1 has it. Signatures of requests are not looked at.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import ocsp

from voice_dpki.errors import MalformedError
from voice_dpki.x509.keys import LocalSigner

MAX_REQUEST_BYTES = 4096
"""Largest request; one about one certificate has some 120 octets, signed with a certificate 2000."""

MAX_NONCE_OCTETS = 128
"""RFC 9654 §2.1; there are nonces from 1 octet on."""

_HASHES = (hashes.SHA1(), hashes.SHA224(), hashes.SHA256(), hashes.SHA384(), hashes.SHA512())  # noqa: S303
"""Those that a CertID may have. It names an issuer, and proves nothing, so that SHA-1 does no harm."""

Failure = ocsp.OCSPResponseStatus


@dataclass(frozen=True, slots=True)
class Query:
    """What a request asks about: a CertID, and the nonce that must come back."""

    algorithm: hashes.HashAlgorithm
    issuer: tuple[bytes, bytes]
    """issuerNameHash and issuerKeyHash."""
    serial: int
    nonce: bytes | None


@dataclass(frozen=True, slots=True)
class Status:
    """What is answered about a certificate; times are whole seconds since the Unix epoch."""

    status: ocsp.OCSPCertStatus
    this_update_s: int
    next_update_s: int
    revoked_s: int | None = None
    reason: x509.ReasonFlags | None = None


def parse_query(data: bytes) -> Query:
    """Parse a request; raises MalformedError, also on several certificates and critical extensions."""
    if len(data) > MAX_REQUEST_BYTES:
        raise MalformedError(f"an OCSP request has at most {MAX_REQUEST_BYTES} octets")
    with _library_errors():
        request = ocsp.load_der_ocsp_request(data)
        return Query(
            request.hash_algorithm,
            (request.issuer_name_hash, request.issuer_key_hash),
            request.serial_number,
            _nonce(request.extensions),
        )


def failure(status: ocsp.OCSPResponseStatus) -> bytes:
    """Return an answer that says only why there is none."""
    return ocsp.OCSPResponseBuilder.build_unsuccessful(status).public_bytes(Encoding.DER)


class AnswerSigner:
    """Signs answers about certificates of one CA, as its delegated responder (RFC 6960 §4.2.2.2)."""

    def __init__(self, ca: x509.Certificate, certificate: x509.Certificate, signer: LocalSigner) -> None:
        self._certificate, self._signer = certificate, signer
        self._issuers = {_issuer(ca, algorithm) for algorithm in _HASHES}
        self.not_after_s = int(certificate.not_valid_after_utc.timestamp())

    def serves(self, query: Query) -> bool:
        """Tell whether the question is about a certificate of this CA."""
        return (query.algorithm.name, *query.issuer) in self._issuers

    def answer(self, query: Query, status: Status) -> bytes:
        """Sign an answer; its CertID is the question's."""
        builder = ocsp.OCSPResponseBuilder().add_response_by_hash(
            *query.issuer,
            query.serial,
            query.algorithm,
            status.status,
            _time(status.this_update_s),
            _time(status.next_update_s),
            None if status.revoked_s is None else _time(status.revoked_s),
            status.reason,
        )
        builder = builder.responder_id(ocsp.OCSPResponderEncoding.HASH, self._certificate)
        builder = builder.certificates([self._certificate])
        if query.nonce is not None:
            builder = builder.add_extension(x509.OCSPNonce(query.nonce), critical=False)
        return builder.sign(self._signer.private_key, hashes.SHA256()).public_bytes(Encoding.DER)


@contextmanager
def _library_errors() -> Iterator[None]:
    """Turn what the X.509 library raises into MalformedError: it parses lazily, so any access may find a fault."""
    try:
        yield
    except NotImplementedError:
        raise MalformedError("an OCSP request must be about one certificate") from None
    except (ValueError, TypeError, UnsupportedAlgorithm, x509.DuplicateExtension):
        raise MalformedError("not one well-formed OCSP request") from None


def _nonce(extensions: x509.Extensions) -> bytes | None:
    nonce = None
    for extension in extensions:
        if isinstance(extension.value, x509.OCSPNonce):
            nonce = extension.value.nonce
        elif extension.critical and not isinstance(extension.value, x509.OCSPAcceptableResponses):
            raise MalformedError("an OCSP request has a critical extension that is not understood")
    if nonce is not None and not 1 <= len(nonce) <= MAX_NONCE_OCTETS:
        raise MalformedError(f"an OCSP nonce has 1 to {MAX_NONCE_OCTETS} octets (RFC 9654)")
    return nonce


def _issuer(ca: x509.Certificate, algorithm: hashes.HashAlgorithm) -> tuple[str, bytes, bytes]:
    request = ocsp.OCSPRequestBuilder().add_certificate(ca, ca, algorithm).build()
    return algorithm.name, request.issuer_name_hash, request.issuer_key_hash


def _time(seconds: int) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)
