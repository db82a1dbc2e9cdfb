"""Our verifier judges tokens that an independent STIR implementation signed."""

import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from voice_dpki.names import Tn
from voice_dpki.stir.call import Call
from voice_dpki.stir.passport import Destinations
from voice_dpki.stir.verdict import KeyMgmt, Step, VerificationFailed, Verstat
from voice_dpki.x509.keys import to_pem

from .conftest import Operator, Verifier

pytestmark = pytest.mark.peer("secsipidx")

UUID = "5f4e3b1c-7d2a-4b8e-9c1d-2e3f4a5b6c7d"


@pytest.fixture
def operator(new_operator: Callable[..., Operator]) -> Operator:
    """An operator of today: secsipidx stamps its tokens with the clock."""
    return new_operator(now_s=int(time.time()))


@pytest.fixture
def signed(operator: Operator, tmp_path: Path) -> Callable[..., Call]:
    """Sign a call with secsipidx, under the operator's key and the URL of its certificate."""

    def sign(**options: Any) -> Call:
        (tmp_path / "key.pem").write_bytes(to_pem(operator.signer))
        given = {
            "orig-tn": "493023125001",
            "dest-tn": "442079460001",
            "attest": "B",
            "orig-id": UUID,
            "x5u": operator.credential.info,
            **options,
        }
        command = ["secsipidx", "-sign-full", "-fprvkey", "key.pem"]
        command += [text for name, value in given.items() for text in (f"-{name}", value)]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=True)
        dest = Destinations((Tn("442079460001"),))
        return Call(Tn("493023125001"), dest, int(time.time()), (done.stdout.strip(),), key_mgmt=())

    return sign


def test_a_token_of_a_recorded_key_passes(
    operator: Operator, signed: Callable[..., Call], new_verifier: Callable[..., Verifier]
) -> None:
    verdict = new_verifier(now_s=time.time()).verify(signed(), operator.record)
    assert (verdict.verstat, verdict.attest, verdict.key_mgmt) == (Verstat.PASSED, "B", KeyMgmt.NONE)


@pytest.mark.parametrize(
    ("step", "options"),
    [
        (Step.ATTEST, {"attest": "X"}),
        (Step.NUMBERS, {"orig-tn": "493023125002"}),
        (Step.INFO_URL, {"x5u": "https://certs.a.example/cert.pem"}),
    ],
)
def test_a_token_that_is_wrong_fails_at_its_step(
    operator: Operator,
    signed: Callable[..., Call],
    new_verifier: Callable[..., Verifier],
    step: Step,
    options: dict[str, Any],
) -> None:
    with pytest.raises(VerificationFailed) as failure:
        new_verifier(now_s=time.time()).verify(signed(**options), operator.record)
    assert failure.value.step is step
