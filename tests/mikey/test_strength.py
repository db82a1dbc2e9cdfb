"""A peer's RSA key is bounded before anything is computed with it."""

from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicNumbers
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding

from tests.mikey.conftest import CALLER, NOW_S
from voice_dpki.mikey import pke, steps
from voice_dpki.mikey.certified import Party
from voice_dpki.mikey.failures import Failure, MikeyError
from voice_dpki.mikey.message import Message, serialize
from voice_dpki.mikey.payloads import Certificate, Payload, Signature
from voice_dpki.mikey.strength import MAX_RSA_BITS, MAX_RSA_EXPONENT, check_rsa_key
from voice_dpki.x509.keys import LocalSigner, generate_es256
from voice_dpki.x509.profile import digest_of
from voice_dpki.x509.recorded import CertStatus, RecordedCertificate


def with_key(party: Party, bits: int, exponent: int) -> bytes:
    """The party's certificate with another public key, whose signature is therefore wrong."""
    old = x509.load_der_x509_certificate(party.certificate)
    key: Any = RSAPublicNumbers(exponent, (1 << (bits - 1)) + 1).public_key()
    builder = x509.CertificateBuilder(
        old.issuer, old.subject, key, 1, old.not_valid_before_utc, old.not_valid_after_utc
    )
    assert isinstance(party.signer, LocalSigner)
    return builder.sign(party.signer.private_key, SHA256()).public_bytes(Encoding.DER)


@pytest.mark.parametrize(
    ("bits", "exponent"),
    [(MAX_RSA_BITS + 8, 65537), (16384, 65537), (2040, 65537), (2048, 3), (2048, MAX_RSA_EXPONENT + 2)],
)
def test_keys_outside_the_bounds_are_refused(parties: tuple[Party, Party], bits: int, exponent: int) -> None:
    with pytest.raises(MikeyError, match="the Initiator's certificate has an RSA") as caught:
        check_rsa_key(with_key(parties[0], bits, exponent), "the Initiator's certificate")
    assert caught.value.failure is Failure.CERTIFICATE


@pytest.mark.parametrize(("bits", "exponent"), [(2048, 65537), (MAX_RSA_BITS, MAX_RSA_EXPONENT)])
def test_keys_within_the_bounds_pass(parties: tuple[Party, Party], bits: int, exponent: int) -> None:
    check_rsa_key(with_key(parties[0], bits, exponent), "it")


def test_other_keys_and_other_bytes(parties: tuple[Party, Party], new_certificate: Any) -> None:
    check_rsa_key(new_certificate(generate_es256(), CALLER), "it")
    with pytest.raises(MikeyError, match="it is refused"):
        check_rsa_key(b"junk", "it")


def test_a_message_with_such_a_key_is_not_computed_with(call: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    message = Message.parse(call.offer().message)
    der = with_key(call.caller, 2048, MAX_RSA_EXPONENT + 2)
    payloads: tuple[Payload, ...] = tuple(
        Certificate(2, der) if isinstance(each, Certificate) else each for each in message.payloads[:-1]
    )
    octets = serialize(message.header, (*payloads, Signature(1, bytes(256))))

    def must_not(*given: object, **named: object) -> None:
        raise AssertionError("something was computed with the key")

    for name in ("read_profile", "verify_signature"):
        monkeypatch.setattr(steps, name, must_not)
    with pytest.raises(MikeyError, match="RSA exponent"):
        call.receive(octets)


def test_nothing_is_encrypted_to_such_a_key(parties: tuple[Party, Party], monkeypatch: pytest.MonkeyPatch) -> None:
    der = with_key(parties[1], MAX_RSA_BITS + 8, 65537)
    record = RecordedCertificate(digest=digest_of(der), status=CertStatus.VALID, der=der)
    monkeypatch.setattr(pke, "judge", None)
    with pytest.raises(MikeyError, match="4104 bits"):
        pke.recipient_of(record, parties[1].uri, NOW_S)
