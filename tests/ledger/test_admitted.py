"""Anonymous certificates are for one member, and claim constraints beside numbers can be read."""

from typing import Any

import pytest

from voice_dpki.ledger.rules import V3
from voice_dpki.ledger.transactions import Batch, endorse
from voice_dpki.names import Tn
from voice_dpki.x509.claimconstraints import ClaimConstraints
from voice_dpki.x509.keys import generate_es256, generate_rsa
from voice_dpki.x509.possession import possession_of
from voice_dpki.x509.profile import digest_of, read_profile
from voice_dpki.x509.tnauthlist import TnAuthList

from .test_compromise import renewal
from .test_governance import CHAIN, KEYS
from .test_rules import judged
from .version_4 import A, B, certificate, ledger_of, refusal, submission

NUMBERS = TnAuthList(tns=(Tn("49301000"),))


def nobodys(by: str | None = A, chain: str = CHAIN, **options: Any) -> bytes:
    made = None if by is None else possession_of(chain, by)
    return certificate(organization=None, common_name=None, possession=made, **options)


@pytest.mark.parametrize("generate", [generate_es256, generate_rsa])
def test_an_anonymous_certificate_is_recorded_by_whom_it_was_made_for(generate: Any) -> None:
    ledger = ledger_of()
    der = nobodys(key=generate())
    assert refusal(ledger, submission(der, B)) == "no-possession"
    assert refusal(ledger, endorse(Batch(CHAIN, B, (der,)), [KEYS[B]])) == "no-possession"
    assert ledger.block(submission(der)) == ["ok"]


def test_one_that_names_another_ledger_or_nobody_is_refused() -> None:
    ledger, older = ledger_of(), ledger_of(V3)
    for der in (nobodys(None), nobodys(chain="other-1"), nobodys(B)):
        assert refusal(ledger, submission(der)) == "no-possession"
        assert judged(older, submission(der)) == "ok"
    assert refusal(ledger, submission(certificate(possession=possession_of(CHAIN, B)))) == "ok", "it has a name"


def test_a_renewal_is_made_for_the_member_too() -> None:
    ledger, key = ledger_of(), generate_es256()
    old = nobodys(key=key)
    assert ledger.block(submission(old)) == ["ok"]
    assert refusal(ledger, renewal(key, digest_of(old), nobodys(None))) == "no-possession"
    assert ledger.block(renewal(key, digest_of(old), nobodys())) == ["ok"]


def test_the_extension_is_the_octets_that_the_page_says() -> None:
    """The hash is of "voice-dpki/possession/v1", 00, 82 66 "test-1" 6a "Operator A"."""
    value = read_profile(nobodys()).possession
    assert value is not None
    assert value.hex() == ("042064c2a5c697209503c165da045d5a4c33dfec9afa6ad996ea9115670b32b3266b")


@pytest.mark.parametrize(
    ("constraints", "name"),
    [
        (None, "ok"),
        (ClaimConstraints(must_include=("attest",)), "ok"),
        (ClaimConstraints(must_exclude=("rcd",)), "ok"),
        (ClaimConstraints(), "claim-constraints"),
        (ClaimConstraints(permitted=(("attest", ()),)), "claim-constraints"),
    ],
)
def test_claim_constraints_of_a_certificate_for_calls_can_be_read(
    constraints: ClaimConstraints | None, name: str
) -> None:
    for_calls = certificate(tn_auth_list=NUMBERS, claim_constraints=constraints)
    assert refusal(ledger_of(), submission(for_calls)) == name
    assert judged(ledger_of(V3), submission(for_calls)) == "ok"
    assert refusal(ledger_of(), submission(certificate(claim_constraints=constraints))) == "ok"
