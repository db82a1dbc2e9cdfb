"""SIP of a service with several workers, which are replaced while it is asked."""

import os
import re
import signal
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.one_operator import PATIENCE_S, until
from tests.ports import free_port
from voice_dpki.shell.tls import make_certificate

from .conftest import Site
from .pool import Pool

REPLACED = "all workers are replaced"
SIP = """
[sip]
listen = {{ port = {port} }}
[[sip.peers]]
address = "127.0.0.1"
attest = "A"
"""
TLS = 'tls = {{ port = {port}, certificate = "server.pem", key = "server-key.pem", peers = ["server.pem"] }}\n'
REQUEST = """\
{method} sip:+442079460001@as.example SIP/2.0
Via: SIP/2.0/{transport} 127.0.0.1:{port};branch=z9hG4bK{number}
Max-Forwards: 70
From: <sip:+493023125001@a.example>;tag=1
To: <sip:+442079460001@b.example>
Call-ID: c{number}
CSeq: 1 {method}
Content-Length: 0

""".replace("\n", "\r\n")

PAUSE_S = 0.005
"""Pause between an answer and the next question."""


class SipPool(Pool):
    """A server with two workers, which serves SIP if `has_sip`."""

    def __init__(self, site: Site, *, has_sip: bool = True) -> None:
        self.sip_port = free_port()
        make_certificate(site.folder, "server", "as.example", 30)
        super().__init__(site, workers=2, more=self.sip if has_sip else "")

    @property
    def sip(self) -> str:
        """The configuration of SIP."""
        return SIP.format(port=self.sip_port)

    def ask_over_tcp(self, number: str) -> str:
        """Ask for its health over a connection of its own; return the status line."""
        with socket.create_connection(("127.0.0.1", self.sip_port), PATIENCE_S) as connection:
            request = REQUEST.format(method="OPTIONS", transport="TCP", port=self.sip_port, number=number)
            connection.sendall(request.encode())
            return connection.recv(65_535).decode().partition("\r\n")[0]


class Asking(threading.Thread):
    """A peer that asks over UDP, again as soon as it is answered, and never sends a request twice."""

    def __init__(self, port: int) -> None:
        super().__init__()
        self.answered = 0
        self.done = threading.Event()
        self.failure: Exception | None = None
        self._target = ("127.0.0.1", port)
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 0))
        self._socket.settimeout(PATIENCE_S)

    def run(self) -> None:
        try:
            with self._socket:
                while not self.done.is_set():
                    number = f"{self.answered + 1}x"
                    self.send("INVITE", number)
                    assert self.answer(number).startswith("SIP/2.0 302 ")
                    self.send("ACK", number)
                    self.answered += 1
                    self.done.wait(PAUSE_S)
        except Exception as error:
            self.failure = error

    def send(self, method: str, number: str) -> None:
        port = self._socket.getsockname()[1]
        text = REQUEST.format(method=method, transport="UDP", port=port, number=number)
        self._socket.sendto(text.encode(), self._target)

    def answer(self, number: str) -> str:
        """Return the next final answer to an INVITE."""
        while True:
            text = self._socket.recv(65_535).decode()
            if f"branch=z9hG4bK{number}" in text and not text.startswith("SIP/2.0 1"):
                return text


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SipPool]:
    server = SipPool(Site(tmp_path_factory.mktemp("sip")))
    yield server
    assert server.service.stop() == 0


def test_no_request_over_udp_is_lost_while_workers_are_replaced(server: SipPool) -> None:
    asking = Asking(server.sip_port)
    asking.start()
    try:
        for _ in range(2):
            answered = asking.answered
            server.replace(REPLACED)
            until(lambda answered=answered: asking.answered > answered or asking.failure)  # type: ignore[misc]
    finally:
        asking.done.set()
        asking.join()
    assert asking.failure is None
    assert asking.answered > 2


def test_a_worker_that_has_replaced_another_serves_all_of_sip(server: SipPool) -> None:
    """TCP, and the timers of transactions: an answer is sent again until its ACK."""
    server.replace(REPLACED)
    assert server.ask_over_tcp("tcp") == "SIP/2.0 200 OK"
    asking = Asking(server.sip_port)
    with asking._socket:
        asking.send("INVITE", "twice")
        assert asking.answer("twice") == asking.answer("twice")
        asking.send("ACK", "twice")


def test_sip_is_served_again_after_its_worker_was_killed(server: SipPool) -> None:
    ready = server.ready
    for pid in server.pids:
        os.kill(pid, signal.SIGKILL)
    until(lambda: server.ready == ready + 2)
    assert server.ask_over_tcp("killed") == "SIP/2.0 200 OK"
    asking = Asking(server.sip_port)
    with asking._socket:
        asking.send("INVITE", "killed")
        assert asking.answer("killed").startswith("SIP/2.0 302 ")
        asking.send("ACK", "killed")


@pytest.mark.parametrize(
    ("pattern", "replacement", "reason"),
    [
        (r"(?s)\n\[sip\]\n.*", "\n", "sip: removing it needs a restart"),
        (
            r"(\[sip\]\nlisten = \{ port = )\d+",
            r"\g<1>1",
            r"sip.listen: this service is at .*:1 needs a restart",
        ),
        (r"(\[sip\]\n)", r"\1@TLS@", "sip.tls: adding or removing it needs a restart"),
    ],
)
def test_other_sockets_for_sip_need_a_restart(server: SipPool, pattern: str, replacement: str, reason: str) -> None:
    text = server.site.config.read_text()
    changed, count = re.subn(pattern, replacement, text)
    assert count == 1
    server.site.config.write_text(changed.replace("@TLS@", TLS.format(port=free_port())))
    try:
        assert re.search(reason, server.replace("a worker is not replaced"))
    finally:
        server.site.config.write_text(text)
    assert server.ask_over_tcp("refused") == "SIP/2.0 200 OK"


def test_sip_that_comes_needs_a_restart(tmp_path: Path) -> None:
    server = SipPool(Site(tmp_path), has_sip=False)
    try:
        server.site.config.write_text(server.site.config.read_text() + server.sip)
        said = server.replace("a worker is not replaced")
        assert "sip: adding it needs a restart" in said
        assert httpx.get(f"{server.service.url}/healthz", trust_env=False).status_code == 200
    finally:
        assert server.service.stop() == 0
