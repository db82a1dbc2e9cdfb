import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import pytest

from authn_server.config import EXAMPLE
from voice_dpki.effects import SystemRandom
from voice_dpki.names import Tn
from voice_dpki.x509.keys import LocalSigner, generate_es256, is_elsewhere, to_pem
from voice_dpki.x509.profile import build_certificate
from voice_dpki.x509.tnauthlist import TnAuthList, TnRange

TOKEN = "t0ken-of-the-proxy"
UUID = "5f4e3b1c-7d2a-4b8e-9c1d-2e3f4a5b6c7d"


LISTED = TnAuthList(ranges=(TnRange(Tn("493023125000"), 1000),))


@dataclass(frozen=True)
class Site:
    """The files of one authentication server."""

    folder: Path

    @property
    def config(self) -> Path:
        return self.folder / "authn.toml"

    def write(
        self,
        text: str = EXAMPLE,
        *,
        listed: TnAuthList | None = LISTED,
        valid_s: int = 3600,
        signer: LocalSigner | None = None,
    ) -> Self:
        """Write the example's configuration, to listen anywhere, and the files that it names.

        A `signer` whose key is elsewhere gets no file.
        """
        own, now_s = signer or generate_es256(), int(time.time())
        der = build_certificate(
            own,
            organization="Operator A",
            common_name="sti.a.example",
            tn_auth_list=listed,
            not_before_s=now_s - 7200,
            not_after_s=now_s + valid_s,
            random=SystemRandom(),
        )
        (self.folder / "authn.der").write_bytes(der)
        if not is_elsewhere(own):
            (self.folder / "authn.pem").write_bytes(to_pem(own))
        (self.folder / "proxy.tokens").write_text(f"{TOKEN}\nanother-proxy\n")
        self.config.write_text(text.replace("port = 8091", "port = 0"))
        return self


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path).write()


@pytest.fixture
def signing_request() -> Callable[..., dict[str, Any]]:
    def make(**changes: Any) -> dict[str, Any]:
        request = {
            "attest": "A",
            "orig": {"tn": "+493023125001"},
            "dest": {"tn": ["442079460001"]},
            "iat": int(time.time()),
            "origid": UUID,
        }
        return {"signingRequest": {**request, **changes}}

    return make
