"""OCSP requests and answers (RFC 6960), with the nonces of RFC 9654. Pure.

    OCSPRequest  ::= SEQUENCE { tbsRequest { requestList of { reqCert CertID }, requestExtensions }, signature? }
    CertID       ::= SEQUENCE { hashAlgorithm, issuerNameHash, issuerKeyHash, serialNumber }
    OCSPResponse ::= SEQUENCE { responseStatus, responseBytes { BasicOCSPResponse }? }

A request is about exactly one certificate, as in RFC 5019 §2.1.1. Signatures of requests are ignored.
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
"""Largest request; one about one certificate has about 120 octets, or 2000 if it is signed with a certificate."""

MAX_NONCE_OCTETS = 128
"""Longest nonce (RFC 9654 §2.1); the shortest has 1 octet."""

_HASHES = (hashes.SHA1(), hashes.SHA224(), hashes.SHA256(), hashes.SHA384(), hashes.SHA512())  # noqa: S303
"""Hash algorithms that a CertID may use. A CertID names an issuer and proves nothing, so SHA-1 does no harm."""

Failure = ocsp.OCSPResponseStatus


@dataclass(frozen=True, slots=True)
class Query:
    """The contents of a request: a CertID, and the nonce that the answer must repeat."""

    algorithm: hashes.HashAlgorithm
    issuer: tuple[bytes, bytes]
    """issuerNameHash and issuerKeyHash."""
    serial: int
    nonce: bytes | None


@dataclass(frozen=True, slots=True)
class Status:
    """The answer about a certificate; times are whole seconds since the Unix epoch."""

    status: ocsp.OCSPCertStatus
    this_update_s: int
    next_update_s: int
    revoked_s: int | None = None
    reason: x509.ReasonFlags | None = None


def parse_query(data: bytes) -> Query:
    """Parse a request; raises MalformedError, also for several certificates and unknown critical extensions."""
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
    """Return an unsuccessful answer, which has a status and nothing else."""
    return ocsp.OCSPResponseBuilder.build_unsuccessful(status).public_bytes(Encoding.DER)


class AnswerSigner:
    """The signer of answers about one CA's certificates, as its delegated responder (RFC 6960 §4.2.2.2)."""

    def __init__(self, ca: x509.Certificate, certificate: x509.Certificate, signer: LocalSigner) -> None:
        self._certificate, self._signer = certificate, signer
        self._issuers = {_issuer(ca, algorithm) for algorithm in _HASHES}
        self.not_after_s = int(certificate.not_valid_after_utc.timestamp())

    def serves(self, query: Query) -> bool:
        """Tell whether the query is about a certificate of this CA."""
        return (query.algorithm.name, *query.issuer) in self._issuers

    def answer(self, query: Query, status: Status) -> bytes:
        """Sign an answer; its CertID is the query's."""
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
    """Turn the X.509 library's errors into MalformedError; it parses lazily, so any access may raise one."""
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
