"""Configuration of the call placement service."""

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated

import msgspec

from verify_server.config import SET_S
from voice_dpki.shell.config import Config, Listen, PositiveSeconds, TraceConfig, load_config, resolve
from voice_dpki.shell.ledger import LedgerAccess
from voice_dpki.shell.limits import Limits
from voice_dpki.shell.log import LogConfig, set_level
from voice_dpki.shell.reload import RELOADABLE, Live, Options
from voice_dpki.shell.tls import ClientTls, ServerSide, ServerTls, live_server_side
from voice_dpki.shell.trace import TraceTo
from voice_dpki.stir.access import MAX_NAME, Terms
from voice_dpki.stir.placement import MAX_LIFETIME_S
from voice_dpki.wire.ledger.client import DEFAULT_MAX_AGE_S

EXAMPLE = """\
audiences = ["cps.b.example"]            # how access tokens name this service, in aud
organizations = ["Operator B"]           # as on the ledger: PASSporTs of calls to their numbers are kept
ledger_url = "http://127.0.0.1:26680"    # this operator's own inquiry node
witnesses = []                           # other operators' nodes, whose headers must be the same
genesis = "genesis.json"                 # whom to believe: the ledger's first validators
trust_file = "cps-trust.json"            # the newest header believed, kept for the next start
max_age_s = 30                           # what the ledger said is not believed for longer
freshness_s = 60                         # how far iat of tokens and PASSporTs may lie from this server's clock
max_lifetime_s = 60                      # PASSporTs are kept until the token's exp, and never for longer
default_lifetime_s = 15                  # for a token without exp
max_bytes = 67108864                     # of PASSporTs in memory; a SHAKEN call counts for 1600
tokens_max_entries = 200000              # access tokens remembered, each for twice freshness_s and a minute
signers_max_entries = 10000              # known certificates, followed on the ledger
# ledger_tls = { certificate = "b.pem", key = "b-key.pem", servers = ["a.pem"] }    # for nodes with [tls]

[listen]
host = "127.0.0.1"
port = 8093

# [tls]                                  # needed where others can reach the address
# certificate = "b.pem"                  # `ledger-node certificate` makes both
# key = "b-key.pem"
# clients = ["partners"]                 # certificates of other operators' servers, or folders of them
"""

_Names = Annotated[
    tuple[Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_NAME)], ...],
    msgspec.Meta(min_length=1, max_length=64),
]


class CpsConfig(Config, frozen=True, kw_only=True):
    """The TOML file; see EXAMPLE. File names are relative to it."""

    listen: Listen
    audiences: _Names
    """Names by which access tokens call this service, such as its host."""
    organizations: _Names
    """Organisations whose called numbers it serves."""
    ledger_url: str
    witnesses: Annotated[tuple[str, ...], msgspec.Meta(max_length=16)] = ()
    ledger_tls: ClientTls | None = None
    genesis: str
    trust_file: str | None = None
    max_age_s: PositiveSeconds = DEFAULT_MAX_AGE_S
    ledger_timeout_s: PositiveSeconds = 1.5
    signers_max_entries: Annotated[int, msgspec.Meta(ge=1, le=1_000_000)] = 10_000
    freshness_s: PositiveSeconds = 60.0
    max_lifetime_s: Annotated[float, msgspec.Meta(gt=0, le=MAX_LIFETIME_S)] = MAX_LIFETIME_S
    default_lifetime_s: Annotated[float, msgspec.Meta(gt=0, le=MAX_LIFETIME_S)] = 15.0
    """For publications whose token has no exp, as in ATIS-1000096's form."""
    max_bytes: Annotated[int, msgspec.Meta(ge=65_536, le=1 << 34)] = 64 * 1024 * 1024
    tokens_max_entries: Annotated[int, msgspec.Meta(ge=1, le=10_000_000)] = 200_000
    tls: Annotated[ServerTls | None, RELOADABLE] = None
    log: LogConfig = LogConfig()
    trace: TraceConfig | None = None
    limits: Limits = Limits()

    @property
    def terms(self) -> Terms:
        """The policy for access tokens."""
        return Terms(frozenset(self.audiences), self.freshness_s)

    @property
    def retention_s(self) -> float:
        """How long an access token is remembered."""
        return 2 * self.freshness_s + SET_S


@dataclass(frozen=True, slots=True)
class CpsSetup:
    """A fully checked configuration."""

    config: CpsConfig
    ledger: LedgerAccess
    tls: Live[ServerSide] | None
    trace: TraceTo


def load_setup(path: Path) -> CpsSetup:
    """Read the configuration at `path` and the files that it names; raises LocalError that says what to mend."""
    options = Options(partial(load_config, path, CpsConfig))
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
    config.listen.check_secrecy(path, "who calls whom", has_tls=config.tls is not None)
    tls = live_server_side(path, options, lambda config: config.tls)
    return CpsSetup(config, ledger, tls, TraceTo(resolve(path, config.trace.file) if config.trace else None))
