"""Who a certificate says it is: a telephone's names users alone."""

from voice_dpki.effects import SystemRandom
from voice_dpki.x509.elements import element_uri, elements_of
from voice_dpki.x509.keys import generate_es256
from voice_dpki.x509.profile import CertificateProfile, build_certificate, read_profile


def profile(*uris: str) -> CertificateProfile:
    der = build_certificate(
        generate_es256(), organization="Operator", common_name="x", uris=uris, random=SystemRandom(),
        not_before_s=1_700_000_000, not_after_s=1_700_100_000,
    )  # fmt: skip
    return read_profile(der)


def test_a_telephone_names_no_element() -> None:
    assert elements_of(profile("sip:+442079460123@b.example", "sips:+442079460123@b.example")) == ()


def test_a_gateway_names_itself_beside_the_telephones() -> None:
    named = profile("sip:+442079460123@b.example", element_uri("gateway.b.example"), "SIPS:other.b.example")
    assert elements_of(named) == ("gateway.b.example", "other.b.example")
