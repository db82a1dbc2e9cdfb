"""The two STIR servers as programs with a real ledger, and a proxy that delegates each call to both."""

import asyncio
import time
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

import msgspec

from authn_server.config import EXAMPLE as AUTHN
from tests.one_operator import OneOperator, Service, until
from verify_server.config import EXAMPLE as VERIFY
from voice_dpki.effects import SystemRandom
from voice_dpki.ledger.answers import InquiryError
from voice_dpki.names import Tn
from voice_dpki.stir.forms import SIGNING_PATH, VERIFICATION_PATH
from voice_dpki.wire.http_client import HttpClient
from voice_dpki.wire.ledger.client import LedgerClient
from voice_dpki.x509.keys import generate_es256, to_pem
from voice_dpki.x509.profile import build_certificate, digest_of
from voice_dpki.x509.recorded import CertStatus
from voice_dpki.x509.tnauthlist import TnAuthList, TnRange

CALLER, CALLED = "493023125001", "442079460001"
UUID = "5f4e3b1c-7d2a-4b8e-9c1d-2e3f4a5b6c7d"
TOKEN = "t0ken-of-the-proxy"
PATIENCE_S = 60.0
Verdict = dict[str, Any]

REPLICA = """\
[node]
name = "replica"
data_dir = "data-replica"
genesis = "genesis.json"
[listen]
port = 0
[follow]
url = "{url}"
[trace]
file = "replica.jsonl"
"""


class Delegation:
    """A ledger of one operator, its authentication server, and a verification server that asks the same node.

    With `has_replica`, both ask a node that follows the ledger's validator. `more` ends the configuration of the
    verification server.
    """

    def __init__(self, folder: Path, *, max_age_s: float = 30.0, has_replica: bool = False, more: str = "") -> None:
        self.folder = folder
        self.ledger = OneOperator(folder, heartbeat_s=0.2)
        self.replica = self._follower() if has_replica else None
        self.node_url = self.replica.url if self.replica else self.ledger.url
        signer, now_s = generate_es256(), int(time.time())
        self.der = build_certificate(
            signer,
            organization="Operator A",
            common_name="sti.a.example",
            tn_auth_list=TnAuthList(ranges=(TnRange(Tn("493023125000"), 1000),)),
            not_before_s=now_s - 3600,
            not_after_s=now_s + 86_400,
            random=SystemRandom(),
        )
        (folder / "authn.der").write_bytes(self.der)
        (folder / "authn.pem").write_bytes(to_pem(signer))
        (folder / "proxy.tokens").write_text(f"{TOKEN}\n")
        self.record(self.der)
        follow = f'[ledger]\nurl = "{self.node_url}"\ngenesis = "net/genesis.json"\nmax_age_s = {max_age_s}\n'
        verify = VERIFY.replace("http://127.0.0.1:26680", self.node_url).replace(
            '"genesis.json"', '"net/genesis.json"'
        )
        self._verify = verify.replace("max_age_s = 30", f"max_age_s = {max_age_s}") + more
        self.authn = self._start("authn", AUTHN + follow)
        self.verify = self.start_verifier()

    def start_verifier(self, name: str = "verify") -> Service:
        """Start a verification server, the first one or another of the same domain."""
        return self._start("verify", self._verify.replace("ledger-trust.json", f"{name}-trust.json"), name)

    def record(self, der: bytes) -> None:
        """Have a certificate recorded, and wait until the node that the servers ask knows it."""
        self.ledger.submit(der)

        async def known() -> bool:
            async with LedgerClient.of_genesis(self.node_url, self.ledger.genesis) as client:
                try:
                    return (await client.resolve(digest_of(der))).status is CertStatus.VALID
                except InquiryError:  # a follower that has no block yet
                    return False

        until(lambda: asyncio.run(known()))

    def _follower(self) -> Service:
        config = self.folder / "net/replica.toml"
        config.write_text(REPLICA.format(url=self.ledger.url))
        return Service("ledger_node", config, config.with_suffix(".jsonl"))

    def _start(self, what: str, text: str, name: str = "") -> Service:
        name = name or what
        config = self.folder / f"{name}.toml"
        listening = text.replace("port = 8091", "port = 0").replace("port = 8092", "port = 0")
        config.write_text(f'{listening}\n[trace]\nfile = "{name}.jsonl"\n')
        return Service(f"{what}_server.main", config, self.folder / f"{name}.jsonl")

    def stop(self) -> None:
        assert [self.authn.stop(), self.verify.stop()] == [0, 0]
        for node in (self.replica, self.ledger):
            if node is not None:
                node.stop()


@dataclass
class Proxy:
    """A proxy that has its calls signed, and verified at the other end."""

    delegation: Delegation
    verdicts: list[Verdict] = field(default_factory=list)
    _numbers: count = field(default_factory=count)  # type: ignore[type-arg]

    async def __aenter__(self) -> "Proxy":
        headers = {"Authorization": f"Bearer {TOKEN}", "Content-Type": "application/json"}
        self._authn, self._verify = (
            HttpClient(url, timeout_s=PATIENCE_S, max_answer_bytes=65_536, headers=headers)
            for url in (self.delegation.authn.url, self.delegation.verify.url)
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._authn.aclose()
        await self._verify.aclose()

    async def signed(self) -> str:
        """Have a call signed; returns its Identity."""
        request = {"attest": "A", "orig": {"tn": CALLER}, "dest": {"tn": [CALLED]}, "origid": UUID}
        body = {"signingRequest": {**request, "iat": int(time.time())}}
        answer = await self._authn.request("POST", SIGNING_PATH, msgspec.json.encode(body))
        assert answer.status == 200, answer.body
        return str(msgspec.json.decode(answer.body)["signingResponse"]["identity"])

    async def verified(self, identity: str) -> Verdict:
        """Have a call verified."""
        told = {"from": {"tn": CALLER}, "to": {"tn": [CALLED]}, "time": int(time.time()), "identity": identity}
        body = {"verificationRequest": {**told, "callId": f"call {next(self._numbers)}"}}
        answer = await self._verify.request("POST", VERIFICATION_PATH, msgspec.json.encode(body))
        assert answer.status == 200, answer.body
        verdict: Verdict = msgspec.json.decode(answer.body)["verificationResponse"]
        return verdict

    async def call(self) -> Verdict:
        """Have one call signed and verified."""
        verdict = await self.verified(await self.signed())
        self.verdicts.append(verdict)
        return verdict

    async def calls(self, rate: float, stop: asyncio.Event) -> None:
        """Make so many calls a second until `stop` is set, and wait for all of them; raises what a call raises."""
        loop, began_s, made = asyncio.get_running_loop(), asyncio.get_running_loop().time(), 0
        async with asyncio.TaskGroup() as group:
            while not stop.is_set():
                due = int((loop.time() - began_s) * rate)
                for _ in range(due - made):
                    group.create_task(self.call())
                made = due
                await asyncio.sleep(1 / rate)

    async def until(self, count: int, der: bytes) -> None:
        """Wait until so many calls were signed with a certificate."""
        wanted = digest_of(der).hex()
        async with asyncio.timeout(PATIENCE_S):
            while sum(each.get("certificate") == wanted for each in self.verdicts) < count:
                await asyncio.sleep(0.02)
