"""TLS certificates of SIP that are renewed by SIGHUP while connections stand."""

import shutil
import socket
import ssl
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path

import httpx
import pytest

from authn_server.config import EXAMPLE
from tests.one_operator import Service, until
from voice_dpki.shell.tls import ClientTls, client_context, make_certificate
from voice_dpki.stage.events import ReadyEvent

from .conftest import Site

OPTIONS = """\
OPTIONS sip:as.example SIP/2.0
Via: SIP/2.0/TLS 127.0.0.1:9;branch=z9hG4bK{number}
Max-Forwards: 70
From: <sip:a.example>;tag=1
To: <sip:as.example>
Call-ID: c{number}
CSeq: 1 OPTIONS
Content-Length: 0

""".replace("\n", "\r\n")
SIP = """
[trace]
file = "authn-a.jsonl"
[sip]
listen = { port = 0 }
tls = { port = 0, certificate = "server.pem", key = "server-key.pem", peers = ["peers"] }
[[sip.peers]]
address = "127.0.0.1"
transport = "tls"
attest = "A"
"""
READ_AGAIN = "configuration read again"


class Server:
    """A server that knows the peers "old" and "new", and shows the certificate "first"."""

    def __init__(self, site: Site) -> None:
        self.folder = site.folder
        for name in ("first", "second", "old", "new"):
            make_certificate(self.folder, name, name, 30)
        (self.folder / "peers").mkdir()
        self.list_peers("old", "new")
        self.show("first")
        site.write(EXAMPLE + SIP)
        self.service = Service("authn_server", site.config, self.folder / "authn-a.jsonl")
        (ready,) = [event for event in self.service.events() if isinstance(event, ReadyEvent)]
        host, port = ready.addresses["sips"].rsplit(":", 1)
        self.address = host, int(port)

    def show(self, name: str) -> None:
        for suffix in (".pem", "-key.pem"):
            shutil.copy(self.folder / f"{name}{suffix}", self.folder / f"server{suffix}")

    def list_peers(self, *names: str) -> None:
        for file in (self.folder / "peers").iterdir():
            file.unlink()
        for name in names:
            shutil.copy(self.folder / f"{name}.pem", self.folder / "peers")

    def connection(self, own: str, shown: str) -> "Connection":
        section = ClientTls(certificate=f"{own}.pem", key=f"{own}-key.pem", servers=(f"{shown}.pem",))
        return Connection(client_context(self.folder / "x.toml", section), self.address)


class Connection:
    """A peer's connection."""

    number = 0

    def __init__(self, context: ssl.SSLContext, address: tuple[str, int]) -> None:
        plain = socket.create_connection(address, timeout=60)
        try:
            self._socket = context.wrap_socket(plain)
        except OSError:
            plain.close()
            raise

    def ask(self) -> str:
        """Return the status line of an answer, "" from a connection that is closed."""
        Connection.number += 1
        with suppress(ConnectionError):
            self._socket.sendall(OPTIONS.format(number=Connection.number).encode())
        return self.read()

    def read(self) -> str:
        try:
            return self._socket.recv(10_000).decode().partition("\r\n")[0]
        except (ssl.SSLError, ConnectionError):
            return ""

    def close(self) -> None:
        self._socket.close()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    server = Server(Site(tmp_path))
    yield server
    assert server.service.stop() == 0


def test_certificate_and_list_change_while_connections_stand(server: Server) -> None:
    with closing(server.connection("old", "first")) as old, closing(server.connection("new", "first")) as new:
        assert [old.ask(), new.ask()] == ["SIP/2.0 200 OK"] * 2
        server.show("second")
        server.service.hang_up(READ_AGAIN)
        assert [old.ask(), new.ask()] == ["SIP/2.0 200 OK"] * 2
        with pytest.raises(ssl.SSLCertVerificationError):
            server.connection("new", "first")
        with closing(server.connection("new", "second")) as third:
            assert third.ask() == "SIP/2.0 200 OK"
        server.list_peers("new")
        server.service.hang_up(READ_AGAIN)
        assert old.read() == "", "whoever is no longer listed is cut off"
        assert new.ask() == "SIP/2.0 200 OK"
        with closing(server.connection("old", "second")) as refused:
            assert refused.ask() == ""
    assert '"a SIP peer is no longer listed"' in server.service.log_path.read_text()


def test_files_that_cannot_be_used_change_nothing(server: Server) -> None:
    with closing(server.connection("old", "first")) as old:
        (server.folder / "server.pem").write_text("nothing")
        server.list_peers("new")
        server.service.hang_up("configuration refused, the one before stays")
        assert old.ask() == "SIP/2.0 200 OK"
        with closing(server.connection("old", "first")) as again:
            assert again.ask() == "SIP/2.0 200 OK"


def test_the_port_needs_a_restart(server: Server) -> None:
    text = server.folder / "authn.toml"
    text.write_text(text.read_text().replace("tls = { port = 0", "tls = { port = 1"))
    server.service.hang_up(READ_AGAIN)
    assert '"needs_restart": ["sip.tls.port"]' in server.service.log_path.read_text()
    with closing(server.connection("old", "first")) as old:
        assert old.ask() == "SIP/2.0 200 OK"


def test_the_certificate_of_sip_is_watched_beside_that_of_http(server: Server) -> None:
    answer = httpx.get(f"{server.service.url}/readyz", trust_env=False)
    assert answer.json()["checks"]["sip_tls"] == {"state": "ok"}

    def told() -> bool:
        text = httpx.get(f"{server.service.url}/metrics", trust_env=False).text
        return 'voice_dpki_tls_certificate_not_after{interface="sip"} 1' in text

    until(told)
