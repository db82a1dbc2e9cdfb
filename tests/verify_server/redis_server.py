"""A real redis-server for tests."""

import asyncio
import contextlib
import socket
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

PATIENCE_S = 60.0


class RedisServer:
    """A redis-server of its own, at a Unix socket in a folder."""

    def __init__(self, folder: Path, *options: str) -> None:
        self.folder, self.options = folder, options
        self.socket = folder / "redis.sock"
        self.url = f"unix://{self.socket}?db=0"
        self._process: subprocess.Popen[bytes] | None = None

    async def start(self) -> None:
        """Start it, and wait until it answers."""
        command = ["redis-server", "--port", "0", "--unixsocket", str(self.socket), "--save", "", "--dir"]
        log = (self.folder / "redis.log").open("ab")
        with log:
            self._process = subprocess.Popen([*command, str(self.folder), *self.options], stdout=log, stderr=log)
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
async def redis_server(folder: Path, *options: str) -> AsyncIterator[RedisServer]:
    """Run a redis-server while the context lasts."""
    server = RedisServer(folder, *options)
    await server.start()
    try:
        yield server
    finally:
        server.kill()
