"""The store of used tokens that several servers share: `[replay.store]`."""

from pathlib import Path
from typing import Annotated, Final, Literal
from urllib.parse import SplitResult, urlsplit

import msgspec

from verify_server.file_link import FileLink
from verify_server.replay_store import Link
from voice_dpki.effects import Clock
from voice_dpki.errors import LocalError
from voice_dpki.shell.config import Config, read_secrets, resolve
from voice_dpki.shell.tls import ClientTls, optional_client_context

SCHEMES: Final = ("redis", "rediss", "unix", "file")
LOOPBACK: Final = ("127.0.0.1", "::1", "localhost")


class StoreConfig(Config, frozen=True, kw_only=True):
    """`[replay.store]`: Redis from version 7.0 on, Valkey, or a file for the servers of one machine."""

    url: str
    """redis://HOST:PORT/DB, the same with rediss for TLS, unix:///PATH?db=DB, or file:///FOLDER."""
    user: str | None = None
    password: str | None = None
    """File with the password."""
    tls: ClientTls | None = None
    """For rediss: this server's certificate, and the store's."""
    insecure: bool = False
    """Whether the store may be asked over a network without TLS."""
    timeout_s: Annotated[float, msgspec.Meta(gt=0, le=2)] = 0.1
    """Timeout of each step: a free connection, connecting, the answer. A proxy waits for all of them."""
    max_connections: Annotated[int, msgspec.Meta(ge=1, le=1000)] = 16
    max_bytes: Annotated[int, msgspec.Meta(ge=1 << 20, le=1 << 40)] = 256 << 20
    """Largest size of the file."""
    when_down: Literal["no-validation", "local"] = "no-validation"
    """What decides while the store does not answer: nothing, so no call is verified, or this process's cache."""

    def parts(self, path: Path) -> SplitResult:
        """Return the URL's parts; raises LocalError for a URL that cannot be used, or not safely."""
        where = f"{path}: replay.store.url"
        parts = urlsplit(self.url)
        is_path = parts.scheme in ("unix", "file")
        if parts.scheme not in SCHEMES or not (parts.path if is_path else parts.hostname):
            raise LocalError(f"{where}: {', '.join(SCHEMES)} are the schemes, with a host or a path")
        if not _is_plain(parts):
            raise LocalError(f"{where}: port and database are numbers")
        if parts.username or parts.password:
            raise LocalError(f"{where}: user and the file of the password have keys of their own")
        if (parts.scheme == "rediss") != (self.tls is not None):
            raise LocalError(f"{where}: rediss needs replay.store.tls, and nothing else has it")
        if parts.scheme == "redis" and parts.hostname not in LOOPBACK and not self.insecure:
            raise LocalError(f"{where}: others could change what the store says: use rediss, or insecure = true")
        return parts

    def link(self, path: Path, domain: str, clock: Clock) -> Link:
        """Make the link that the configuration at `path` describes; raises LocalError."""
        parts = self.parts(path)
        if parts.scheme == "file":
            return FileLink(Path(parts.path), self.max_bytes, clock)
        try:
            from verify_server.redis_link import RedisLink
        except ModuleNotFoundError:
            raise LocalError(f"{path}: replay.store needs the Python package redis: pip install redis") from None
        secrets = read_secrets(resolve(path, self.password)) if self.password else ("",)
        context = optional_client_context(path, self.tls)
        return RedisLink(
            parts,
            user=self.user,
            password=secrets[0],
            tls=context,
            timeout_s=self.timeout_s,
            max_connections=self.max_connections,
            prefix=f"voice-dpki:{domain}:".encode(),
            clock=clock,
        )


def _is_plain(parts: SplitResult) -> bool:
    """Tell whether port and database are numbers where they are given."""
    try:
        _ = parts.port
    except ValueError:
        return False
    if parts.scheme == "file":
        return True
    database = parts.query.removeprefix("db=") if parts.scheme == "unix" else parts.path.strip("/")
    return not database or (database.isascii() and database.isdigit())
