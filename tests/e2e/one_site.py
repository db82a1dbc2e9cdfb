"""An operator's ledger, authn-server and verify-server, which run, and the requests of its proxy."""

import time
from pathlib import Path
from typing import Any

import httpx

from authn_server.config import EXAMPLE
from tests.authn_server.conftest import TOKEN, UUID, Site
from tests.one_operator import OneOperator, Service
from verify_server import config as verify

CALLER = "493023125001"
HEADERS = {"Authorization": f"Bearer {TOKEN}"}


class Operator:
    """An operator's ledger and both its servers.

    In `lines`, if it is given, the node logs, authn-server traces and verify-server exports.
    """

    def __init__(self, folder: Path, lines: Path | None = None) -> None:
        log, trace = (lines / "engine.log", lines / "authn.jsonl") if lines else (None, folder / "authn.jsonl")
        self.folder, self.ledger, self.site = folder, OneOperator(folder, log=log), Site(folder)
        follow = f'[ledger]\nurl = "{self.ledger.url}"\ngenesis = "net/genesis.json"\nmax_age_s = 5\n'
        self.site.write(f'{EXAMPLE}[trace]\nfile = "{trace}"\n{follow}', valid_s=6 * 86_400)
        self.ledger.submit(self.der)
        self.authn = Service("authn_server.main", self.site.config, trace, folder / "authn.log")
        text = verify.EXAMPLE.replace("http://127.0.0.1:26680", self.ledger.url).replace("port = 8092", "port = 0")
        text = text.replace("genesis.json", "net/genesis.json")
        text += '[trace]\nfile = "verify.jsonl"\n'
        if lines:
            text += f'[[export]]\nfile = "{lines}/verdicts.jsonl"\n'
        (folder / "verify.toml").write_text(text)
        self.verify = Service("verify_server", folder / "verify.toml", folder / "verify.jsonl")

    @property
    def der(self) -> bytes:
        return (self.folder / "authn.der").read_bytes()

    @property
    def urls(self) -> list[str]:
        return [service.url for service in (self.authn, self.verify, self.ledger.node)]

    def sign(self) -> Any:
        request = {
            "attest": "A",
            "orig": {"tn": CALLER},
            "dest": {"tn": ["442079460001"]},
            "iat": int(time.time()),
            "origid": UUID,
        }
        url = f"{self.authn.url}/stir/v1/signing"
        return httpx.post(url, json={"signingRequest": request}, headers=HEADERS, trust_env=False).json()

    def identity(self) -> str:
        return str(self.sign()["signingResponse"]["identity"])

    def verify_for(self, orig: str, identity: str) -> str:
        told = {
            "from": {"tn": orig},
            "to": {"tn": ["442079460001"]},
            "time": int(time.time()),
            "identity": identity,
        }
        url = f"{self.verify.url}/stir/v1/verification"
        body = {"verificationRequest": told}
        answer = httpx.post(url, json=body, headers=HEADERS, trust_env=False, timeout=60)
        return str(answer.json()["verificationResponse"]["verstat"])

    def stop(self) -> None:
        """End them, each of which says that all is well."""
        assert [service.stop() for service in (self.authn, self.verify, self.ledger.node)] == [0, 0, 0]
