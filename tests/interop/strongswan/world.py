"""A ledger, its agents and what they decide about: real processes, for charon and the Python programs to meet."""

import asyncio
import ctypes
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import httpx

from ledger_node.make.initialise import initialise
from tests.ports import free_port
from voice_dpki.effects import SystemClock, SystemRandom
from voice_dpki.ledger.genesis import Genesis, load_genesis
from voice_dpki.ledger.records import CertStatus
from voice_dpki.ledger.transactions import Body, ChangeStatus, Submit, endorse
from voice_dpki.wire.ledger.client import LedgerClient
from voice_dpki.x509.keys import LocalSigner, from_pem, generate_es256, to_pem
from voice_dpki.x509.profile import build_certificate, digest_of

from .charon import CAP_S, DEADLINE_S, wait_until

CHAIN = "segw-1"
MEMBERS = f"""
chain_id = "{CHAIN}"

[[members]]
organization = "Operator A"
kind = "operator"
domains = ["a.example"]
validators = 1

[[members]]
organization = "Vendor V"
kind = "vendor"
domains = ["vendor.example"]

[[members]]
organization = "Vendor W"
kind = "vendor"
domains = ["w.example"]
"""
BOUND_S = 2.0
"""Within this time a revocation ends live SAs."""

NOTICED_S = 5 * BOUND_S
"""Far above what an SA takes to end on an idle machine, and far below what it would stand for otherwise."""

REASONS = {
    CertStatus.REVOKED: "keyCompromise",
    CertStatus.SUSPENDED: "certificateHold",
    CertStatus.VALID: "removeFromCRL",
}

_CLONE_NEWNET = 0x40000000
_T = TypeVar("_T")


@contextmanager
def folder() -> Iterator[Path]:
    """Make a folder whose path is short enough for unix sockets."""
    path = Path(tempfile.mkdtemp(prefix="dpki-", dir="/tmp"))
    try:
        yield path
    finally:
        shutil.rmtree(path)


def inside(namespace: str, work: Callable[[], _T]) -> _T:
    """Do something in a thread that is in a network namespace; sockets that it makes stay there."""
    done: list[_T] = []

    def run() -> None:
        with open(f"/run/netns/{namespace}") as file:
            assert ctypes.CDLL(None, use_errno=True).setns(file.fileno(), _CLONE_NEWNET) == 0
        done.append(work())

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    return done[0]


class Process:
    """A program of the project, in a network namespace if one is named."""

    def __init__(self, log: Path, *command: object, namespace: str | None = None) -> None:
        self.log_path = log
        prefix = ["ip", "netns", "exec", namespace] if namespace else []
        with log.open("ab") as out:
            self._process = subprocess.Popen(
                [*prefix, sys.executable, "-m", *map(str, command)],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
            )

    @property
    def pid(self) -> int:
        return self._process.pid

    def log(self) -> str:
        return self.log_path.read_text(errors="replace")

    def says(self, text: str) -> None:
        """Wait until the log has a text."""
        wait_until(lambda: text in self.log() or not self.runs, f"{self.log_path.stem} says {text!r}")
        assert text in self.log(), self.log()

    def wait(self) -> int:
        """Return its exit status; whoever does not end is killed, so that it keeps no port from the next test."""
        try:
            return self._process.wait(CAP_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
            raise AssertionError(f"{self.log_path.stem} does not end; it said:\n{self.log()}") from None

    def signal(self, number: int) -> None:
        self._process.send_signal(number)

    def stop(self) -> None:
        self._process.terminate()
        self.wait()

    @property
    def runs(self) -> bool:
        """Whether it has not ended yet."""
        return self._process.poll() is None


class Identity:
    """A name, its key, and the certificate that it has now."""

    def __init__(self, name: str, organization: str, key: LocalSigner | None = None, **validity: int) -> None:
        now_s = int(time.time())
        self.name, self.organization = name, organization
        self.key = key or generate_es256()
        self.certificate = build_certificate(
            self.key,
            organization=organization,
            common_name=name,
            dns_names=[name],
            not_before_s=now_s - 3600,
            not_after_s=validity.get("not_after_s", now_s + 30 * 86_400),
            random=SystemRandom(),
        )
        self.digest = digest_of(self.certificate)
        self.pem = to_pem(self.key)

    def write(self, path: Path) -> str:
        """Write certificate and key to files; returns the [own] section that names them."""
        path.with_suffix(".der").write_bytes(self.certificate)
        path.with_suffix(".pem").write_bytes(self.pem)
        path.with_suffix(".pem").chmod(0o600)
        return f'[own]\ncertificate = "{path.stem}.der"\nkey = "{path.stem}.pem"\n'


class Ledger:
    """One node with the embedded engine, and every member's endorsing key."""

    def __init__(self, path: Path, parameters: str = "") -> None:
        """Make the ledger of MEMBERS; `parameters` are lines of its section [parameters]."""
        (path / "members.toml").write_text(f"{MEMBERS}\n[parameters]\n{parameters}")
        self.folder = path / "ledger"
        initialise(path / "members.toml", self.folder, SystemClock())
        self.genesis: Genesis = load_genesis((self.folder / "genesis.json").read_bytes())
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        (self.folder / "node.toml").write_text(
            '[node]\nname = "node"\ndata_dir = "data"\ngenesis = "genesis.json"\n'
            f"[listen]\nport = {self.port}\n"
            '[engine]\nvalidator_keys = ["keys/validator-operator-a-1.pem"]\nheartbeat_s = 0.5\n'
        )
        self.process = Process(path / "node.log", "ledger_node", "start", "--config", self.folder / "node.toml")
        self._http = httpx.Client(base_url=self.url, trust_env=False)
        try:
            wait_until(self._answers, "the ledger node answers")
        except BaseException:
            self.end()
            raise

    def record(self, *identities: Identity) -> None:
        """Record certificates under their organisations."""
        for each in identities:
            self.post(Submit(CHAIN, each.organization, each.certificate), each.organization)

    def change(self, identity: Identity, status: CertStatus) -> None:
        """Move a certificate to another status, by its organisation."""
        by = identity.organization
        reason = REASONS[status]
        self.post(ChangeStatus(CHAIN, by, identity.digest, self.revision(identity), status, reason), by)

    def post(self, body: Body, by: str) -> None:
        """Have a transaction ordered."""
        slug = by.lower().replace(" ", "-")
        signer = from_pem((self.folder / "keys" / f"endorsing-{slug}.pem").read_bytes())
        answer = self._http.post("/ledger/v1/transactions", content=endorse(body, [signer]), timeout=DEADLINE_S)
        assert answer.status_code < 300, answer.text

    def has_member(self, organization: str) -> bool:
        """Tell whether an organisation is a member in the newest block."""
        answer = self._http.get(f"/ledger/v1/members/{organization}", timeout=DEADLINE_S)
        return answer.raise_for_status().json()["member"]["record"] is not None

    def revision(self, identity: Identity) -> int:
        async def ask() -> int:
            async with LedgerClient.of_genesis(self.url, self.genesis) as client:
                found = await client.resolve(identity.digest)
            assert found.record is not None
            return found.record.revision

        return asyncio.run(ask())

    def end(self) -> None:
        self._http.close()
        self.process.stop()

    def section(self) -> str:
        """Write the [ledger] section of who asks this node."""
        genesis = self.folder / "genesis.json"
        return f'[ledger]\nurls = ["{self.url}"]\ngenesis = "{genesis}"\nbound_s = {BOUND_S}\nmax_age_s = 5\n'

    def _answers(self) -> bool:
        assert self.process.runs, self.process.log()
        try:
            return self._http.get("/ledger/v1/node").is_success
        except httpx.HTTPError:
            return False


def policy(organization: str, allow: str, integrity: str = "check-if-present") -> str:
    """Write a [policy] section."""
    return f'[policy]\norganizations = ["{organization}"]\nallow = ["{allow}"]\nintegrity = "{integrity}"\n'


def start_agent(path: Path, top: Mapping[str, str], sections: str) -> Process:
    """Start an agent, whose files are called `path`, and wait until it listens."""
    head = "".join(f'{name} = "{value}"\n' for name, value in top.items())
    path.with_suffix(".toml").write_text(head + sections)
    log = path.with_suffix(".log")
    log.unlink(missing_ok=True)
    agent = Process(log, "segw_agent.main", "start", "--config", path.with_suffix(".toml"))
    agent.says('"ready"')
    return agent


@contextmanager
def forwarded(namespace: str, port: int) -> Iterator[None]:
    """Let 127.0.0.1:`port` in a namespace lead to the same address out here."""
    listener = inside(namespace, lambda: socket.create_server(("127.0.0.1", port)))

    def serve() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=_relay, args=(connection, port), daemon=True).start()

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()
        listener.close()


def _relay(inner: socket.socket, port: int) -> None:
    with inner, socket.create_connection(("127.0.0.1", port)) as outer:

        def pump(source: socket.socket, target: socket.socket) -> None:
            try:
                while data := source.recv(65536):
                    target.sendall(data)
                target.shutdown(socket.SHUT_WR)
            except OSError:
                return

        back = threading.Thread(target=pump, args=(outer, inner), daemon=True)
        back.start()
        pump(inner, outer)
        back.join()
