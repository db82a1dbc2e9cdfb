"""Configuration of the gateway between MIKEY and the keying of ordinary telephones."""

import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import msgspec

from sip_testbed.credentials import KeysConfig, KeysCredentials, load_keys
from sip_testbed.proxy_config import Name
from voice_dpki.errors import LocalError, MalformedError
from voice_dpki.mikey.policy import SrtpProfile
from voice_dpki.names import Tn
from voice_dpki.shell.config import (
    AdvertisedListen,
    Config,
    Listen,
    Port,
    PositiveSeconds,
    load_config,
    read_secret,
    resolve,
)
from voice_dpki.shell.credentials import read_certificate
from voice_dpki.shell.tls import ClientTls, optional_client_context
from voice_dpki.shell.trace import CallTraceConfig, TraceTo
from voice_dpki.sip.account import Account
from voice_dpki.sip.digest import MD5, SHA_256, Secret
from voice_dpki.sip.message import Hop, parse_uri
from voice_dpki.stir.tn import canonical_tn
from voice_dpki.wire.sip.transport import Tls
from voice_dpki.x509.elements import element_uri

EXAMPLE = """\
name = "gateway.b.example"                  # the certificate names sip:gateway.b.example, too
proxy = "udp:127.0.0.3:5060"                # of the telephones' domain; calls come and go through it
srtp = "AES_CM_128_HMAC_SHA1_80"            # or AEAD_AES_128_GCM: on the side of the domain
max_calls = 64
idle_s = 60                                 # a call on which one side sends nothing authentic for so long is ended

[listen]                                    # towards the domain: SIP and media have free ports of this address
host = "127.0.0.8"
port = 0                                    # each telephone is a user agent of its own, so there is no one port
# advertise = "192.0.2.8"                   # for Via, Contact and SDP, where host = "0.0.0.0" or "::"

[outside]                                   # where the telephones register: UDP and TCP
host = "127.0.0.9"
port = 5060
# advertise = "192.0.2.9"

[outside.tls]                               # and TLS; a telephone proves itself by its password
port = 5061
certificate = "gateway-tls.pem"
key = "gateway-tls-key.pem"

[keys]                                      # the gateway's certificate on the ledger; all as for a telephone
certificate = "gateway.der"
key = "gateway.pem"
ledger_url = "http://127.0.0.3:8083"
genesis = "genesis.json"
trust_file = "ledger-trust.json"
max_age_s = 30

[[telephones]]
aor = "sip:+442079460123@b.example"
password_file = "domain.password"           # the gateway's, for the domain's proxy
own_password_file = "telephone.password"    # the telephone's, for the gateway
media = "sdes"                              # or "dtls", for browsers' stacks
md5 = false                                 # true for older telephones, which know no SHA-256 digest
unprotected_sip = false                     # true takes UDP and TCP: others read keys, or change fingerprints

[metrics]                                   # /metrics and /healthz; nowhere without this section
host = "127.0.0.9"
port = 8090

[trace]
file = "gateway.jsonl"
"""


class OutsideTls(Config, frozen=True, kw_only=True):
    """SIP over TLS for telephones that show no certificate."""

    port: Port
    certificate: str
    key: str


class Outside(AdvertisedListen, frozen=True, kw_only=True):
    """Where the telephones register, and where the media of their side have their ports."""

    tls: OutsideTls | None = None


class TelephoneConfig(Config, frozen=True, kw_only=True):
    """One telephone, which the gateway registers at the domain in its own name."""

    aor: str
    password_file: str
    own_password_file: str
    media: Literal["sdes", "dtls"]
    md5: bool = False
    unprotected_sip: bool = False


class GatewayConfig(Config, frozen=True, kw_only=True):
    """The TOML file; see EXAMPLE. File names are relative to it."""

    name: Name
    proxy: str
    listen: AdvertisedListen
    outside: Outside
    keys: KeysConfig
    telephones: Annotated[tuple[TelephoneConfig, ...], msgspec.Meta(min_length=1, max_length=256)]
    srtp: Literal["AES_CM_128_HMAC_SHA1_80", "AEAD_AES_128_GCM"] = "AES_CM_128_HMAC_SHA1_80"
    max_calls: Annotated[int, msgspec.Meta(ge=1, le=10_000)] = 64
    idle_s: PositiveSeconds = 60.0
    tls: ClientTls | None = None
    """For a proxy "tls:...": the gateway's certificate there, and the proxy's."""
    metrics: Listen | None = None
    trace: CallTraceConfig = CallTraceConfig()


@dataclass(frozen=True, slots=True)
class GatewayTelephone:
    """One telephone: its account at the domain, and its secret and keying at the gateway."""

    number: Tn
    account: Account
    secret: Secret
    """The secret with which the telephone authenticates at the gateway."""
    media: Literal["sdes", "dtls"]
    unprotected_sip: bool
    """Whether calls may use SIP without TLS; an attacker on the path can then intercept the media."""
    credentials: KeysCredentials


@dataclass(frozen=True, slots=True)
class GatewaySetup:
    """A completely checked configuration, with which the gateway can start."""

    config: GatewayConfig
    proxy: Hop
    telephones: Mapping[Tn, GatewayTelephone]
    proxy_tls: ssl.SSLContext | None
    outside_tls: Tls | None
    trace: TraceTo

    @property
    def name(self) -> str:
        """The gateway's host, which its certificate names and telephones are told."""
        return self.config.name


def load_setup(path: Path) -> GatewaySetup:
    """Read the configuration at `path` and the files that it names; raises LocalError that says what to correct."""
    config = load_config(path, GatewayConfig)
    config.listen.check(path)
    config.outside.check(path)
    if config.proxy.startswith("tls:") and config.tls is None:
        raise LocalError(f"{path}: [tls] is missing; it is needed for the proxy {config.proxy}")
    try:
        proxy = Hop.parse(config.proxy)
    except MalformedError as error:
        raise LocalError(f"{path}: proxy: {error}") from None
    return GatewaySetup(
        config,
        proxy,
        _telephones(path, config),
        optional_client_context(path, config.tls),
        _outside_tls(path, config.outside.tls),
        config.trace.read(path),
    )


def _telephones(path: Path, config: GatewayConfig) -> dict[Tn, GatewayTelephone]:
    _check_named(path, config)
    found: dict[Tn, GatewayTelephone] = {}
    for each in config.telephones:
        try:
            user = parse_uri(each.aor).user or ""
            number = canonical_tn(user)
        except MalformedError as error:
            raise LocalError(f"{path}: telephone {each.aor}: {error}") from None
        if number in found:
            raise LocalError(f"{path}: two telephones have the number of {each.aor}")
        own_password = read_secret(resolve(path, each.own_password_file))
        found[number] = GatewayTelephone(
            number,
            Account(each.aor, user, read_secret(resolve(path, each.password_file))),
            Secret(own_password, algorithm=MD5 if each.md5 else SHA_256),
            each.media,
            each.unprotected_sip,
            load_keys(path, each.aor, SrtpProfile(config.srtp), config.keys),
        )
    return found


def _check_named(path: Path, config: GatewayConfig) -> None:
    """Check that each certificate names the gateway, or it would pass for a telephone's; raises LocalError."""
    standard = config.keys.standard
    for name in (config.keys.certificate, *([standard.certificate] if standard else [])):
        file = resolve(path, name)
        if element_uri(config.name) not in read_certificate(file).uris:
            raise LocalError(
                f"{file}: does not name {element_uri(config.name)}, and so would pass for a telephone's"
            )


def _outside_tls(path: Path, section: OutsideTls | None) -> Tls | None:
    """Return TLS for the telephones: they show no certificate, and we open no connection to them."""
    if section is None:
        return None
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.minimum_version = ssl.TLSVersion.TLSv1_2
    certificate, key = resolve(path, section.certificate), resolve(path, section.key)
    try:
        server.load_cert_chain(certificate, key)
    except (OSError, ssl.SSLError) as error:
        raise LocalError(f"{certificate}: no certificate and key for TLS: {error}") from None
    return Tls(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), server, section.port)
