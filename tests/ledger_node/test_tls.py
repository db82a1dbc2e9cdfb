"""Nodes and commands as programs that speak TLS to one another: who is let in, and what the others are told."""

from pathlib import Path
from typing import Any

import httpx
import pytest

from ledger_node.command import ledger as commands
from ledger_node.command.ledger import command
from ledger_node.command.main import main
from ledger_node.command.sending import Sender
from ledger_node.command.session import CONSOLE
from voice_dpki.errors import LocalError, PeerError
from voice_dpki.ledger.answers import InquiryError
from voice_dpki.ledger.records import CertStatus
from voice_dpki.shell.tls import ClientTls, client_context, command_context
from voice_dpki.x509.profile import digest_of

PARTIES = ("engine", "follower", "edge", "person", "stranger")


class Parties:
    """Certificates of all that talk, in one folder beside the network's genesis."""

    def __init__(self, network: Any) -> None:
        self.network = network
        for name in PARTIES:
            arguments = ["certificate", "--name", name, "--organization", "Operator A"]
            assert main([*arguments, "--out", str(network.folder / "tls")]) == 0

    def section(self, own: str, *servers: str) -> str:
        listed = ", ".join(f'"tls/{server}.pem"' for server in servers)
        return f'certificate = "tls/{own}.pem", key = "tls/{own}-key.pem", servers = [{listed}]'

    def context(self, own: str, *servers: str) -> Any:
        names = tuple(f"tls/{server}.pem" for server in servers)
        section = ClientTls(certificate=f"tls/{own}.pem", key=f"tls/{own}-key.pem", servers=names)
        return client_context(self.network.folder / "x.toml", section)

    def file(self, own: str, *servers: str) -> Path:
        path = self.network.folder / f"{own}-tls.toml"
        path.write_text("\n".join(self.section(own, *servers).split(", ", 2)) + "\n")
        return path

    def engine(self, *clients: str) -> Any:
        engine = self.network.engine(heartbeat_s=0.2)
        return engine.secure(self.context("person", "engine"), "engine", "person", *clients).start()


@pytest.fixture
def parties(network: Any) -> Parties:
    return Parties(network)


async def test_engine_follower_and_edge_over_tls(network: Any, parties: Parties, token: str) -> None:
    engine = parties.engine("follower", "edge")
    follower = network.follower("follower", engine.url, "Operator B")
    follower.config.write_text(
        follower.config.read_text().replace(
            f'url = "{engine.url}"', f'url = "{engine.url}"\ntls = {{ {parties.section("follower", "engine")} }}'
        )
    )
    follower.start().reaches(1)
    role = f'[edge]\nurl = "{engine.url}"\ntls = {{ {parties.section("edge", "engine")} }}\n'
    edge = network.node("edge", role).secure(parties.context("person", "edge"), "edge", "person").start()
    der = network.certificate("Operator B")
    async with network.client(follower) as client:
        await client.submit(der, token)
    for node, tls in ((follower, None), (edge, parties.context("person", "edge"))):
        async with network.client(node, tls=tls) as client:
            assert (await client.resolve(digest_of(der))).status is CertStatus.VALID
    for node in (edge, follower, engine):
        assert node.stop() == 0
        assert "Traceback" not in node.log.read_text()
    engine.start()
    with pytest.raises(httpx.TransportError):
        httpx.get(f"{engine.url.replace('https', 'http')}/ledger/v1/node", trust_env=False)


async def test_who_is_not_listed_is_refused_and_the_log_and_the_metrics_tell(
    network: Any, parties: Parties
) -> None:
    engine = parties.engine()
    follower = network.follower("follower", engine.url)
    section = parties.section("follower", "engine")
    text = follower.config.read_text()
    follower.config.write_text(text.replace("[follow]\n", f"[follow]\ntls = {{ {section} }}\n"))
    follower.launch().says("followed node does not answer")
    engine.says("TLS connection refused")
    engine.says('"reason": "unknown-certificate"')
    metrics = engine.http.get("/metrics").text
    assert 'voice_dpki_tls_refused_total{reason="unknown-certificate"}' in metrics
    async with network.client(engine, tls=parties.context("stranger", "engine")) as client:
        with pytest.raises(InquiryError, match="does not list this program's TLS certificate"):
            await client.node_info()


async def test_a_node_that_is_not_the_listed_one_is_not_believed(network: Any, parties: Parties) -> None:
    engine = parties.engine()
    wrong = parties.context("person", "edge")
    async with network.client(engine, tls=wrong) as client:
        with pytest.raises(InquiryError, match="certificate is none of those that are trusted for it"):
            await client.node_info()
    async with Sender(engine.url, wrong) as sender:
        with pytest.raises(PeerError, match="certificate is none of those that are trusted for it"):
            await sender.verdict(b"transaction")


def test_commands_over_tls(
    network: Any, parties: Parties, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(CONSOLE, "_file", None)
    engine = parties.engine()
    tls = str(parties.file("person", "engine"))
    file = network.folder / "device.der"
    file.write_bytes(network.certificate())
    where = ["--url", engine.url, "--genesis", str(network.folder / "genesis.json"), "--tls", tls]
    key = network.folder / "keys" / "endorsing-operator-a.pem"
    assert command(["submit", *where, "--organization", "Operator A", "--key", str(key), str(file)]) == 0
    assert command(["status", *where, str(file)]) == 0
    assert (network.folder / commands.TRUST_FILE).exists()
    assert main(["status", "--url", engine.url, "--tls", tls]) == 0
    assert '"engine"' in capsys.readouterr().out
    assert main(["status", "--url", engine.url]) == 2
    assert "none of those that are trusted" in capsys.readouterr().err
    assert main(["status", "--url", engine.url, "--tls", str(parties.file("person", "edge"))]) == 2
    assert "none of those that are trusted" in capsys.readouterr().err
    with pytest.raises(LocalError, match="must begin with https"):
        command(["status", *where[:1], engine.url.replace("https", "http"), *where[2:], str(file)])


def test_without_a_file_there_is_no_tls() -> None:
    assert command_context(None) is None


def test_tokens_do_not_go_over_a_network_in_the_clear(network: Any) -> None:
    engine = network.engine()
    engine.config.write_text(engine.config.read_text().replace("[listen]\n", '[listen]\nhost = "0.0.0.0"\n'))
    assert "others could read the tokens" in engine.fails()
    engine.config.write_text(engine.config.read_text().replace("[listen]\n", "[listen]\ninsecure = true\n"))
    engine.start().says("WITHOUT TLS")


def test_a_configuration_with_a_certificate_that_is_missing(network: Any) -> None:
    engine = network.engine()
    with engine.config.open("a") as file:
        file.write('[tls]\ncertificate = "tls/a.pem"\nkey = "tls/a-key.pem"\nclients = ["tls"]\n')
    assert "a.pem: cannot read this certificate file" in engine.fails()


def test_what_one_address_may_ask_is_configured(network: Any) -> None:
    engine = network.engine()
    with engine.config.open("a") as file:
        file.write("[limits]\ncost_s = 1\n")
    engine.start().reaches(1)
    digest = "00" * 32
    answers = [engine.http.get(f"/ledger/v1/status/{digest}") for _ in range(210)]
    assert {answer.status_code for answer in answers} == {200, 429}
    assert (answers[-1].headers["retry-after"], answers[-1].json()["status"]) == ("1", 429)
    assert engine.http.get("/ledger/v1/search").headers["retry-after"] > "1"
    engine.says("too many requests a second from this client")
