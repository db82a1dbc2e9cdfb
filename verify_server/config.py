"""Configuration of the verification server, and what it names: the ledger's genesis and the tokens."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import msgspec

from voice_dpki.errors import LocalError, VoiceDpkiError
from voice_dpki.ledger.genesis import MAX_GENESIS_BYTES, Genesis, load_genesis
from voice_dpki.shell.config import (
    Config,
    Listen,
    PositiveSeconds,
    TraceConfig,
    load_config,
    read_file,
    read_secrets,
    resolve,
)
from voice_dpki.stir.replay import ReplayCache
from voice_dpki.stir.verify import Policy

EXAMPLE = """\
domain = "b.example"
ledger_url = "http://127.0.0.1:26680"    # this operator's own inquiry node
witnesses = []                           # other operators' nodes, whose headers must be the same
genesis = "genesis.json"                 # whom to believe: the ledger's first validators
trust_file = "ledger-trust.json"         # the newest header believed, kept for the next start
tokens = "proxy.tokens"                  # bearer tokens of the proxies, one a line
max_age_s = 30                           # what the ledger said is not believed for longer
signers_max_entries = 10000              # known signers, followed on the ledger
freshness_s = 60                         # how far Date and iat may lie from this server's clock
replay_max_entries = 200000              # signatures remembered, each for twice freshness_s
require_key_mgmt = false                 # true: refuse calls that are not keyed by MIKEY under the signature

[listen]
host = "127.0.0.1"
port = 8092
"""


class VerifyConfig(Config, frozen=True, kw_only=True):
    """The TOML file; see EXAMPLE. File names are relative to it."""

    listen: Listen
    domain: str
    ledger_url: str
    witnesses: Annotated[tuple[str, ...], msgspec.Meta(max_length=16)] = ()
    """Asked once a minute: a node that is cut off, or lies, could show this server alone another history."""
    genesis: str
    tokens: str
    trust_file: str | None = None
    """Without it, a start more than 14 days after the genesis fails: too old a trust (`ledger.light`)."""
    max_age_s: PositiveSeconds = 30.0
    ledger_timeout_s: PositiveSeconds = 1.5
    """Less than the 2 s that a proxy waits for a verdict."""
    signers_max_entries: Annotated[int, msgspec.Meta(ge=1, le=1_000_000)] = 10_000
    """Known signers; each takes about 3 kB of memory."""
    freshness_s: PositiveSeconds = 60.0
    replay_max_entries: Annotated[int, msgspec.Meta(ge=1, le=10_000_000)] = 200_000
    """Enough for 1,600 calls a second; each takes about 150 bytes of memory."""
    require_key_mgmt: bool = False
    trace: TraceConfig | None = None

    def policy(self) -> Policy:
        """Return what the verifier insists on."""
        return Policy(freshness_s=self.freshness_s, require_key_mgmt=self.require_key_mgmt)

    def replay_cache(self) -> ReplayCache:
        """Make an empty cache that remembers each token for as long as it could be fresh.

        A token from `freshness_s` ahead stays fresh for twice that time.
        """
        return ReplayCache(self.replay_max_entries, 2 * self.freshness_s)


@dataclass(frozen=True, slots=True)
class Setup:
    """A configuration that was checked whole."""

    config: VerifyConfig
    genesis: Genesis
    tokens: tuple[str, ...]
    trust_file: Path | None
    trace: Path | None


def load_setup(path: Path) -> Setup:
    """Read the configuration at `path` and all that it names; raises LocalError that says what to mend."""
    config = load_config(path, VerifyConfig)
    genesis_path = resolve(path, config.genesis)
    try:
        genesis = load_genesis(read_file(genesis_path, "genesis", MAX_GENESIS_BYTES))
    except VoiceDpkiError as error:
        raise LocalError(f"{genesis_path}: {error}") from None
    trace = resolve(path, config.trace.file) if config.trace else None
    trust_file = resolve(path, config.trust_file) if config.trust_file else None
    return Setup(config, genesis, read_secrets(resolve(path, config.tokens)), trust_file, trace)
