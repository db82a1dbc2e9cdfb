"""`[outside]`: trusted authorities for calls from outside the federation, and hosts of their certificates."""

import ssl
from dataclasses import dataclass
from ipaddress import ip_network
from pathlib import Path
from typing import Annotated

import msgspec
from cryptography import x509

from verify_server.revocation import Unknown
from voice_dpki.errors import LocalError, MalformedError
from voice_dpki.shell.config import Config, PositiveSeconds, read_file, resolve
from voice_dpki.shell.credentials import read_certificate
from voice_dpki.shell.reload import RELOADABLE, Live
from voice_dpki.wire.certificate_fetch import LIST_MEDIA_TYPES, PORTS, CertificateFetcher, Reach
from voice_dpki.x509 import authority_list
from voice_dpki.x509.authority_list import authorities_of, read_authorities
from voice_dpki.x509.listed import MAX_CHAIN_BYTES, Authorities
from voice_dpki.x509.profile import ProfileError
from voice_dpki.x509.revocation import MAX_LIST_BYTES, ListSigner

Host = Annotated[str, msgspec.Meta(pattern=r"^(?:\*|(?:\*\.)?[a-z0-9](?:[a-z0-9.-]{0,251}[a-z0-9])?)\Z")]
"""A name in lower case, `*.` before one for all names below it, or `*` for every host."""
RemotePort = Annotated[int, msgspec.Meta(ge=1, le=65535)]


class OutsideConfig(Config, frozen=True, kw_only=True):
    """Certificate authorities that are trusted for signers of whom the ledger knows nothing."""

    authorities: Annotated[tuple[str, ...], msgspec.Meta(min_length=1, max_length=16), RELOADABLE]
    """Files with certificates of authorities: PEM, or the signed list of a policy administrator."""
    list_signer: str | None = None
    """The self-signed certificate of whoever signs the lists; with it, lists that are not signed are refused."""
    hosts: Annotated[tuple[Host, ...], msgspec.Meta(min_length=1, max_length=10_000)]
    """Hosts of signers' certificates. `*` lets strangers choose any host with a public address."""
    networks: Annotated[tuple[str, ...], msgspec.Meta(max_length=64)] = ()
    """Networks such as 10.1.0.0/16, whose addresses these hosts may have although they are not public."""
    ports: Annotated[tuple[RemotePort, ...], msgspec.Meta(min_length=1, max_length=16)] = tuple(sorted(PORTS))
    roots: str | None = None
    """PEM with the authorities of these hosts' TLS certificates; without it, those of the operating system."""
    timeout_s: PositiveSeconds = 5.0
    max_certificates: Annotated[int, msgspec.Meta(ge=1, le=100_000)] = 1000
    """Certificates that are kept; each takes about 10 kB of memory."""
    list_signers: Annotated[tuple[str, ...], msgspec.Meta(max_length=16)] = ()
    """PEM: whoever signs revocation lists for several authorities, such as SHAKEN's administrator."""
    revocation_unknown: Unknown = "accept"
    """Treatment of calls if no current revocation list covers the signer's certificate."""

    def read_authorities(self, path: Path) -> Authorities:
        """Read the lists that the configuration at `path` names; raises LocalError that names the file."""
        key = None
        if self.list_signer is not None:
            key = read_certificate(resolve(path, self.list_signer)).public_key_der
        lists = []
        for name in self.authorities:
            file = resolve(path, name)
            try:
                lists.append(
                    read_authorities(read_file(file, "list of authorities", authority_list.MAX_LIST_BYTES), key)
                )
            except MalformedError as error:
                raise LocalError(f"{file}: {error}") from None
        try:
            return authorities_of(lists)
        except MalformedError as error:
            raise LocalError(f"{path}: outside.authorities: {error}") from None

    def read_list_signers(self, path: Path) -> tuple[ListSigner, ...]:
        """Read the certificates of those who sign revocation lists; raises LocalError that names the file."""
        signers: list[ListSigner] = []
        for name in self.list_signers:
            file = resolve(path, name)
            try:
                read = x509.load_pem_x509_certificates(read_file(file, "PEM", MAX_CHAIN_BYTES))
                signers += map(ListSigner.of, read)
            except (ValueError, ProfileError):
                raise LocalError(f"{file}: holds no certificates in PEM") from None
        return tuple(signers)

    def reach(self, path: Path) -> Reach:
        """Return the servers that may be reached; raises LocalError."""
        networks = []
        for name in self.networks:
            try:
                networks.append(ip_network(name))
            except ValueError:
                raise LocalError(f"{path}: outside.networks: {name} is no network such as 10.1.0.0/16") from None
        return Reach(self.hosts, networks, frozenset(self.ports))

    def tls(self, path: Path) -> ssl.SSLContext:
        """Return the TLS context for the hosts; raises LocalError."""
        if self.roots is None:
            return ssl.create_default_context()
        file = resolve(path, self.roots)
        try:
            return ssl.create_default_context(
                cadata=read_file(file, "PEM", authority_list.MAX_LIST_BYTES).decode("ascii")
            )
        except (ssl.SSLError, ValueError):
            raise LocalError(f"{file}: holds no certificates in PEM") from None


@dataclass(frozen=True, slots=True)
class OutsideSetup:
    """A checked `[outside]`."""

    config: OutsideConfig
    authorities: Live[Authorities]
    reach: Reach
    tls: ssl.SSLContext
    list_signers: tuple[ListSigner, ...]

    def fetcher(self) -> CertificateFetcher:
        """Return a client that fetches certificates."""
        return CertificateFetcher(
            self.reach, timeout_s=self.config.timeout_s, max_bytes=MAX_CHAIN_BYTES, tls=self.tls
        )

    def list_fetcher(self) -> CertificateFetcher:
        """Return a client that fetches revocation lists."""
        return CertificateFetcher(
            self.reach,
            timeout_s=self.config.timeout_s,
            max_bytes=MAX_LIST_BYTES,
            tls=self.tls,
            media_types=LIST_MEDIA_TYPES,
        )

    def __str__(self) -> str:
        hosts = ", ".join(self.config.hosts)
        known = f"{len(self.authorities.value)} authorities, certificates from {hosts}"
        return f"{known}; {self.config.revocation_unknown} where it is not known whether one is revoked"
