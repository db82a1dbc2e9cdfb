"""Certificates that were read before: the most recently used, and only those that somebody vouched for."""

import pytest

from segw_agent.known import KnownCertificates
from tests.ikev2.conftest import certificate_for
from voice_dpki.x509.keys import generate_es256
from voice_dpki.x509.profile import read_profile
from voice_dpki.x509.recorded import CertificateRefused


def test_what_is_kept_is_read_once_and_the_longest_unused_is_dropped() -> None:
    ders = [certificate_for(generate_es256(), f"enb{number}.vendor.example") for number in range(3)]
    known = KnownCertificates(2)
    first = known.read(ders[0])
    assert first == read_profile(ders[0])
    assert len(known) == 0, "a stranger's is not kept"
    for der in ders[:2]:
        known.keep(known.read(der))
    known.keep(known.read(ders[0]))
    known.keep(known.read(ders[2]))
    assert len(known) == 2
    assert known._profiles.keys() == {ders[0], ders[2]}
    assert known.read(bytes(ders[0])) is first


def test_what_breaks_the_profile_is_refused() -> None:
    with pytest.raises(CertificateRefused):
        KnownCertificates().read(b"no certificate")
