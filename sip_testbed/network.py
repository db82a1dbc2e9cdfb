"""Two operators' running networks: each program is a process of its own and uses only sockets to reach others.

Operator A has the services for placing calls, Operator B those for receiving them, and each its own ledger node,
which follows and checks the validators' blocks. The validators are one engine, or those of a federation of four
operators. `Testbed` starts everything, changes the ledger as an operator does, and stops everything;
`sip_testbed.placing` places calls in it.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from sip_testbed.events import KINDS
from sip_testbed.provision import (
    ADDRESSES,
    CALLEES,
    CALLER,
    OPERATORS,
    SBC_PREFIX,
    TRANSIT_PREFIX,
    LedgerKind,
    Operator,
    Site,
    aor,
    cometbft_home,
)
from sip_testbed.scenarios import Attack, Key
from voice_dpki.effects import SystemClock, SystemRandom
from voice_dpki.ledger.records import CertStatus
from voice_dpki.names import Height, Tn
from voice_dpki.shell.hep import HepTarget
from voice_dpki.shell.ledger import read_genesis
from voice_dpki.stage.addresses import Addresses
from voice_dpki.stage.administration import Administration, SubmissionNode
from voice_dpki.stage.events import Event
from voice_dpki.stage.network import Network
from voice_dpki.stage.processes import Running, require
from voice_dpki.stage.site import Credential

MODERN, HYBRID, DH_SIGN, PKE, RSA_R = "modern", "hybrid", "dh-sign", "pke", "rsa-r"
"""The modes of MIKEY with certificates, in configurations and on the command line."""

STANDARD = (DH_SIGN, PKE, RSA_R)
"""Those that a standard has, with RSA."""

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
}
"""Module and subcommand of each actor's program; an operator's letter, as in "proxy-a", is not part of the key."""

X5U = "https://certificates.a.example/{digest}.der"
"""Operator A's URL of its certificates; verifiers take the digest from it and ask the ledger."""
X5U_OF_ANSWERS = "https://certificates.b.example/{digest}.der"
"""Operator B's."""

URL_OF_TELEPHONES = "https://certificates.example/{digest}.der"
"""Where telephones say that their certificates are; nobody fetches them there."""

TELLING = frozenset({"authn", "verify", "proxy", "caller", "callee"})
"""Whose messages and decisions a HEP collector is told of."""


class Testbed(Network):
    """A running network of two operators.

    `folder` gets the provisioned files (a temporary folder by default), `logs` each program's log. Without
    `protected` there are only proxies: no signing, no verification and no ledger. Raises LocalError if the `ledger`
    needs CometBFT and that is not installed. `hep` is a collector to be told of the call. Use it
    as a context manager, or make sure to call `stop`.
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
        """Return where else the actor's trace goes: to the collector, if there is one."""
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
        may_end = {*(spared if len(ended) <= 1 else ()), "caller", "callee"}
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


Sections = dict[str, object]


def service_configs(site: Site, *, protected: bool = True) -> dict[str, Sections]:
    """Return the configuration of each service by actor; services that others wait for come first.

    Without protection there are only proxies.
    """
    proxies = {"proxy-a": _proxy_a(site), "proxy-b": _proxy_b(site)}
    if not protected:
        secured = ("signing", "verification")
        return {
            actor: {name: value for name, value in sections.items() if name not in secured}
            for actor, sections in proxies.items()
        }
    return {
        **_ordering(site),
        **{f"ledger-{operator.letter}": follower_config(site, operator) for operator in OPERATORS},
        "authn-a": _signer_config(site, OPERATORS[0], site.signer, X5U),
        "authn-b": _signer_config(site, OPERATORS[1], site.answer_signer, X5U_OF_ANSWERS),
        **{f"verify-{operator.letter}": verifier_config(site, operator) for operator in OPERATORS},
        **proxies,
    }


def follower_config(site: Site, operator: Operator) -> Sections:
    """Return the configuration of an operator's own inquiry node, which is its submission node too."""
    actor = f"ledger-{operator.letter}"
    orders = f"validator-{operator.letter}" if site.ledger is LedgerKind.FEDERATION else "engine"
    submission = {
        "organization": operator.organization,
        "endorsing_key": f"{operator.letter}/endorsing.pem",
        "tokens": f"submit-{operator.letter}.token",
    }
    return _ledger_node(site, actor) | {
        "follow": {"url": f"http://{site.addresses[orders]}"},
        "submission": submission,
    }


def _signer_config(site: Site, operator: Operator, credential: Credential, info_url: str) -> Sections:
    """Return the configuration of an operator's authentication server: A's signs calls, B's the answers."""
    return {
        "domain": operator.domain,
        "organization": operator.organization,
        "info_url": info_url,
        "certificate": credential.certificate,
        "key": credential.key,
        "tokens": f"sign-{operator.letter}.token",
        "ledger": _signer_follows(site, operator),
        "listen": site.listen(f"authn-{operator.letter}"),
    }


def verifier_config(site: Site, operator: Operator) -> Sections:
    """Return the configuration of an operator's verification server, which asks that operator's inquiry node."""
    return {
        "domain": operator.domain,
        **_asks(site, operator, f"verify-{operator.letter}"),
        "witnesses": witnesses(site, operator),
        "tokens": f"verify-{operator.letter}.token",
        "listen": site.listen(f"verify-{operator.letter}"),
    }


def user_agent_config(
    site: Site,
    role: str,
    *,
    number: Tn,
    codec: str,
    srtp: str | None,
    mikey: str = MODERN,
    say: Path,
    out: Path,
    target: str | None = None,
    telephone: Credential | None = None,
    changes: Sequence[str] = (),
) -> Sections:
    """Return the configuration of the caller (with a `target`) or the callee; without `srtp` media are in clear.

    `mikey` is a mode of MIKEY: one with certificates, or one under a key that both telephones share. `telephone`
    replaces the certificate that the user has.
    """
    operator = OPERATORS[0] if role == "caller" else OPERATORS[1]
    if mikey in (MODERN, HYBRID, *STANDARD):
        telephone = telephone or _telephone(site, role, mikey)
        keyed = {
            "keys": {
                "certificate": telephone.certificate,
                "key": telephone.key,
                "mikey": mikey,
                **_asks(site, operator, role),
                **({"certificate_url": URL_OF_TELEPHONES} if mikey == RSA_R else {}),
                "pins": f"pins-{role}{'-standard' if mikey in STANDARD else ''}.sqlite",
            }
        }
    else:
        peer = target or aor(CALLER, OPERATORS[0])
        keyed = {"shared_keys": {"mode": mikey, "with": {peer: site.shared_key}}}
    return {
        "aor": aor(number, operator),
        "password_file": site.secret(f"{role}.password", site.passwords[operator.letter]),
        "proxy": f"udp:{site.addresses[f'proxy-{operator.letter}']}",
        "codec": codec,
        "srtp": srtp or "none",
        "say": say,
        "said": out / f"{role}.said.wav",
        "heard": out / f"{role}.heard.wav",
        "listen": site.listen(role),
        **(keyed if srtp else {}),
        **({"call": {"target": target, "changes": list(changes)}} if target else {}),
    }


def _telephone(site: Site, role: str, mikey: str) -> Credential:
    if mikey in STANDARD:
        return site.standard_caller if role == "caller" else site.standard_callee
    return site.caller if role == "caller" else site.callee


def path_config(site: Site, attack: Attack, stolen: Credential) -> Sections:
    """Return the configuration of the attacker, who signs with the `stolen` key if at all."""
    resign = {
        "key": stolen.key,
        "certificate": stolen.certificate,
        "info_url": X5U,
        "caller": f"+{attack.caller}" if attack.caller else None,
        "age_s": attack.age_s,
    }
    return {
        "mode": attack.mode,
        "listen": site.listen("path"),
        "routes": [
            {"domain": operator.domain, "next_hop": f"tcp:{site.addresses[f'proxy-{operator.letter}']}"}
            for operator in OPERATORS
        ],
        **({"resign": resign} if attack.mode == "resign" else {}),
    }


def witnesses(site: Site, operator: Operator) -> list[str]:
    """Return the other operators' nodes with which `operator` compares its own; none with one engine."""
    if site.ledger is not LedgerKind.FEDERATION:
        return []
    others = (other.letter for other in site.ledger.operators if other != operator)
    return [f"http://{site.addresses[f'validator-{letter}']}" for letter in others]


def _asks(site: Site, operator: Operator, actor: str) -> Sections:
    """Return the settings with which a program of an operator asks the ledger."""
    return {
        "ledger_url": f"http://{site.addresses[f'ledger-{operator.letter}']}",
        "genesis": "genesis.json",
        "trust_file": f"trust-{actor}.json",
    }


def _signer_follows(site: Site, operator: Operator) -> Sections:
    """Return the settings with which an operator's authentication server follows its own certificate."""
    asks = _asks(site, operator, f"authn-{operator.letter}")
    return {"url": asks.pop("ledger_url"), **asks, "witnesses": witnesses(site, operator)}


def _ledger_node(site: Site, actor: str) -> Sections:
    node = {"name": actor, "data_dir": f"data-{actor}", "genesis": "genesis.json"}
    return {"node": node, "listen": site.listen(actor)}


def _ordering(site: Site) -> dict[str, Sections]:
    """Return the configuration of the ordering nodes: one engine with all keys, or each operator's validator."""
    operators = site.ledger.operators
    if site.ledger is LedgerKind.FEDERATION:
        return {f"validator-{operator.letter}": _validator(site, operator) for operator in operators}
    keys = [f"{operator.letter}/validator.pem" for operator in operators]
    return {"engine": _ledger_node(site, "engine") | {"engine": {"validator_keys": keys}}}


def _validator(site: Site, operator: Operator) -> Sections:
    letter = operator.letter
    peers = {f"{node_id}@{site.addresses[f'cometbft-p2p-{peer}']}": peer for peer, node_id in site.node_ids.items()}
    cometbft = {
        "home": cometbft_home(letter),
        "rpc": site.listen(f"cometbft-rpc-{letter}"),
        "p2p": site.listen(f"cometbft-p2p-{letter}"),
        "validator_key": f"{letter}/validator.pem",
        "peers": [address for address, peer in peers.items() if peer != letter],
        "allow_duplicate_ip": True,  # all are on this machine
    }
    return _ledger_node(site, f"validator-{letter}") | {"cometbft": cometbft}


def _proxy_a(site: Site) -> Sections:
    abroad = {"to_domain": OPERATORS[1].domain}
    path, proxy_b = (f"tcp:{site.addresses[actor]}" for actor in ("path", "proxy-b"))
    return {
        "domain": OPERATORS[0].domain,
        "operator": OPERATORS[0].organization,
        "users": site.users("a", CALLER),
        "listen": site.listen("proxy-a"),
        "routes": [
            {"prefix": TRANSIT_PREFIX, "next_hop": path, **abroad},
            {"prefix": SBC_PREFIX, "next_hop": path, "rewrites_sdp": True, **abroad},
            {"prefix": "+44", "next_hop": proxy_b, **abroad},
            {"domain": OPERATORS[1].domain, "next_hop": proxy_b},
        ],
        "signing": _service(site, "sign", "a"),
        "verification": {**_service(site, "verify", "a"), "answers": True},
    }


def _proxy_b(site: Site) -> Sections:
    return {
        "domain": OPERATORS[1].domain,
        "operator": OPERATORS[1].organization,
        "users": site.users("b", *CALLEES),
        "listen": site.listen("proxy-b"),
        "routes": [{"domain": OPERATORS[0].domain, "next_hop": f"tcp:{site.addresses['proxy-a']}"}],
        "verification": _service(site, "verify", "b"),
        "signing": {**_service(site, "sign", "b"), "answers": True},
    }


def _service(site: Site, role: str, letter: str) -> Sections:
    """Return where an operator's proxy asks its server that signs, or its server that verifies."""
    actor = {"sign": "authn", "verify": "verify"}[role]
    return {"url": f"http://{site.addresses[f'{actor}-{letter}']}", "token_file": f"{role}-{letter}.token"}
