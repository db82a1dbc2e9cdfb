"""The network of one run: a ledger, an operator's gateway and a vendor's device, each program a process of its own.

The embedded engine orders for the operator; `ledger-a` is the operator's inquiry and submission node, `ledger-v`
the vendor's submission node, and the engine endorses for another vendor.
"""

import asyncio
import signal
import tempfile
import time
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

from segw_agent.attachment.addresses import Addresses
from segw_agent.attachment.events import KINDS
from segw_agent.attachment.site import (
    BOOT_DIGEST,
    GATEWAY_NAME,
    OPERATOR,
    OTHER_VENDOR,
    VENDOR,
    Credential,
    Site,
)
from voice_dpki.effects import SystemClock, SystemRandom
from voice_dpki.errors import LocalError
from voice_dpki.ledger.client import LedgerClient, Receipt
from voice_dpki.ledger.genesis import load_genesis
from voice_dpki.ledger.records import CertStatus
from voice_dpki.names import Height
from voice_dpki.shell.events import Event, merge
from voice_dpki.shell.processes import Program, Running, stop_all

HEIGHT_TIMEOUT_S = 10.0
"""For the operator's node to reach a block that another node knows of."""

BOUND_S = 2.0
"""Within which a revocation ends live SAs, and after which an inquiry node counts as unreachable."""

NODES = ("engine", "ledger-a", "ledger-v")
SUBMISSION_NODES = {OPERATOR: "ledger-a", VENDOR: "ledger-v", OTHER_VENDOR: "engine"}

_PATIENCE = {"first_s": 1.5, "factor": 1.5, "tries": 5}


class Testbed:
    """A running network; use it as a context manager, or call `stop` in any case."""

    __test__ = False  # pytest: not a test class

    def __init__(self, logs: Path, hosts: Mapping[str, str] | None = None) -> None:
        """Keep programs' logs in `logs`; `hosts` as for Addresses."""
        self.logs = logs
        self._stack = ExitStack()
        folder = Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="voice-dpki-")))
        self.addresses = Addresses(hosts)
        self._stack.callback(self.addresses.close)
        self.site = Site(folder, SystemClock(), SystemRandom())
        self.running: dict[str, Running] = {}
        self._ended: list[Event] = []
        self._runs = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start_ledger(self) -> None:
        """Start the ledger's nodes and wait until they listen; raises ProcessError."""
        for node in NODES:
            self._launch(node, "ledger_node.main", "start", self._node(node))
        for node in NODES:
            self.running[node].wait_ready()

    def start_gateway(
        self,
        own: Credential,
        *,
        staple: bool = True,
        deny: tuple[str, ...] = (),
        integrity: str = "require",
        **changes: object,
    ) -> None:
        """Start the operator's gateway and wait until it listens; `changes` are further options."""
        sections = {
            "host": self.addresses.host("gateway"),
            "pool": "10.9.0.0/24",
            "inner": "10.8.0.0/16",
            "staple": staple,
            **self._ports(),
            **self._own(own),
            "ledger": self._ledger_section([f"http://{self.addresses.http('ledger-a')}"]),
            "policy": {
                "organizations": [VENDOR],
                "allow": ["*.vendor.example", "*.other.example"],
                "deny": list(deny),
                "integrity": integrity,
                "measurements": {"boot": [BOOT_DIGEST]},
            },
            **changes,
        }
        self._launch("gateway", "segw_agent.main", "gateway", sections).wait_ready()

    def start_device(
        self,
        own: Credential,
        *,
        attach: int = 1,
        stay: bool = False,
        integrity: bool = True,
        asks: bool = False,
        rogue: tuple[str, ...] = (),
        **changes: object,
    ) -> Running:
        """Start a device, which attaches at once; `rogue` are arguments of one that lies."""
        urls = [f"http://{self.addresses.http('ledger-a')}"] if asks else []
        sections = {
            "host": self.addresses.host("device"),
            "attach": attach,
            "stay": stay,
            **self._ports(),
            **self._own(own),
            "gateway": {"host": self.addresses.host("gateway"), **self._ports()},
            "integrity": {"measurements": {"boot": BOOT_DIGEST}} if integrity else None,
            "ledger": self._ledger_section(urls),
            "policy": {"organizations": [OPERATOR], "allow": [GATEWAY_NAME]},
            **changes,
        }
        if rogue:
            return self._launch("device", "segw_agent.attachment.rogue", *rogue, sections)
        return self._launch("device", "segw_agent.main", "device", sections)

    def end(self, actors: Iterable[str]) -> None:
        """Stop programs; what they traced is kept."""
        ended = [self.running.pop(actor) for actor in list(actors) if actor in self.running]
        stop_all(ended)
        self._ended += [event for running in ended for event in running.trace.events]

    def freeze(self, actor: str) -> None:
        """Have a program neither answer nor end, as a machine that hangs."""
        self.running[actor].send(signal.SIGSTOP)

    def thaw(self, actor: str) -> None:
        """Let it go on."""
        self.running[actor].send(signal.SIGCONT)

    def events(self) -> list[Event]:
        """Return what all programs have traced so far, in the order of time."""
        for running in self.running.values():
            running.trace.poll()
        return merge((self._ended, *(running.trace.events for running in self.running.values())))

    def stop(self) -> None:
        """Stop all programs and give addresses and temporary files back."""
        for actor in self.running:
            self.thaw(actor)
        self.end(self.running)
        self._stack.close()

    # --- the ledger, as its members' administrators use it ------------------------------------------------------

    def record(self, *credentials: Credential) -> None:
        """Have certificates recorded, each through its organisation's submission node; raises SubmissionError."""

        async def submit(credential: Credential) -> Receipt:
            async with self._client(SUBMISSION_NODES[credential.organization]) as client:
                return await client.submit(credential.der, self.site.tokens[credential.organization])

        async def all_of_them() -> list[Receipt]:
            return await asyncio.gather(*map(submit, credentials))

        self._wait_for(max(receipt.height for receipt in asyncio.run(all_of_them())))

    def change(self, credential: Credential, status: CertStatus, reason: str) -> None:
        """Have a certificate revoked, suspended or resumed, and wait until the operator's node knows."""

        async def change() -> Receipt:
            async with self._client(SUBMISSION_NODES[credential.organization]) as client:
                token = self.site.tokens[credential.organization]
                return await client.change_status(credential.digest, status, reason, token)

        self._wait_for(asyncio.run(change()).height)

    def _wait_for(self, height: Height) -> None:
        async def reach() -> None:
            deadline = time.monotonic() + HEIGHT_TIMEOUT_S
            async with self._client("ledger-a") as client:
                while (await client.node_info()).height < height:
                    if time.monotonic() > deadline:
                        raise LocalError(f"ledger-a has not reached height {height}")
                    await asyncio.sleep(0.02)

        asyncio.run(reach())

    def _client(self, node: str) -> LedgerClient:
        genesis = load_genesis(self.site.genesis.read_bytes())
        return LedgerClient.of_genesis(f"http://{self.addresses.http(node)}", genesis)

    # --- configurations -----------------------------------------------------------------------------------------

    def _launch(self, actor: str, module: str, *rest: object) -> Running:
        """Start `module` with its arguments and, last in `rest`, its configuration."""
        *arguments, sections = rest
        if actor in self.running:
            self.end([actor])
        self._runs += 1
        trace = self.site.folder / "traces" / str(self._runs) / f"{actor}.jsonl"
        assert isinstance(sections, Mapping)
        config = self.site.config(actor, {**sections, "trace": {"file": trace}})
        every = (*map(str, arguments), "--config", str(config))
        self.running[actor] = Running(Program(actor, module, every, trace, self.logs / f"{actor}.log"), KINDS)
        return self.running[actor]

    def _node(self, node: str) -> dict[str, object]:
        address = self.addresses.http(node)
        member = next(member for member, where in SUBMISSION_NODES.items() if where == node)
        engine = {"engine": {"validator_keys": ["validator.pem"]}}
        follow = {"follow": {"url": f"http://{self.addresses.http('engine')}"}}
        return {
            "node": {"name": node, "data_dir": f"data-{node}", "genesis": "genesis.json"},
            "listen": {"host": address.host, "port": address.port},
            "submission": self.site.submission(member),
            **(engine if node == "engine" else follow),
        }

    def _ports(self) -> dict[str, object]:
        return {"port": self.addresses.ike_port, "nat_port": self.addresses.nat_port}

    @staticmethod
    def _own(own: Credential) -> dict[str, object]:
        return {"own": {"certificate": own.certificate, "key": own.key}, "retransmission": _PATIENCE}

    @staticmethod
    def _ledger_section(urls: list[str]) -> dict[str, object]:
        return {"genesis": "genesis.json", "urls": urls, "timeout_s": BOUND_S, "bound_s": BOUND_S}
