import hashlib
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any, TypeAlias

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.types import CertificateIssuerPrivateKeyTypes
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID, ObjectIdentifier
from hypothesis import given, settings
from hypothesis import strategies as st

from voice_dpki.codec.cursor import Cursor
from voice_dpki.effects import SystemRandom
from voice_dpki.names import Tn
from voice_dpki.x509 import der, tnauthlist
from voice_dpki.x509.keys import LocalSigner, generate_es256, generate_rsa
from voice_dpki.x509.profile import (
    MAX_CERTIFICATE_BYTES,
    ProfileError,
    build_certificate,
    der_of,
    digest_of,
    read_profile,
)
from voice_dpki.x509.tnauthlist import TnAuthList, TnRange

Hash: TypeAlias = hashes.SHA224 | hashes.SHA256 | hashes.SHA384 | hashes.SHA512
START_S, END_S = 1_760_000_000, 1_790_000_000
SIGNER = generate_es256()
OPERATOR_A = x509.Name(
    [
        x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Operator A"),
        x509.NameAttribute(NameOID.COMMON_NAME, "authn.a.example"),
    ]
)
LISTED = TnAuthList(ranges=(TnRange(Tn("493023125000"), 1000),))


def build(signer: LocalSigner = SIGNER, **changes: Any) -> bytes:
    given = {"organization": "Operator A", "common_name": "authn.a.example", "not_before_s": START_S}
    return build_certificate(signer, **{"not_after_s": END_S, "random": SystemRandom(), **given, **changes})


def odd(
    key: CertificateIssuerPrivateKeyTypes = SIGNER.private_key,
    *,
    subject: x509.Name = OPERATOR_A,
    issuer: x509.Name | None = None,
    start_s: int = START_S,
    end_s: int = END_S,
    extensions: Sequence[tuple[x509.ExtensionType, bool]] = (),
    sign_with: CertificateIssuerPrivateKeyTypes | None = None,
    algorithm: Hash | None = hashes.SHA256(),  # noqa: B008
    **sign: Any,
) -> bytes:
    """A certificate that need not keep to the profile."""
    builder = x509.CertificateBuilder(
        subject_name=subject,
        issuer_name=issuer or subject,
        public_key=key.public_key(),
        serial_number=1,
        not_valid_before=datetime.fromtimestamp(start_s, UTC),
        not_valid_after=datetime.fromtimestamp(end_s, UTC),
    )
    for value, critical in extensions:
        builder = builder.add_extension(value, critical)
    return builder.sign(sign_with or key, algorithm, **sign).public_bytes(Encoding.DER)


def usage(**named: bool) -> x509.KeyUsage:
    every = (
        "digital_signature content_commitment key_encipherment data_encipherment key_agreement key_cert_sign "
        "crl_sign encipher_only decipher_only"
    )
    return x509.KeyUsage(**{name: named.get(name, False) for name in every.split()})


def test_reads_what_was_built() -> None:
    uris = ("sip:+493023125001@a.example",)
    made = build(uris=uris, dns_names=("a.example",), tn_auth_list=LISTED)
    profile = read_profile(made)
    assert profile.der == made
    assert profile.digest == digest_of(made) == hashlib.sha256(made).digest()
    assert (profile.organization, profile.common_name) == ("Operator A", "authn.a.example")
    assert (profile.not_before_s, profile.not_after_s) == (START_S, END_S)
    assert (profile.key_algorithm, profile.public_key_der) == ("ES256", SIGNER.public_key_der)
    assert (profile.uris, profile.dns_names, profile.tn_auth_list) == (uris, ("a.example",), LISTED)
    assert profile.key_usage == {"digitalSignature", "keyAgreement"}
    assert profile.may_sign()


def test_rsa_keys_are_admitted_under_every_padding_of_the_profile() -> None:
    signer = generate_rsa()
    assert read_profile(build(signer)).key_algorithm == "PS256"
    pss = padding.PSS(padding.MGF1(hashes.SHA256()), 32)
    assert read_profile(odd(signer.private_key, rsa_padding=pss)).key_algorithm == "PS256"


@pytest.mark.parametrize("algorithm", [hashes.SHA256(), hashes.SHA384(), hashes.SHA512()])
def test_hashes_from_sha256_up(algorithm: Hash) -> None:
    assert read_profile(odd(algorithm=algorithm)).organization == "Operator A"


@pytest.mark.parametrize(
    ("now_s", "valid"), [(START_S - 0.1, False), (START_S, True), (END_S, True), (END_S + 0.1, False)]
)
def test_valid_at(now_s: float, valid: bool) -> None:
    assert read_profile(build()).valid_at(now_s) is valid


def test_a_subject_without_name_gets_a_key_that_signs_nothing() -> None:
    anonymous = read_profile(build(organization=None, common_name=None, uris=("urn:device:7",)))
    assert anonymous.key_usage == {"keyAgreement"}
    assert not anonymous.may_sign()


def test_files_are_in_der_or_pem() -> None:
    made = build()
    pem = x509.load_der_x509_certificate(made).public_bytes(Encoding.PEM)
    assert der_of(made) == der_of(pem) == der_of(b"\n" + pem) == made
    for data in (pem + pem, pem[:60], b"-----BEGIN PRIVATE KEY-----\n-----END PRIVATE KEY-----\n"):
        with pytest.raises(ProfileError):
            der_of(data)


def test_either_name_makes_a_subject_that_may_sign() -> None:
    assert read_profile(build(common_name=None)).organization == "Operator A"
    assert read_profile(build(organization=None)).common_name == "authn.a.example"


def test_one_certificate_has_one_digest() -> None:
    """Unused bits in the signature's BIT STRING would give it a second one."""
    whole = next(made for made in iter(build, None) if made[-1] % 2 == 0)
    at = len(whole) - len(x509.load_der_x509_certificate(whole).signature) - 1
    with pytest.raises(ProfileError) as refused:
        read_profile(whole[:at] + b"\1" + whole[at + 1 :])
    assert refused.value.code == "malformed"


def resigned(change: Callable[[list[bytes]], list[bytes]]) -> bytes:
    """A certificate whose fields (version, serial number, algorithm, ...) were changed, signed anew."""
    certificate = x509.load_der_x509_certificate(build())
    fields = Cursor(der.read_as(Cursor(certificate.tbs_certificate_bytes, "tbs"), der.SEQUENCE, "tbs"), "fields")
    parts = []
    while fields.remaining:
        parts.append(der.encode(*der.read(fields)))
    tbs = der.encode(der.SEQUENCE, b"".join(change(parts)))
    key = SIGNER.private_key
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    signature = key.sign(tbs, ec.ECDSA(hashes.SHA256()))
    return der.encode(der.SEQUENCE, tbs + parts[2] + der.encode(der.BIT_STRING, b"\0" + signature))


@pytest.mark.parametrize("serial", [b"\0", b"\xff", b"\x7f" * 30])
def test_the_serial_number_plays_no_role(serial: bytes) -> None:
    assert read_profile(resigned(lambda parts: [parts[0], der.encode(der.INTEGER, serial), *parts[2:]]))


NAMELESS = x509.Name([])
UNKNOWN = ObjectIdentifier("1.3.6.1.4.1.99999.1")
ECDSA_SHA384 = bytes.fromhex("300a06082a8648ce3d040303")
"""An AlgorithmIdentifier that is not the one beside the signature (RFC 5280 §4.1.2.3 wants both the same)."""
RSA = generate_rsa().private_key


@pytest.mark.parametrize(
    ("code", "make"),
    [
        ("too-large", lambda: bytes(MAX_CERTIFICATE_BYTES + 1)),
        ("malformed", lambda: b""),
        ("malformed", lambda: build() + b"\0"),
        ("malformed", lambda: build()[:-1]),
        ("malformed", lambda: x509.load_der_x509_certificate(build()).public_bytes(Encoding.PEM)),
        ("version", lambda: resigned(lambda parts: parts[1:-1])),
        ("algorithm", lambda: odd(ed25519.Ed25519PrivateKey.generate(), algorithm=None)),
        ("algorithm", lambda: odd(RSA, algorithm=hashes.SHA224())),
        ("weak-key", lambda: odd(rsa.generate_private_key(65537, 1024))),
        ("weak-key", lambda: odd(rsa.generate_private_key(3, 2048))),
        ("weak-key", lambda: odd(ec.generate_private_key(ec.SECP384R1()))),
        ("malformed", lambda: resigned(lambda parts: [*parts[:2], ECDSA_SHA384, *parts[3:]])),
        ("self-signed", lambda: odd(issuer=x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "CA")]))),
        ("signature", lambda: odd(sign_with=generate_es256().private_key)),
        ("signature", lambda: build().replace(b"Operator A", b"Operator B")),
        ("validity", lambda: odd(end_s=START_S)),
        ("validity", lambda: odd(end_s=START_S + 41 * 366 * 86_400)),
        ("name", lambda: odd(subject=x509.Name([*OPERATOR_A, *OPERATOR_A]))),
        ("name", lambda: odd(subject=x509.Name([x509.NameAttribute(NameOID.ORGANIZATION_NAME, "A\nB")]))),
        ("name", lambda: odd(subject=x509.Name([x509.NameAttribute(NameOID.ORGANIZATION_NAME, " A")]))),
        ("critical-extension", lambda: odd(extensions=[(x509.UnrecognizedExtension(UNKNOWN, b"\5\0"), True)])),
        ("tn-auth-list", lambda: odd(extensions=[(_raw_list(b"\x30\0"), False)])),
        ("key-usage", lambda: odd(subject=NAMELESS)),
        ("key-usage", lambda: odd(subject=NAMELESS, extensions=[(usage(digital_signature=True), True)])),
        (
            "key-usage",
            lambda: odd(subject=NAMELESS, extensions=[(usage(key_agreement=True, digital_signature=True), True)]),
        ),
    ],
)
def test_refuses_with_a_code_and_a_sentence(code: str, make: Callable[[], bytes]) -> None:
    with pytest.raises(ProfileError) as refused:
        read_profile(make())
    assert refused.value.code == code
    assert len(str(refused.value)) > 20


def _raw_list(value: bytes) -> x509.UnrecognizedExtension:
    return x509.UnrecognizedExtension(ObjectIdentifier(tnauthlist.OID), value)


def test_unknown_extensions_that_are_not_critical_are_left_alone() -> None:
    assert read_profile(odd(extensions=[(x509.UnrecognizedExtension(UNKNOWN, b"\5\0"), False)]))


ENCIPHER = ["key_agreement", "key_encipherment", "data_encipherment"]


@pytest.mark.parametrize("named", [*([name] for name in ENCIPHER), ENCIPHER])
def test_usages_that_a_nameless_subject_may_have(named: list[str]) -> None:
    certificate = odd(subject=NAMELESS, extensions=[(usage(**dict.fromkeys(named, True)), True)])
    assert len(read_profile(certificate).key_usage) == len(named)


@given(st.binary(max_size=300))
def test_any_bytes_are_refused_as_a_profile_error(data: bytes) -> None:
    with pytest.raises(ProfileError):
        read_profile(data)


CERTIFICATE = build(tn_auth_list=LISTED, uris=("sip:+493023125001@a.example",), dns_names=("a.example",))


@settings(max_examples=400)
@given(st.integers(0, len(CERTIFICATE) - 1), st.integers(1, 255))
def test_a_certificate_with_one_byte_changed_is_refused(at: int, change: int) -> None:
    changed = bytearray(CERTIFICATE)
    changed[at] ^= change
    with pytest.raises(ProfileError):
        read_profile(bytes(changed))
