"""A real ledger of one operator, with submission, for those who test or measure what stands on a ledger."""

import asyncio
import signal
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from ledger_node.make.initialise import initialise
from voice_dpki.effects import SystemClock
from voice_dpki.ledger.genesis import load_genesis
from voice_dpki.stage.events import Event, NoteEvent
from voice_dpki.stage.patience import STALLED_S
from voice_dpki.stage.processes import Program, Running
from voice_dpki.wire.ledger.client import LedgerClient
from voice_dpki.x509.profile import digest_of
from voice_dpki.x509.recorded import CertStatus

T = TypeVar("T")

PATIENCE_S = 60
"""For what takes less than a second on a machine that has nothing else to do."""

MEMBERS = """\
chain_id = "test-1"
[[members]]
organization = "Operator A"
kind = "operator"
domains = ["a.example"]
ranges = [{ start = "493023125000", count = 1000 }]
validators = 1
"""

ENGINE = """\
[node]
name = "engine"
data_dir = "data"
genesis = "genesis.json"
[listen]
port = %d
[engine]
validator_keys = ["keys/validator-operator-a-1.pem"]
heartbeat_s = %s
[submission]
organization = "Operator A"
endorsing_key = "keys/endorsing-operator-a.pem"
tokens = "tokens-operator-a"
"""

TRACE = '[trace]\nfile = "engine.jsonl"\n'


def make_ledger(folder: Path, *, port: int = 0, heartbeat_s: float = 0.5, more: str = "") -> Path:
    """Make the ledger's files in `folder`/net, and return the configuration of its engine, which ends in `more`."""
    (folder / "members.toml").write_text(MEMBERS)
    config, *_ = initialise(folder / "members.toml", folder / "net", SystemClock())
    config.write_text(ENGINE % (port, heartbeat_s) + more)
    return config


class Service:
    """A service that runs, traces into `trace`, and logs into `log`, else beside it."""

    def __init__(self, module: str, config: Path, trace: Path, log: Path | None = None) -> None:
        self.log_path = log or trace.with_suffix(".log")
        for path in (trace, self.log_path):
            path.unlink(missing_ok=True)
        self._running = Running(
            Program(trace.stem, module, ("start", "--config", str(config)), trace, self.log_path)
        )
        try:
            self.url = f"http://{self._running.wait_ready().addresses['http']}"
        except BaseException:
            self._running.stop()
            raise

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._running.pid

    def events(self) -> Sequence[Event]:
        """What it has traced."""
        self._running.trace.poll()
        return self._running.trace.events

    def notes(self) -> list[str]:
        """The notes that it has traced."""
        return [event.text for event in self.events() if isinstance(event, NoteEvent)]

    def hang_up(self, event: str) -> None:
        """Send SIGHUP, and wait until the service logs `event`, once more than before."""
        before = self.log_path.read_text().count(event)
        self._running.send(signal.SIGHUP)
        while self.log_path.read_text().count(event) == before:
            self._running.check_running()
            time.sleep(0.01)

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Let it do nothing, while its sockets take what comes."""
        self._running.send(signal.SIGSTOP)
        try:
            yield
        finally:
            self._running.send(signal.SIGCONT)

    def kill(self) -> None:
        """End it as a crash would."""
        self._running.send(signal.SIGKILL)
        self._running.wait_end(STALLED_S)

    def stop(self) -> int:
        """End it, unless it has ended; returns its exit status."""
        self._running.send(signal.SIGTERM)
        return self._running.wait_end(STALLED_S)


class OneOperator:
    """Operator A's ledger, which runs, and logs into `log`, else beside its configuration."""

    def __init__(self, folder: Path, *, heartbeat_s: float = 0.5, log: Path | None = None) -> None:
        config = make_ledger(folder, heartbeat_s=heartbeat_s, more=TRACE)
        self.node = Service("ledger_node", config, config.with_suffix(".jsonl"), log)
        self.genesis = load_genesis(config.with_name("genesis.json").read_bytes())
        self.token = config.with_name("tokens-operator-a").read_text().strip()

    @property
    def url(self) -> str:
        return self.node.url

    def submit(self, der: bytes) -> None:
        """Have a certificate recorded."""
        self._act(lambda client: client.submit(der, self.token))

    def change(self, der: bytes, status: CertStatus, reason: str) -> None:
        """Change the status of a certificate."""
        self._act(lambda client: client.change_status(digest_of(der), status, reason, self.token))

    def stop(self) -> int:
        return self.node.stop()

    def _act(self, act: Callable[[LedgerClient], Awaitable[object]]) -> None:
        async def run() -> None:
            async with LedgerClient.of_genesis(self.url, self.genesis) as client:
                await act(client)

        asyncio.run(run())


def until(found: Callable[[], T]) -> T:
    """Wait for what `found` returns to be true, and return it."""
    end_s = time.monotonic() + PATIENCE_S
    while not (value := found()):
        assert time.monotonic() < end_s, "it did not happen"
        time.sleep(0.02)
    return value
