import base64
import json
from pathlib import Path

import pytest

from voice_dpki.stir.body import body_digest
from voice_dpki.stir.passport import Destinations
from voice_dpki.stir.verify import Call, SignerRecord, SignerStatus, VerificationFailed, Verstat
from voice_dpki.x509.tnauthlist import TnRange

VECTORS = json.loads((Path(__file__).parent.parent / "vectors/stir/identity.json").read_text())


@pytest.mark.parametrize("case", VECTORS["cases"], ids=lambda case: case["name"])
def test_vector(case, new_verifier):
    key_mgmt = None if case["key_mgmt"] is None else tuple(case["key_mgmt"])
    sdp = body_digest(case["body"].encode(), "application/sdp") if "body" in case else None
    call = Call(case["orig"], Destinations(tuple(case["dest"])), case["time_s"], case["identity"], key_mgmt, sdp)
    record = SignerRecord(
        SignerStatus(case["status"]),
        base64.b64decode(VECTORS["certificates"].get(case["certificate"], "")) or None,
        VECTORS["organization"],
        tuple(TnRange(entry["start"], entry["count"]) for entry in VECTORS["ranges"]),
    )
    verifier = new_verifier(now_s=VECTORS["now_s"])
    if case["expect"] == "passed":
        assert verifier.verify(call, record).verstat is Verstat.PASSED
        return
    with pytest.raises(VerificationFailed) as failure:
        verifier.verify(call, record)
    assert failure.value.step.label == case["expect"]
