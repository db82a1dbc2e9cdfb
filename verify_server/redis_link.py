"""A link to Redis (from version 7.0 on) or Valkey. The package `redis` is imported only where it is configured."""

import math
import ssl
from collections.abc import Callable, Mapping
from typing import Any, Final
from urllib.parse import SplitResult

from redis.asyncio import BlockingConnectionPool, Connection, Redis, UnixDomainSocketConnection
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError

from verify_server.replay_store import StoreError
from voice_dpki.effects import Clock

MAX_VALUE: Final = 64
"""Bytes of a value that can be one of ours."""


class _TlsConnection(Connection):
    """A connection with a TLS context of our own."""

    def __init__(self, *, context: ssl.SSLContext, **options: Any) -> None:
        super().__init__(**options)
        self._context = context

    def _connection_arguments(self) -> Mapping[str, Any]:
        return {**super()._connection_arguments(), "ssl": self._context}


class RedisLink:
    """A pool of connections to one store."""

    def __init__(
        self,
        parts: SplitResult,
        *,
        user: str | None,
        password: str,
        tls: ssl.SSLContext | None,
        timeout_s: float,
        max_connections: int,
        prefix: bytes,
        clock: Clock,
    ) -> None:
        """`parts` are those of the URL; `prefix` begins all keys, so that domains can share a store."""
        self._prefix, self._clock = prefix, clock
        self.since_s = -math.inf
        pool = BlockingConnectionPool(
            max_connections=max_connections,
            timeout=timeout_s,
            socket_timeout=timeout_s,
            socket_connect_timeout=timeout_s,
            retry=Retry(NoBackoff(), 1),  # a connection of before the store's restart is broken
            username=user,
            password=password or None,
            protocol=2,
            driver_info=None,
            redis_connect_func=self._connected,
            **_where(parts, tls),
        )
        self._redis = Redis(connection_pool=pool)

    async def put(self, key: bytes, value: bytes, retention_s: float) -> bytes | None:
        """Store a value unless the key has one; return the key's earlier value, None if there was none."""
        lasts_ms = math.ceil(retention_s * 1000)
        return await self._told(lambda: self._redis.set(self._prefix + key, value, px=lasts_ms, nx=True, get=True))

    async def get(self, key: bytes) -> bytes | None:
        """Return the value of a key, None if it has none."""
        return await self._told(lambda: self._redis.get(self._prefix + key))

    async def remove(self, key: bytes) -> None:
        """Remove a key."""
        await self._told(lambda: self._redis.delete(self._prefix + key))

    async def close(self) -> None:
        """Close the connections."""
        await self._redis.aclose(close_connection_pool=True)
        await self._redis.connection_pool.disconnect()

    async def _told(self, ask: Callable[[], Any]) -> bytes | None:
        """Return the value that answers a command, None for any other answer; raises StoreError."""
        try:
            answer = await ask()
        except (RedisError, OSError) as error:
            raise StoreError(f"{type(error).__name__}: {error}"[:200]) from None
        if not isinstance(answer, bytes):
            return None
        if len(answer) > MAX_VALUE:
            raise StoreError("it has a value that is none of ours")
        return answer

    async def _connected(self, connection: Any) -> None:
        """Authenticate, and ask since when the store has been keeping what it was given; raises RedisError."""
        await connection.on_connect()
        await connection.send_command("INFO", "server", "memory")
        told = _fields(await connection.read_response())
        uptime, policy = told.get("uptime_in_seconds", ""), told.get("maxmemory_policy", "")
        if not (uptime.isascii() and uptime.isdigit()):
            raise RedisConnectionError("it does not tell how long it has been running")
        if told.get("maxmemory") != "0" and policy != "noeviction":
            raise RedisConnectionError(f"it may forget early: its maxmemory-policy is {policy}, not noeviction")
        self.since_s = max(self.since_s, math.floor(self._clock.now_s() - int(uptime)))


def _where(parts: SplitResult, context: ssl.SSLContext | None) -> dict[str, Any]:
    """Return the arguments of a pool that say where the store is."""
    if parts.scheme == "unix":
        db = int(parts.query.removeprefix("db=") or 0)
        return {"connection_class": UnixDomainSocketConnection, "path": parts.path, "db": db}
    tcp = {"host": parts.hostname, "port": parts.port or 6379, "db": int(parts.path.strip("/") or 0)}
    return tcp if context is None else {**tcp, "connection_class": _TlsConnection, "context": context}


def _fields(answer: object) -> dict[str, str]:
    text = answer.decode(errors="replace") if isinstance(answer, bytes) else ""
    pairs = (line.partition(":") for line in text.splitlines())
    return {name: value for name, colon, value in pairs if colon}
