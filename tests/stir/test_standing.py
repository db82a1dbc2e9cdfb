from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from voice_dpki.errors import LocalError
from voice_dpki.names import Tn
from voice_dpki.stir.sign import SigningRefused
from voice_dpki.stir.standing import check_own_certificate
from voice_dpki.x509.allotment import Allotment
from voice_dpki.x509.recorded import CertStatus
from voice_dpki.x509.tnauthlist import TnRange

from .conftest import NOW_S, Operator


@pytest.mark.parametrize(
    ("match", "changes"),
    [
        ("not recorded", {"status": CertStatus.UNKNOWN}),
        ("was revoked", {"status": CertStatus.REVOKED}),
        ("no member .* any more", {"status": CertStatus.REVOKED, "allotment": None}),
        ("suspended", {"status": CertStatus.SUSPENDED}),
        ("expired", {"status": CertStatus.EXPIRED}),
        ("not begun", {"status": CertStatus.NOT_YET_VALID, "not_before_s": NOW_S + 1}),
        ("its organisation is not the one that recorded it", {"organization": "Operator B"}),
        ("does not allot", {"allotment": Allotment(ranges=(TnRange(Tn("493023125000"), 999),))}),
        ("does not allot", {"allotment": Allotment()}),
    ],
)
def test_certificates_that_verifiers_would_not_believe(
    operator: Operator, match: str, changes: dict[str, Any]
) -> None:
    with pytest.raises(SigningRefused, match=match) as caught:
        check_own_certificate(operator.credential.profile, replace(operator.record, **changes), NOW_S)
    assert caught.value.code == "not-on-ledger"
    assert "this server's certificate" in str(caught.value)


def test_a_certificate_that_verifiers_believe(operator: Operator) -> None:
    check_own_certificate(operator.credential.profile, operator.record, NOW_S)


def test_another_certificate_s_record_says_nothing_of_ours(
    operator: Operator, new_operator: Callable[..., Operator]
) -> None:
    with pytest.raises(LocalError, match="another certificate"):
        check_own_certificate(operator.credential.profile, new_operator().record, NOW_S)
