"""A whole call on a path that loses the Identity: published by A, retrieved by B, verified and keyed end to end."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from sip_testbed.network import Testbed
from sip_testbed.placing import CallOptions, place_call
from sip_testbed.provision import OPERATORS
from sip_testbed.scenarios import DEFAULT, SCENARIOS, Attack
from tests.one_operator import Service
from verify_server.cps_config import EXAMPLE
from voice_dpki.stage.processes import Running
from voice_dpki.stage.site import Credential
from voice_dpki.x509.keys import generate_es256
from voice_dpki.x509.tnauthlist import TnAuthList

STRIPPED = Attack("strip-identity", "loses the Identity", "nothing")
X5U = "https://certificates.b.example/{digest}.der"
ANSWER = "Verdict on the number that answered"
"""The callee's operator signs an answer to an Identity in the INVITE, and this INVITE had none."""
SERVICES = {"publications": "authn-a", "retrievals": "verify-b"}


class OutOfBand(Testbed):
    """A network whose operators publish and retrieve; Operator B has a call placement service."""

    __test__ = False
    cps: Service
    signer: Credential

    def start(self) -> None:
        called = OPERATORS[1]
        listed = TnAuthList(ranges=(called.numbers,))
        self.signer = self.site.certify(
            "b/sti", generate_es256(), called.organization, "sti.b.example", numbers=listed
        )
        text = EXAMPLE.replace("http://127.0.0.1:26680", f"http://{self.addresses['ledger-b']}")
        text = text.replace("port = 8093", "port = 0").replace('"cps.b.example"', '"127.0.0.1"')
        (self.folder / "cps.toml").write_text(text + '\n[trace]\nfile = "cps-b.jsonl"\n')
        self.cps = Service("verify_server.cps_main", self.folder / "cps.toml", self.folder / "cps-b.jsonl")
        self.held.callback(self.cps.stop)
        super().start()

    def launch(self, actor: str, sections: Mapping[str, object]) -> Running:
        more: dict[str, Any] = {}
        if actor == "authn-a":
            services = {OPERATORS[1].organization: self.cps.url}
            more = {"oob": {"services": services, "routes": [{"dest": [f"{OPERATORS[1].numbers.start[:4]}*"]}]}}
        elif actor == "verify-b":
            files = {"certificate": self.signer.certificate, "key": self.signer.key, "info_url": X5U}
            more = {"oob": {"url": self.cps.url, **files, "timeout_s": 5.0, "wait_s": 5.0}}
        elif actor == "proxy-b":
            verification: Any = sections["verification"]
            more = {"verification": {**verification, "out_of_band": True}}
        return super().launch(actor, {**sections, **more})


@pytest.fixture(scope="module")
def testbed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OutOfBand]:
    with OutOfBand(tmp_path_factory.mktemp("logs")) as testbed:
        testbed.start()
        testbed.record_all()
        testbed.record({"b": (testbed.signer,)})
        yield testbed


def counted(testbed: OutOfBand, what: str, outcome: str) -> float:
    text = httpx.get(f"http://{testbed.addresses[SERVICES[what]]}/metrics", trust_env=False, timeout=60).text
    line = f'voice_dpki_oob_{what}_total{{outcome="{outcome}"}} '
    return sum(float(each.split()[-1]) for each in text.splitlines() if each.startswith(line))


def test_a_call_whose_path_loses_the_identity(testbed: OutOfBand, tmp_path: Path) -> None:
    placed = place_call(testbed, replace(SCENARIOS[DEFAULT], attack=STRIPPED), CallOptions(say_s=2.5), tmp_path)
    missed = {check.name: check.detail for check in placed.report.checks if not check.held}
    assert missed.keys() <= {ANSWER}, missed
    assert placed.report.seen.verstat == "TN-Validation-Passed"
    assert (counted(testbed, "publications", "placed"), counted(testbed, "retrievals", "found")) == (1, 1)
    assert any("out of band" in row.label for row in placed.ladder.rows)
