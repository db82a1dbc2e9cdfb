"""What a telephone keys its calls with: the sections [keys] and [keys.standard] of its configuration."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, TypeAlias, TypeVar

import msgspec

from sip_testbed.pin_store import PinStore
from voice_dpki.errors import LocalError
from voice_dpki.mikey.agreement import Strength
from voice_dpki.mikey.certified import Party
from voice_dpki.mikey.modern import ModernParty
from voice_dpki.mikey.policy import SrtpProfile
from voice_dpki.names import ascii_lower
from voice_dpki.shell.config import Config, PositiveSeconds, resolve
from voice_dpki.shell.credentials import read_certificate, read_signer
from voice_dpki.shell.ledger import LedgerAccess
from voice_dpki.shell.tls import ClientTls
from voice_dpki.wire.ledger.client import DEFAULT_MAX_AGE_S

P = TypeVar("P", bound=Party)


class StandardKeysConfig(Config, frozen=True, kw_only=True):
    """A second certificate, for DH-SIGN, and the domains whose telephones know no other mode."""

    certificate: str
    key: str
    domains: Annotated[tuple[str, ...], msgspec.Meta(min_length=1, max_length=64)]


class KeysConfig(Config, frozen=True, kw_only=True):
    """Our certificate and its key, and the ledger node that resolves other certificates."""

    certificate: str
    key: str
    mikey: Literal["modern", "hybrid", "dh-sign"] | None = None
    """The mode of our offers; by default the one that goes with the certificate's key: "modern" or "dh-sign"."""
    least: Literal["modern", "hybrid"] | None = None
    """The least strength of offers to us, "modern" by default; those from the domains in `standard` are DH-SIGN."""
    standard: StandardKeysConfig | None = None
    ledger_url: str
    genesis: str
    trust_file: str | None = None
    ledger_tls: ClientTls | None = None
    max_age_s: PositiveSeconds = DEFAULT_MAX_AGE_S
    pins: str | None = None
    """The file with the keys of those who were called; without it, the ledger's word for a key is enough."""
    changed_key: Literal["refuse", "tell"] = "refuse"
    """What happens to a call with another key than the pinned one, which has not signed for it."""


@dataclass(frozen=True, slots=True)
class Credentials:
    """The credentials and settings for keying calls."""

    party: Party
    profile: SrtpProfile
    ledger: LedgerAccess
    pins: PinStore | None = None
    tells_changed_keys: bool = False


@dataclass(frozen=True, slots=True)
class ModernCredentials:
    """The credentials and settings for keying calls by the modern mode."""

    own: Credentials
    """With a certificate on P-256, a ModernParty."""
    strength: Strength = Strength.MODERN
    """That of our offers."""
    least: Strength = Strength.MODERN
    """The least of offers to us."""
    standard: Credentials | None = None
    """With another certificate, for calls with the standard domains."""
    standard_domains: frozenset[str] = frozenset()
    """The domains whose telephones know no modern mode."""


KeysCredentials: TypeAlias = Credentials | ModernCredentials

_MODES: Mapping[str, tuple[str, ...]] = {"ES256": ("modern", "hybrid"), "PS256": ("dh-sign",)}
"""The modes in which a key of each algorithm signs, the default first."""

_STRENGTHS = {"modern": Strength.MODERN, "hybrid": Strength.HYBRID}


def load_keys(path: Path, aor: str, profile: SrtpProfile, keys: KeysConfig) -> KeysCredentials:
    """Read what the section [keys] of the file at `path` names; raises LocalError that says what to correct."""
    algorithm = read_signer(resolve(path, keys.key)).algorithm
    modes = _MODES[algorithm]
    mode = keys.mikey or modes[0]
    if mode not in modes:
        raise LocalError(f'{path}: keys.mikey = "{mode}" needs another kind of key than this one for {modes[0]}')
    if algorithm == "ES256":
        own = _credentials(path, keys, _party(path, aor, keys, ModernParty), profile)
        return _modern(path, aor, keys, own, _STRENGTHS[mode])
    if keys.standard is not None or keys.least is not None:
        raise LocalError(f"{path}: keys.least and [keys.standard] go with a certificate on P-256 in [keys]")
    return _credentials(path, keys, _party(path, aor, keys, Party), profile)


def _modern(path: Path, aor: str, keys: KeysConfig, own: Credentials, strength: Strength) -> ModernCredentials:
    least = _STRENGTHS[keys.least or "modern"]
    if keys.standard is None:
        return ModernCredentials(own, strength, least)
    standard = _credentials(path, keys, _party(path, aor, keys.standard, Party), own.profile)
    domains = frozenset(ascii_lower(domain) for domain in keys.standard.domains)
    return ModernCredentials(own, strength, least, standard, domains)


def _party(path: Path, aor: str, given: KeysConfig | StandardKeysConfig, kind: type[P]) -> P:
    certificate = resolve(path, given.certificate)
    own, signer = read_certificate(certificate), read_signer(resolve(path, given.key))
    try:
        return kind(aor, own.der, signer)
    except LocalError as error:
        raise LocalError(f"{certificate}: {error}") from None


def _credentials(path: Path, keys: KeysConfig, party: Party, profile: SrtpProfile) -> Credentials:
    ledger = LedgerAccess.configured(
        path,
        url=keys.ledger_url,
        genesis=keys.genesis,
        trust_file=keys.trust_file,
        max_age_s=keys.max_age_s,
        tls=keys.ledger_tls,
    )
    pins = PinStore(resolve(path, keys.pins)) if keys.pins else None
    return Credentials(party, profile, ledger, pins, keys.changed_key == "tell")
