"""A telephone's credentials for keying its calls: the sections [keys] and [keys.standard] of its configuration."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Literal, TypeAlias, TypeVar

import msgspec

from sip_testbed.pin_store import PinStore
from voice_dpki.effects import Decrypter
from voice_dpki.errors import LocalError, MalformedError
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
from voice_dpki.x509.encipherment import LocalDecrypter
from voice_dpki.x509.reference import url_for

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
    mikey: Literal["modern", "hybrid", "dh-sign", "pke", "rsa-r"] | None = None
    """The mode of our offers; by default the one that goes with the certificate's key: "modern" or "dh-sign"."""
    least: Literal["modern", "hybrid"] | None = None
    """The least strength of offers to us, "modern" by default; those from the domains in `standard` are DH-SIGN."""
    standard: StandardKeysConfig | None = None
    certificate_url: str | None = None
    """URL of our certificate, with "{digest}" for H(CERT). Messages of the standard modes then name it by
    this URL, and other telephones ask their ledger node for it."""
    ledger_url: str
    genesis: str
    trust_file: str | None = None
    ledger_tls: ClientTls | None = None
    max_age_s: PositiveSeconds = DEFAULT_MAX_AGE_S
    pins: str | None = None
    """File with the pinned keys of called parties; without it, a key that the ledger proves is enough."""
    changed_key: Literal["refuse", "tell"] = "refuse"
    """What happens to a call whose key is not the pinned one and was not signed for by it."""


@dataclass(frozen=True, slots=True)
class Credentials:
    """The credentials and settings for keying calls."""

    party: Party
    profile: SrtpProfile
    ledger: LedgerAccess
    pins: PinStore | None = None
    tells_changed_keys: bool = False
    mode: str = "dh-sign"
    """The mode of our offers: "dh-sign", "pke" or "rsa-r"."""
    decrypter: Decrypter | None = None
    """Decrypts with our key what others encrypted to it; the modes "pke" and "rsa-r" need it."""


@dataclass(frozen=True, slots=True)
class ModernCredentials:
    """The credentials and settings for keying calls by the modern mode."""

    own: Credentials
    """Credentials with a certificate on P-256; `party` is a ModernParty."""
    strength: Strength = Strength.MODERN
    """The strength of our offers."""
    least: Strength = Strength.MODERN
    """The least strength of offers to us."""
    standard: Credentials | None = None
    """Credentials with another certificate, for calls with the standard domains."""
    standard_domains: frozenset[str] = frozenset()
    """The domains whose telephones know no modern mode."""


KeysCredentials: TypeAlias = Credentials | ModernCredentials

_MODES: Mapping[str, tuple[str, ...]] = {"ES256": ("modern", "hybrid"), "PS256": ("dh-sign", "pke", "rsa-r")}
"""The modes in which a key of each algorithm signs, the default first."""

_STRENGTHS = {"modern": Strength.MODERN, "hybrid": Strength.HYBRID}


def load_keys(path: Path, aor: str, profile: SrtpProfile, keys: KeysConfig) -> KeysCredentials:
    """Read what the section [keys] of the file at `path` names; raises LocalError that says what to correct."""
    signer = read_signer(resolve(path, keys.key))
    algorithm, modes = signer.algorithm, _MODES[signer.algorithm]
    mode = keys.mikey or modes[0]
    if mode not in modes:
        raise LocalError(f'{path}: keys.mikey = "{mode}" needs another kind of key than this one for {modes[0]}')
    if algorithm == "ES256":
        own = _credentials(path, keys, _party(path, aor, keys, ModernParty), profile)
        return _modern(path, aor, keys, own, _STRENGTHS[mode])
    if keys.standard is not None or keys.least is not None:
        raise LocalError(f"{path}: keys.least and [keys.standard] go with a certificate on P-256 in [keys]")
    own = _credentials(path, keys, _party(path, aor, keys, Party), profile)
    return replace(own, mode=mode, decrypter=LocalDecrypter.of(signer))


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
    template = given.certificate_url if isinstance(given, KeysConfig) else None
    try:
        url = None if template is None else url_for(template, own.digest)
        return kind(aor, own.der, signer, url)
    except MalformedError as error:
        raise LocalError(f"{path}: keys.certificate_url: {error}") from None
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
