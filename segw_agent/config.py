"""Configuration of agent, gateway and device, and the files that it names: genesis, certificate and key."""

import ssl
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from ipaddress import IPv4Network
from pathlib import Path
from typing import Annotated

import msgspec

from segw_agent.policy import Policy, measured
from voice_dpki.errors import LocalError
from voice_dpki.ikev2.events import SaName
from voice_dpki.ikev2.identity import fqdn, subject_identity
from voice_dpki.ikev2.integrity import IntegrityInfo, Measurement, Result
from voice_dpki.ikev2.registry import FIRST_PRIVATE_STATUS, INTEGRITY_INFO, LEDGER_ANSWER
from voice_dpki.ikev2.rekey import Lifetimes
from voice_dpki.ikev2.responder import Limits
from voice_dpki.ikev2.sa import Party, Settings
from voice_dpki.ikev2.window import Retransmission
from voice_dpki.ledger.genesis import Genesis
from voice_dpki.ledger.light import TRUSTING_PERIOD_S
from voice_dpki.names import CertDigest
from voice_dpki.shell.config import (
    Config,
    Listen,
    Port,
    PositiveSeconds,
    TraceConfig,
    load_config,
    resolve,
)
from voice_dpki.shell.credentials import read_certificate, read_signer
from voice_dpki.shell.example import example_of
from voice_dpki.shell.ledger import read_genesis
from voice_dpki.shell.log import LogConfig, set_level
from voice_dpki.shell.reload import RELOADABLE, Live, Options
from voice_dpki.shell.tls import ClientTls, optional_client_context
from voice_dpki.x509.profile import digest_of

COMMON_EXAMPLE = f"""\
[ledger]
urls = ["http://127.0.0.1:26680"]      # inquiry nodes, asked in this order
genesis = "genesis.json"               # whom to believe: the ledger's first validators
trust = "trusted.json"                 # the newest header that followed from them, kept here
trusting_period_s = 1209600            # longest time without one; devices that rest for longer need more
max_age_s = 30                         # an answer that is older is not believed
timeout_s = 2                          # how long an inquiry may take, at all nodes together
bound_s = 2                            # revocation is noticed, and live SAs ended, within this time
# tls = {{ certificate = "tls/a.pem", key = "tls/a-key.pem", servers = ["tls/node.pem"] }}   # urls are then https

{example_of(Policy, "policy")}
# [log]                                # to standard error
# level = "info"                       # debug, info, warning or error; SIGHUP of agent and gateway reads it again
# form = "json"                        # or "text"
"""

AGENT_EXAMPLE = f"""\
socket = "/run/charon.segw-agent"      # where the IKEv2 daemon's plugin asks
vici = "/run/charon.vici"              # where strongSwan is told to end SAs; left out: none are ended
state = "live-sas.jsonl"               # which SAs were admitted, for after a restart

{COMMON_EXAMPLE}
# [listen]                             # GET /metrics and /healthz
# host = "127.0.0.1"
# port = 9464

# [own]                                # own certificate: stapled by a gateway, and the device's statements
# certificate = "segw.der"
# key = "segw.pem"
"""

GATEWAY_EXAMPLE = f"""\
host = "127.0.0.3"                     # UDP; port = 500 and nat_port = 4500 unless others are given
pool = "10.9.0.0/16"                   # inner addresses for devices
inner = "10.8.0.0/16"                  # the network that they may reach
# lifetime = {{ ike_s = 14400, child_s = 3600 }}  # seconds; left out: the devices rekey, the gateway only answers

[own]
certificate = "segw.der"
key = "segw.pem"

{COMMON_EXAMPLE}"""

DEVICE_EXAMPLE = f"""\
host = "127.0.0.2"
gateway = {{ host = "127.0.0.3" }}       # port = 500 and nat_port = 4500 unless others are given
lifetime = {{ ike_s = 14400, child_s = 3600 }}  # seconds; both SAs are rekeyed before

[own]
certificate = "enb1.der"
key = "enb1.pem"

[integrity]                            # left out: no N(INTEGRITY_INFO) is sent
passed = true
measurements = {{ boot = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08" }}

# [ledger] as below; without urls, the device believes what the gateway staples, and nothing else
{COMMON_EXAMPLE}"""

NotifyNumber = Annotated[int, msgspec.Meta(ge=FIRST_PRIVATE_STATUS, le=65_535)]


class LedgerSection(Config, frozen=True, kw_only=True):
    """Where the inquiry nodes are, and how they are queried."""

    genesis: str
    urls: tuple[str, ...] = ()
    max_age_s: PositiveSeconds = 30.0
    timeout_s: PositiveSeconds = 2.0
    bound_s: PositiveSeconds = 2.0
    trust: str | None = None
    """File that keeps the newest trusted header; with it, trust outlasts the genesis's trusting period."""
    trusting_period_s: PositiveSeconds = float(TRUSTING_PERIOD_S)
    """How long a trusted header, or the genesis, vouches for later ones."""
    cache_entries: Annotated[int, msgspec.Meta(ge=0, le=10_000_000)] = 100_000
    tls: ClientTls | None = None


class OwnSection(Config, frozen=True, kw_only=True):
    """The program's own certificate and key.

    `identity` is a DNS name, or "subject" for the certificate's subject. By default it is the certificate's first
    DNS name, or the subject if there is none.
    """

    certificate: str
    key: str
    identity: str | None = None


class IntegritySection(Config, frozen=True, kw_only=True):
    """What a device states about its integrity."""

    passed: bool = True
    measurements: dict[str, str] = msgspec.field(default_factory=dict)


class RetransmissionSection(Config, frozen=True, kw_only=True):
    """Number and intervals of retransmissions of a request to a peer that does not answer."""

    first_s: PositiveSeconds = 1.0
    factor: PositiveSeconds = 2.0
    tries: Annotated[int, msgspec.Meta(ge=1, le=20)] = 5


class LifetimeSection(Config, frozen=True, kw_only=True):
    """How long an IKE SA and its child SA live; each is rekeyed before its end. None: the peer rekeys."""

    ike_s: PositiveSeconds | None = None
    child_s: PositiveSeconds | None = None


class IkeConfig(Config, frozen=True, kw_only=True):
    """What gateway and device have in common."""

    host: str
    own: OwnSection
    ledger: LedgerSection
    policy: Policy
    port: Port = 500
    nat_port: Port = 4500
    retransmission: RetransmissionSection = RetransmissionSection()
    fragment_bytes: Annotated[int, msgspec.Meta(ge=256, le=65_000)] | None = 1252
    probe_s: PositiveSeconds | None = 30.0
    lifetime: LifetimeSection = LifetimeSection()
    integrity_notify: NotifyNumber = INTEGRITY_INFO
    answer_notify: NotifyNumber = LEDGER_ANSWER
    log: LogConfig = LogConfig()
    trace: TraceConfig | None = None

    def settings(self) -> Settings:
        """Return the state machines' settings."""
        patience = self.retransmission
        return Settings(
            retransmission=Retransmission(patience.first_s, patience.factor, patience.tries),
            fragment_bytes=self.fragment_bytes,
            probe_s=self.probe_s,
            lifetimes=Lifetimes(self.lifetime.ike_s, self.lifetime.child_s),
            integrity_info=self.integrity_notify,
            ledger_answer=self.answer_notify,
        )


class GatewayConfig(IkeConfig, frozen=True, kw_only=True):
    """The gateway's TOML file; see GATEWAY_EXAMPLE."""

    policy: Annotated[Policy, RELOADABLE]
    pool: str
    inner: str
    staple: bool = True
    cookie_from: Annotated[int, msgspec.Meta(ge=0)] = 100
    half_open: Annotated[int, msgspec.Meta(ge=1)] = 1000
    half_open_per_address: Annotated[int, msgspec.Meta(ge=1)] = 250
    max_sas: Annotated[int, msgspec.Meta(ge=1)] = 100_000
    listen: Listen | None = None

    def limits(self) -> Limits:
        """Return the gateway's bounds."""
        return Limits(
            cookie_from=self.cookie_from,
            half_open=self.half_open,
            half_open_per_address=self.half_open_per_address,
            total=self.max_sas,
        )


class PeerSection(Config, frozen=True, kw_only=True):
    """Where the gateway listens."""

    host: str
    port: Port = 500
    nat_port: Port = 4500


class DeviceConfig(IkeConfig, frozen=True, kw_only=True):
    """The device's TOML file; see DEVICE_EXAMPLE."""

    gateway: PeerSection
    lifetime: LifetimeSection = LifetimeSection(ike_s=14_400.0, child_s=3600.0)
    integrity: IntegritySection | None = None
    attach: Annotated[int, msgspec.Meta(ge=1, le=100)] = 1
    """How many times to attach; each new SA replaces the previous one."""
    stay: bool = True
    """Whether to keep the SA until SIGTERM or until it is deleted; if false, the device deletes it at once."""


class AgentConfig(Config, frozen=True, kw_only=True):
    """The agent's TOML file; see AGENT_EXAMPLE."""

    socket: str
    ledger: LedgerSection
    policy: Annotated[Policy, RELOADABLE]
    vici: str | None = None
    state: str | None = None
    own: OwnSection | None = None
    integrity: IntegritySection | None = None
    listen: Listen | None = None
    log: LogConfig = LogConfig()
    trace: TraceConfig | None = None


@dataclass(frozen=True, slots=True)
class SegwSetup:
    """What agent, gateway and device have in common, fully checked."""

    genesis: Genesis
    ledger: LedgerSection
    party: Party | None
    trace: Path | None
    trust_file: Path | None = None
    tls: ssl.SSLContext | None = None
    """For the connections to the inquiry nodes."""


def load_agent(path: Path) -> tuple[AgentConfig, SegwSetup]:
    """Read the agent's configuration; raises LocalError."""
    config = load_config(path, AgentConfig)
    return config, _setup(path, config.ledger, config.own, config.trace)


def load_gateway(path: Path) -> tuple[GatewayConfig, SegwSetup]:
    """Read the gateway's configuration; raises LocalError."""
    config = load_config(path, GatewayConfig)
    for text in (config.pool, config.inner):
        network(text)
    return config, _setup(path, config.ledger, config.own, config.trace)


def live_policy(path: Path, kind: type[AgentConfig] | type[GatewayConfig]) -> Live[Policy]:
    """Return the section `[policy]` of a configuration, which SIGHUP reads again; raises LocalError.

    SIGHUP reads the level of logs, too.
    """
    options = Options(partial(load_config, path, kind))
    options.on_change(lambda config: set_level(config.log))
    return options.live(_policy_of)


def _policy_of(config: AgentConfig | GatewayConfig) -> Policy:
    return config.policy


def load_device(path: Path) -> tuple[DeviceConfig, SegwSetup]:
    """Read the device's configuration; raises LocalError."""
    config = load_config(path, DeviceConfig)
    return config, _setup(path, config.ledger, config.own, config.trace)


def network(text: str) -> IPv4Network:
    """Read an IPv4 network; raises LocalError."""
    try:
        return IPv4Network(text)
    except ValueError as error:
        raise LocalError(f"{text!r} is no IPv4 network: {error}") from None


def statement_maker(section: IntegritySection, party: Party) -> Callable[[SaName, float], bytes]:
    """Return a function that makes N(INTEGRITY_INFO) for an IKE SA at a time in Unix seconds; raises LocalError."""
    try:
        measurements = tuple(Measurement(name, measured(text)) for name, text in section.measurements.items())
    except ValueError as error:
        raise LocalError(f"integrity.measurements: {error}") from None
    result = Result.PASSED if section.passed else Result.FAILED
    return partial(_statement, party, digest_of(party.certificate), result, measurements)


def _statement(
    party: Party,
    digest: CertDigest,
    result: Result,
    measurements: tuple[Measurement, ...],
    sa: SaName,
    now_s: float,
) -> bytes:
    return IntegrityInfo(result, int(now_s), measurements).sign(party.signer, sa, digest)


def _setup(path: Path, ledger: LedgerSection, own: OwnSection | None, trace: TraceConfig | None) -> SegwSetup:
    party = _party(path, own) if own else None
    return make_setup(path, ledger=ledger, party=party, trace=trace)


def make_setup(path: Path, *, ledger: LedgerSection, party: Party | None, trace: TraceConfig | None) -> SegwSetup:
    """Read the files that the sections of the configuration at `path` name; raises LocalError."""
    return SegwSetup(
        genesis=read_genesis(resolve(path, ledger.genesis)),
        ledger=ledger,
        party=party,
        trace=resolve(path, trace.file) if trace else None,
        trust_file=resolve(path, ledger.trust) if ledger.trust else None,
        tls=optional_client_context(path, ledger.tls),
    )


def _party(path: Path, own: OwnSection) -> Party:
    """Read the program's own certificate and key; raises LocalError that names the file."""
    certificate_path = resolve(path, own.certificate)
    profile, signer = read_certificate(certificate_path), read_signer(resolve(path, own.key), "key")
    identity = own.identity or next(iter(profile.dns_names), "subject")
    try:
        identification = subject_identity(profile.der) if identity == "subject" else fqdn(identity)
        return Party(profile.der, identification, signer)
    except (LocalError, UnicodeEncodeError) as error:
        raise LocalError(f"{certificate_path}: {error}") from None
