"""Issued certificates: the self-signed one's subject, names and key, and nothing else of it."""

import functools
import time
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import AuthorityInformationAccessOID, ExtendedKeyUsageOID, NameOID

from segw_agent.bridge.authority import DAY_S, Authority, IssueError, issue, make_authority
from segw_agent.bridge.serial import serial_of
from tests.soft_hsm import SoftHsm
from voice_dpki.effects import SystemRandom
from voice_dpki.errors import LocalError
from voice_dpki.shell.credentials import read_signer
from voice_dpki.shell.token_uri import key_place
from voice_dpki.x509.keys import LocalSigner, generate_es256, generate_rsa
from voice_dpki.x509.profile import CertificateProfile, build_certificate, read_profile

URL = "http://192.0.2.1/ocsp"
NAME = "enb1.vendor.example"
NOW_S = int(time.time())


@functools.cache
def ca(rsa: bool = False) -> Authority:
    return make_authority(generate_rsa() if rsa else generate_es256(), "A bridge CA", NOW_S, 60)


def device(signer: LocalSigner | None = None, days: int = 30, name: str = NAME) -> CertificateProfile:
    signer = signer or generate_es256()
    return read_profile(
        build_certificate(
            signer,
            organization="Vendor V",
            common_name=name,
            dns_names=[name],
            not_before_s=NOW_S - 600,
            not_after_s=NOW_S + days * DAY_S,
            random=SystemRandom(),
        )
    )


def self_signed(
    *names: x509.GeneralName, usage: x509.ObjectIdentifier | None = None, **subject_more: str
) -> CertificateProfile:
    """A certificate of the ledger's profile with extensions, and more in its subject, of its own."""
    signer, now = generate_es256(), datetime.now(UTC)
    more = [x509.NameAttribute(getattr(NameOID, name), value) for name, value in subject_more.items()]
    subject = x509.Name([x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Vendor V"), *more])
    builder = x509.CertificateBuilder(subject, subject, signer.private_key.public_key(), 1)
    builder = builder.not_valid_before(now).not_valid_after(now + timedelta(days=1))
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    if usage is not None:
        builder = builder.add_extension(x509.ExtendedKeyUsage([usage]), critical=True)
    return read_profile(builder.sign(signer.private_key, SHA256()).public_bytes(Encoding.DER))


@pytest.mark.peer("softhsm2-util")
@pytest.mark.peer("pkcs11-tool")
def test_a_ca_in_a_token_issues_the_same_certificate_each_time(hsm: SoftHsm) -> None:
    hsm.make_key("ca", "rsa:2048", "02")
    signer, profile = read_signer(key_place(hsm.uri("ca"))), device()
    authority = make_authority(signer, "A bridge CA", NOW_S, 60)
    issued = issue(authority, profile, URL)
    issued.verify_directly_issued_by(authority.certificate)
    assert issue(authority, profile, URL) == issued


@pytest.mark.peer("softhsm2-util")
@pytest.mark.peer("pkcs11-tool")
def test_a_ca_in_a_token_cannot_be_one_of_ecdsa(hsm: SoftHsm) -> None:
    with pytest.raises(LocalError, match="must be RSA"):
        make_authority(read_signer(key_place(hsm.uri("sti"))), "A bridge CA", NOW_S, 60)


@pytest.mark.parametrize("rsa", [False, True])
def test_subject_names_and_key_are_taken_over(rsa: bool) -> None:
    profile = device(generate_rsa() if rsa else None)
    own, issued = x509.load_der_x509_certificate(profile.der), issue(ca(rsa), profile, URL)
    issued.verify_directly_issued_by(ca(rsa).certificate)
    assert (issued.subject, issued.public_key()) == (own.subject, own.public_key())
    assert issued.serial_number == serial_of(profile.digest)
    kind = x509.SubjectAlternativeName
    assert issued.extensions.get_extension_for_class(kind) == own.extensions.get_extension_for_class(kind)
    assert (issued.not_valid_before_utc, issued.not_valid_after_utc) == (
        own.not_valid_before_utc,
        own.not_valid_after_utc,
    )
    (access,) = issued.extensions.get_extension_for_class(x509.AuthorityInformationAccess).value
    assert access.access_method == AuthorityInformationAccessOID.OCSP
    assert access.access_location.value == URL
    assert not issued.extensions.get_extension_for_class(x509.BasicConstraints).value.ca


@pytest.mark.parametrize("rsa", [False, True])
def test_one_serial_stands_for_one_certificate(rsa: bool) -> None:
    profile = device()
    assert issue(ca(rsa), profile, URL) == issue(ca(rsa), profile, URL)


def test_no_longer_than_the_ca() -> None:
    assert issue(ca(), device(days=100), URL).not_valid_after_utc == ca().certificate.not_valid_after_utc


def test_a_device_cannot_become_a_responder() -> None:
    profile = self_signed(x509.DNSName(NAME), usage=ExtendedKeyUsageOID.OCSP_SIGNING)
    with pytest.raises(x509.ExtensionNotFound):
        issue(ca(), profile, URL).extensions.get_extension_for_class(x509.ExtendedKeyUsage)


@pytest.mark.parametrize(
    ("names", "words"),
    [
        ((), "no subjectAltName"),
        ((x509.DNSName(NAME), x509.IPAddress(IPv4Address("10.1.0.1"))), "other names than DNS"),
        ((x509.DNSName(NAME), x509.RFC822Name("segw@a.example")), "other names than DNS"),
        ((x509.UniformResourceIdentifier("urn:imei:1"),), "other names than DNS"),
        ((x509.DNSName("*.vendor.example"),), "not one host's"),
        ((x509.DNSName("../../x.vendor.example"),), "not one host's"),
        ((x509.DNSName("vendor"),), "not one host's"),
        ((x509.DNSName("enb1.vendor.example\0"),), "not one host's"),
    ],
)
def test_names_that_no_list_can_be_held_to(names: tuple[x509.GeneralName, ...], words: str) -> None:
    with pytest.raises(IssueError, match=words):
        issue(ca(), self_signed(*names), URL)


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"COMMON_NAME": "segw.a.example"}, "common name is a host's"),
        ({"EMAIL_ADDRESS": "segw@a.example"}, "subject says more"),
        ({"DOMAIN_COMPONENT": "example"}, "subject says more"),
    ],
)
def test_subjects_that_are_names_of_others(more: Any, words: str) -> None:
    with pytest.raises(IssueError, match=words):
        issue(ca(), self_signed(x509.DNSName(NAME), **more), URL)


@pytest.mark.parametrize("common_name", ["ENB1.vendor.example", "Base station 1", "enb1"])
def test_common_names_that_are_no_other_hosts(common_name: str) -> None:
    assert issue(ca(), self_signed(x509.DNSName(NAME), COMMON_NAME=common_name), URL)


def test_the_cas_own_name() -> None:
    name = x509.load_der_x509_certificate(device().der).subject
    signer = generate_es256()
    builder = x509.CertificateBuilder(name, name, signer.private_key.public_key(), 1)
    builder = builder.not_valid_before(datetime.now(UTC)).not_valid_after(datetime.now(UTC) + timedelta(days=9))
    key = x509.SubjectKeyIdentifier.from_public_key(signer.private_key.public_key())
    certificate = builder.add_extension(key, critical=False).sign(signer.private_key, SHA256())
    with pytest.raises(IssueError, match="does not go with"):
        issue(Authority(certificate, signer), device(), URL)
