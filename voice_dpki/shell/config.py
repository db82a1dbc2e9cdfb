"""Configuration: one TOML file per service, fully validated before a socket is bound.

A service declares a frozen `msgspec.Struct` that derives from `Config`; unknown keys are refused, so that a
misspelt option is an error and not a silent default. Secrets are named by file, never given inline.
"""

import ipaddress
import json
import os
import re
import stat
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, TypeVar

import msgspec

from voice_dpki.errors import LocalError

MAX_CONFIG_BYTES = 1 << 20
MAX_SECRET_BYTES = 1 << 16

T = TypeVar("T", bound=msgspec.Struct)

_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+\Z")

Port = Annotated[int, msgspec.Meta(ge=0, le=65535)]
PositiveSeconds = Annotated[float, msgspec.Meta(gt=0)]


class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Base of every configuration section: unknown keys refused. Derive with `frozen=True, kw_only=True`."""


class Listen(Config, frozen=True, kw_only=True):
    """Where a server listens. Port 0 lets the operating system choose; the choice is in the log."""

    host: str = "127.0.0.1"
    port: Port
    insecure: bool = False
    """Accept secrets without TLS on any address, although others on the network can read them."""

    @property
    def is_loopback(self) -> bool:
        """Whether only programs on this machine can connect."""
        return is_loopback(self.host)

    def check_secrecy(self, path: Path, secrets: str, *, has_tls: bool) -> None:
        """Check that `secrets`, named for people, do not cross a network in the clear.

        Raises LocalError that says what to mend in the configuration at `path`.
        """
        if not (has_tls or self.is_loopback or self.insecure):
            raise LocalError(
                f"{path}: at {self.host} others could read {secrets}: add [tls], or insecure = true to [listen] "
                "where the network itself is protected"
            )


def is_loopback(host: str) -> bool:
    """Tell whether only programs on this machine reach an address, which may be the name localhost."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


class AdvertisedListen(Listen, frozen=True, kw_only=True):
    """Where a SIP element listens, and the address that it gives to peers, for a socket on all addresses."""

    advertise: str | None = None
    """Numeric address for Via, Record-Route, Contact and SDP; behind a NAT with a fixed mapping, the outer one."""

    @property
    def advertised(self) -> str:
        """The address advertised to peers."""
        return self.advertise or self.host

    def check(self, path: Path) -> None:
        """Check that peers can send to the advertised address; raises LocalError."""
        for key, value in (("listen.advertise", self.advertise), ("listen.host", self.host)):
            if value is not None and not _is_numeric(value):
                raise LocalError(
                    f"{path}: {key}: {value} is no numeric address, and SIP elements here resolve no names"
                )
        if ipaddress.ip_address(self.advertised).is_unspecified:
            missing = "is missing" if self.advertise is None else "is no address of one host"
            raise LocalError(
                f"{path}: listen.advertise {missing}: the socket is on all addresses ({self.host}), and others "
                "need one of them to send to"
            )


class TraceConfig(Config, frozen=True, kw_only=True):
    """Where to write trace events (see `voice_dpki.shell.trace`)."""

    file: str


def _is_numeric(address: str) -> bool:
    try:
        ipaddress.ip_address(address)
    except ValueError:
        return False
    return True


def load_config(path: Path, kind: type[T]) -> T:
    """Read the TOML file `path` as a `kind`.

    Raises LocalError that names the file, and the key that is missing, unknown or of the wrong type.
    """
    data = _read(path, MAX_CONFIG_BYTES, "configuration")
    try:
        return msgspec.convert(tomllib.loads(data.decode("utf-8")), kind)
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise LocalError(f"{path}: not TOML: {error}") from None
    except msgspec.ValidationError as error:
        raise LocalError(f"{path}: {explained(error)}") from None


def explained(error: msgspec.ValidationError) -> str:
    """Return what a validation error says with the key first, as in the file; msgspec writes "... - at `$.key`"."""
    what, _, where = str(error).partition(" - at `$")
    key = where.strip("`.")
    return f"{key}: {what}" if key else what


def to_toml(sections: Mapping[str, object], inside: str = "") -> str:
    """Write a configuration: values first, then a table for each mapping and each mapping in a list.

    `inside` is the name of the enclosing table with a dot behind it, or empty.
    """
    plain = {name: value for name, value in sections.items() if not _is_table(value) and value is not None}
    lines = [f"{_toml_key(name)} = {_toml_value(value)}" for name, value in plain.items()]
    for name, value in ((_toml_key(name), value) for name, value in sections.items()):
        if isinstance(value, Mapping):
            lines += ["", f"[{inside}{name}]", to_toml(value, f"{inside}{name}.").rstrip()]
        elif _is_table(value) and isinstance(value, list):
            for item in value:
                lines += ["", f"[[{inside}{name}]]", to_toml(item, f"{inside}{name}.").rstrip()]
    return "\n".join(lines).lstrip("\n") + "\n"


def resolve(config_path: Path, name: str) -> Path:
    """Return the file that a configuration names: relative names start at the configuration's folder."""
    return config_path.parent / name


def read_file(path: Path, what: str, max_bytes: int = MAX_CONFIG_BYTES) -> bytes:
    """Read a file that a configuration names; raises LocalError with the path, `what` it is, and the reason."""
    return _read(path, max_bytes, what)


def read_secret(path: Path) -> str:
    """Read one secret: the first line of a text file, without white space around it."""
    lines = read_secrets(path)
    return lines[0]


def read_private_secret(path: Path) -> str:
    """Read one secret as `read_secret`, but refuse a file that others than its owner may read; raises LocalError.

    A file that belongs to root and is readable only by this process's group is accepted: the Debian package keeps
    its secrets in /etc/voice-dpki so. Credentials from systemd are exempt: systemd protects them by their folder
    and by ACLs, which look like group rights.
    """
    credentials = os.environ.get("CREDENTIALS_DIRECTORY")
    if not (credentials and path.resolve().is_relative_to(Path(credentials).resolve())):
        try:
            found = path.stat()
        except OSError as error:
            raise LocalError(f"{path}: cannot read this secret file: {error.strerror}") from None
        ours = found.st_uid == 0 and found.st_gid == os.getegid() != 0
        others = (stat.S_IRWXG & ~stat.S_IRGRP if ours else stat.S_IRWXG) | stat.S_IRWXO
        if found.st_mode & others:
            raise LocalError(f"{path}: others than its owner may read or change this secret: chmod 600")
    return read_secret(path)


def read_secrets(path: Path) -> tuple[str, ...]:
    """Read secrets, one per line; empty lines and lines that begin with `#` are skipped.

    Raises LocalError when the file holds none.
    """
    try:
        text = _read(path, MAX_SECRET_BYTES, "secret").decode("utf-8")
    except UnicodeDecodeError:
        raise LocalError(f"{path}: a secret must be UTF-8 text") from None
    secrets = tuple(line for raw in text.splitlines() if (line := raw.strip()) and not line.startswith("#"))
    if not secrets:
        raise LocalError(f"{path}: holds no secret; put one on a line of its own")
    return secrets


def _read(path: Path, max_bytes: int, what: str) -> bytes:
    try:
        with path.open("rb") as file:
            data = file.read(max_bytes + 1)
    except OSError as error:
        raise LocalError(f"{path}: cannot read this {what} file: {error.strerror}") from None
    if len(data) > max_bytes:
        raise LocalError(f"{path}: longer than the {max_bytes} bytes that a {what} file may have")
    return data


def _is_table(value: object) -> bool:
    return isinstance(value, Mapping) or (isinstance(value, list) and bool(value) and isinstance(value[0], Mapping))


def _toml_key(name: str) -> str:
    return name if _BARE_KEY.match(name) else json.dumps(name, ensure_ascii=False)


def _toml_value(value: object) -> str:
    """Write a string, number, boolean or list of them as JSON, which for these is TOML as well."""
    return json.dumps(str(value) if isinstance(value, Path) else value, ensure_ascii=False)
