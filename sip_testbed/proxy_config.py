"""Configuration of the proxy of one domain: its users, its routes and its STIR services."""

import ssl
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

import msgspec
from sipmessage import URI

from voice_dpki.errors import LocalError, MalformedError
from voice_dpki.names import Tn, ascii_lower
from voice_dpki.shell.config import AdvertisedListen, Config, Listen, load_config, read_secret, resolve
from voice_dpki.shell.reload import Live, Options
from voice_dpki.shell.sip_tls import PeerSide, live_peer_side
from voice_dpki.shell.tls import ClientTls, PeerTls, optional_client_context
from voice_dpki.shell.trace import CallTraceConfig, TraceTo
from voice_dpki.sip.digest import MD5, SHA_256, Secret
from voice_dpki.sip.location import DEFAULT_EXPIRES_S, MAX_EXPIRES_S, MIN_EXPIRES_S
from voice_dpki.sip.message import Hop
from voice_dpki.sip.transaction import UDP_MAX_BYTES
from voice_dpki.stir.tn import canonical_tn

EXAMPLE = """\
domain = "a.example"
operator = "Operator A"                     # how the trace calls it
users = "users.toml"                        # [[users]] number, and password or ha1 = H(number:domain:password)
allow_md5 = false                           # true admits users with md5 = true, whose telephones are older
require_registration = true                 # a caller must be registered, or gets no signature
ring_all = false                            # true: all telephones of a user ring, and the first answer counts

[listen]                                    # UDP and TCP alike
host = "127.0.0.2"
port = 5060
# advertise = "192.0.2.2"                   # for Via and Record-Route, where host = "0.0.0.0" or "::"

[[routes]]                                  # the longest prefix decides, then the domain
domain = "b.example"
next_hop = "udp:127.0.0.3:5060"
rewrites_sdp = false                        # true where SBCs rewrite addresses: then key-mgmt alone is signed

[[routes]]                                  # what users here dial without a domain, or at this one
prefix = "+44"
to_domain = "b.example"                     # the Request-URI then names this domain; without it it stays
next_hop = "udp:127.0.0.3:5060"

# [tls]                                     # SIP over TLS, for sips: and for routes with next_hop = "tls:..."
# port = 5061
# certificate = "proxy.pem"
# key = "proxy-key.pem"
# peers = ["peers/"]                        # certificates of the proxies and telephones that may connect

[signing]                                   # without it calls go out unsigned
url = "http://127.0.0.2:8081"
token_file = "sign-a.token"
# tls = { certificate = "proxy.pem", key = "proxy-key.pem", servers = ["a.pem"] }    # where the service has [tls]
on_failure = "refuse"                       # or "forward": let the call go unsigned
answers = false                             # true signs the answers of users here, too (rsp)

[verification]                              # without it calls come in unverified
url = "http://127.0.0.2:8082"
token_file = "verify-a.token"
policy = "refuse"                           # or "label": let every call in and tell the callee
answers = false                             # true tells users here whether who answers is who was called (rsp)
"""

Prefix = Annotated[str, msgspec.Meta(pattern=r"^\+?[0-9]{1,15}$")]
Milliseconds = Annotated[int, msgspec.Meta(ge=10, le=30_000)]
Name = Annotated[str, msgspec.Meta(min_length=1, max_length=253)]
Hex = Annotated[str, msgspec.Meta(pattern=r"^([0-9a-f]{32}|[0-9a-f]{64})$")]
Seconds = Annotated[int, msgspec.Meta(ge=1, le=86_400)]


class Route(Config, frozen=True, kw_only=True):
    """The next hop of calls to numbers that begin with `prefix`, or to URIs of `domain`.

    If a number is dialled without a domain or at our own one, the Request-URI is changed to `to_domain`, because
    the next proxy accepts only calls to its own domain.
    """

    next_hop: str
    prefix: Prefix | None = None
    domain: Name | None = None
    to_domain: Name | None = None
    rewrites_sdp: bool = False
    """Whether elements on this route rewrite the SDP, so that a signature over all of it would not survive."""


@dataclass(frozen=True, slots=True)
class Destination:
    """The result of a route lookup: the next hop, and the domain that replaces our own in the Request-URI.

    `rewrites_sdp` tells whether elements behind the hop rewrite the SDP.
    """

    hop: Hop
    to_domain: str | None = None
    rewrites_sdp: bool = False


class ServiceConfig(Config, frozen=True, kw_only=True):
    """A STIR service; a URL without a path gets the standard path."""

    url: str
    token_file: str
    timeout_ms: Milliseconds = 2000
    tls: ClientTls | None = None


class SigningConfig(ServiceConfig, frozen=True, kw_only=True):
    """The authentication service."""

    attest: Literal["A", "B", "C"] = "A"
    on_failure: Literal["refuse", "forward"] = "refuse"
    answers: bool = False
    """Whether the answers to signed calls are signed, too (RFC 9970); one that cannot be signed goes unsigned."""


class VerificationConfig(ServiceConfig, frozen=True, kw_only=True):
    """The verification service."""

    policy: Literal["refuse", "label"] = "refuse"
    out_of_band: bool = False
    """Whether it is asked about calls without an Identity, to look for a PASSporT out of band."""
    answers: bool = False
    """Whether the answers to calls that were signed are verified, and their callers told (RFC 9970)."""


class RegistrationConfig(Config, frozen=True, kw_only=True):
    """How long registrations are valid."""

    min_s: Seconds = MIN_EXPIRES_S
    default_s: Seconds = DEFAULT_EXPIRES_S
    max_s: Seconds = MAX_EXPIRES_S


class ProxyConfig(Config, frozen=True, kw_only=True):
    """The TOML file; see EXAMPLE. File names are relative to it."""

    listen: AdvertisedListen
    domain: Name
    users: str
    operator: str = ""
    allow_md5: bool = False
    require_registration: bool = True
    ring_all: bool = False
    """Whether all telephones of a user ring at once (RFC 3261 §16.7), not only the newest."""
    udp_max_bytes: Annotated[int, msgspec.Meta(ge=548, le=65_507)] = UDP_MAX_BYTES
    secret_file: str | None = None
    """File with the key of Record-Route; without it each start makes a new key, and earlier calls cannot go on."""
    registration: RegistrationConfig = RegistrationConfig()
    routes: tuple[Route, ...] = ()
    tls: PeerTls | None = None
    signing: SigningConfig | None = None
    verification: VerificationConfig | None = None
    metrics: Listen | None = None
    trace: CallTraceConfig = CallTraceConfig()

    @property
    def name(self) -> str:
        """The operator's name in trace notes."""
        return self.operator or self.domain


class _User(Config, frozen=True, kw_only=True):
    number: str
    password: str | None = None
    ha1: Hex | None = None
    md5: bool = False


class _Users(Config, frozen=True, kw_only=True):
    users: tuple[_User, ...]


class Users:
    """A domain's subscribers: their numbers, and their secrets by username (the number, with or without +)."""

    def __init__(self, secrets: Mapping[Tn, Secret]) -> None:
        self._secrets = dict(secrets)

    def __contains__(self, number: object) -> bool:
        return number in self._secrets

    def __len__(self) -> int:
        return len(self._secrets)

    def secret(self, username: str) -> Secret | None:
        """Return the secret for a digest username, or None."""
        try:
            return self._secrets.get(canonical_tn(username))
        except MalformedError:
            return None


class Routes:
    """The route table; raises LocalError if a route is wrong."""

    def __init__(self, routes: Sequence[Route]) -> None:
        prefixes: dict[str, Destination] = {}
        self._domains: dict[str, Destination] = {}
        for route in routes:
            if (route.prefix is None) == (route.domain is None):
                raise LocalError(f"route to {route.next_hop}: give it either a prefix or a domain")
            try:
                way = Destination(Hop.parse(route.next_hop), route.to_domain, route.rewrites_sdp)
            except MalformedError as error:
                raise LocalError(f"route: {error}") from None
            if route.prefix is not None:
                _add_route(prefixes, route.prefix.removeprefix("+"), way)
            elif route.domain is not None and route.to_domain is None:
                _add_route(self._domains, ascii_lower(route.domain), way)
            else:
                raise LocalError(f"route to {route.next_hop}: to_domain goes with a prefix, not with a domain")
        self._prefixes = sorted(prefixes.items(), key=lambda entry: len(entry[0]), reverse=True)

    @property
    def hosts(self) -> frozenset[str]:
        """The addresses of all next hops."""
        return frozenset(way.hop.host for way in (*dict(self._prefixes).values(), *self._domains.values()))

    def way(self, uri: URI, number: Tn | None) -> Destination | None:
        """Return the way to `uri`, or None if no route fits; `number` is the number in `uri`, if there is one."""
        for prefix, way in self._prefixes:
            if number is not None and number.startswith(prefix):
                return way
        return self._domains.get(ascii_lower(uri.host))

    def find(self, uri: URI, number: Tn | None) -> Hop | None:
        """Return the next hop for `uri`, as `way` does."""
        way = self.way(uri, number)
        return way.hop if way else None


def _add_route(table: dict[str, Destination], key: str, way: Destination) -> None:
    if key in table:
        raise LocalError(f"route: {key} is routed twice")
    table[key] = way


@dataclass(frozen=True, slots=True)
class Access:
    """The proxy's credentials at a STIR service: its token, and TLS if that is configured."""

    token: str
    tls: ssl.SSLContext | None = None


@dataclass(frozen=True, slots=True)
class ProxySetup:
    """A completely checked configuration, with which the proxy can start."""

    config: ProxyConfig
    users: Users
    routes: Routes
    secret: bytes | None
    signing: Access | None
    verification: Access | None
    trace: TraceTo
    tls: Live[PeerSide] | None = None
    """SIP over TLS; None if it is not configured."""


def load_setup(path: Path) -> ProxySetup:
    """Read the configuration at `path` and the files that it names; raises LocalError that says what to correct."""
    options = Options(partial(load_config, path, ProxyConfig))
    config = options.config
    config.listen.check(path)
    for route in config.routes:
        if route.next_hop.startswith("tls:") and config.tls is None:
            raise LocalError(f"{path}: [tls] is missing; it is needed for the route to {route.next_hop}")
    bounds = config.registration
    if not bounds.min_s <= bounds.default_s <= bounds.max_s:
        raise LocalError(f"{path}: registration: min_s <= default_s <= max_s does not hold")
    return ProxySetup(
        config,
        _load_users(resolve(path, config.users), config.allow_md5),
        Routes(config.routes),
        read_secret(resolve(path, config.secret_file)).encode() if config.secret_file else None,
        _access(path, config.signing),
        _access(path, config.verification),
        config.trace.read(path),
        live_peer_side(path, options, lambda config: config.tls),
    )


def _access(path: Path, config: ServiceConfig | None) -> Access | None:
    if config is None:
        return None
    return Access(read_secret(resolve(path, config.token_file)), optional_client_context(path, config.tls))


def _load_users(path: Path, allow_md5: bool) -> Users:
    secrets: dict[Tn, Secret] = {}
    for user in load_config(path, _Users).users:
        if (user.password is None) == (user.ha1 is None):
            raise LocalError(f"{path}: each user needs a password, or ha1 of it, and not both")
        if user.md5 and not allow_md5:
            raise LocalError(
                f"{path}: a user has md5 = true, and the proxy's configuration has not allow_md5 = true"
            )
        try:
            number = canonical_tn(user.number)
        except MalformedError as error:
            raise LocalError(f"{path}: {error}") from None
        secrets[number] = Secret(user.password, user.ha1, MD5 if user.md5 else SHA_256)
    return Users(secrets)


def service_url(url: str, path: str) -> str:
    """Return the URL of a service's resource; raises LocalError if it is not an http or https URL."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise LocalError(f"{url}: no http or https URL")
    return url if parts.path.strip("/") else url.rstrip("/") + path
