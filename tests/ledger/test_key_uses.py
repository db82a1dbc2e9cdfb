"""The leaf of a key: who uses it, and the certificates that are listed with it."""

from itertools import permutations

import pytest

from voice_dpki.ledger import owners
from voice_dpki.ledger.draft import Draft
from voice_dpki.ledger.rules import V4
from voice_dpki.names import CertDigest

from .test_rules import version_4

KEY = bytes(32)
FIRST, SECOND, THIRD = (CertDigest(bytes([number]) * 32) for number in (1, 2, 3))


@pytest.fixture
def draft() -> Draft:
    return Draft(version_4().state, V4)


@pytest.mark.parametrize("order", list(permutations((FIRST, SECOND, THIRD))))
def test_certificates_are_listed_in_their_order_and_each_goes_alone(
    draft: Draft, order: tuple[CertDigest, ...]
) -> None:
    for digest in order:
        owners.claim(draft, KEY, "Operator A", digest)
    left = [FIRST, SECOND, THIRD]
    assert owners.bar(draft.nested(), KEY) == tuple(left)
    for digest in order:
        assert owners.owner_of(draft, KEY) == "Operator A"
        owners.release(draft, KEY, digest)
        left.remove(digest)
        assert owners.bar(draft.nested(), KEY) == tuple(left)
    assert owners.owner_of(draft, KEY) is None


def test_a_use_for_endorsing_goes_without_a_certificate(draft: Draft) -> None:
    owners.claim(draft, KEY, "Operator A", FIRST)
    owners.claim(draft, KEY, "Operator A")
    owners.release(draft, KEY)
    assert owners.bar(draft.nested(), KEY) == (FIRST,)
    assert owners.owner_of(draft, KEY) == "Operator A"
