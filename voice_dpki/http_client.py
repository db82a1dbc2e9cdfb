"""HTTP for what one program asks another during a call: one server, connections that are kept, bounded answers.

A call waits for four questions (signature, verdict, and each side's to the ledger), so this stands on aiohttp,
whose client takes a sixth of the processor time of httpx (docs/adr/0007). Administrative commands use httpx.
"""
# ruff: noqa: TID251 - this is a shell: it holds sockets. It lies below the packages so that their shells can use it.

import asyncio
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
"""A connection that has rested for longer is not used again; servers give theirs up after 30 s."""
MAX_FIELD_BYTES: Final = 8 * 1024
"""Longest line of an answer's head."""

NOT_LISTED_HINT: Final = "; a server that does not list this program's TLS certificate ends the connection so"

_TARGET = re.compile(r"/[!-~]*\Z")
_FIELD = re.compile(r"[\t -~]*\Z")
_NOT_SENT: Final = ("User-Agent", "Accept", "Accept-Encoding", "Content-Type")


class HttpError(PeerError):
    """The server gave no answer that can be used."""


class HttpUnreachableError(HttpError):
    """There is no connection, or it broke before the answer was whole."""


class HttpTimeoutError(HttpError):
    """The answer was not whole in time."""


class HttpTlsError(HttpUnreachableError):
    """One side does not accept the other's certificate, or they do not agree on TLS; the message says which."""


class HttpAnswerError(HttpError):
    """The answer is not HTTP, or larger than allowed."""


@dataclass(frozen=True, slots=True)
class HttpAnswer:
    """A whole answer."""

    status: int
    body: bytes
    retry_after: str = ""
    """When the server wants to be asked again (Retry-After, RFC 9110 §10.2.3), if it says."""


class HttpClient:
    """Asks the server of one URL; close it with `aclose` or `async with`.

    `headers` go with each request. Redirects are answers like others, and no proxy of the environment is used.
    `tls` says whom to believe and what to show (`voice_dpki.shell.tls`); without it, an https server must have a
    certificate of a public authority. Raises LocalError for a URL that is not one of http or https, or not of https
    where `tls` is given.
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
        """Enter a context at whose end the connections are closed."""
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
        """Send a request and wait for its whole answer, connecting and waiting for a free connection included.

        `target` is path and query, below the URL's own path. Raises HttpError; whether a request that failed was
        carried out is not known. A GET whose kept connection turns out to be closed is sent once more.
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
            answer.close()  # what is left of it must not be read as the next answer
            raise HttpAnswerError(f"an answer has more than {len(content) - 1} bytes")

    def _open(self) -> aiohttp.ClientSession:
        """Make the session with the first request: it belongs to the event loop that runs then."""
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                limit=MAX_CONNECTIONS, keepalive_timeout=IDLE_S, ssl=True if self._tls is None else self._tls
            ),
            headers=self._headers,
            skip_auto_headers=_NOT_SENT,
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=None),  # `request` has its own, which also counts the wait
            auto_decompress=False,
            max_line_size=MAX_FIELD_BYTES,
            max_field_size=MAX_FIELD_BYTES,
        )
        return self._session


def check_tls_url(url: str) -> None:
    """Raise LocalError unless a URL is one of https: what is to be protected must not go in the clear."""
    if urlsplit(url).scheme != "https":
        raise LocalError(f"{url}: TLS is configured for this server, so that its URL must begin with https")


def tls_failure(error: BaseException) -> str | None:
    """Say why two sides did not come to terms on TLS, whatever a library made of that; None if it was not that."""
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
    return isinstance(error, aiohttp.ServerDisconnectedError | ConnectionResetError)


def _cause(error: Exception) -> str:
    """Say in a few words what broke: errors of the operating system in its own."""
    return (getattr(error, "strerror", None) or type(error).__name__) if isinstance(error, OSError) else str(error)


def _checked(headers: Mapping[str, str]) -> dict[str, str]:
    """Copy header fields; raises LocalError for a value that would end its line."""
    if not all(_FIELD.match(value) for value in headers.values()):
        raise LocalError("a header field's value holds a control character")
    return dict(headers)
