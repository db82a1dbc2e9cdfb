"""Configuration of the authentication server, and what it names: credential and tokens."""

import ssl
from dataclasses import dataclass
from pathlib import Path

from voice_dpki.effects import Clock
from voice_dpki.errors import LocalError, PeerError
from voice_dpki.names import Tn
from voice_dpki.shell.config import Config, PositiveSeconds, load_config, resolve
from voice_dpki.shell.credentials import read_certificate, read_signer
from voice_dpki.shell.stir_service import StirConfig
from voice_dpki.stir.sign import Credential, make_credential
from voice_dpki.x509.profile import CertificateProfile
from voice_dpki.x509.tnauthlist import TnRange

EXAMPLE = """\
domain = "a.example"
organization = "Operator A"                              # as in the certificate and on the ledger
certificate = "authn.der"                                # self-signed, with a TNAuthList; DER or PEM
key = "authn.pem"                                        # its private key, ECDSA P-256
info_url = "https://certs.a.example/{digest}.der"        # x5u; verifiers read the digest, they never fetch
tokens = "proxy.tokens"                                  # bearer tokens of the proxies, one a line
max_iat_skew_s = 60                                      # how far iat may lie from this server's clock

[listen]
host = "127.0.0.1"
port = 8091

# [tls]                                                  # needed where others can reach the address
# certificate = "a.pem"                                  # `ledger-node certificate` makes both
# key = "a-key.pem"
# clients = ["proxy.pem"]                                # certificates of the proxies, or folders of them
"""


class SpcRange(Config, frozen=True, kw_only=True):
    """Numbers that the service provider codes in the certificate stand for."""

    start: str
    count: int


class AuthnConfig(StirConfig, frozen=True, kw_only=True):
    """The TOML file; see EXAMPLE. File names are relative to it."""

    organization: str
    info_url: str
    certificate: str
    key: str
    max_iat_skew_s: PositiveSeconds = 60.0
    spc_ranges: tuple[SpcRange, ...] = ()


@dataclass(frozen=True, slots=True)
class Setup:
    """A configuration that was checked whole: this server can sign calls now."""

    config: AuthnConfig
    credential: Credential
    tokens: tuple[str, ...]
    tls: ssl.SSLContext | None
    trace: Path | None


def load_setup(path: Path, clock: Clock) -> Setup:
    """Read the configuration at `path` and all that it names; raises LocalError that says what to mend."""
    config = load_config(path, AuthnConfig)
    profile = _profile(resolve(path, config.certificate), config.organization)
    signer = read_signer(resolve(path, config.key))
    credential = make_credential(signer, profile, config.info_url, clock.now_s(), _spc_ranges(config))
    return Setup(config, credential, config.read_tokens(path), config.server_tls(path), config.trace_file(path))


def _profile(path: Path, organization: str) -> CertificateProfile:
    profile = read_certificate(path)
    if profile.organization != organization:
        raise LocalError(f"{path}: the certificate's organisation is not the configured {organization!r}")
    return profile


def _spc_ranges(config: AuthnConfig) -> tuple[TnRange, ...]:
    try:
        return tuple(TnRange(Tn(entry.start), entry.count) for entry in config.spc_ranges)
    except PeerError as error:
        raise LocalError(f"spc_ranges: {error}") from None
