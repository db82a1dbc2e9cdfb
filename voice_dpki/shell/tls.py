"""TLS between programs of the project: both sides show a self-signed certificate, and each lists the other's.

A listed certificate is its own trust anchor: the other side must show that certificate, byte for byte, and it must
be valid now. Names play no role: whoever holds the key of a listed certificate is the peer for whom it was listed.
A CA certificate is refused, for OpenSSL would then also accept every certificate that the CA issues. TLS 1.3 only.
"""

import logging
import ssl
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path
from typing import Annotated, Literal, TypeVar

import msgspec
from cryptography.x509 import BasicConstraints, ExtensionNotFound, load_der_x509_certificate

from voice_dpki.effects import SystemClock, SystemRandom
from voice_dpki.errors import LocalError
from voice_dpki.ledger.certificate_names import check_host
from voice_dpki.ledger.refusals import Refused
from voice_dpki.metrics import counters, gauges
from voice_dpki.shell.config import Config, Port, load_config, read_file, resolve
from voice_dpki.shell.credentials import passphrase_of, read_certificate, read_signer
from voice_dpki.shell.files import FOR_ALL, OWNER_ONLY, make_folder, write_all_new
from voice_dpki.shell.reload import RELOADABLE, Live, Options
from voice_dpki.wire.seldom import Seldom
from voice_dpki.x509.keys import generate_es256, to_pem
from voice_dpki.x509.profile import CertificateProfile, ProfileError, build_certificate

log = logging.getLogger(__name__)
_SAID = Seldom(log)

MAX_LISTED = 1000
"""Most entries in a list; each certificate is parsed and checked at the start."""

SUFFIXES = frozenset({".der", ".pem", ".crt", ".cer"})
"""Suffixes of the files in a folder that are read as certificates."""

CLOCKS_APART_S = 3600
"""Age in seconds of a new certificate's notBefore, as the other side's clock may be behind."""

REFUSED = counters(
    "tls_refused",
    "TLS handshakes with servers here that failed, by reason.",
    reason=(
        "expired",
        "not-yet-valid",
        "unknown-certificate",
        "broken-off",
        "no-certificate",
        "client-refuses",
        "no-tls-1.3",
    ),
)

NOT_AFTER = gauges(
    "tls_certificate_not_after",
    "When this server's TLS certificate expires, in Unix time.",
    "livemin",
    interface=("http", "sip"),
)

_EXPIRED, _NOT_YET_VALID = 10, 9
"""OpenSSL's X509_V_ERR_CERT_HAS_EXPIRED and X509_V_ERR_CERT_NOT_YET_VALID."""

C = TypeVar("C", bound=Config)

_Listed = Annotated[tuple[str, ...], msgspec.Meta(min_length=1, max_length=MAX_LISTED)]


class ServerTls(Config, frozen=True, kw_only=True):
    """`[tls]` of a server: its certificate (DER or PEM) and key (PEM), and which clients may connect."""

    certificate: str
    key: str
    clients: _Listed
    """Files with one certificate each; a folder means all certificates in it."""


class ClientTls(Config, frozen=True, kw_only=True):
    """`tls` of a client: its certificate (DER or PEM) and key (PEM), and which servers it talks to."""

    certificate: str
    key: str
    servers: _Listed
    """As `ServerTls.clients`. While a server changes its certificate, list both the old and the new one."""


class PeerTls(Config, frozen=True, kw_only=True):
    """`[tls]` of an element that is both server and client, with one list of its peers."""

    port: Port
    certificate: Annotated[str, RELOADABLE]
    key: Annotated[str, RELOADABLE]
    peers: Annotated[_Listed, RELOADABLE]
    """As `ServerTls.clients`."""

    @property
    def server(self) -> ServerTls:
        """The same section for the server's side."""
        return ServerTls(certificate=self.certificate, key=self.key, clients=self.peers)

    @property
    def client(self) -> ClientTls:
        """The same section for the client's side."""
        return ClientTls(certificate=self.certificate, key=self.key, servers=self.peers)


@dataclass(frozen=True, slots=True)
class ServerSide:
    """A server's side of TLS: its context for handshakes, and the clients that it serves."""

    context: ssl.SSLContext
    listed: frozenset[bytes]
    """SHA-256 of the certificates of clients that may connect."""
    not_before_s: int
    not_after_s: int
    """Validity of the server's own certificate, in Unix time."""


def server_side(config_path: Path, section: ServerTls, interface: Literal["http", "sip"] = "http") -> ServerSide:
    """Read a server's section; raises LocalError that names the file that cannot be used."""
    context, own = _context(ssl.PROTOCOL_TLS_SERVER, config_path, section.certificate, section.key)
    listed = frozenset(sha256(each.der).digest() for each in _trust(context, config_path, section.clients))
    context.num_tickets = 0  # a resumed session does not show the certificate again, which may have expired
    context.sslobject_class = _Watched
    NOT_AFTER.labels(interface).set(own.not_after_s)
    return ServerSide(context, listed, own.not_before_s, own.not_after_s)


def live_server_side(
    config_path: Path, options: Options[C], section_of: Callable[[C], ServerTls | None]
) -> Live[ServerSide] | None:
    """Read a server's section now and at each reload, None without one; raises LocalError.

    A new certificate, key and list apply from the next handshake on. A client that is no longer listed is not
    served any more, even over open connections. Adding or removing the section needs a restart: such a reload is
    refused.
    """

    def read(config: C) -> ServerSide:
        section = section_of(config)
        if section is None:
            raise LocalError(f"{config_path}: [tls] is gone, and what was encrypted is not served in clear")
        return server_side(config_path, section)

    def check_none(config: C) -> None:
        if section_of(config) is not None:
            raise LocalError(f"{config_path}: [tls] is new, and a server in clear begins with it at a restart")

    if section_of(options.config) is None:
        options.live(check_none)
        return None
    return options.live(read)


def client_context(config_path: Path, section: ClientTls) -> ssl.SSLContext:
    """Make a client's TLS context; raises LocalError that names the file that cannot be used."""
    context, _ = _context(ssl.PROTOCOL_TLS_CLIENT, config_path, section.certificate, section.key)
    context.check_hostname = False  # the certificate itself is listed, so its names do not matter
    _trust(context, config_path, section.servers)
    return context


def optional_client_context(config_path: Path, section: ClientTls | None) -> ssl.SSLContext | None:
    """Make a client's TLS context, or return None without a section; raises LocalError."""
    return None if section is None else client_context(config_path, section)


def command_context(file: Path | None) -> ssl.SSLContext | None:
    """Make the TLS context of a command whose `--tls` names a TOML file with the keys of `ClientTls`.

    Returns None without such a file. Raises LocalError.
    """
    return None if file is None else client_context(file, load_config(file, ClientTls))


COMMAND_HELP = "TOML file with certificate, key and servers (a list of certificates), for a node with [tls]"
"""Help text of `--tls`."""


class _Watched(ssl.SSLObject):
    """The server's side of a connection; it counts and logs failed handshakes."""

    def do_handshake(self) -> None:
        """Continue the handshake."""
        try:
            super().do_handshake()
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            raise
        except ssl.SSLError as error:
            _report(error)
            raise


def _report(error: ssl.SSLError) -> None:
    why = _reason(error)
    REFUSED.labels(why).inc()
    detail = getattr(error, "verify_message", None) or error.reason
    _SAID.warning("TLS connection refused", reason=why, detail=detail)


def _reason(error: ssl.SSLError) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return {_EXPIRED: "expired", _NOT_YET_VALID: "not-yet-valid"}.get(error.verify_code, "unknown-certificate")
    reason = error.reason or ""
    if isinstance(error, ssl.SSLEOFError):
        return "broken-off"
    if reason == "PEER_DID_NOT_RETURN_A_CERTIFICATE":
        return "no-certificate"
    return "client-refuses" if "ALERT" in reason else "no-tls-1.3"


def _context(
    protocol: int, config_path: Path, certificate: str, key: str
) -> tuple[ssl.SSLContext, CertificateProfile]:
    """Make the context of one side, and return it with the side's own certificate."""
    certificate_path, key_path = resolve(config_path, certificate), resolve(config_path, key)
    own = _read(certificate_path)
    if not own.valid_at(SystemClock().now_s()):
        raise LocalError(f"{certificate_path}: this certificate is expired or not valid yet; make a new one")
    signer = read_signer(key_path, "TLS key")
    if signer.public_key_der != own.public_key_der:
        raise LocalError(f"{key_path}: this is not the key of {certificate_path}")
    context = ssl.SSLContext(protocol)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    with tempfile.NamedTemporaryFile("w", suffix=".pem") as file:  # OpenSSL reads a chain from files in PEM only
        file.write(ssl.DER_cert_to_PEM_cert(own.der))
        file.flush()
        context.load_cert_chain(file.name, key_path, passphrase_of(key_path, read_file(key_path, "TLS key")) or "")
    return context, own


def _trust(context: ssl.SSLContext, config_path: Path, names: Sequence[str]) -> list[CertificateProfile]:
    """Make the context accept the listed certificates and no others, and return them.

    Raises LocalError if none is usable.
    """
    context.verify_mode = ssl.CERT_REQUIRED
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    now_s, usable, all_listed = SystemClock().now_s(), 0, []
    for path in _files(resolve(config_path, name) for name in names):
        listed = _read(path)
        context.load_verify_locations(cadata=listed.der)
        all_listed.append(listed)
        if listed.not_after_s < now_s:  # still loaded, so that a handshake with it fails as expired, not as unknown
            log.warning("listed certificate is expired", extra={"fields": {"file": str(path)}})
        else:
            usable += 1
    if not usable:
        raise LocalError(f"{', '.join(names)}: none of the TLS certificates listed there can be used any more")
    return all_listed


def _files(paths: Iterable[Path]) -> Iterator[Path]:
    for path in paths:
        if path.is_dir():
            found = sorted(each for each in path.iterdir() if each.suffix in SUFFIXES)
            if len(found) > MAX_LISTED:
                raise LocalError(
                    f"{path}: {len(found)} certificates, and at most {MAX_LISTED} are read from a folder"
                )
            yield from found
        else:
            yield path


def _read(path: Path) -> CertificateProfile:
    profile = read_certificate(path)
    if not _ends_here(profile.der):
        raise LocalError(
            f"{path}: a TLS certificate must say that it is no authority's (basicConstraints CA:FALSE); "
            "`ledger-node certificate` makes one"
        )
    return profile


def _ends_here(der: bytes) -> bool:
    """Tell whether a certificate says that it is not a CA's (RFC 5280 §4.2.1.9)."""
    try:
        return not load_der_x509_certificate(der).extensions.get_extension_for_class(BasicConstraints).value.ca
    except ExtensionNotFound:
        return False


def make_certificate(
    folder: Path, name: str, organization: str, days: int, hosts: Sequence[str] = ()
) -> tuple[Path, Path]:
    """Make a TLS certificate and its key in `folder`, as `name`.pem and `name`-key.pem; return both paths.

    `hosts` are the server's names and numeric addresses, for clients that verify them. Raises
    LocalError if the folder cannot be written, or if one of the files exists already.
    """
    numeric = [address for address in map(_numeric, hosts) if address is not None]
    names = [_checked(host) for host in hosts if _numeric(host) is None]
    signer, now_s = generate_es256(), int(SystemClock().now_s())
    try:
        der = build_certificate(
            signer,
            organization=organization,
            common_name=name,
            dns_names=names,
            ip_addresses=numeric,
            not_before_s=now_s - CLOCKS_APART_S,
            not_after_s=now_s + days * 86_400,
            random=SystemRandom(),
        )
    except ProfileError as error:
        raise LocalError(f"no such certificate can be made: {error}") from None
    certificate, key = folder / f"{name}.pem", folder / f"{name}-key.pem"
    make_folder(folder, 0o700)
    write_all_new(
        [(key, to_pem(signer), OWNER_ONLY), (certificate, ssl.DER_cert_to_PEM_cert(der).encode("ascii"), FOR_ALL)]
    )
    return certificate, key


def _checked(host: str) -> str:
    try:
        check_host(host)
    except Refused:
        raise LocalError(f"{host!r} is neither a host's name nor a numeric address") from None
    return host


def _numeric(host: str) -> IPv4Address | IPv6Address | None:
    """Return the address of a numeric host, None for a name."""
    try:
        return ip_address(host)
    except ValueError:
        return None
