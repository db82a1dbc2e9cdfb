import base64
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.present import present
from tests.recorded import absent, recorded
from voice_dpki.stir.body import body_digest
from voice_dpki.stir.call import Call
from voice_dpki.stir.identity import IdentityHeader
from voice_dpki.stir.passport import Destinations
from voice_dpki.stir.verdict import VerificationFailed, Verstat
from voice_dpki.x509.allotment import Allotment
from voice_dpki.x509.recorded import CertStatus, RecordedCertificate
from voice_dpki.x509.reference import digest_in
from voice_dpki.x509.tnauthlist import TnRange

from .conftest import Verifier

VECTORS = json.loads((Path(__file__).parent.parent / "vectors/stir/identity.json").read_text())


def record_of(case: dict[str, Any]) -> RecordedCertificate:
    """What the ledger says of the case's certificate, or of the one that its token names and the ledger lacks."""
    if case["certificate"] is None:
        digest = digest_in(present(IdentityHeader.parse(case["identity"]).info))
        return absent(digest)
    der = base64.b64decode(VECTORS["certificates"][case["certificate"]])
    ranges = tuple(TnRange(entry["start"], entry["count"]) for entry in VECTORS["ranges"])
    status = CertStatus(case["status"])
    return recorded(der, Allotment(ranges=ranges), VECTORS["organization"], status=status)


@pytest.mark.parametrize("case", VECTORS["cases"], ids=lambda case: case["name"])
def test_vector(case: dict[str, Any], new_verifier: Callable[..., Verifier]) -> None:
    key_mgmt = None if case["key_mgmt"] is None else tuple(case["key_mgmt"])
    sdp = body_digest(case["body"].encode(), "application/sdp") if "body" in case else None
    call = Call(case["orig"], Destinations(tuple(case["dest"])), case["time_s"], (case["identity"],), key_mgmt, sdp)
    record = record_of(case)
    verifier = new_verifier(now_s=VECTORS["now_s"])
    if case["expect"] == "passed":
        assert verifier.verify(call, record).verstat is Verstat.PASSED
        return
    with pytest.raises(VerificationFailed) as failure:
        verifier.verify(call, record)
    assert failure.value.step.label == case["expect"]
