"""Two operators' running networks: each program is a process of its own and uses only sockets to reach others.

Operator A has the services for placing calls, Operator B those for receiving them, and each its own ledger node,
which follows and checks the validators' blocks. The validators are one engine, or those of a federation of four
operators. `Testbed` starts everything, changes the ledger as an operator does, and stops everything;
`sip_testbed.placing` places calls in it.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path

from sip_testbed.events import KINDS
from sip_testbed.network_config import STANDARD, path_config, service_configs
from sip_testbed.provision import (
    ADDRESSES,
    OPERATORS,
    LedgerKind,
    Site,
)
from sip_testbed.scenarios import Attack, Key
from voice_dpki.effects import SystemClock, SystemRandom
from voice_dpki.ledger.records import CertStatus
from voice_dpki.names import Height
from voice_dpki.shell.hep import HepTarget
from voice_dpki.shell.ledger import read_genesis
from voice_dpki.stage.addresses import Addresses
from voice_dpki.stage.administration import Administration, SubmissionNode
from voice_dpki.stage.events import Event
from voice_dpki.stage.network import Network
from voice_dpki.stage.processes import Running, require
from voice_dpki.stage.site import Credential

MODULES: Mapping[str, tuple[str, str]] = {
    "engine": ("ledger_node", "start"),
    "validator": ("ledger_node", "start"),
    "ledger": ("ledger_node", "start"),
    "authn": ("authn_server.main", "start"),
    "verify": ("verify_server.main", "start"),
    "proxy": ("sip_testbed.main", "proxy"),
    "path": ("sip_testbed.main", "path"),
    "caller": ("sip_testbed.main", "user-agent"),
    "callee": ("sip_testbed.main", "user-agent"),
    "third": ("sip_testbed.main", "user-agent"),
}
"""Module and subcommand of each actor's program; an operator's letter, as in "proxy-a", is not part of the key."""

TELLING = frozenset({"authn", "verify", "proxy", "caller", "callee", "third"})
"""Actors whose messages and decisions go to a HEP collector."""


class Testbed(Network):
    """A running network of two operators.

    `folder` gets the provisioned files (a temporary folder by default), `logs` each program's log. Without
    `protected` there are only proxies: no signing, no verification and no ledger. Raises LocalError if the `ledger`
    needs CometBFT and that is not installed. `hep` is a collector of the call's messages and decisions. Use the
    testbed as a context manager, or make sure to call `stop`.
    """

    __test__ = False  # pytest: not a test class

    def __init__(
        self,
        logs: Path,
        folder: Path | None = None,
        *,
        protected: bool = True,
        ledger: LedgerKind = LedgerKind.EMBEDDED,
        hep: HepTarget | None = None,
    ) -> None:
        self._hep = hep
        if protected:
            require_engine(ledger)
        super().__init__(logs, KINDS, folder)
        self.protected = protected
        self.addresses = Addresses(ADDRESSES)
        self.held.callback(self.addresses.close)
        self.site = Site(self.folder, self.addresses, SystemClock(), SystemRandom(), ledger)
        self._thirds: dict[bool, Credential] = {}
        """Certificates of the telephone to which calls are transferred, by whether they are for standard modes."""
        self._administration = Administration(read_genesis(self.site.genesis), self._check_services)

    def start(self) -> None:
        """Start all services in parallel and wait until they listen; raises ProcessError.

        A federation's validators come first: CometBFT looks for blocks at its peers for a second before it makes
        one, and meanwhile the processors are free to start the other services.
        """
        configs = service_configs(self.site, protected=self.protected)
        validators = [actor for actor in configs if actor.startswith("validator-")]
        for actor in validators:
            self.launch(actor, configs[actor])
        for actor in validators:
            address = self.addresses[actor]
            beside = [self.running[other] for other in validators]
            self.running[actor].wait_open(address.host, address.port, beside)
        for actor in configs:
            if actor not in validators:
                self.launch(actor, configs[actor])
        self.wait_ready(configs)

    def record_all(self) -> None:
        """Record the certificates that the calls need, each through its own operator."""
        site = self.site
        self.record(
            {
                "a": (site.signer, site.caller, site.standard_caller),
                "b": (site.answer_signer, site.callee, site.standard_callee),
            }
        )

    def launch(self, actor: str, sections: Mapping[str, object]) -> Running:
        """Start a program with its configuration, without waiting for it; the actor's last one must have ended."""
        module, command = MODULES[actor.partition("-")[0]]
        return self.start_program(actor, module, (command,), sections)

    def traced(self, actor: str) -> Mapping[str, object]:
        """Return the settings that send the actor's trace to the HEP collector, too; empty if there is none."""
        if self._hep is None or actor.partition("-")[0] not in TELLING:
            return {}
        return {"hep": {"host": self._hep.host, "port": self._hep.port, "agent": self._hep.agent}}

    def attack(self, attack: Attack) -> None:
        """Start a scenario's attacker on the path to the transit network and its SBCs, and wait until it listens.

        For a revoked key, a certificate is really recorded here and then revoked.
        """
        self.launch("path", path_config(self.site, attack, self._stolen(attack.key))).wait_ready()

    def _stolen(self, key: Key) -> Credential:
        if key in (Key.NONE, Key.STOLEN):
            return self.site.signer
        thief = self.site.signing_credential("thief")
        if key is Key.REVOKED:
            self.record({"a": (thief,)})
            self.revoke(thief)
        return thief

    def second_telephone(self, mikey: str) -> Credential:
        """Have Operator B record another certificate for a number of the callee's; return it with its key."""
        second = self.site.second_telephone(standard=mikey in STANDARD)
        self.record({"b": (second,)})
        return second

    def third_telephone(self, mikey: str) -> Credential:
        """Have Operator A record the certificate of the telephone to which calls are transferred, once."""
        standard = mikey in STANDARD
        if standard not in self._thirds:
            self._thirds[standard] = self.site.third_telephone(standard=standard)
            self.record({"a": (self._thirds[standard],)})
        return self._thirds[standard]

    def new_events(self) -> list[Event]:
        """Return the events that the running programs traced since the last call."""
        return [event for running in self.running.values() for event in running.trace.poll()]

    def memory_mb(self) -> dict[str, float]:
        """Return the proportional set size of each running program, and of each validator's CometBFT, in MB."""
        memory = {actor: running.pss_mb() for actor, running in self.running.items()}
        beside = {
            actor.replace("validator-", "cometbft-"): running.children_pss_mb()
            for actor, running in self.running.items()
            if actor.startswith("validator-")
        }
        return memory | beside

    # --- the ledger, as an operator's administrator uses it --------------------------------------------------

    def record(self, credentials: Mapping[str, Iterable[Credential]]) -> Height:
        """Record certificates through their operators' submission nodes, and wait until both ledger nodes know.

        `credentials` are by the operator's letter. Returns the height; raises SubmissionError.
        """
        pairs = [(self._node(letter), each.der) for letter, group in credentials.items() for each in group]
        return self._known_to_both(self._administration.record(pairs))

    def revoke(self, credential: Credential) -> Height:
        """Revoke one of Operator A's certificates, and wait until both ledger nodes know; return the height."""
        node = self._node("a")
        height = self._administration.change(node, credential.digest, CertStatus.REVOKED, "keyCompromise")
        return self._known_to_both(height)

    def _check_services(self) -> None:
        """Raise ProcessError if a service has ended, except telephones and one validator of another operator.

        With two of its four validators down, a federation can order no transactions.
        """
        followed = {f"validator-{operator.letter}" for operator in OPERATORS}
        spared = [actor for actor in self.running if actor.startswith("validator-") and actor not in followed]
        ended = [actor for actor in spared if self.running[actor].status is not None]
        may_end = {*(spared if len(ended) <= 1 else ()), "caller", "callee", "third"}
        self.check_running(actor for actor in self.running if actor not in may_end)

    def _known_to_both(self, height: Height) -> Height:
        nodes = [f"ledger-{operator.letter}" for operator in OPERATORS]
        self._administration.wait_for(height, {node: f"http://{self.addresses[node]}" for node in nodes})
        return height

    def _node(self, letter: str) -> SubmissionNode:
        return SubmissionNode(f"http://{self.addresses[f'ledger-{letter}']}", self.site.tokens[f"submit-{letter}"])


def require_engine(ledger: LedgerKind) -> None:
    """Raise LocalError if the `ledger` needs CometBFT and that is not installed."""
    if ledger is LedgerKind.FEDERATION:
        require("cometbft", "ledger-node install-cometbft")
