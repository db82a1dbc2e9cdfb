"""Over mutual TLS: the agent asks its node, and a vendor provisions devices through one."""

import asyncio
from pathlib import Path

import pytest

from ledger_node.command.main import main as ledger_node
from segw_agent.assembly import inquiry_nodes
from segw_agent.attachment.network import Testbed
from segw_agent.attachment.site import GATEWAY_NAME, OPERATOR, VENDOR
from segw_agent.config import SegwSetup, load_agent
from segw_agent.provision import command
from voice_dpki.effects import SystemClock
from voice_dpki.errors import LocalError
from voice_dpki.ledger.answers import InquiryError
from voice_dpki.ledger.records import CertStatus
from voice_dpki.stage.events import ReadyEvent
from voice_dpki.x509.profile import digest_of


@pytest.fixture(scope="module")
def url(testbed: Testbed) -> str:
    """A node that endorses for the vendor and speaks to `person` alone, and over TLS alone."""
    folder = testbed.site.folder
    for name in ("node", "person", "stranger"):
        arguments = ["--name", name, "--organization", OPERATOR, "--out", str(folder / "tls")]
        assert ledger_node(["certificate", *arguments]) == 0
    sections = {
        "node": {"name": "ledger-t", "data_dir": "data-ledger-t", "genesis": "genesis.json"},
        "listen": {"host": "127.0.0.1", "port": 0},
        "follow": {"url": f"http://{testbed.addresses['engine']}"},
        "submission": testbed.site.submission(VENDOR),
        "tls": {"certificate": "tls/node.pem", "key": "tls/node-key.pem", "clients": ["tls/person.pem"]},
    }
    running = testbed.start_program("ledger-t", "ledger_node", ("start",), sections)
    running.wait_ready()
    (ready,) = (event for event in running.trace.events if isinstance(event, ReadyEvent))
    return f"https://{ready.addresses['http']}"


def tls(who: str) -> dict[str, object]:
    return {"certificate": f"tls/{who}.pem", "key": f"tls/{who}-key.pem", "servers": ["tls/node.pem"]}


def setup(testbed: Testbed, url: str, who: str | None) -> SegwSetup:
    sections = {
        "socket": "agent.sock",
        "ledger": {"genesis": "genesis.json", "urls": [url], "tls": tls(who) if who else None},
        "policy": {"organizations": [VENDOR], "allow": ["*"]},
    }
    return load_agent(testbed.site.config(f"agent-{who}", sections))[1]


def ask(setup: SegwSetup, der: bytes) -> CertStatus:
    """Ask the agent's node with proof."""

    async def asked() -> CertStatus:
        async with inquiry_nodes(setup, SystemClock()) as nodes:
            found = await nodes.ask(lambda _, node: node.resolve(digest_of(der)), lambda _: None)
            return found.status

    return asyncio.run(asked())


def test_an_agent_asks_over_tls(testbed: Testbed, url: str) -> None:
    segw = testbed.site.credential("segw", GATEWAY_NAME, OPERATOR)
    testbed.record(segw)
    assert ask(setup(testbed, url, "person"), segw.der) is CertStatus.VALID
    with pytest.raises(InquiryError):
        ask(setup(testbed, url, "stranger"), segw.der)
    with pytest.raises(LocalError, match="begin with https"):
        ask(setup(testbed, url.replace("https", "http"), "person"), segw.der)


def test_devices_are_provisioned_over_tls(
    testbed: Testbed, url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = testbed.site.folder
    (tmp_path / "devices.csv").write_text("identity\na.tls.vendor.example\nb.tls.vendor.example\n")
    (folder / "person.toml").write_text(
        'certificate = "tls/person.pem"\nkey = "tls/person-key.pem"\nservers = ["tls/node.pem"]\n'
    )
    words = ["--csv", str(tmp_path / "devices.csv"), "--out", str(tmp_path / "out"), "--organization", VENDOR]
    words += ["--url", url, "--token-file", str(folder / "vendor-v.token")]
    words += ["--genesis", str(testbed.site.genesis), "--tls", str(folder / "person.toml")]
    assert command(words) == 0
    assert capsys.readouterr().out == "2 recorded\n"
