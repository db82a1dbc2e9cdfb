"""Real nodes as processes: a ledger made by `ledger-node init`, an engine, and nodes that follow it."""

import signal
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import httpx
import pytest

from ledger_node.command.config import read_validator_key
from ledger_node.make.initialise import initialise
from ledger_node.order.engine import signers_of
from tests.ports import free_port
from voice_dpki.effects import SystemClock, SystemRandom
from voice_dpki.ledger.block import NextBlock
from voice_dpki.ledger.genesis import Genesis, load_genesis
from voice_dpki.ledger.replica import Replica, SignedBlock, Step
from voice_dpki.ledger.transactions import Submit, endorse
from voice_dpki.wire.ledger.client import LedgerClient
from voice_dpki.x509.keys import LocalSigner, from_pem, generate_es256
from voice_dpki.x509.profile import build_certificate

MEMBERS = """
chain_id = "test-1"

[[members]]
organization = "Operator A"
kind = "operator"
domains = ["a.example"]
ranges = [{ start = "493023125000", count = 1000 }]
validators = 1

[[members]]
organization = "Operator B"
kind = "operator"
domains = ["b.example"]
ranges = [{ start = "442079460000", count = 1000 }]
validators = 1
"""
PROGRAM = Path(sys.executable).with_name("ledger-node")
DEADLINE_S = 90.0
TOKEN = "a-token-for-tests"


class Node:
    """One node and its process."""

    def __init__(self, folder: Path, name: str) -> None:
        self.config = folder / f"{name}.toml"
        self.data = folder / f"data-{name}"
        self.trace = folder / f"{name}.jsonl"
        self.log = folder / f"{name}.log"
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.http = httpx.Client(base_url=self.url, trust_env=False, verify=False)
        self.process: subprocess.Popen[bytes] | None = None
        self.said: list[str] = []

    def write(self, role: str) -> None:
        """Write the configuration, with the sections in `role`."""
        self.config.write_text(
            f'[node]\nname = "{self.config.stem}"\ndata_dir = "{self.data.name}"\ngenesis = "genesis.json"\n'
            f'[listen]\nport = {self.port}\n[trace]\nfile = "{self.trace.name}"\n{role}'
        )

    def secure(self, context: ssl.SSLContext, own: str, *clients: str) -> "Node":
        """Have the node serve over TLS, and be asked with `context`."""
        listed = ", ".join(f'"tls/{client}.pem"' for client in clients)
        with self.config.open("a") as file:
            file.write(f'[tls]\ncertificate = "tls/{own}.pem"\nkey = "tls/{own}-key.pem"\nclients = [{listed}]\n')
        self.url = self.url.replace("http:", "https:")
        self.http.close()
        self.http = httpx.Client(base_url=self.url, trust_env=False, verify=context)
        return self

    def launch(self) -> "Node":
        """Start the process without waiting."""
        with self.log.open("ab") as log:
            self.process = subprocess.Popen([PROGRAM, "start", "--config", self.config], stderr=log)
        return self

    def start(self) -> "Node":
        """Start the process and wait until it answers."""
        self.launch()
        wait_until(lambda: self.info() is not None, f"{self.config.stem} answers")
        return self

    def info(self) -> dict[str, Any] | None:
        """Return what the node says of itself, or None if it does not answer."""
        try:
            return self.http.get("/ledger/v1/node").json()
        except httpx.HTTPError:
            return None

    def reaches(self, height: int) -> None:
        """Wait until the node has the block at `height`."""
        wait_until(lambda: (self.info() or {}).get("height", 0) >= height, f"{self.config.stem} at height {height}")

    def says(self, text: str) -> None:
        """Wait until the node's log has a text."""
        wait_until(lambda: text in self.log.read_text(), f"{self.config.stem} says {text!r}")

    def kill(self) -> None:
        """End the process at once."""
        self._end(signal.SIGKILL)

    def stop(self) -> int:
        """End the process in order and return its exit status."""
        return self._end(signal.SIGTERM)

    def _end(self, number: int) -> int:
        process, self.process = self.process, None
        if process is None:
            return 0
        process.send_signal(number)
        return process.wait(DEADLINE_S)

    def fails(self) -> str:
        """Start the process, expect it to refuse to run with one sentence at the end, and return that."""
        done = run("start", "--config", self.config)
        assert done.returncode == 2, done
        assert "Traceback" not in done.stderr
        self.said = done.stderr.splitlines()
        return self.said[-1]


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    """Run `ledger-node` to its end."""
    command = [str(PROGRAM), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE_S)


class Network:
    """A ledger with its members' keys, and its nodes."""

    def __init__(self, folder: Path, parameters: str = "") -> None:
        (folder / "members.toml").write_text(MEMBERS.replace("[[members]]", parameters + "[[members]]", 1))
        self.folder = folder / "net"
        initialise(folder / "members.toml", self.folder, SystemClock())
        self.genesis: Genesis = load_genesis((self.folder / "genesis.json").read_bytes())
        (self.folder / "tokens").write_text(TOKEN + "\n")
        self.nodes: list[Node] = []
        self.keys = {name: generate_es256() for name in ("Operator A", "Operator B")}
        self.serial = 0

    def node(self, name: str, role: str) -> Node:
        node = Node(self.folder, name)
        node.write(role)
        self.nodes.append(node)
        return node

    def engine(self, heartbeat_s: float = 5.0, submission: str | None = "Operator A") -> Node:
        keys = sorted(f"keys/{path.name}" for path in (self.folder / "keys").glob("validator-*.pem"))
        role = f"[engine]\nvalidator_keys = {keys}\nheartbeat_s = {heartbeat_s}\n"
        return self.node("engine", role + self.submission(submission))

    def follower(self, name: str, url: str, submission: str | None = None) -> Node:
        return self.node(name, f'[follow]\nurl = "{url}"\n' + self.submission(submission))

    def submission(self, organization: str | None) -> str:
        if organization is None:
            return ""
        slug = organization.lower().replace(" ", "-")
        return (
            f'[submission]\norganization = "{organization}"\n'
            f'endorsing_key = "keys/endorsing-{slug}.pem"\ntokens = "tokens"\n'
        )

    def signer(self, organization: str) -> LocalSigner:
        """Return a member's endorsing key."""
        slug = organization.lower().replace(" ", "-")
        return from_pem((self.folder / "keys" / f"endorsing-{slug}.pem").read_bytes())

    def certificate(self, organization: str = "Operator A", **options: Any) -> bytes:
        """Make a certificate, valid now, each time another one under the organisation's key."""
        self.serial += 1
        now_s = int(time.time())
        options = {
            "common_name": f"device {self.serial}",
            "not_before_s": now_s - 3600,
            "not_after_s": now_s + 30 * 86_400,
            "random": SystemRandom(),
            **options,
        }
        return build_certificate(options.pop("key", self.keys[organization]), organization=organization, **options)

    def client(self, node: Node, **options: Any) -> LedgerClient:
        return LedgerClient.of_genesis(node.url, self.genesis, **options)

    def submission_of(self, der: bytes, by: str = "Operator A") -> bytes:
        """Endorse a certificate as a transaction."""
        return endorse(Submit("test-1", by, der), [self.signer(by)])

    def maker(self) -> "Maker":
        """Make blocks as the engine would, with its keys, in this process."""
        return Maker(self)

    def end(self) -> None:
        for node in self.nodes:
            node.kill()
            node.http.close()


class Maker:
    """Makes a chain's blocks in memory; `changes` replace what a block is made of."""

    def __init__(self, network: Network) -> None:
        self.genesis = network.genesis
        keys = [read_validator_key(path) for path in (network.folder / "keys").glob("validator-*.pem")]
        self.signers = signers_of(keys)
        self.state = network.genesis.initial_state()
        self.replica = Replica(self.state, None)

    def block(self, *transactions: bytes, **changes: Any) -> SignedBlock:
        """Make the next block without taking it."""
        parts: dict[str, Any] = {
            "chain_id": self.genesis.chain_id,
            "previous": self.replica.last,
            "time_ns": self.genesis.time_ns + self.replica.next_height * 1000,
            "transactions": transactions,
            "app_hash": self.replica.app_hash,
            "last_results": self.replica.last_results,
            "validators": self.genesis.validators,
            "next_validators": self.genesis.validators,
            "consensus_hash": self.genesis.consensus_hash(),
        }
        following = NextBlock(**parts | changes)
        return SignedBlock(following.seal(self.signers), tuple(transactions), tuple(following.evidence))

    def take(self, block: SignedBlock) -> Step:
        """Take the next block."""
        step = self.replica.take(block)
        for executed in step.executed:
            self.state.commit(executed.outcome)
        return step

    def steps(self, *blocks: Sequence[bytes]) -> list[Step]:
        """Make and take a block for each list of transactions, and an empty one after them."""
        return [self.take(self.block(*transactions)) for transactions in (*blocks, ())]


def wait_until(condition: Any, what: str) -> None:
    """Wait for a condition, looking often; fail after the deadline."""
    end = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < end, f"waited {DEADLINE_S} s in vain until {what}"
        time.sleep(0.02)


@pytest.fixture
def network(tmp_path: Path) -> Iterator[Network]:
    network = Network(tmp_path)
    yield network
    network.end()


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Network]:
    """An engine with the submission role of A, and a follower with that of B, for tests that only add to them."""
    network = Network(tmp_path_factory.mktemp("ledger"))
    engine = network.engine().start()
    network.follower("operator-b", engine.url, "Operator B").start().reaches(1)
    yield network
    network.end()


@pytest.fixture(scope="module")
def voting(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Network]:
    """An engine of a ledger whose changes of members take effect after one block."""
    network = Network(tmp_path_factory.mktemp("ledger"), "[parameters]\ndelay_s = 0\n\n")
    network.engine(heartbeat_s=0.1).start()
    yield network
    network.end()


@pytest.fixture(scope="session")
def network_in() -> Any:
    """Makes a network in a folder; whoever asks for it ends it."""
    return Network


@pytest.fixture(scope="session")
def ledger_node() -> Any:
    """Runs the program with the given arguments."""
    return run


@pytest.fixture(scope="session")
def token() -> str:
    return TOKEN
