"""Every name in a certificate is checked kind by kind from version 4 of the rules on."""

import ipaddress
from datetime import UTC, datetime
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID, ObjectIdentifier

from voice_dpki.ledger.certificate_names import OTHER_KINDS
from voice_dpki.ledger.names import dns_key, uri_key
from voice_dpki.ledger.rules import V3

from .test_governance import START_S
from .version_4 import A, certificate, ledger_of, refusal, submission

OID = ObjectIdentifier("1.3.6.1.4.1.99999.1")
ELSE = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "b.example")])
ALTERNATIVES = {
    "ip-address-name": x509.IPAddress(ipaddress.ip_address("192.0.2.1")),
    "email-name": x509.RFC822Name("alice@a.example"),
    "directory-name": x509.DirectoryName(ELSE),
    "other-name": x509.OtherName(OID, b"\x0c\x01a"),
    "registered-id-name": x509.RegisteredID(OID),
}


def made(*alternatives: x509.GeneralName, extension: Any = None, **subject: Any) -> bytes:
    """Make a certificate with names that the project's own builder does not make."""
    key = ec.generate_private_key(ec.SECP256R1())
    attributes = {"ORGANIZATION_NAME": A, "COMMON_NAME": "device", **subject}
    name = x509.Name([x509.NameAttribute(getattr(NameOID, of), text) for of, text in attributes.items()])
    start, end = (datetime.fromtimestamp(START_S + days * 86_400, UTC) for days in (-1, 60))
    builder = x509.CertificateBuilder(name, name, key.public_key(), 1, start, end)
    if alternatives:
        builder = builder.add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
    if extension is not None:
        builder = builder.add_extension(extension, critical=False)
    return builder.sign(key, SHA256()).public_bytes(Encoding.DER)


def judged(der: bytes) -> str:
    return refusal(ledger_of(), submission(der))


def test_every_other_kind_of_name_is_refused_by_its_name() -> None:
    ledger, older = ledger_of(), ledger_of(V3)
    host = x509.DNSName("a.example")
    for name, alternative in ALTERNATIVES.items():
        assert refusal(ledger, submission(made(host, alternative))) == name
        assert older.block(submission(made(host, alternative))) == ["ok"], "version 3 looked at none of them"
    issuer = made(host, extension=x509.IssuerAlternativeName([x509.DNSName("b.example")]))
    assert refusal(ledger, submission(issuer)) == "issuer-name"
    assert refusal(ledger, submission(made(host))) == "ok"
    assert len(OTHER_KINDS) == len(ALTERNATIVES) + 2


@pytest.mark.parametrize("attribute", ["EMAIL_ADDRESS", "DOMAIN_COMPONENT", "USER_ID", "ORGANIZATIONAL_UNIT_NAME"])
def test_a_subject_has_no_attribute_that_may_name_somebody(attribute: str) -> None:
    assert judged(made(**{attribute: "b.example"})) == "subject-attribute"


def test_a_subject_may_tell_where_it_is_in_printable_text() -> None:
    where = {"COUNTRY_NAME": "DE", "STATE_OR_PROVINCE_NAME": "Berlin", "LOCALITY_NAME": "Berlin"}
    assert judged(made(**where, SERIAL_NUMBER="4711")) == "ok"
    for text in ("Ber\nlin", "x" * 65):
        assert judged(made(LOCALITY_NAME=text)) == "subject-attribute"


@pytest.mark.parametrize(
    ("host", "name"),
    [
        ("a.example", "ok"),
        ("SIP.A.Example", "ok"),
        ("xn--bcher-kva.a.example", "ok"),
        ("b.example", "names-outside-domains"),
        ("a.example.b.example", "names-outside-domains"),
        ("nota.example", "names-outside-domains"),
        ("*.a.example", "wildcard-name"),
        ("sip*.a.example", "wildcard-name"),
        ("*", "wildcard-name"),
        (".a.example", "host-name-form"),
        ("a.example.", "host-name-form"),
        ("sip..a.example", "host-name-form"),
        ("b.example\0.a.example", "host-name-form"),
        ("b.example\n.a.example", "host-name-form"),
        ("a.example\n", "host-name-form"),
        (" a.example", "host-name-form"),
        ("b_c.a.example", "host-name-form"),
        ("-b.a.example", "host-name-form"),
        ("b-.a.example", "host-name-form"),
        ("x" * 64 + ".a.example", "host-name-form"),
        (f"{'x' * 60}." * 5 + "a.example", "host-name-form"),
        ("192.0.2.1", "host-name-form"),
        ("", "host-name-form"),
        ("ab--c.a.example", "host-name-label"),
        ("ab--bcher-kva.a.example", "host-name-label"),
        ("xn--.a.example", "host-name-form"),
        ("xn--abc-.a.example", "host-name-form"),
        ("xn--99999999.a.example", "host-name-label"),
        ("xn--ib9b.a.example", "host-name-label"),  # U+D800, half of a character
        ("xn--a-ecp.a.example", "ok"),
    ],
)
def test_hosts_have_one_form(host: str, name: str) -> None:
    ledger = ledger_of()
    assert refusal(ledger, submission(made(x509.DNSName(host)))) == name
    in_uri = refusal(ledger, submission(made(x509.UniformResourceIdentifier(f"sip:alice@{host}"))))
    assert in_uri == (name if len(host) < 256 else "uri-form")


@pytest.mark.parametrize(
    ("uri", "name"),
    [
        ("sip:a.example", "ok"),
        ("SIPS:Alice.1@PBX.a.example", "ok"),
        ("sip:+49301000@a.example", "ok"),
        ("tel:+49301000", "ok"),
        ("TEL:+49301000", "ok"),
        ("urn:uuid:f81d4fae-7dec-11d0-a765-00a0c91e6bf6", "ok"),
        ("urn:dev:mac:0024befffe804ff1", "ok"),
        ("urn:gsma:imei:90420156-025763-0", "ok"),
        ("sip:alice@b.example", "names-outside-domains"),
        ("sip:+49302000@a.example", "names-outside-domains"),
        ("tel:+49302000", "names-outside-domains"),
        ("https://a.example/", "uri-kind"),
        ("mailto:alice@a.example", "uri-kind"),
        ("urn:service:sos", "uri-kind"),
        ("im:alice@a.example", "uri-kind"),
        ("sip:%2B49302000@a.example", "uri-escape"),
        ("sip:b.example%00@a.example", "uri-escape"),
        ("sip:alice@a.example%2Eb.example", "uri-escape"),
        ("sip:alice@a.example;maddr=b.example", "uri-parameters"),
        ("sip:+49302000;ext=1@a.example", "uri-parameters"),
        ("sip:alice@a.example?Subject=x", "uri-parameters"),
        ("tel:+49301000;phone-context=b.example", "uri-parameters"),
        ("sip:alice:secret@a.example", "uri-password"),
        ("sip::@a.example", "uri-password"),
        ("sip:alice@a.example:5060", "uri-port"),
        ("sip:a.example:", "uri-port"),
        ("sip:@a.example", "uri-form"),
        ("sip:b.example@alice@a.example", "uri-form"),
        ("sip:b.example/alice@a.example", "uri-form"),
        ("sip:al ice@a.example", "uri-form"),
        ("sip:alice\n@a.example", "uri-form"),
        ("sip:+4930100012345678@a.example", "uri-form"),
        ("sip:+49-301000@a.example", "uri-form"),
        ("tel:49301000", "uri-form"),
        ("tel:+49-301000", "uri-form"),
        ("urn:uuid:1", "uri-form"),
        (f"sip:{'a' * 300}@a.example", "uri-form"),
        ("sip:49302000@a.example", "uri-number"),
        ("sip:100@a.example", "uri-number"),
        ("sip:(49)302-000@a.example", "uri-number"),
        ("sip:alice@[2001:db8::1]", "host-name-form"),
        ("sip:alice@192.0.2.1", "host-name-form"),
        ("sip:alice@", "host-name-form"),
        ("sip:", "host-name-form"),
    ],
)
def test_uris_have_one_form(uri: str, name: str) -> None:
    assert judged(made(x509.UniformResourceIdentifier(uri))) == name


@pytest.mark.parametrize(
    ("common_name", "name"),
    [
        ("device 7", "ok"),
        ("gNB-0001/2", "ok"),
        ("Version 1.2", "ok"),
        ("1.2", "ok"),
        ("sip.a.example", "ok"),
        ("alice@A.example", "ok"),
        ("+49301000", "ok"),
        ("49302000", "ok"),
        ("b.example", "common-name"),
        ("*.b.example", "common-name"),
        (".b.example", "common-name"),
        ("b.example.", "common-name"),
        ("alice@b.example", "common-name"),
        ("host/b.example", "common-name"),
        ("sip:alice@a.example", "common-name"),
        ("https://b.example", "common-name"),
        ("+49302000", "common-name"),
    ],
)
def test_a_common_name_that_looks_like_another_kind_is_the_members(common_name: str, name: str) -> None:
    assert judged(certificate(common_name=common_name)) == name


def test_upper_case_is_listed_under_the_same_name() -> None:
    ledger = ledger_of()
    names: dict[str, Any] = {"dns_names": ("SIP.A.example",), "uris": ("SIP:Alice@A.example",)}
    assert ledger.block(submission(certificate(**names))) == ["ok"]
    for key in (dns_key("sip.a.example"), uri_key("sip:Alice@a.example")):
        assert ledger.state.leaf(key) is not None
