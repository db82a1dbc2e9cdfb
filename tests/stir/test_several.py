"""Which numbers the ledger is asked about: those in tokens that the named certificate has signed."""

from dataclasses import replace

import pytest

from voice_dpki.codec import base64url
from voice_dpki.names import Tn
from voice_dpki.stir.call import Call
from voice_dpki.stir.examine import Policy
from voice_dpki.stir.several import Found, examine_all, numbers_of, signed_numbers
from voice_dpki.x509.recorded import CertStatus, RecordedCertificate

from .conftest import NOW_S, Operator, make_operator

ONE, TWO, THREE = Tn("493023125001"), Tn("493023125002"), Tn("493023125003")


def forged(call: Call) -> Call:
    """The call with a signature that another key might have made."""
    token, _, parameters = call.identities[0].partition(";")
    head, _, signature = token.rpartition(".")
    octets = bytearray(base64url.decode(signature))
    octets[-1] ^= 1
    return replace(call, identities=(f"{head}.{base64url.encode(bytes(octets))};{parameters}",))


def found_in(*calls: Call) -> list[Found]:
    return [each for call in calls for each in examine_all(call, Policy(), NOW_S)]


def test_a_signer_is_asked_for_the_numbers_that_it_has_signed_alone(operator: Operator) -> None:
    other = make_operator()
    found = found_in(
        operator.call(orig=ONE), operator.call(orig=TWO), forged(operator.call(orig=THREE)), other.call(orig=THREE)
    )
    assert numbers_of(found) == {operator.record.digest: {ONE, TWO, THREE}, other.record.digest: {THREE}}
    assert signed_numbers(found, operator.record, NOW_S) == {ONE, TWO}
    assert signed_numbers(found, other.record, NOW_S) == {THREE}


@pytest.mark.parametrize("status", [CertStatus.REVOKED, CertStatus.SUSPENDED])
def test_no_number_is_asked_for_a_certificate_that_may_not_sign(operator: Operator, status: CertStatus) -> None:
    record: RecordedCertificate = replace(operator.record, status=status)
    assert signed_numbers(found_in(operator.call()), record, NOW_S) == frozenset()
    assert signed_numbers(found_in(operator.call()), operator.record, NOW_S + 10**6) == frozenset()
    assert signed_numbers(found_in(operator.call()), operator.record, NOW_S - 10**6) == frozenset()
    assert signed_numbers([], operator.record, NOW_S) == frozenset()
