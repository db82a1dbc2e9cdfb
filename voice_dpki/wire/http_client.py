"""HTTP client for requests during a call: one server, persistent connections, bounded responses.

A call waits for four requests (sign, verify, and one ledger query on each side), so this client uses aiohttp, which
takes a sixth of the processor time of httpx (docs/adr/0007). Administrative commands, and ledger nodes that follow
another node, use httpx.
"""

import asyncio
import errno
import re
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Final, Self
from urllib.parse import urlsplit

import aiohttp
from yarl import URL

from voice_dpki.errors import LocalError, PeerError

MAX_CONNECTIONS: Final = 32
IDLE_S: Final = 25.0
"""A connection that has been idle for longer is not used again. Servers close idle connections after 30 s."""
MAX_FIELD_BYTES: Final = 8 * 1024
"""Longest line of a response's head."""

NOT_LISTED_HINT: Final = "; a server that does not list this program's TLS certificate ends the connection so"

_TARGET = re.compile(r"/[!-~]*\Z")
_FIELD = re.compile(r"[\t -~]*\Z")
_NOT_SENT: Final = ("User-Agent", "Accept", "Accept-Encoding", "Content-Type")


class HttpError(PeerError):
    """The server gave no usable response."""


class HttpUnreachableError(HttpError):
    """There is no connection, or it broke before the response was complete."""


class HttpTimeoutError(HttpError):
    """The response was not complete before the timeout."""


class HttpTlsError(HttpUnreachableError):
    """One side does not accept the other's certificate, or the TLS handshake failed. The message says which."""


class HttpAnswerError(HttpError):
    """The response is not HTTP, or larger than allowed."""


@dataclass(frozen=True, slots=True)
class HttpAnswer:
    """A complete response."""

    status: int
    body: bytes
    retry_after: str = ""
    """The value of Retry-After (RFC 9110 §10.2.3); empty if the server sent none."""


class HttpClient:
    """A client of the server at one URL. Close it with `aclose` or `async with`.

    `headers` are sent with each request. Redirects are returned like any other response, and proxies set in the
    environment are not used. `tls` holds the trusted certificates and our own (`voice_dpki.shell.tls`). Without it,
    an https server must have a certificate of a public authority. Raises LocalError for a URL that is neither http
    nor https, or that is not https although `tls` is given.
    """

    def __init__(
        self,
        url: str,
        *,
        timeout_s: float,
        max_answer_bytes: int,
        headers: Mapping[str, str] | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.username is not None:
            raise LocalError(f"{url}: no http or https URL of a server")
        if tls is not None:
            check_tls_url(url)
        self._tls = tls
        self._base = url.rstrip("/")
        self._headers = _checked(headers or {})
        self._timeout_s = timeout_s
        self._max_answer_bytes = max_answer_bytes
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        """Enter a context that closes the connections at its end."""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the connections."""
        await self.aclose()

    async def aclose(self) -> None:
        """Close all connections."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def request(
        self,
        method: str,
        target: str,
        body: bytes = b"",
        *,
        headers: Mapping[str, str] | None = None,
        timeout_s: float | None = None,
    ) -> HttpAnswer:
        """Send a request and return the complete response.

        `target` is path and query, appended to the client's URL. `timeout_s` also covers connecting and waiting for
        a free connection. Raises HttpError; the server may have carried out a request that failed. A GET on a
        persistent connection that turns out to be closed is sent once more.
        """
        if not _TARGET.match(target):
            raise LocalError("a request's target is a path and a query, percent-encoded")
        url, fields = URL(self._base + target, encoded=True), _checked(headers or {})
        try:
            async with asyncio.timeout(timeout_s or self._timeout_s):
                return await self._exchange(method, url, body, fields)
        except TimeoutError:
            raise HttpTimeoutError("no answer in time") from None
        except aiohttp.ClientResponseError:
            raise HttpAnswerError("the answer is not HTTP") from None
        except aiohttp.ClientPayloadError:
            raise HttpUnreachableError("the connection broke before the answer was whole") from None
        except (aiohttp.ClientError, OSError) as error:
            if why := tls_failure(error):
                raise HttpTlsError(why) from None
            hint = NOT_LISTED_HINT if self._tls is not None and _was_ended(error) else ""
            raise HttpUnreachableError(f"no connection: {_cause(error)}{hint}") from None

    async def _exchange(self, method: str, url: URL, body: bytes, headers: Mapping[str, str]) -> HttpAnswer:
        session = self._session or self._open()
        asked = session.request(method, url, data=body or None, headers=headers, allow_redirects=False)
        async with asked as answer:
            if answer.status < 200:
                answer.close()
                raise HttpAnswerError("the server wants to switch to another protocol")
            try:
                content = await answer.content.readexactly(self._max_answer_bytes + 1)
            except asyncio.IncompleteReadError as whole:
                return HttpAnswer(answer.status, whole.partial, answer.headers.get("Retry-After", ""))
            answer.close()  # the unread rest must not be read as the next response
            raise HttpAnswerError(f"an answer has more than {len(content) - 1} bytes")

    def _open(self) -> aiohttp.ClientSession:
        """Open the session, at the first request because it belongs to the event loop that is running then."""
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                limit=MAX_CONNECTIONS, keepalive_timeout=IDLE_S, ssl=True if self._tls is None else self._tls
            ),
            headers=self._headers,
            skip_auto_headers=_NOT_SENT,
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=None),  # `request` has its own, which includes the wait
            auto_decompress=False,
            max_line_size=MAX_FIELD_BYTES,
            max_field_size=MAX_FIELD_BYTES,
        )
        return self._session


def check_tls_url(url: str) -> None:
    """Raise LocalError unless a URL is https, so that protected data is never sent in the clear."""
    if urlsplit(url).scheme != "https":
        raise LocalError(f"{url}: TLS is configured for this server, so that its URL must begin with https")


def tls_failure(error: BaseException) -> str | None:
    """Return why a TLS handshake failed, looking through the errors that libraries wrap it in.

    Returns None if the error has another cause.
    """
    link: BaseException | None = error
    cause = None
    while link is not None:
        cause = link if isinstance(link, ssl.SSLError) else cause
        link = link.__cause__ or link.__context__
    if cause is None:
        return None
    if isinstance(cause, ssl.SSLCertVerificationError):
        return f"the server's certificate is none of those that are trusted for it ({cause.verify_message})"
    reason = (cause.reason or "").replace("_", " ").lower()
    if "alert" in reason:
        return f"the server does not accept this program's TLS certificate ({reason})"
    return f"no TLS 1.3 with the server ({reason or 'it ended the connection'})"


def _was_ended(error: Exception) -> bool:
    """Tell whether the other side ended the connection; aiohttp's own errors tell that by number only."""
    is_ended = isinstance(error, aiohttp.ServerDisconnectedError | ConnectionResetError)
    return is_ended or getattr(error, "errno", None) in (errno.ECONNRESET, errno.EPIPE)


def _cause(error: Exception) -> str:
    """Return in a few words what broke; for errors of the operating system, its own text or the error's name."""
    return (getattr(error, "strerror", None) or type(error).__name__) if isinstance(error, OSError) else str(error)


def _checked(headers: Mapping[str, str]) -> dict[str, str]:
    """Return a copy of header fields; raises LocalError for a value that could inject another line."""
    if not all(_FIELD.match(value) for value in headers.values()):
        raise LocalError("a header field's value holds a control character")
    return dict(headers)
