"""Fetching signers' certificates from the URLs in PASSporTs (x5u), which strangers choose, and revocation lists.

Only https, on ports 443 and 8443 (ATIS-1000074 §5.3.1), from hosts on the operator's list. The address is checked
where the socket is made, so neither a numeric host nor a name that resolves to another address later leads
into a private network. Redirects are not followed. Answers are bounded in size and time, and never unpacked.
"""

import asyncio
import re
import socket
import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import Any, Final

import aiohttp
from yarl import URL

from voice_dpki.errors import MalformedError, PeerError
from voice_dpki.names import ascii_lower
from voice_dpki.wire.http_client import MAX_FIELD_BYTES, tls_failure

MAX_URL_LENGTH: Final = 512
PORTS: Final = frozenset({443, 8443})
DEFAULT_PORT: Final = 443
MAX_CONNECTIONS: Final = 8
"""Connections at a time, to all hosts together."""
MEDIA_TYPES: Final = frozenset(
    {
        "application/octet-stream",
        "application/pem-certificate-chain",
        "application/pkix-cert",
        "application/x-pem-file",
        "application/x-x509-ca-cert",
        "application/x-x509-user-cert",
        "binary/octet-stream",
        "text/plain",
    }
)
"""Media types with which repositories serve certificates; ATIS-1000080 §6.3.5.2 and RFC 8555 name the second."""
LIST_MEDIA_TYPES: Final = frozenset(
    {
        "application/octet-stream",
        "application/pkix-crl",
        "application/x-pem-file",
        "application/x-pkcs7-crl",
        "binary/octet-stream",
        "text/plain",
    }
)
"""Media types with which servers serve revocation lists; the second one is registered (RFC 2585 §4.2)."""
ANY_HOST: Final = "*"

_URL = re.compile(
    r"https://(?P<host>[a-z0-9](?:[a-z0-9.-]{0,251}[a-z0-9])?|\[[0-9a-f:.]{2,45}\])(?::(?P<port>[0-9]{1,5}))?"
    r"/[!$-.0-;=@-Z_a-z~/]*\Z",
    re.IGNORECASE | re.ASCII,
)
"""Without user, query and fragment, which SHAKEN's URLs do not have (ATIS-1000074 §5.3.1)."""
_MAX_AGE = re.compile(r"(?:^|[, ])max-age=\"?([0-9]{1,10})(?:$|[\", ])", re.IGNORECASE | re.ASCII)
_NOT_KEPT = re.compile(r"(?:^|[, ])no-(?:store|cache)(?:$|[, =])", re.IGNORECASE | re.ASCII)

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

_TRANSLATED: Final = (IPv6Network("64:ff9b::/96"), IPv6Network("64:ff9b:1::/48"), IPv6Network("2002::/16"))
"""IPv6 networks whose addresses embed an IPv4 address (RFC 6052, 8215, 3056): a translator could lead anywhere."""


class FetchError(PeerError):
    """No certificate could be fetched; the message says why, and never contains the URL."""


class NotAllowedError(FetchError):
    """The operator's list does not admit the URL."""


class _PrivateAddressError(OSError):
    """A host's address is not public; aiohttp then tries the host's next address."""


@dataclass(frozen=True, slots=True)
class Fetched:
    """The content of a URL, and for how long its server lets it be cached."""

    body: bytes
    max_age_s: int | None
    """Seconds; 0 if it must not be cached, None if the server does not say."""


@dataclass(frozen=True, slots=True)
class Reach:
    """The servers that may be reached: by host name, and by address."""

    hosts: Sequence[str] = ()
    """Names in lower case; `*.x.example` means every name below x.example, and `*` every host."""
    networks: Sequence[Network] = ()
    """Networks that are not public, and whose addresses are admitted nevertheless."""
    ports: frozenset[int] = PORTS

    def check_url(self, url: str) -> None:
        """Check that a URL may be fetched; raises MalformedError, and NotAllowedError."""
        found = _URL.match(url) if len(url) <= MAX_URL_LENGTH else None
        if found is None:
            raise MalformedError("the URL is none of https without user, query and fragment")
        if int(found["port"] or DEFAULT_PORT) not in self.ports:
            raise NotAllowedError(f"the URL's port is none of {', '.join(map(str, sorted(self.ports)))}")
        if not self._admits(ascii_lower(found["host"])):
            raise NotAllowedError("the URL's host is not on this operator's list")

    def check_address(self, address: Address) -> None:
        """Check that an address may be connected to; raises OSError."""
        mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
        address = mapped or address
        if any(address in network for network in self.networks if network.version == address.version):
            return
        is_translated = any(address in network for network in _TRANSLATED if network.version == address.version)
        if not address.is_global or address.is_multicast or is_translated:
            raise _PrivateAddressError("the host's address is not public")

    def _admits(self, host: str) -> bool:
        return any(
            entry in (ANY_HOST, host) or (entry.startswith("*.") and host.endswith(entry[1:]))
            for entry in self.hosts
        )


class CertificateFetcher:
    """A client of the servers that have signers' certificates.

    Each request has a connection of its own. It is closed without TLS's close_notify: a server could delay its own,
    and send on meanwhile.
    """

    def __init__(
        self,
        reach: Reach,
        *,
        timeout_s: float,
        max_bytes: int,
        tls: ssl.SSLContext | None = None,
        media_types: frozenset[str] = MEDIA_TYPES,
    ) -> None:
        """`tls` has the trust anchors for the servers' certificates; without it, public authorities are trusted."""
        self._media_types = media_types
        self._reach = reach
        self._timeout_s = timeout_s
        self._max_bytes = max_bytes
        self._tls = tls
        self._places = asyncio.Semaphore(MAX_CONNECTIONS)

    async def fetch(self, url: str) -> Fetched:
        """Return the content of a URL that `Reach.check_url` admits; raises FetchError.

        The timeout begins when one of MAX_CONNECTIONS is free.
        """
        try:
            self._reach.check_url(url)
        except MalformedError as error:
            raise NotAllowedError(str(error)) from None
        try:
            async with self._places, asyncio.timeout(self._timeout_s), self._session() as session:
                return await self._exchange(session, url)
        except TimeoutError:
            raise FetchError("there is no answer in time") from None
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise FetchError(tls_failure(error) or _cause(error)) from None

    def _session(self) -> aiohttp.ClientSession:
        return aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                limit=1, ssl=True if self._tls is None else self._tls, socket_factory=self._socket
            ),
            headers={"Accept-Encoding": "identity"},
            skip_auto_headers=("User-Agent", "Accept"),
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=None),
            auto_decompress=False,
            trust_env=False,
            max_line_size=MAX_FIELD_BYTES,
            max_field_size=MAX_FIELD_BYTES,
        )

    async def _exchange(self, session: aiohttp.ClientSession, url: str) -> Fetched:
        async with session.get(URL(url, encoded=True), allow_redirects=False) as answer:
            connection = answer.connection
            try:
                return await self._read(answer)
            finally:
                if connection is not None and connection.transport is not None:
                    connection.transport.abort()

    async def _read(self, answer: aiohttp.ClientResponse) -> Fetched:
        if answer.status != 200:
            raise FetchError(f"the answer is {answer.status}")
        media_type = ascii_lower(answer.headers.get("Content-Type", "").partition(";")[0].strip())
        if media_type and media_type not in self._media_types:
            raise FetchError("the answer is not of a type that certificates or their lists have")
        try:
            await answer.content.readexactly(self._max_bytes + 1)
        except asyncio.IncompleteReadError as whole:
            return Fetched(whole.partial, kept_s(answer.headers.getall("Cache-Control", [])))
        raise FetchError(f"the answer has more than {self._max_bytes} bytes")

    def _socket(self, info: tuple[Any, Any, int, str, tuple[Any, ...]]) -> socket.socket:
        """Make the socket for a connection, if its address may be connected to; raises OSError."""
        family, kind, protocol, _, target = info
        self._reach.check_address(ip_address(str(target[0]).partition("%")[0]))
        return socket.socket(family, kind, protocol)


def kept_s(values: Sequence[str]) -> int | None:
    """Return for how many seconds Cache-Control permits caching (RFC 9111 §5.2.2); None if it does not say."""
    said = ", ".join(values)
    if _NOT_KEPT.search(said):
        return 0
    found = _MAX_AGE.search(said)
    return int(found[1]) if found else None


def _cause(error: Exception) -> str:
    """Return in a few words why there is no answer, without text from the server or the URL."""
    link: BaseException | None = error
    while link is not None:
        if isinstance(link, _PrivateAddressError):
            return str(link)
        nested = link.exceptions if isinstance(link, ExceptionGroup) else ()
        link = nested[0] if nested else link.__cause__ or link.__context__
    if isinstance(error, aiohttp.ClientPayloadError):
        return "the connection broke before the answer was whole"
    if isinstance(error, aiohttp.InvalidURL):
        return "the URL names no host"
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return "the host's name is not known"
    if isinstance(error, aiohttp.ClientConnectionError | OSError):
        return "there is no connection"
    return "the answer is not HTTP"
