"""A double of the agent: speaks the real protocol on a unix socket, and answers as the test wishes."""

import os
import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

JUDGE, STATE = 1, 2
IDENTITY, CERTIFICATE, INTEGRITY_INFO, LEDGER_ANSWER, CONNECTION = 1, 2, 3, 4, 5
CODE, SENTENCE, INTEGRITY_INFO_TO_SEND, LEDGER_ANSWER_TO_SEND = 16, 17, 18, 19


@dataclass(frozen=True)
class Request:
    """A request, read strictly."""

    operation: int
    side: int
    policy: int
    unique_id: int
    spi_i: bytes
    spi_r: bytes
    items: dict[int, bytes]
    body: bytes = field(repr=False)

    @classmethod
    def parse(cls, body: bytes) -> "Request":
        assert body[0] == 1
        items: dict[int, bytes] = {}
        at = 24
        while at < len(body):
            tag, size = body[at], int.from_bytes(body[at + 1 : at + 3], "big")
            assert tag > max(items, default=0)
            items[tag] = body[at + 3 : at + 3 + size]
            assert len(items[tag]) == size
            at += 3 + size
        unique_id = int.from_bytes(body[4:8], "big")
        return cls(body[1], body[2], body[3], unique_id, body[8:16], body[16:24], items, body)


def answer(positive: bool, code: str, sentence: str, more: dict[int, bytes] | None = None) -> bytes:
    """Write the frame of an answer."""
    items = {CODE: code.encode(), SENTENCE: sentence.encode(), **(more or {})}
    body = bytes((1, positive))
    body += b"".join(bytes((tag,)) + len(value).to_bytes(2, "big") + value for tag, value in items.items())
    return len(body).to_bytes(2, "big") + body


TRUSTED = answer(True, "vouched-for", "said the double")
NOTHING = answer(False, "nothing", "there is nothing to state")


def ask(path: Path, request: Request) -> bytes:
    """Ask another agent the same; returns the frame of its answer."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(str(path))
        connection.sendall(len(request.body).to_bytes(2, "big") + request.body)
        with connection.makefile("rb") as file:
            length = file.read(2)
            return length + file.read(int.from_bytes(length, "big"))


class AgentDouble:
    """Answers in a thread; `judge` and `state` give the octets to send back, None for silence until the end."""

    def __init__(
        self,
        path: Path,
        judge: Callable[[Request], bytes | None] = lambda _: TRUSTED,
        state: Callable[[Request], bytes | None] = lambda _: NOTHING,
    ) -> None:
        self.path, self.judge, self.state = path, judge, state
        self.requests: list[Request] = []
        self._silent: list[socket.socket] = []
        self._socket = socket.socket(socket.AF_UNIX)
        self._thread = threading.Thread(target=self._serve)

    def __enter__(self) -> "AgentDouble":
        self._socket.bind(str(self.path))
        self._socket.listen(64)
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        for each in (self._socket, *self._silent):
            each.close()
        os.unlink(self.path)

    def judged(self) -> list[Request]:
        """Return the requests to judge so far."""
        return [request for request in self.requests if request.operation == JUDGE]

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            self._answer(connection)

    def _answer(self, connection: socket.socket) -> None:
        with connection.makefile("rb") as file:
            request = Request.parse(file.read(int.from_bytes(file.read(2), "big")))
        self.requests.append(request)
        octets = (self.judge if request.operation == JUDGE else self.state)(request)
        if octets is None:
            self._silent.append(connection)
            return
        connection.sendall(octets)
        connection.close()
