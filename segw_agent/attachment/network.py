"""The network of one run: a ledger, an operator's gateway and a vendor's device, each program a process of its own.

The node `engine` orders with the operator's validator key, and endorses for another vendor. `ledger-a` is the
operator's inquiry and submission node, and `ledger-v` the vendor's submission node.
"""

import signal
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from segw_agent.attachment.events import KINDS
from segw_agent.attachment.site import BOOT_DIGEST, GATEWAY_NAME, OPERATOR, OTHER_VENDOR, VENDOR, Site
from voice_dpki.effects import SystemClock, SystemRandom
from voice_dpki.ledger.records import CertStatus
from voice_dpki.names import Height
from voice_dpki.shell.ledger import read_genesis
from voice_dpki.stage.addresses import Addresses, AddressPlan
from voice_dpki.stage.administration import Administration, SubmissionNode
from voice_dpki.stage.events import Event, merge
from voice_dpki.stage.network import Network
from voice_dpki.stage.processes import Running
from voice_dpki.stage.site import Credential

BOUND_S = 2.0
"""Time within which a revocation ends live SAs, and timeout for an unreachable inquiry node."""

ADDRESSES = AddressPlan(
    "127.0.1",
    5058,
    {
        "engine": (2, 8084),
        "ledger-a": (3, 8083),
        "ledger-v": (4, 8083),
        "gateway": (5, 500),
        "gateway-nat": (5, 4500),
        "device": (6, 500),
        "device-nat": (6, 4500),
    },
)
"""Where the actors listen; the ports for NAT traversal (RFC 7296 §2.23) have names of their own."""

NODES = ("engine", "ledger-a", "ledger-v")
SUBMISSION_NODES = {OPERATOR: "ledger-a", VENDOR: "ledger-v", OTHER_VENDOR: "engine"}

_PATIENCE = {"first_s": 1.5, "factor": 1.5, "tries": 5}


class Testbed(Network):
    """A running network; use it as a context manager, or call `stop` in any case."""

    __test__ = False  # pytest: not a test class

    def __init__(self, logs: Path, hosts: Mapping[str, str] | None = None) -> None:
        """Keep the programs' logs in `logs`; `hosts` puts gateway or device on another host."""
        super().__init__(logs, KINDS)
        self.addresses = Addresses(ADDRESSES, hosts)
        self.held.callback(self.addresses.close)
        self.site = Site(self.folder, SystemClock(), SystemRandom())
        self._administration = Administration(read_genesis(self.site.genesis), self._check_nodes)
        self._ended: list[Event] = []

    def start_ledger(self) -> None:
        """Start the ledger's nodes and wait until they listen; raises ProcessError."""
        for node in NODES:
            self._launch(node, "ledger_node", ("start",), self._node(node))
        self.wait_ready(NODES)

    def start_gateway(
        self,
        own: Credential,
        *,
        staple: bool = True,
        deny: tuple[str, ...] = (),
        integrity: str = "require",
        **changes: object,
    ) -> None:
        """Start the operator's gateway and wait until it listens; `changes` add to or replace its configuration."""
        sections = {
            "host": self.addresses["gateway"].host,
            "pool": "10.9.0.0/24",
            "inner": "10.8.0.0/16",
            "staple": staple,
            **self._ports(),
            **self._own(own),
            "ledger": self._ledger_section([f"http://{self.addresses['ledger-a']}"]),
            "policy": {
                "organizations": [VENDOR],
                "allow": ["*.vendor.example", "*.other.example"],
                "deny": list(deny),
                "integrity": integrity,
                "measurements": {"boot": [BOOT_DIGEST]},
            },
            **changes,
        }
        self._launch("gateway", "segw_agent.main", ("gateway",), sections).wait_ready()

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
        """Start a device, which attaches at once; with `rogue`, the arguments of one that lies."""
        urls = [f"http://{self.addresses['ledger-a']}"] if asks else []
        sections = {
            "host": self.addresses["device"].host,
            "attach": attach,
            "stay": stay,
            **self._ports(),
            **self._own(own),
            "gateway": {"host": self.addresses["gateway"].host, **self._ports()},
            "integrity": {"measurements": {"boot": BOOT_DIGEST}} if integrity else None,
            "ledger": self._ledger_section(urls),
            "policy": {"organizations": [OPERATOR], "allow": [GATEWAY_NAME]},
            **changes,
        }
        if rogue:
            return self._launch("device", "segw_agent.attachment.rogue", rogue, sections)
        return self._launch("device", "segw_agent.main", ("device",), sections)

    def end(self, actors: Iterable[str]) -> list[Event]:
        """Stop programs and return their trace events, which are also kept for `events`."""
        ended = super().end(actors)
        self._ended += ended
        return ended

    def freeze(self, actor: str) -> None:
        """Stop a program from answering or ending, like a machine that hangs."""
        self.running[actor].send(signal.SIGSTOP)

    def thaw(self, actor: str) -> None:
        """Let a frozen program continue."""
        self.running[actor].send(signal.SIGCONT)

    def events(self) -> list[Event]:
        """Return the trace events of all programs so far, sorted by time."""
        for running in self.running.values():
            running.trace.poll()
        return merge((self._ended, *(running.trace.events for running in self.running.values())))

    def stop(self) -> None:
        """Stop all programs, frozen ones too, and release addresses and temporary files."""
        for actor in self.running:
            self.thaw(actor)
        super().stop()

    # --- the ledger, as used by its members' administrators -----------------------------------------------------

    def record(self, *credentials: Credential) -> None:
        """Have certificates recorded, each through its organisation's submission node; raises SubmissionError."""
        height = self._administration.record((self._submission(each), each.der) for each in credentials)
        self._wait_for(height)

    def change(self, credential: Credential, status: CertStatus, reason: str) -> None:
        """Have a certificate revoked, suspended or resumed, and wait until the operator's node knows."""
        node = self._submission(credential)
        self._wait_for(self._administration.change(node, credential.digest, status, reason))

    def _check_nodes(self) -> None:
        self.check_running((*NODES, "gateway"))

    def _wait_for(self, height: Height) -> None:
        self._administration.wait_for(height, {"ledger-a": f"http://{self.addresses['ledger-a']}"})

    def _submission(self, credential: Credential) -> SubmissionNode:
        address = self.addresses[SUBMISSION_NODES[credential.organization]]
        return SubmissionNode(f"http://{address}", self.site.tokens[credential.organization])

    # --- configurations -----------------------------------------------------------------------------------------

    def _launch(self, actor: str, module: str, arguments: Sequence[str], sections: Mapping[str, object]) -> Running:
        """Start a program; if the actor has one already, stop that first."""
        self.end([actor])
        return self.start_program(actor, module, arguments, sections)

    def _node(self, node: str) -> dict[str, object]:
        address = self.addresses[node]
        member = next(member for member, where in SUBMISSION_NODES.items() if where == node)
        engine = {"engine": {"validator_keys": ["validator.pem"]}}
        follow = {"follow": {"url": f"http://{self.addresses['engine']}"}}
        return {
            "node": {"name": node, "data_dir": f"data-{node}", "genesis": "genesis.json"},
            "listen": {"host": address.host, "port": address.port},
            "submission": self.site.submission(member),
            **(engine if node == "engine" else follow),
        }

    def _ports(self) -> dict[str, object]:
        return {"port": self.addresses["gateway"].port, "nat_port": self.addresses["gateway-nat"].port}

    @staticmethod
    def _own(own: Credential) -> dict[str, object]:
        return {"own": {"certificate": own.certificate, "key": own.key}, "retransmission": _PATIENCE}

    @staticmethod
    def _ledger_section(urls: list[str]) -> dict[str, object]:
        return {"genesis": "genesis.json", "urls": urls, "timeout_s": BOUND_S, "bound_s": BOUND_S}
