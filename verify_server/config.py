"""Configuration of the verification server, and the ledger's genesis and tokens that it names."""

import math
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Annotated

import msgspec

from verify_server.export import ExportConfig
from verify_server.out_of_band import OobConfig, OobSetup
from verify_server.outside_config import OutsideConfig, OutsideSetup
from verify_server.replay_store import Link
from verify_server.rules import load_handling
from verify_server.store_config import StoreConfig
from voice_dpki.effects import SystemClock
from voice_dpki.errors import LocalError
from voice_dpki.names import ascii_lower
from voice_dpki.shell.config import Config, PositiveSeconds, load_config, read_secrets, resolve
from voice_dpki.shell.ledger import LedgerAccess
from voice_dpki.shell.log import set_level
from voice_dpki.shell.reload import RELOADABLE, Live, Options
from voice_dpki.shell.rule_file import MAX_LISTED, check_clients
from voice_dpki.shell.sip_tls import live_peer_side
from voice_dpki.shell.stir_service import Namespace, StirConfig
from voice_dpki.shell.stir_sip import Peers, SipPeer, SipSection, SipSetup, peer_names, sip_setup
from voice_dpki.shell.tls import ClientTls, ServerSide, live_server_side
from voice_dpki.shell.trace import TraceTo
from voice_dpki.stir.examine import Policy
from voice_dpki.stir.handling import Handling
from voice_dpki.stir.kinds import KINDS, Kinds
from voice_dpki.stir.national import Country
from voice_dpki.stir.profile import Profile
from voice_dpki.stir.replay import RepeatedToken, ReplayCache
from voice_dpki.stir.shaken import SHAKEN
from voice_dpki.wire.ledger.client import DEFAULT_MAX_AGE_S
from voice_dpki.x509.listed import Authorities

SET_S = 60.0
"""How far the clock may be set without a signature being accepted twice; the ledger reveals larger steps."""

EXAMPLE = """\
domain = "b.example"
ledger_url = "http://127.0.0.1:26680"    # this operator's own inquiry node
witnesses = []                           # other operators' nodes, whose headers must be the same
genesis = "genesis.json"                 # whom to believe: the ledger's first validators
trust_file = "ledger-trust.json"         # the newest header believed, kept for the next start
tokens = "proxy.tokens"                  # bearer tokens, one a line, or NAME TOKEN; SIGHUP reads it
max_age_s = 30                           # what the ledger said is not believed for longer
# bypass = "bypass.tokens"               # NAME TOKEN a line: P-Identity-Bypass of operators that could not sign
# rules = "verdicts.toml"                # what is done with a call by its verdict; see docs/stir-policy.md
signers_max_entries = 10000              # known signers, followed on the ledger
freshness_s = 60                         # how far Date and iat may lie from this server's clock
replay_max_entries = 200000              # signatures remembered, for twice freshness_s and a minute
# country = "DE"                         # as whose numbers are read, with the extra `national`
workers = 1                              # processes that serve HTTP together; several need [replay.store]
# profile = "man"                        # codes and rules of France's operators (docs/stir-codes.md)
require_key_mgmt = false                 # true: refuse calls that are not keyed by MIKEY under the signature
require_sdp = false                      # true: refuse calls whose session description is not under the signature
# base_passports = false                 # refuse PASSporTs without ppt, which attest nothing
# ledger_tls = { certificate = "b.pem", key = "b-key.pem", servers = ["a.pem"] }    # for nodes with [tls]

[listen]
host = "127.0.0.1"
port = 8092

# [replay]                               # how a used signature is told from a new one (docs/stir-replay.md)
# repeated_token = "accept"              # or "no-validation", "refuse": where no Call-ID tells which call it is
# b2bua = ["sbc"]                        # clients whose Call-IDs change while a call is set up, and do not count
# [replay.store]                         # a memory that several servers share: Redis from 7.0 on, Valkey, or a file
# url = "redis://127.0.0.1:6379/0"       # rediss:// with tls, as ledger_tls; unix:///run/redis.sock?db=0; file:///run/x
# user = "verify"
# password = "redis.password"
# when_down = "no-validation"            # or "local": this server's memory alone

# [priority]                             # who may sign which namespaces of Resource-Priority (RFC 8443): nobody,
# "Operator A" = ["ets", "wps"]          # if it is not told here

# [[export]]                             # a line for each call, as "json" or "csv"
# file = "verdicts.jsonl"
# numbers = "none"                       # or "beginning", "full"
# max_bytes = 100000000                  # then it is renamed to verdicts.jsonl.1, and so on
# keep = 10                              # of those

# [outside]                              # signers of whom the ledger knows nothing (docs/stir-outside.md)
# authorities = ["sti-cas.pem"]          # PEM, or the signed list of a policy administrator; SIGHUP reads it
# hosts = ["certs.carrier.example", "*.sti.example"]     # nothing is fetched from others
# list_signers = ["sti-pa-crl.pem"]      # who signs revocation lists for several authorities
# revocation_unknown = "accept"          # or "refuse": calls where no list tells whether the signer is revoked

# [oob]                                  # PASSporTs of calls that have no Identity (docs/stir-oob.md)
# url = "https://cps.b.example"          # this operator's call placement service
# certificate = "sti.der"                # on the ledger, of the operator that holds the called numbers
# key = "sti.pem"
# info_url = "https://certs.b.example/{digest}.der"

# [tls]                                  # needed where others can reach the address
# certificate = "b.pem"                  # `ledger-node certificate` makes both
# key = "b-key.pem"
# clients = ["proxy.pem"]                # certificates of the proxies, or folders of them

# [sip]                                  # INVITEs are answered with a redirect (docs/stir-sip.md)
# listen = { host = "127.0.0.1", port = 5071 }           # UDP and TCP
# [[sip.peers]]                          # nobody else is answered
# address = "127.0.0.1"
# answer = 302                           # or 403, 404, 503; 300: P-Asserted-Identity in the Contact's URI
"""


class ReplayConfig(Config, frozen=True, kw_only=True):
    """`[replay]`: how repeated tokens are judged."""

    repeated_token: RepeatedToken = RepeatedToken.ACCEPT
    """Used where no Call-ID identifies the call: a proxy's retry then looks like a replay."""
    b2bua: Annotated[frozenset[str], msgspec.Meta(max_length=MAX_LISTED)] = frozenset()
    """Clients by name, such as SBCs that change the Call-ID when they try another route."""
    store: StoreConfig | None = None
    """Store of used tokens that several servers of the domain share."""


Bypasses = tuple[tuple[str, str], ...]
"""Names of operators, each with its token in P-Identity-Bypass."""


class VerifySip(SipSection, frozen=True, kw_only=True):
    """`[sip]`: verification over SIP."""

    peers: Peers[SipPeer]


class VerifyConfig(StirConfig, frozen=True, kw_only=True):
    """The TOML file; see EXAMPLE. File names are relative to it."""

    ledger_url: str
    witnesses: Annotated[tuple[str, ...], msgspec.Meta(max_length=16)] = ()
    """Asked once a minute, because an isolated or lying node could show this server a history of its own."""
    ledger_tls: ClientTls | None = None
    """TLS for connections to ledger nodes that have [tls]."""
    genesis: str
    trust_file: str | None = None
    max_age_s: PositiveSeconds = DEFAULT_MAX_AGE_S
    ledger_timeout_s: PositiveSeconds = 1.5
    """Less than the 2 s that a proxy waits for a verdict."""
    signers_max_entries: Annotated[int, msgspec.Meta(ge=1, le=1_000_000)] = 10_000
    """Known signers; each takes about 3 kB of memory."""
    freshness_s: PositiveSeconds = 60.0
    replay_max_entries: Annotated[int, msgspec.Meta(ge=1, le=10_000_000)] = 200_000
    """Enough for 1,100 calls a second, half of them from one signer; each entry takes about 350 bytes of memory."""
    replay: ReplayConfig = ReplayConfig()
    rules: Annotated[str | None, RELOADABLE] = None
    """The rule file of verdicts; without it the verdict is returned, and the proxy decides on the call."""
    export: Annotated[tuple[ExportConfig, ...], msgspec.Meta(max_length=8)] = ()
    bypass: Annotated[str | None, RELOADABLE] = None
    """File with lines NAME TOKEN: what operators put into P-Identity-Bypass of calls that they could not sign."""
    outside: OutsideConfig | None = None
    profile: Profile = Profile.ATIS
    """The profile by which an Identity is read: "atis", or "man", that of France's operators."""
    require_key_mgmt: bool = False
    require_sdp: bool = False
    base_passports: bool = True
    """Whether a PASSporT without ppt proves the caller, as in RFC 8224. SHAKEN has no such PASSporT."""
    priority: dict[str, tuple[Namespace, ...]] = msgspec.field(default_factory=dict)
    """By organisation, as on the ledger: the namespaces of Resource-Priority that it may sign."""
    oob: OobConfig | None = None
    sip: VerifySip | None = None

    def read_bypasses(self, path: Path) -> Bypasses:
        """Read the tokens of P-Identity-Bypass that the configuration at `path` names; raises LocalError."""
        if not self.bypass:
            return ()
        file = resolve(path, self.bypass)
        lines = [line.split() for line in read_secrets(file)]
        for number, words in enumerate(lines, 1):
            if len(words) != 2:
                raise LocalError(f"{file}: secret {number}: a line is NAME TOKEN")
        return tuple((name, token) for name, token in lines)

    def read_rules(self, path: Path) -> Handling | None:
        """Read the rules that the configuration at `path` names, None if it names none; raises LocalError."""
        if not self.rules:
            return None
        bypasses = frozenset(name for name, _ in self.read_bypasses(path))
        return load_handling(resolve(path, self.rules), self.names(path), bypasses)

    def names(self, path: Path) -> frozenset[str]:
        """Return the names of the clients over HTTP and SIP that have one; raises LocalError."""
        return self.client_names(path) | peer_names(self.sip.peers if self.sip else ())

    def check_workers(self, path: Path) -> None:
        """Check that several workers can share address, used signatures and files; raises LocalError."""
        super().check_workers(path)
        if self.workers > 1 and self.replay.store is None:
            raise LocalError(f"{path}: workers: several know each other's used signatures by a replay.store alone")
        if self.workers > 1 and self.export:
            raise LocalError(f"{path}: workers: several cannot write one file, so there can be no [[export]]")

    @property
    def _kinds(self) -> Kinds:
        if self.profile.knows_shaken_alone:
            return Kinds(SHAKEN)
        return KINDS if self.base_passports else KINDS.without_base()

    def policy(self) -> Policy:
        """Return the policy that every call must meet."""
        priority = {name: frozenset(map(ascii_lower, namespaces)) for name, namespaces in self.priority.items()}
        return Policy(
            self.freshness_s,
            require_key_mgmt=self.require_key_mgmt,
            require_sdp=self.require_sdp,
            priority=priority,
            profile=self.profile,
            repeated_token=self.replay.repeated_token,
            b2bua=self.replay.b2bua,
            kinds=self._kinds,
        )

    def replay_cache(self, now_s: float) -> ReplayCache:
        """Make an empty cache that remembers each token for as long as it could be fresh, from `now_s` on.

        A token from `freshness_s` ahead stays fresh for twice that time, and longer if the clock is set back. What
        was signed before the second of `now_s` may have been used before, so the cache does not know it.
        """
        return ReplayCache(self.replay_max_entries, self.retention_s, math.floor(now_s))

    @property
    def retention_s(self) -> float:
        """How long a token is remembered."""
        return 2 * self.freshness_s + SET_S


@dataclass(frozen=True, slots=True)
class VerifySetup:
    """A fully checked configuration."""

    config: VerifyConfig
    ledger: LedgerAccess
    tokens: Live[tuple[str, ...]]
    tls: Live[ServerSide] | None
    trace: TraceTo
    handling: Live[Handling | None]
    path: Path
    """The configuration, where the names of files begin."""
    sip: SipSetup[SipPeer] | None = None
    link: Link | None = None
    """To the store of used signatures that several servers share."""
    outside: OutsideSetup | None = None
    bypasses: Live[Bypasses] = field(default_factory=lambda: Live(()))
    oob: OobSetup | None = None
    country: Country | None = None
    """The country by whose dialling plan numbers in requests are read."""


def load_setup(path: Path) -> VerifySetup:
    """Read the configuration at `path` and the files that it names; raises LocalError that says what to mend."""
    options = Options(partial(load_config, path, VerifyConfig))
    options.on_change(lambda config: set_level(config.log))
    config = options.config
    ledger = LedgerAccess.configured(
        path,
        url=config.ledger_url,
        genesis=config.genesis,
        trust_file=config.trust_file,
        max_age_s=config.max_age_s,
        witnesses=config.witnesses,
        tls=config.ledger_tls,
    )
    tokens = options.live(lambda config: config.read_tokens(path))
    _check_exports(path, config)
    handling = options.live(lambda config: config.read_rules(path))
    check_clients(path, "replay.b2bua", config.replay.b2bua, config.names(path))
    sip = _sip(path, options)
    config.check_workers(path)
    trace, store = config.trace.read(path), config.replay.store
    link = store.link(path, config.domain, SystemClock()) if store else None
    outside = _outside(path, options, config.outside)
    bypasses = options.live(lambda config: config.read_bypasses(path))
    config.check_secrecy(path)
    tls = live_server_side(path, options, lambda config: config.tls)
    oob = _oob(path, config)
    country = config.read_country()
    return VerifySetup(
        config, ledger, tokens, tls, trace, handling, path, sip, link, outside, bypasses, oob, country
    )


def _sip(path: Path, options: Options[VerifyConfig]) -> SipSetup[SipPeer] | None:
    section = options.config.sip
    if section is None:
        return None
    tls = live_peer_side(path, options, lambda config: config.sip.tls if config.sip else None)
    return sip_setup(path, section, section.peers, tls)


def _oob(path: Path, config: VerifyConfig) -> OobSetup | None:
    if config.oob is None:
        return None
    check_clients(path, "oob.peers", config.oob.peers or frozenset(), config.names(path))
    return OobSetup.configured(path, config.oob)


def _outside(path: Path, options: Options[VerifyConfig], section: OutsideConfig | None) -> OutsideSetup | None:
    if section is None:
        return None

    def read(config: VerifyConfig) -> Authorities:
        return (config.outside or section).read_authorities(path)

    return OutsideSetup(
        section, options.live(read), section.reach(path), section.tls(path), section.read_list_signers(path)
    )


def _check_exports(path: Path, config: VerifyConfig) -> None:
    files = [resolve(path, export.file) for export in config.export]
    for file in files:
        if files.count(file) > 1:
            raise LocalError(f"{path}: export: {file.name} is named twice, and two writers would spoil it")
