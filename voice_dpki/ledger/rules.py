"""The versions of the ledger's rules that this release can execute.

A rule decides the AppHash or the code of a result. All rules of a block belong to one version, which its header
names as `version.app`. `voice_dpki.ledger.activation` tells which version a block follows. A version that has ever
been in force stays here, so that a ledger can be replayed from its genesis.

The low 16 bits of a version count the versions. The bits above them say what a reader must know: they grow with the
first version whose records or answers an older client would misread. A client can go on under a version that it
does not know as long as these bits are at most READER.

docs/spec/state.md#versions-of-the-rules specifies it.
"""

from dataclasses import dataclass, replace

from voice_dpki.errors import LocalError

_READER_SHIFT = 16

READER = 0
"""The highest form of records and answers that this release reads."""


@dataclass(frozen=True, slots=True)
class Rules:
    """One version of the rules: the points in which versions differ."""

    version: int
    admits_refused: bool
    """Whether a block may hold a transaction that has a valid sender and is refused for its content."""
    one_signature: bool
    """Whether a transaction must have exactly one signature, in canonical form (ECDSA with a low s)."""
    counts_all: bool
    """Whether a transaction without certificates counts as one certificate in its member's hour."""
    sound_keys: bool = False
    """Whether validators' keys must be points of the curve that only their holders can sign under."""
    recounts: bool = False
    """Whether open proposals are counted again when the operators have changed."""
    withdraws: bool = False
    """Whether a proposer's vote against its own proposal withdraws it."""
    bars_keys: bool = False
    """Whether a key that was revoked as compromised is barred, and what depends on it is revoked too."""
    probation: bool = False
    """Whether new validators have little power until they have signed, and no operator may add too many."""
    reads_all_names: bool = False
    """Whether every name in a certificate must be of a kind and a form that the ledger compares and lists."""
    prepares_names: bool = False
    """Whether names of new members and of subjects must be prepared by RFC 4518, and not look like others."""
    binds_anonymous: bool = False
    """Whether an anonymous certificate must say which member may record it."""
    reads_constraints: bool = False
    """Whether the claim constraints of a certificate with a TNAuthList must be well-formed."""
    lists_common_numbers: bool = False
    """Whether a number that is the common name must be one that the certificate is listed under, too."""


V1 = Rules(1, admits_refused=True, one_signature=False, counts_all=False)
V2 = Rules(2, admits_refused=False, one_signature=True, counts_all=True)
V3 = replace(V2, version=3, sound_keys=True, recounts=True, withdraws=True)
V4 = replace(
    V3,
    version=4,
    bars_keys=True,
    probation=True,
    reads_all_names=True,
    prepares_names=True,
    binds_anonymous=True,
    reads_constraints=True,
)
V5 = replace(V4, version=5, lists_common_numbers=True)
"""Members give numbers to one another (`voice_dpki.ledger.numbers`)."""

NEWEST = V5

BY_VERSION = {rules.version: rules for rules in (V1, V2, V3, V4, V5)}

VERSIONS = tuple(sorted(BY_VERSION))
"""All versions that this release can execute."""


class MissingRulesError(LocalError):
    """A block follows a version of the rules that this release lacks; the message says which, and what to do."""

    def __init__(self, version: int, height: int) -> None:
        known = ", ".join(map(str, VERSIONS))
        super().__init__(
            f"from block {height} on the ledger follows version {version} of its rules, and this release of "
            f"voice-dpki has version {known} only: install a release that has version {version}"
        )
        self.version = version
        self.height = height


def rules_for(version: int, height: int) -> Rules:
    """Return the rules of the block at `height`, which follows `version`; raises MissingRulesError."""
    rules = BY_VERSION.get(version)
    if rules is None:
        raise MissingRulesError(version, height)
    return rules


def is_readable(version: int) -> bool:
    """Return whether this release reads the records and answers of a ledger under `version` of its rules."""
    return version >> _READER_SHIFT <= READER


def needs(version: int) -> str:
    """Return the sentence for content that only a release with `version` of the rules can read."""
    return f"this needs a release of voice-dpki that has version {version} of the ledger's rules"
