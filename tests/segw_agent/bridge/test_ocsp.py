"""OCSP on the wire: what is read, what is refused, and that any bytes are one or the other."""

import functools
from datetime import UTC, datetime

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import ocsp
from cryptography.x509.oid import ExtendedKeyUsageOID
from hypothesis import example, given
from hypothesis import strategies as st

from segw_agent.bridge.authority import Authority, make_authority, make_responder
from segw_agent.bridge.ocsp import AnswerSigner, Query, Status, failure, parse_query
from voice_dpki.errors import MalformedError
from voice_dpki.x509 import der
from voice_dpki.x509.keys import generate_es256

NOW_S = 1_800_000_000
NONCE = bytes(range(32))


@functools.cache
def ca() -> Authority:
    return make_authority(generate_es256(), "A bridge CA", NOW_S, 30)


@functools.cache
def responder() -> tuple[x509.Certificate, AnswerSigner]:
    signer = generate_es256()
    certificate = make_responder(ca(), signer, NOW_S, 30)
    return certificate, AnswerSigner(ca().certificate, certificate, signer)


def request(
    serial: int = 7, algorithm: hashes.HashAlgorithm | None = None, issuer: x509.Certificate | None = None
) -> ocsp.OCSPRequestBuilder:
    algorithm = algorithm or hashes.SHA1()
    issuer = issuer or ca().certificate
    by_cert = ocsp.OCSPRequestBuilder().add_certificate(issuer, issuer, algorithm).build()
    return ocsp.OCSPRequestBuilder().add_certificate_by_hash(
        by_cert.issuer_name_hash, by_cert.issuer_key_hash, serial, algorithm
    )


def encoded(builder: ocsp.OCSPRequestBuilder) -> bytes:
    return builder.build().public_bytes(Encoding.DER)


def with_nonce(octets: bytes, *, critical: bool = False) -> bytes:
    return encoded(request().add_extension(x509.OCSPNonce(octets), critical=critical))


@pytest.mark.parametrize("algorithm", [hashes.SHA1(), hashes.SHA256(), hashes.SHA384(), hashes.SHA512()])
def test_certificates_of_our_ca_by_any_hash(algorithm: hashes.HashAlgorithm) -> None:
    query = parse_query(encoded(request(12, algorithm)))
    assert (query.serial, query.nonce, query.algorithm.name) == (12, None, algorithm.name)
    assert responder()[1].serves(query)


def test_another_ca() -> None:
    other = make_authority(generate_es256(), "A bridge CA", NOW_S, 30)  # of the same name
    assert not responder()[1].serves(parse_query(encoded(request(12, issuer=other.certificate))))


@pytest.mark.parametrize("octets", [b"\0", NONCE, bytes(128)])
def test_nonces_come_back(octets: bytes) -> None:
    query = parse_query(with_nonce(octets))
    status = Status(ocsp.OCSPCertStatus.GOOD, NOW_S, NOW_S + 5)
    answer = ocsp.load_der_ocsp_response(responder()[1].answer(query, status))
    assert answer.extensions.get_extension_for_class(x509.OCSPNonce).value.nonce == octets


@pytest.mark.parametrize("octets", [b"", bytes(129)])
def test_nonces_that_are_none(octets: bytes) -> None:
    with pytest.raises(MalformedError, match="nonce"):
        parse_query(with_nonce(octets))


def test_what_is_answered() -> None:
    certificate, signer = responder()
    query = parse_query(encoded(request(12)))
    reason = x509.ReasonFlags.key_compromise
    status = Status(ocsp.OCSPCertStatus.REVOKED, NOW_S, NOW_S + 5, NOW_S - 60, reason)
    answer = ocsp.load_der_ocsp_response(signer.answer(query, status))
    assert (answer.serial_number, answer.certificate_status) == (12, ocsp.OCSPCertStatus.REVOKED)
    assert (answer.revocation_reason, answer.certificates) == (reason, [certificate])
    assert answer.revocation_time_utc == datetime.fromtimestamp(NOW_S - 60, UTC)
    assert answer.next_update_utc == datetime.fromtimestamp(NOW_S + 5, UTC)
    assert answer.responder_key_hash == x509.SubjectKeyIdentifier.from_public_key(certificate.public_key()).digest
    key = certificate.public_key()
    assert isinstance(key, ec.EllipticCurvePublicKey)
    key.verify(answer.signature, answer.tbs_response_bytes, ec.ECDSA(hashes.SHA256()))


def test_the_responders_certificate() -> None:
    extensions = responder()[0].extensions
    usage = extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(usage) == [ExtendedKeyUsageOID.OCSP_SIGNING]
    assert extensions.get_extension_for_class(x509.OCSPNoCheck)
    responder()[0].verify_directly_issued_by(ca().certificate)


def several(data: bytes) -> bytes:
    """Ask about the certificate of a request twice."""
    entry = der.encode(der.SEQUENCE, cert_id(data))
    tbs = der.encode(der.SEQUENCE, der.encode(der.SEQUENCE, entry + entry))
    return der.encode(der.SEQUENCE, tbs)


def cert_id(data: bytes) -> bytes:
    """Take the CertID out of a request without extensions: below four SEQUENCEs."""
    from voice_dpki.codec.cursor import Cursor

    for _ in range(4):
        data = der.read_as(Cursor(data, "request"), der.SEQUENCE, "request")
    return data


def test_several_certificates_at_once() -> None:
    with pytest.raises(MalformedError, match="one certificate"):
        parse_query(several(encoded(request())))


def test_critical_extensions() -> None:
    unknown = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4"), b"\5\0")
    assert parse_query(encoded(request().add_extension(unknown, critical=False)))
    with pytest.raises(MalformedError, match="critical"):
        parse_query(encoded(request().add_extension(unknown, critical=True)))
    assert parse_query(with_nonce(NONCE, critical=True)).nonce == NONCE


def test_too_large() -> None:
    with pytest.raises(MalformedError, match="4096"):
        parse_query(bytes(4097))


def test_failures() -> None:
    for status in (s for s in ocsp.OCSPResponseStatus if s is not ocsp.OCSPResponseStatus.SUCCESSFUL):
        assert ocsp.load_der_ocsp_response(failure(status)).response_status is status


def is_answered(data: bytes) -> None:
    try:
        query = parse_query(data)
    except MalformedError:
        return
    assert isinstance(query, Query)
    if responder()[1].serves(query):
        assert query.issuer


@given(st.binary(max_size=200))
@example(b"")
def test_any_bytes(data: bytes) -> None:
    is_answered(data)


@given(st.data())
def test_requests_with_a_few_bytes_changed(data: st.DataObject) -> None:
    octets = bytearray(with_nonce(NONCE))
    for _ in range(data.draw(st.integers(1, 4))):
        octets[data.draw(st.integers(0, len(octets) - 1))] = data.draw(st.integers(0, 255))
    is_answered(bytes(octets))


@given(st.integers(-(1 << 200), 1 << 200))
def test_any_serial(serial: int) -> None:
    octets = serial.to_bytes(26, "big", signed=True)
    base = encoded(request(0x55AA55AA))
    inner = cert_id(base).replace(
        der.encode(der.INTEGER, bytes.fromhex("55aa55aa")), der.encode(der.INTEGER, octets)
    )
    data = inner
    for _ in range(4):
        data = der.encode(der.SEQUENCE, data)
    is_answered(data)
