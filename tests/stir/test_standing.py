import re
from dataclasses import replace

import pytest

from voice_dpki.names import Tn
from voice_dpki.stir.standing import refusal_of
from voice_dpki.stir.verify import SignerStatus
from voice_dpki.x509.tnauthlist import TnRange


@pytest.mark.parametrize(
    ("match", "changes"),
    [
        ("not recorded", {"status": SignerStatus.UNKNOWN}),
        ("was revoked", {"status": SignerStatus.REVOKED}),
        ("no member .* any more", {"status": SignerStatus.REVOKED, "is_member": False}),
        ("suspended", {"status": SignerStatus.SUSPENDED}),
        ("expired", {"status": SignerStatus.EXPIRED}),
        ("not begun", {"status": SignerStatus.NOT_YET_VALID}),
        ("another organisation", {"organization": "Operator B"}),
        ("does not allot", {"ranges": (TnRange(Tn("493023125000"), 999),)}),
        ("does not allot", {"ranges": ()}),
    ],
)
def test_certificates_that_verifiers_would_not_believe(operator, match, changes):
    refusal = refusal_of(operator.credential.profile, replace(operator.record, **changes))
    assert refusal is not None
    assert refusal.code == "not-on-ledger"
    assert re.search(match, str(refusal))


def test_a_certificate_that_verifiers_believe(operator):
    assert refusal_of(operator.credential.profile, operator.record) is None
