"""A certificate repository over https, as operators outside the federation have one; it can misbehave."""

import contextlib
import ipaddress
import ssl
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from tests.pki import Signer, pem_of, root

CHAIN_TYPE = "application/pem-certificate-chain"
Reply = Callable[[BaseHTTPRequestHandler], None]


def reply(body: bytes, media_type: str = CHAIN_TYPE, status: int = 200, **headers: str) -> Reply:
    """Answer with a body, and with fields such as Cache_Control."""

    def answer(request: BaseHTTPRequestHandler) -> None:
        request.send_response(status)
        request.send_header("Content-Type", media_type)
        request.send_header("Content-Length", str(len(body)))
        for name, value in headers.items():
            request.send_header(name.replace("_", "-"), value)
        request.end_headers()
        request.wfile.write(body)

    return answer


def raw(data: bytes) -> Reply:
    """Answer with these bytes, whatever they are."""

    def answer(request: BaseHTTPRequestHandler) -> None:
        request.wfile.write(data)

    return answer


def endless(request: BaseHTTPRequestHandler) -> None:
    """Answer without an end."""
    request.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\r\n")
    while True:
        request.wfile.write(b"-----BEGIN CERTIFICATE-----\n" * 1000)


def slow(request: BaseHTTPRequestHandler) -> None:
    """Answer a byte now and then."""
    request.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 100000\r\n\r\n")
    while True:
        request.wfile.write(b"x")
        request.wfile.flush()
        time.sleep(0.05)


class Repository:
    """An https server on localhost whose paths answer as the test says."""

    def __init__(self, folder: Path, names: tuple[str, ...] = ("localhost",)) -> None:
        self.replies: dict[str, Reply] = {}
        self.asked: list[str] = []
        self._folder = folder
        now_s = int(time.time())
        self._authority = root("Web CA", now_s)
        self.roots = folder / "roots.pem"
        self.roots.write_bytes(pem_of(self._authority.certificate))
        alternative = x509.SubjectAlternativeName(
            [*map(x509.DNSName, names), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
        )
        self._server = self._listening(
            self._authority.issue("Web", now_s, listed=None, extensions=((alternative, False),))
        )

    @property
    def port(self) -> int:
        return int(self._server.server_address[1])

    def url(self, path: str = "/shaken.pem") -> str:
        return f"https://localhost:{self.port}{path}"

    def tls(self) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=self.roots)

    def __enter__(self) -> Self:
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def _listening(self, signer: Signer) -> ThreadingHTTPServer:
        repository = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                repository.asked.append(self.path)
                self.close_connection = True
                with contextlib.suppress(OSError):  # the client has had enough
                    repository.replies.get(self.path, reply(b"", status=404))(self)

            def log_message(self, *_: Any) -> None:
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True

            def get_request(self) -> Any:
                connection, address = super().get_request()
                connection.settimeout(10)
                return context.wrap_socket(connection, server_side=True, do_handshake_on_connect=False), address

            def handle_error(self, *_: Any) -> None:
                pass

        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        file = self._folder / "web.pem"
        private = signer.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        file.write_bytes(pem_of(signer.certificate) + private)
        context.load_cert_chain(file)
        return Server(("127.0.0.1", 0), Handler)
