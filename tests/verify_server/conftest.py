import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from verify_server.config import EXAMPLE
from voice_dpki.effects import SystemRandom
from voice_dpki.ledger.genesis import dump_genesis
from voice_dpki.ledger.members import Member, MemberKind
from voice_dpki.names import Tn
from voice_dpki.stir.body import body_digest
from voice_dpki.stir.call import SigningRequest
from voice_dpki.stir.passport import Destinations
from voice_dpki.stir.sign import Credential, make_credential, sign_call
from voice_dpki.x509.keys import LocalSigner, generate_es256
from voice_dpki.x509.profile import build_certificate, read_profile
from voice_dpki.x509.tnauthlist import TnAuthList, TnRange

TOKEN = "t0ken-of-the-proxy"
RANGE_A = TnRange(Tn("493023125000"), 1000)


@dataclass(frozen=True)
class Caller:
    """Operator A's signing key and certificate, and the requests that reach Operator B for its calls."""

    signer: LocalSigner = field(default_factory=generate_es256)

    def der(self, numbers: TnRange = RANGE_A) -> bytes:
        now_s = int(time.time())
        return build_certificate(
            self.signer,
            organization="Operator A",
            common_name="sti.a.example",
            tn_auth_list=TnAuthList(ranges=(numbers,)),
            not_before_s=now_s - 3600,
            not_after_s=now_s + 3600,
            random=SystemRandom(),
        )

    def credential(self, der: bytes) -> Credential:
        return make_credential(self.signer, read_profile(der), "https://certs.a.example/{digest}.der", time.time())

    def identity(
        self,
        der: bytes,
        key_mgmt: tuple[str, ...] = (),
        orig: str = "493023125001",
        named: bytes | None = None,
        sdp: bytes | None = None,
        ahead_s: float = 0,
    ) -> str:
        """Sign a call under `der`; a thief may have the token name another certificate of the key."""
        now_s = time.time() + ahead_s
        credential = replace(self.credential(der), info=self.credential(named or der).info)
        request = SigningRequest(
            "A",
            Tn(orig),
            Destinations((Tn("442079460001"),)),
            int(now_s),
            "5f4e3b1c-7d2a-4b8e-9c1d-2e3f4a5b6c7d",
            key_mgmt,
            None if sdp is None else body_digest(sdp, "application/sdp"),
        )
        return sign_call(request, credential, now_s).serialize()


def verification(identity: str, orig: str = "+493023125001", **changes: Any) -> dict[str, Any]:
    request: dict[str, Any] = {
        "from": {"tn": orig},
        "to": {"tn": ["+442079460001"]},
        "time": int(time.time()),
        "identity": identity,
    }
    return {"verificationRequest": {**request, **changes}}


def in_3gpp_form(identity: str, orig: str = "+493023125001", **changes: Any) -> dict[str, Any]:
    """The same request in the form of 3GPP TS 24.229 Annex V."""
    request: dict[str, Any] = {
        "from": {"tn": orig},
        "to": {"tn": "+442079460001"},
        "time": int(time.time()),
        "identityHeader": identity,
    }
    return {"verificationRequest": {**request, **changes}}


@pytest.fixture(scope="session")
def caller() -> Caller:
    return Caller()


@dataclass(frozen=True)
class Site:
    """The files of one verification server."""

    folder: Path

    @property
    def config(self) -> Path:
        return self.folder / "verify.toml"

    def write(self, text: str = EXAMPLE) -> Self:
        """Write the example's configuration, to listen anywhere, and the files that it names."""
        endorsing = generate_es256()
        validator = Ed25519PrivateKey.generate().public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
        member = Member(
            organization="Operator A",
            kind=MemberKind.OPERATOR,
            ranges=(RANGE_A,),
            validators=(validator,),
            endorsing_keys=(endorsing.public_key_der,),
        )
        (self.folder / "genesis.json").write_bytes(dump_genesis("test", int(time.time() * 1e9), [member]))
        (self.folder / "proxy.tokens").write_text(f"{TOKEN}\n")
        self.config.write_text(text.replace("port = 8092", "port = 0"))
        return self


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path).write()
