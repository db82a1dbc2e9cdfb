"""Names of keys: a file, or a key in a token such as an HSM, by a URI of RFC 7512.

    pkcs11:token=calls;object=sti?module-path=/usr/lib/softhsm/libsofthsm2.so&pin-source=file:/etc/voice-dpki/pin

The PIN is in a file, and never in the URI: configurations are copied, logged and mailed.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeAlias
from urllib.parse import unquote_to_bytes, urlsplit

from voice_dpki.errors import LocalError

SCHEME: Final = "pkcs11:"
MAX_URI_CHARACTERS: Final = 2048

_ESCAPED = re.compile(r"(?:[A-Za-z0-9\-._~:\[\]@!$'()*+,=&/?]|%[0-9A-Fa-f]{2})*\Z")
"""Characters of a value: pk11-pchar and pk11-qchar of RFC 7512 §2.3."""

_OF_PATH = frozenset({"token", "serial", "manufacturer", "model", "object", "id", "type"})
_OF_QUERY = frozenset({"module-path", "pin-source"})


@dataclass(frozen=True, slots=True)
class TokenUri:
    """A private key in a token: the PKCS#11 module that reaches it, the token that has it, and its name."""

    module: Path
    """The shared library."""
    token: str | None
    """The token's label."""
    serial: str | None
    """The token's serial number; at least one of label and serial number is set."""
    label: str | None
    """The key's label, `object` in the URI."""
    key_id: bytes | None
    """The key's CKA_ID; at least one of label and id is set."""
    manufacturer: str | None
    """The maker of the token, if the URI names one."""
    model: str | None
    """The token's model, if the URI names one."""
    pin_file: Path | None
    """The file with the user's PIN; None where the token asks for none."""

    def __str__(self) -> str:
        """Name the key for people."""
        key = self.label if self.label is not None else (self.key_id or b"").hex()
        return f"key {key!r} of token {self.token or self.serial!r}"


KeyPlace: TypeAlias = Path | TokenUri
"""Where a private key is: in a file, or in a token."""


def key_place(name: str, folder: Path | None = None) -> KeyPlace:
    """Return the place of the key that an option or a configuration names; relative files are in `folder`.

    Raises LocalError for a URI that cannot be used.
    """
    folder = folder or Path()
    return parse_token_uri(name, folder) if name.startswith(SCHEME) else folder / name


def parse_token_uri(text: str, folder: Path) -> TokenUri:
    """Read a URI of RFC 7512; raises LocalError that says what to mend. The PIN's file may be relative to `folder`.

    Attributes that are not known here are refused: the URI could mean another key.
    """
    if len(text) > MAX_URI_CHARACTERS:
        raise LocalError(f"a pkcs11 URI has at most {MAX_URI_CHARACTERS} characters")
    path, _, query = text.removeprefix(SCHEME).partition("?")
    where, how = _attributes(path, ";", _OF_PATH), _attributes(query, "&", _OF_QUERY)
    if where.get("type", b"private") != b"private":
        raise LocalError("a pkcs11 URI of a signing key has type=private, or no type")
    if not ({"token", "serial"} & where.keys() and {"object", "id"} & where.keys()):
        raise LocalError("a pkcs11 URI names a token (token= or serial=) and a key (object= or id=)")
    return TokenUri(
        module=_module(how),
        token=_text(where, "token"),
        serial=_text(where, "serial"),
        label=_text(where, "object"),
        key_id=where.get("id"),
        manufacturer=_text(where, "manufacturer"),
        model=_text(where, "model"),
        pin_file=_pin_file(how, folder),
    )


def _attributes(text: str, between: str, known: frozenset[str]) -> dict[str, bytes]:
    found: dict[str, bytes] = {}
    for each in filter(None, text.split(between)):
        name, _, value = each.partition("=")
        if name == "pin-value":
            raise LocalError("a pkcs11 URI must not hold the PIN: put it into a file, and say pin-source=file:/...")
        if name not in known:
            raise LocalError(f"a pkcs11 URI with {name[:40]!r} is not understood")
        if name in found or not value or not _ESCAPED.match(value):
            raise LocalError(f"a pkcs11 URI has {name} twice, empty, or with characters that must be escaped")
        found[name] = unquote_to_bytes(value)
    return found


def _text(attributes: Mapping[str, bytes], name: str) -> str | None:
    value = attributes.get(name)
    try:
        return None if value is None else value.decode("utf-8")
    except UnicodeDecodeError:
        raise LocalError(f"a pkcs11 URI has a {name} that is not UTF-8") from None


def _module(how: Mapping[str, bytes]) -> Path:
    path = Path(_text(how, "module-path") or "")
    if not path.is_absolute():
        raise LocalError("a pkcs11 URI names the module by its whole path: ?module-path=/usr/lib/...")
    return path


def _pin_file(how: Mapping[str, bytes], folder: Path) -> Path | None:
    source = _text(how, "pin-source")
    if source is None:
        return None
    if source.startswith("|"):
        raise LocalError("a pkcs11 URI takes the PIN from a file; pin-source=|program is not run")
    return folder / (urlsplit(source).path if source.startswith("file:") else source)
