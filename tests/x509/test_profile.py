import hashlib
import warnings
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
from voice_dpki.x509.claimconstraints import ClaimConstraints
from voice_dpki.x509.keys import LocalSigner, generate_es256, generate_rsa
from voice_dpki.x509.profile import (
    MAX_CERTIFICATE_BYTES,
    CertificateProfile,
    ProfileError,
    build_certificate,
    der_of,
    digest_of,
    read_issued,
    read_profile,
)
from voice_dpki.x509.tnauthlist import TnAuthList, TnRange

Hash: TypeAlias = hashes.SHA224 | hashes.SHA256 | hashes.SHA384 | hashes.SHA512
START_S, END_S = 1_760_000_000, 1_790_000_000
SIGNER = generate_es256()
RSA = generate_rsa().private_key
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


class Fixed:
    """Random octets that are all the same."""

    def token(self, size: int) -> bytes:
        return b"\xee" * size


def test_what_is_built_octet_by_octet() -> None:
    """Each extension with its criticality: RFC 5280 §4.2.1.3, §4.2.1.6, §4.2.1.9, RFC 8226 §8, §9."""
    constraints = ClaimConstraints(("attest",))
    made = x509.load_der_x509_certificate(
        build(dns_names=("a.example",), tn_auth_list=LISTED, claim_constraints=constraints, random=Fixed())
    )
    assert made.serial_number == int("01" + "ee" * 16, 16)
    assert made.issuer == made.subject == OPERATOR_A
    assert [(each.oid.dotted_string, each.critical, each.value.public_bytes()) for each in made.extensions] == [
        ("2.5.29.19", True, b"\x30\x00"),  # basicConstraints, without cA
        ("2.5.29.15", True, b"\x03\x02\x03\x88"),  # digitalSignature and keyAgreement, bits 0 and 4
        ("2.5.29.17", False, b"\x30\x0b\x82\x09a.example"),
        ("1.3.6.1.5.5.7.1.26", False, LISTED.serialize()),
        ("1.3.6.1.5.5.7.1.27", False, constraints.serialize()),
    ]


NOBODY = {"organization": None, "common_name": None}


@pytest.mark.parametrize(
    ("make_signer", "options", "bits"),
    [
        (generate_es256, {}, "88"),  # digitalSignature, keyAgreement
        (generate_es256, NOBODY, "08"),
        (generate_rsa, {}, "a0"),  # digitalSignature, keyEncipherment
        (generate_rsa, NOBODY, "20"),
    ],
)
def test_what_a_key_may_be_used_for(
    make_signer: Callable[[], LocalSigner], options: dict[str, None], bits: str
) -> None:
    made = x509.load_der_x509_certificate(build(make_signer(), uris=("urn:device:7",), **options))
    found = made.extensions.get_extension_for_class(x509.KeyUsage).value.public_bytes()
    assert found[3:] == bytes.fromhex(bits)
    names = made.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    assert names.critical is bool(options), "RFC 5280 §4.2.1.6: critical where the subject is empty"


@pytest.mark.parametrize("oid", [NameOID.ORGANIZATION_NAME, NameOID.COMMON_NAME])
def test_a_name_has_1_to_64_characters(oid: ObjectIdentifier) -> None:
    def read(name: str) -> CertificateProfile:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the library's, about the length
            attribute = x509.NameAttribute(oid, name, _validate=False)
        return read_profile(odd(subject=x509.Name([attribute])))

    for good in "x", "x" * 64:
        profile = read(good)
        assert good in (profile.organization, profile.common_name)
    for bad in "", "x" * 65, " x", "x ", "x\x7f":
        with pytest.raises(ProfileError) as refused:
            read(bad)
        assert refused.value.code == "name"


@pytest.mark.parametrize(
    ("start_s", "end_s", "right"),
    [
        (0, 1, True),
        (START_S, START_S + 1, True),
        (START_S, START_S + 40 * 366 * 86_400, True),
        (START_S, START_S + 40 * 366 * 86_400 + 1, False),
        (START_S, START_S, False),
        (-1, START_S, False),
    ],
)
def test_a_validity_is_of_40_years_at_most_and_not_before_1970(start_s: int, end_s: int, right: bool) -> None:
    made = odd(start_s=start_s, end_s=end_s)
    if right:
        profile = read_profile(made)
        assert (profile.not_before_s, profile.not_after_s) == (start_s, end_s)
        return
    with pytest.raises(ProfileError) as refused:
        read_profile(made)
    assert refused.value.code == "validity"


@pytest.mark.parametrize(
    ("code", "make"),
    [
        ("too-large", lambda: bytes(MAX_CERTIFICATE_BYTES + 1)),
        ("malformed", lambda: build() + b"\0"),
        ("version", lambda: resigned(lambda parts: parts[1:-1])),
        ("algorithm", lambda: odd(RSA, algorithm=hashes.SHA224())),
        ("weak-key", lambda: odd(ec.generate_private_key(ec.SECP384R1()))),
        ("validity", lambda: odd(end_s=START_S)),
        ("name", lambda: odd(subject=x509.Name([*OPERATOR_A, *OPERATOR_A]))),
        ("tn-auth-list", lambda: odd(extensions=[(_raw_list(b"\x30\0"), False)])),
    ],
)
def test_what_somebody_else_has_signed_is_refused_with_the_same_codes(code: str, make: Callable[[], bytes]) -> None:
    with pytest.raises(ProfileError) as refused:
        read_issued(make())
    assert refused.value.code == code


def test_the_chain_of_what_somebody_else_has_signed_is_for_others_to_judge() -> None:
    issuer = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "CA")])
    critical = x509.UnrecognizedExtension(UNKNOWN, b"\5\0")
    issued = odd(issuer=issuer, sign_with=generate_es256().private_key, extensions=[(critical, True)])
    assert read_issued(issued).organization == "Operator A"


def test_a_certificate_has_at_most_8192_bytes() -> None:
    """The signature has 70 to 72 bytes, so several are made."""

    def filled(size: int) -> bytes:
        return odd(extensions=[(x509.UnrecognizedExtension(UNKNOWN, bytes(size)), False)])

    around = 8192 - len(filled(7000)) + 7000
    made = [filled(around + each % 5 - 2) for each in range(60)]
    assert {8192, 8193} <= {len(each) for each in made}
    for each in made:
        if len(each) <= 8192:
            assert read_profile(each).der == each
        else:
            with pytest.raises(ProfileError, match="more than 8192 bytes"):
                read_profile(each)


@pytest.mark.parametrize(
    ("extension", "understood"),
    [
        (x509.BasicConstraints(False, None), True),
        (x509.ExtendedKeyUsage([ObjectIdentifier("1.3.6.1.5.5.7.3.2")]), True),
        (usage(digital_signature=True), True),
        (x509.SubjectAlternativeName([x509.DNSName("a.example")]), True),
        (x509.UnrecognizedExtension(ObjectIdentifier(tnauthlist.OID), LISTED.serialize()), True),
        (x509.NameConstraints(None, [x509.DNSName("b.example")]), False),
        (x509.UnrecognizedExtension(ObjectIdentifier("1.3.6.1.5.5.7.1.27"), b"\5\0"), False),
    ],
)
def test_extensions_that_may_be_critical(extension: x509.ExtensionType, understood: bool) -> None:
    made = odd(extensions=[(extension, True)])
    if understood:
        assert read_profile(made).der == made
        return
    with pytest.raises(ProfileError) as refused:
        read_profile(made)
    assert refused.value.code == "critical-extension"


@pytest.mark.parametrize(
    ("flag", "name"),
    [
        ("digital_signature", "digitalSignature"),
        ("content_commitment", "nonRepudiation"),
        ("key_encipherment", "keyEncipherment"),
        ("data_encipherment", "dataEncipherment"),
        ("key_agreement", "keyAgreement"),
        ("key_cert_sign", "keyCertSign"),
        ("crl_sign", "cRLSign"),
    ],
)
def test_usages_have_the_names_of_rfc_5280(flag: str, name: str) -> None:
    profile = read_profile(odd(extensions=[(usage(**{flag: True}), True)]))
    assert profile.key_usage == {name}
    assert profile.may_sign() is (name == "digitalSignature")


def test_without_key_usage_a_key_may_sign() -> None:
    profile = read_profile(odd())
    assert (profile.key_usage, profile.may_sign()) == (frozenset(), True)


@pytest.mark.parametrize("serial", [b"\0", b"\xff", b"\x7f" * 30])
def test_the_serial_number_plays_no_role(serial: bytes) -> None:
    assert read_profile(resigned(lambda parts: [parts[0], der.encode(der.INTEGER, serial), *parts[2:]]))


NAMELESS = x509.Name([])
UNKNOWN = ObjectIdentifier("1.3.6.1.4.1.99999.1")
ECDSA_SHA384 = bytes.fromhex("300a06082a8648ce3d040303")
"""An AlgorithmIdentifier that is not the one beside the signature (RFC 5280 §4.1.2.3 wants both the same)."""


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
