"""HTTP/1.1 for what one program asks another during a call: one server, connections that are kept.

A call waits for four questions (signature, verdict, and each side's to the ledger), and a general client's own work
was most of their time: 0.5 ms of processor a request for httpx against 0.02 ms here, four times that when other
programs have had the caches meanwhile (docs/adr/0006). httptools parses, as it does in the server. What it does not
do: redirects, cookies, proxies, compression, and answers whose end is told by closing the connection alone.
"""
# ruff: noqa: TID251 - this is a shell: it holds sockets. It lies below the packages so that their shells can use it.

import asyncio
import re
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Final, Self, cast
from urllib.parse import urlsplit

import httptools

from voice_dpki.errors import LocalError, PeerError

MAX_CONNECTIONS: Final = 32
IDLE_S: Final = 25.0
"""A connection that has rested for longer is not used again; servers give theirs up after 30 s."""
MAX_HEAD_BYTES: Final = 32 * 1024

_TARGET = re.compile(r"/[!-~]*\Z")
_FIELD = re.compile(r"[\t -~]*\Z")
_SAFE_METHODS: Final = ("GET",)


class HttpError(PeerError):
    """The server gave no answer that can be used."""


class HttpUnreachableError(HttpError):
    """There is no connection, or it broke before the answer was whole."""


class HttpTimeoutError(HttpError):
    """The answer was not whole in time."""


class HttpAnswerError(HttpError):
    """The answer is not HTTP, or larger than allowed."""


@dataclass(frozen=True, slots=True)
class HttpAnswer:
    """A whole answer."""

    status: int
    body: bytes


class HttpClient:
    """Asks the server of one URL; close it with `aclose` or `async with`.

    `headers` go with each request. Raises LocalError for a URL that is not one of http or https.
    """

    def __init__(
        self, url: str, *, timeout_s: float, max_answer_bytes: int, headers: Mapping[str, str] | None = None
    ) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.username is not None:
            raise LocalError(f"{url}: no http or https URL of a server")
        self._tls = ssl.create_default_context() if parts.scheme == "https" else None
        self._host, self._port = parts.hostname, parts.port or (443 if self._tls else 80)
        self._prefix = parts.path.rstrip("/")
        self._head = _fields({"host": parts.netloc, **(headers or {})})
        self._timeout_s = timeout_s
        self._max_answer_bytes = max_answer_bytes
        self._slots = asyncio.Semaphore(MAX_CONNECTIONS)
        self._idle: list[_Connection] = []
        self._closed = False

    async def __aenter__(self) -> Self:
        """Enter a context at whose end the connections are closed."""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the connections."""
        await self.aclose()

    async def aclose(self) -> None:
        """Close the connections that rest now, and those under way as soon as they do."""
        self._closed = True
        while self._idle:
            self._idle.pop().close()
        await asyncio.sleep(0)  # lets the sockets go before the loop does

    async def request(
        self,
        method: str,
        target: str,
        body: bytes = b"",
        *,
        headers: Mapping[str, str] | None = None,
        timeout_s: float | None = None,
    ) -> HttpAnswer:
        """Send a request and wait for its whole answer, connecting and waiting for a free connection included.

        `target` is path and query, below the URL's own path. Raises HttpError; whether a request that failed was
        carried out is not known. A GET whose kept connection turns out to be closed is sent once more.
        """
        data = self._encode(method, target, body, headers or {})
        try:
            async with asyncio.timeout(timeout_s or self._timeout_s), self._slots:
                return await self._exchange(method, data)
        except TimeoutError:
            raise HttpTimeoutError("no answer in time") from None
        except OSError as error:
            raise HttpUnreachableError(f"no connection: {error.strerror or error}") from None

    def _encode(self, method: str, target: str, body: bytes, headers: Mapping[str, str]) -> bytes:
        if not _TARGET.match(target):
            raise LocalError("a request's target is a path and a query, percent-encoded")
        length = f"content-length: {len(body)}\r\n" if body or method not in _SAFE_METHODS else ""
        line = f"{method} {self._prefix}{target} HTTP/1.1\r\n"
        return f"{line}{self._head}{_fields(headers)}{length}\r\n".encode("ascii") + body

    async def _exchange(self, method: str, data: bytes) -> HttpAnswer:
        kept = self._kept()
        if kept is not None:
            try:
                return await self._ask(kept, data)
            except _ClosedBeforeAnswerError:
                if method not in _SAFE_METHODS:
                    raise
        return await self._ask(await self._connect(), data)

    async def _ask(self, connection: "_Connection", data: bytes) -> HttpAnswer:
        """Use a connection for one exchange, and keep it where that went well."""
        try:
            answer = await connection.exchange(data)
        except BaseException:
            connection.close()
            raise
        if connection.reusable and not self._closed:
            self._idle.append(connection)
        else:
            connection.close()
        return answer

    def _kept(self) -> "_Connection | None":
        """Take the connection that was used last; what has rested too long is closed."""
        now_s = asyncio.get_running_loop().time()
        while self._idle:
            connection = self._idle.pop()
            if connection.reusable and now_s - connection.rests_since_s <= IDLE_S:
                return connection
            connection.close()
        return None

    async def _connect(self) -> "_Connection":
        loop = asyncio.get_running_loop()
        _, protocol = await loop.create_connection(
            lambda: _Connection(loop, self._max_answer_bytes), self._host, self._port, ssl=self._tls
        )
        return protocol


class _ClosedBeforeAnswerError(HttpUnreachableError):
    """The connection closed before anything of an answer came."""


class _Connection(asyncio.Protocol):
    """One connection, with at most one request under way; the parser calls its `on_` methods."""

    def __init__(self, loop: asyncio.AbstractEventLoop, max_answer_bytes: int) -> None:
        self.rests_since_s = 0.0
        self._loop = loop
        self._max_answer_bytes = max_answer_bytes
        self._transport: asyncio.Transport | None = None
        self._parser = httptools.HttpResponseParser(self)
        self._waiting: asyncio.Future[HttpAnswer] | None = None
        self._keep = True
        self._begun = False
        self._head_bytes = 0
        self._body = bytearray()

    @property
    def reusable(self) -> bool:
        """Whether another request can be sent."""
        return self._keep and self._transport is not None and not self._transport.is_closing()

    async def exchange(self, data: bytes) -> HttpAnswer:
        """Send a request and wait for its answer; raises HttpError."""
        assert self._transport is not None
        assert self._waiting is None
        self._waiting, self._begun, self._head_bytes = self._loop.create_future(), False, 0
        self._transport.write(data)
        try:
            return await self._waiting
        finally:
            self._waiting = None

    def close(self) -> None:
        """Close the connection."""
        self._keep = False
        if self._transport is not None:
            self._transport.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        if self._waiting is None or self._waiting.done():
            self.close()  # nothing was asked, so this can only be taken for the answer to a later request
            return
        self._begun = True
        self._head_bytes += len(data)
        try:
            self._parser.feed_data(data)
            if self._head_bytes > MAX_HEAD_BYTES:
                raise HttpAnswerError(f"the head of an answer has more than {MAX_HEAD_BYTES} bytes")
        except HttpAnswerError as error:
            self._fail(error)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            cause = error.__context__  # the parser wraps what its callbacks raise
            self._fail(cause if isinstance(cause, HttpAnswerError) else HttpAnswerError("the answer is not HTTP"))

    def connection_lost(self, exc: Exception | None) -> None:
        if self._begun:
            self._fail(HttpUnreachableError("the connection broke before the answer was whole"))
        else:
            self._fail(_ClosedBeforeAnswerError("the connection was closed before an answer came"))

    # What the parser tells.

    def on_message_begin(self) -> None:
        """Begin an answer; a second one to the same request is too much."""
        if self._waiting is None or self._waiting.done():
            raise HttpAnswerError("more than one answer came")
        self._body.clear()

    def on_body(self, chunk: bytes) -> None:
        """Take a piece of the body, which ends the head."""
        self._head_bytes = 0
        self._body += chunk
        if len(self._body) > self._max_answer_bytes:
            raise HttpAnswerError(f"an answer has more than {self._max_answer_bytes} bytes")

    def on_message_complete(self) -> None:
        """Give the answer to who waits for it; interim ones (RFC 9110 §15.2) are skipped."""
        status = self._parser.get_status_code()
        if status < 200 or self._waiting is None or self._waiting.done():
            return
        self._keep = self._parser.should_keep_alive()
        self.rests_since_s = self._loop.time()
        self._waiting.set_result(HttpAnswer(status, bytes(self._body)))

    def _fail(self, error: HttpError) -> None:
        self._keep = False
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_exception(error)


def _fields(headers: Mapping[str, str]) -> str:
    """Write header fields; raises LocalError for a value that would end its line."""
    if not all(_FIELD.match(value) for value in headers.values()):
        raise LocalError("a header field's value holds a control character")
    return "".join(f"{name}: {value}\r\n" for name, value in headers.items())
