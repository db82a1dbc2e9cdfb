"""A real redis-server for tests, or a server that speaks as it does."""

import asyncio
import contextlib
import socket
import subprocess
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

PATIENCE_S = 60.0


Program = Callable[[Sequence[str]], Sequence[str]]
"""Returns the command that starts a server with some arguments."""


def redis(arguments: Sequence[str]) -> Sequence[str]:
    """Return the command that starts this machine's redis-server."""
    return ["redis-server", *arguments]


class RedisServer:
    """A redis-server of its own, at a Unix socket in a folder."""

    def __init__(self, folder: Path, *options: str, program: Program = redis) -> None:
        self.folder, self.options, self._program = folder, options, program
        self.socket = folder / "redis.sock"
        self.url = f"unix://{self.socket}?db=0"
        self._process: subprocess.Popen[bytes] | None = None

    async def start(self) -> None:
        """Start it, and wait until it answers."""
        arguments = ["--port", "0", "--unixsocket", str(self.socket), "--save", "", "--dir", str(self.folder)]
        log = (self.folder / "redis.log").open("ab")
        with log:
            command = self._program([*arguments, *self.options])
            self._process = subprocess.Popen(command, stdout=log, stderr=log)
        async with asyncio.timeout(PATIENCE_S):
            while not self._answers():
                assert self._process.poll() is None, (self.folder / "redis.log").read_text()
                await asyncio.sleep(0.02)

    def _answers(self) -> bool:
        with socket.socket(socket.AF_UNIX) as client:
            try:
                client.connect(str(self.socket))
            except OSError:
                return False
            client.settimeout(PATIENCE_S)
            client.sendall(b"PING\r\n")
            return bool(client.recv(100))

    def told(self, *command: str) -> bytes:
        """Return the raw answer to a command."""
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(PATIENCE_S)
            client.connect(str(self.socket))
            client.sendall((" ".join(command) + "\r\n").encode())
            return client.recv(65536)

    def kill(self) -> None:
        """End it at once."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()
        with contextlib.suppress(FileNotFoundError):
            self.socket.unlink()


@asynccontextmanager
async def redis_server(folder: Path, *options: str, program: Program = redis) -> AsyncIterator[RedisServer]:
    """Run a redis-server, or another `program`, while the context lasts."""
    server = RedisServer(folder, *options, program=program)
    await server.start()
    try:
        yield server
    finally:
        server.kill()
