from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import pytest

from tests.recorded import recorded
from voice_dpki.effects import SystemRandom
from voice_dpki.names import Tn
from voice_dpki.stir.call import Call, SigningRequest
from voice_dpki.stir.examine import Policy, examine
from voice_dpki.stir.passport import Destinations
from voice_dpki.stir.replay import ReplayCache
from voice_dpki.stir.sign import Credential, make_credential, sign_call
from voice_dpki.stir.verdict import Verdict
from voice_dpki.stir.verify import judge
from voice_dpki.x509.allotment import Allotment
from voice_dpki.x509.keys import LocalSigner, generate_es256
from voice_dpki.x509.profile import build_certificate, read_profile
from voice_dpki.x509.recorded import RecordedCertificate
from voice_dpki.x509.tnauthlist import TnAuthList, TnRange

NOW_S = 1_790_000_000
RANGE_A = TnRange(Tn("493023125000"), 1000)


@dataclass(frozen=True)
class Operator:
    """An operator with a signing key, as the ledger knows it, and the calls of its customers."""

    signer: LocalSigner
    der: bytes
    credential: Credential
    record: RecordedCertificate

    def request(self, **changes: Any) -> SigningRequest:
        given = SigningRequest(
            attest="A",
            orig=Tn("493023125001"),
            dest=Destinations((Tn("442079460001"),)),
            iat_s=NOW_S,
            origid="5f4e3b1c-7d2a-4b8e-9c1d-2e3f4a5b6c7d",
            key_mgmt=("mikey AQAFgM3YFvMAAAAA",),
        )
        return replace(given, **changes)

    def call(self, **changes: Any) -> Call:
        """The call as it reaches the other side, signed as asked and unchanged."""
        request = self.request(**changes)
        identity = sign_call(request, self.credential, request.iat_s).serialize()
        return Call(
            request.orig, request.dest, request.iat_s, (identity,), request.key_mgmt, request.sdp, call_id="c1"
        )


def make_operator(
    now_s: int = NOW_S,
    *,
    listed: TnAuthList | None = TnAuthList(ranges=(RANGE_A,)),  # noqa: B008
    signer: LocalSigner | None = None,
    **certificate: Any,
) -> Operator:
    signer = signer or generate_es256()
    options = {
        "organization": "Operator A",
        "common_name": "authn.a.example",
        "not_before_s": now_s - 1000,
        "not_after_s": now_s + 1000,
        "random": SystemRandom(),
        **certificate,
    }
    der = build_certificate(signer, tn_auth_list=listed, **options)
    credential = make_credential(signer, read_profile(der), "https://certs.a.example/{digest}.der", now_s)
    return Operator(signer, der, credential, recorded(der, Allotment(ranges=(RANGE_A,))))


@dataclass
class Verifier:
    policy: Policy = Policy()  # noqa: RUF009
    now_s: float = NOW_S

    def __post_init__(self) -> None:
        self.replays = ReplayCache(1000, 120)

    def verify(self, call: Call, record: RecordedCertificate) -> Verdict:
        examined = examine(call, call.identities[0], self.policy, self.now_s)
        return judge(examined, record, self.policy, self.replays, self.now_s, steady_s=self.now_s)


@pytest.fixture(scope="session")
def operator() -> Operator:
    return make_operator()


@pytest.fixture(scope="session")
def new_operator() -> Callable[..., Operator]:
    return make_operator


@pytest.fixture
def verifier() -> Verifier:
    return Verifier()


@pytest.fixture(scope="session")
def new_verifier() -> type[Verifier]:
    return Verifier
