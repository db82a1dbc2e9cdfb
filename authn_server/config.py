"""Configuration of the authentication server, and the credential and tokens that it names."""

import re
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Annotated, Literal

import msgspec

from authn_server.out_of_band import OobConfig, OobSetup
from authn_server.rules import load_rules
from voice_dpki.effects import Clock
from voice_dpki.errors import LocalError, PeerError
from voice_dpki.names import Tn
from voice_dpki.shell.config import Config, PositiveSeconds, load_config, read_secret, resolve
from voice_dpki.shell.credentials import read_certificate, read_signer
from voice_dpki.shell.ledger import LedgerAccess
from voice_dpki.shell.log import set_level
from voice_dpki.shell.reload import RELOADABLE, Live, Options
from voice_dpki.shell.rule_file import check_clients
from voice_dpki.shell.signing import HsmConfig
from voice_dpki.shell.sip_tls import live_peer_side
from voice_dpki.shell.stir_service import Namespace, StirConfig
from voice_dpki.shell.stir_sip import Peers, SipPeer, SipSection, SipSetup, peer_names, sip_setup
from voice_dpki.shell.tls import ClientTls, ServerSide, live_server_side
from voice_dpki.shell.token_uri import key_place
from voice_dpki.shell.trace import TraceTo
from voice_dpki.stir.attestation import AttestationRule
from voice_dpki.stir.national import Country
from voice_dpki.stir.sign import Credential, make_credential
from voice_dpki.wire.ledger.client import DEFAULT_MAX_AGE_S
from voice_dpki.wire.sip.asked import Terms
from voice_dpki.x509.profile import CertificateProfile
from voice_dpki.x509.tnauthlist import TnRange

EXAMPLE = """\
domain = "a.example"
organization = "Operator A"                              # as in the certificate and on the ledger
certificate = "authn.der"                                # self-signed, with a TNAuthList; DER or PEM
key = "authn.pem"                                        # its private key, ECDSA P-256
info_url = "https://certs.a.example/{digest}.der"        # x5u; verifiers read the digest, they never fetch
tokens = "proxy.tokens"                                  # bearer tokens, one a line, or NAME TOKEN; SIGHUP reads it
# bypass = "bypass.token"                                # P-Identity-Bypass of calls that it cannot sign itself
# rules = "attestation.toml"                             # who gets A, B, C or nothing; see docs/stir-policy.md
warn_days = 14                                           # before the certificate expires; `authn-server rotate`
max_iat_skew_s = 60                                      # how far iat may lie from this server's clock
# country = "DE"                                         # as whose numbers are read, with the extra `national`
workers = 1                                              # processes that serve HTTP together (docs/stir-http.md)
priority_namespaces = []                                 # of Resource-Priority, which it may sign, such as "ets"

[listen]
host = "127.0.0.1"
port = 8091

# [ledger]                                               # follows the certificate there, as verifiers do
# url = "http://127.0.0.1:26680"                         # this operator's own inquiry node
# genesis = "genesis.json"                               # whom to believe: the ledger's first validators
# trust_file = "authn-trust.json"                        # the newest header believed, kept for the next start
# witnesses = []                                         # other operators' nodes, whose headers must be the same
# max_age_s = 30                                         # what the ledger said is not believed for longer
# max_unheard_s = 300                                    # how long signing goes on while the ledger is silent;
# when_unheard = "sign"                                  # then "refuse" ends it, and "sign" says so in /healthz

# [oob]                                                  # calls whose path loses the Identity (docs/stir-oob.md)
# [[oob.routes]]                                         # calls that meet every condition; needs [ledger]
# trunks = ["tdm-1"]                                     # peers = ["gateway"], dest = ["4420*"]

# [tls]                                                  # needed where others can reach the address
# certificate = "a.pem"                                  # `ledger-node certificate` makes both
# key = "a-key.pem"
# clients = ["proxy.pem"]                                # certificates of the proxies, or folders of them

# [hsm]                                                  # where `key` is a pkcs11: URI (docs/hsm.md)
# threads = 4                                            # signatures that are asked for at the same time
# waiting = 256                                          # and how many more may wait for their turn
# timeout_s = 2                                          # a signature that takes longer is refused (503)

# [log]                                                  # to standard error
# level = "info"                                         # debug, info, warning or error; SIGHUP reads it again
# form = "json"                                          # or "text"

# [sip]                                                  # INVITEs are answered with a redirect (docs/stir-sip.md)
# listen = { host = "127.0.0.1", port = 5070 }           # UDP and TCP
# [[sip.peers]]                                          # nobody else is answered
# address = "127.0.0.1"
# attest = "A"                                           # of its calls; attest_by_header = true: as the INVITE says
# answer = 302                                           # or 403, 404, 503; 300: Identity in the Contact's URI
"""

_BYPASS = re.compile(r"[!-~]{1,128}\Z")


class SpcRange(Config, frozen=True, kw_only=True):
    """A range of numbers that the certificate's service provider codes stand for."""

    start: str
    count: int


class FollowConfig(Config, frozen=True, kw_only=True):
    """How this server follows its own certificate on the ledger."""

    url: str
    genesis: str
    trust_file: str | None = None
    witnesses: Annotated[tuple[str, ...], msgspec.Meta(max_length=16)] = ()
    tls: ClientTls | None = None
    """TLS for connections to ledger nodes that have [tls]."""
    max_age_s: PositiveSeconds = DEFAULT_MAX_AGE_S
    timeout_s: PositiveSeconds = 1.5
    max_unheard_s: PositiveSeconds = 300.0
    when_unheard: Literal["sign", "refuse"] = "sign"
    """By default signing goes on: a ledger outage must not end all calls. Only a known bad status stops signing."""


class SigningPeer(SipPeer, frozen=True, kw_only=True):
    """An element whose INVITEs are signed."""

    attest: Literal["A", "B", "C"] | None = None
    """The attestation of its calls."""
    attest_by_header: bool = False
    """Whether a header field of its INVITEs can override it. Subscribers must not be able to set that field."""
    sign_sdp: bool = False
    """Whether the whole SDP is signed: nothing may change it on the way to the callee's operator."""

    @property
    def terms(self) -> Terms:
        """The terms on which its INVITEs are signed."""
        return Terms(self.attest or "", attest_by_header=self.attest_by_header, sign_sdp=self.sign_sdp)


class AuthnSip(SipSection, frozen=True, kw_only=True):
    """`[sip]`: signing over SIP."""

    peers: Peers[SigningPeer]


class AuthnConfig(StirConfig, frozen=True, kw_only=True):
    """The TOML file; see EXAMPLE. File names are relative to it."""

    organization: str
    info_url: str
    certificate: Annotated[str, RELOADABLE]
    key: Annotated[str, RELOADABLE]
    """A file, or a pkcs11: URI of a key in a token.

    SIGHUP reads certificate and key again, also where their names stay; `authn-server rotate` replaces files.
    """
    warn_days: Annotated[float, msgspec.Meta(ge=0, le=10_000)] = 14.0
    """Days before its expiry when log and /healthz begin to warn; at most a quarter of the validity."""
    max_iat_skew_s: PositiveSeconds = 60.0
    bypass: Annotated[str | None, RELOADABLE] = None
    """File with the token for P-Identity-Bypass of calls that this server cannot sign through its own fault."""
    rules: Annotated[str | None, RELOADABLE] = None
    """The rule file of attestations; without it a call gets the attestation that its proxy asks for."""
    spc_ranges: tuple[SpcRange, ...] = ()
    priority_namespaces: tuple[Namespace, ...] = ()
    """The namespaces of Resource-Priority that this operator may sign; certificates do not contain them."""
    ledger: FollowConfig | None = None
    oob: OobConfig | None = None
    sip: AuthnSip | None = None
    hsm: HsmConfig = HsmConfig()

    def read_credential(self, path: Path, clock: Clock) -> Credential:
        """Read the certificate and key that the configuration at `path` names; raises LocalError."""
        profile = _profile(resolve(path, self.certificate), self.organization)
        signer = read_signer(key_place(self.key, path.parent))
        ranges, namespaces = _spc_ranges(self), self.priority_namespaces
        return make_credential(signer, profile, self.info_url, clock.now_s(), ranges, namespaces)

    def read_bypass(self, path: Path) -> str:
        """Read the token that the configuration at `path` names, "" if it names none; raises LocalError."""
        if not self.bypass:
            return ""
        token = read_secret(resolve(path, self.bypass))
        if not _BYPASS.match(token):
            raise LocalError(f"{resolve(path, self.bypass)}: a token has 1 to 128 visible ASCII characters")
        return token

    def read_rules(self, path: Path) -> tuple[AttestationRule, ...] | None:
        """Read the rules that the configuration at `path` names, None if it names none; raises LocalError."""
        if not self.rules:
            return None
        return load_rules(resolve(path, self.rules), self.names(path))

    def names(self, path: Path) -> frozenset[str]:
        """Return the names of the clients over HTTP and SIP that have one; raises LocalError."""
        return self.client_names(path) | peer_names(self.sip.peers if self.sip else ())


@dataclass(frozen=True, slots=True)
class AuthnSetup:
    """A fully checked configuration: this server can sign calls now."""

    config: AuthnConfig
    credential: Live[Credential]
    ledger: LedgerAccess | None
    tokens: Live[tuple[str, ...]]
    tls: Live[ServerSide] | None
    trace: TraceTo
    rules: Live[tuple[AttestationRule, ...] | None]
    sip: SipSetup[SigningPeer] | None = None
    bypass: Live[str] = field(default_factory=lambda: Live(""))
    """For P-Identity-Bypass; "" for none."""
    oob: OobSetup | None = None
    country: Country | None = None
    """The country by whose dialling plan numbers in requests are read."""


def load_setup(path: Path, clock: Clock) -> AuthnSetup:
    """Read the configuration at `path` and the files that it names; raises LocalError that says what to mend."""
    options = Options(partial(load_config, path, AuthnConfig))
    options.on_change(lambda config: set_level(config.log))
    config = options.config
    credential = options.live(lambda config: config.read_credential(path, clock))
    ledger = _ledger(path, config.ledger)
    tokens = options.live(lambda config: config.read_tokens(path))
    rules = options.live(lambda config: config.read_rules(path))
    sip = _sip(path, options)
    config.check_workers(path)
    trace = config.trace.read(path)
    bypass = options.live(lambda config: config.read_bypass(path))
    oob = _oob(path, config)
    country = config.read_country()
    config.check_secrecy(path)
    tls = live_server_side(path, options, lambda config: config.tls)
    return AuthnSetup(config, credential, ledger, tokens, tls, trace, rules, sip, bypass, oob, country)


def _oob(path: Path, config: AuthnConfig) -> OobSetup | None:
    if config.oob is None:
        return None
    if config.ledger is None:
        raise LocalError(f"{path}: oob: without [ledger] it is not known who holds a called number")
    peers = frozenset(peer for route in config.oob.routes for peer in route.peers or ())
    check_clients(path, "oob.routes: peers", peers, config.names(path))
    return OobSetup.configured(path, config.oob)


def _sip(path: Path, options: Options[AuthnConfig]) -> SipSetup[SigningPeer] | None:
    section = options.config.sip
    if section is None:
        return None
    for peer in section.peers:
        if peer.attest is None and not peer.attest_by_header:
            raise LocalError(f"{path}: sip.peers: {peer.address} has neither attest nor attest_by_header = true")
    tls = live_peer_side(path, options, lambda config: config.sip.tls if config.sip else None)
    return sip_setup(path, section, section.peers, tls)


def _ledger(path: Path, follow: FollowConfig | None) -> LedgerAccess | None:
    if follow is None:
        return None
    return LedgerAccess.configured(
        path,
        url=follow.url,
        genesis=follow.genesis,
        trust_file=follow.trust_file,
        max_age_s=follow.max_age_s,
        witnesses=follow.witnesses,
        tls=follow.tls,
    )


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
