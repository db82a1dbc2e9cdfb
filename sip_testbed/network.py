"""Two operators' networks, running: each program a process of its own, meeting over sockets only.

Operator A has what it needs to place calls, Operator B what it needs to take them, and each its own ledger node,
which follows and checks the validators' blocks. The validators are one engine, or those of a federation of four
operators. `Testbed` starts all of it, changes the ledger as an operator does and stops it; placing calls in it is
`sip_testbed.placing`'s part.
"""

import asyncio
import tempfile
import time
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

from sip_testbed.addresses import Addresses
from sip_testbed.events import KINDS
from sip_testbed.provision import (
    CALLEE,
    CALLEE_OVER_TRANSIT,
    CALLER,
    OPERATORS,
    TRANSIT_PREFIX,
    Credential,
    LedgerKind,
    Operator,
    Site,
    aor,
    cometbft_home,
)
from sip_testbed.scenarios import Attack, Key
from voice_dpki.effects import SystemClock, SystemRandom
from voice_dpki.errors import LocalError
from voice_dpki.ledger.client import LedgerClient, Receipt
from voice_dpki.ledger.genesis import load_genesis
from voice_dpki.names import Height, Tn
from voice_dpki.shell.events import Event
from voice_dpki.shell.processes import Program, Running, require, stop_all

HEIGHT_TIMEOUT_S = 10.0
"""For an inquiry node to reach a block that its operator knows of."""

MODULES: Mapping[str, tuple[str, str]] = {
    "engine": ("ledger_node.main", "start"),
    "validator": ("ledger_node.main", "start"),
    "ledger": ("ledger_node.main", "start"),
    "authn": ("authn_server.main", "start"),
    "verify": ("verify_server.main", "start"),
    "proxy": ("sip_testbed.main", "proxy"),
    "path": ("sip_testbed.main", "path"),
    "caller": ("sip_testbed.main", "user-agent"),
    "callee": ("sip_testbed.main", "user-agent"),
}
"""Module and subcommand of each actor's program; an operator's letter, as in "proxy-a", is not part of the key."""

X5U = "https://certificates.a.example/{digest}.der"
"""Where Operator A publishes its certificates; verifiers read the digest and ask the ledger."""


class Testbed:
    """A running network of two operators.

    `folder` holds what is provisioned (a temporary one by default), `logs` each program's log. Without `protected`
    there are proxies alone: no signing, no verification and no ledger. Raises LocalError where the `ledger` wants
    CometBFT and there is none. Use it as a context manager, or call `stop` in any case.
    """

    __test__ = False  # pytest: not a test class

    def __init__(
        self,
        logs: Path,
        folder: Path | None = None,
        *,
        protected: bool = True,
        ledger: LedgerKind = LedgerKind.EMBEDDED,
    ) -> None:
        if protected and ledger is LedgerKind.FEDERATION:
            require("cometbft", "make cometbft")
        self.logs = logs
        self.protected = protected
        self._stack = ExitStack()
        self.folder = folder or Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="voice-dpki-")))
        self.addresses = Addresses()
        self._stack.callback(self.addresses.close)
        self.site = Site(self.folder, self.addresses, SystemClock(), SystemRandom(), ledger)
        self.running: dict[str, Running] = {}
        self._runs = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Start all services side by side and wait until they listen; raises ProcessError.

        A federation's validators begin: CometBFT looks for blocks at its peers for a second before it makes one,
        and meanwhile the processors are free to start the others.
        """
        configs = service_configs(self.site, protected=self.protected)
        validators = [actor for actor in configs if actor.startswith("validator-")]
        for actor in validators:
            self.launch(actor, configs[actor])
        for actor in validators:
            address = self.addresses[actor]
            self.running[actor].wait_open(address.host, address.port)
        for actor in configs:
            if actor not in validators:
                self.launch(actor, configs[actor])
        for actor in configs:
            self.running[actor].wait_ready()

    def record_all(self) -> None:
        """Have the certificates recorded that the calls need, each by its own operator."""
        self.record({"a": (self.site.signer, self.site.caller), "b": (self.site.callee,)})

    def launch(self, actor: str, sections: Mapping[str, object]) -> Running:
        """Start a program with its configuration, without waiting for it. The actor's last one must be over."""
        if actor in self.running:
            raise LocalError(f"{actor} runs already")
        self._runs += 1
        trace = self.folder / "traces" / str(self._runs) / f"{actor}.jsonl"
        config = self.site.config(actor, {**sections, "trace": {"file": trace}})
        module, command = MODULES[actor.partition("-")[0]]
        program = Program(actor, module, (command, "--config", str(config)), trace, self.logs / f"{actor}.log")
        self.running[actor] = Running(program, KINDS)
        return self.running[actor]

    def end(self, actors: Iterable[str]) -> list[Event]:
        """Stop programs and return what they traced."""
        ended = [self.running.pop(actor) for actor in actors if actor in self.running]
        stop_all(ended)
        return [event for running in ended for event in running.trace.events]

    def attack(self, attack: Attack) -> None:
        """Put the attacker of a scenario on the path to CALLEE_OVER_TRANSIT, and wait until it listens.

        A key that was revoked a moment ago really was: it is recorded here, and then revoked.
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

    def new_events(self) -> list[Event]:
        """Return what the running programs traced since the last time."""
        return [event for running in self.running.values() for event in running.trace.poll()]

    def memory_mb(self) -> dict[str, float]:
        """Proportional set size of each running program, and of each CometBFT beside its validator."""
        memory = {actor: running.pss_mb() for actor, running in self.running.items()}
        beside = {
            actor.replace("validator-", "cometbft-"): running.children_pss_mb()
            for actor, running in self.running.items()
            if actor.startswith("validator-")
        }
        return memory | beside

    def stop(self) -> None:
        """Stop all programs and give the addresses and temporary files back."""
        stop_all(self.running.values())
        self.running.clear()
        self._stack.close()

    # --- the ledger, as an operator's administrator uses it --------------------------------------------------

    def record(self, credentials: Mapping[str, Iterable[Credential]]) -> Height:
        """Have certificates recorded through their operators' submission nodes, and wait until both operators know.

        `credentials` are by the operator's letter. Returns the height; raises SubmissionError.
        """

        async def submit(letter: str, credential: Credential) -> Receipt:
            async with self._ledger(letter) as ledger:
                return await ledger.submit(credential.der, self.site.tokens[f"submit-{letter}"])

        async def submit_all() -> list[Receipt]:
            pairs = [(letter, credential) for letter, group in credentials.items() for credential in group]
            return await asyncio.gather(*(submit(*pair) for pair in pairs))

        return self._wait_for_both(max(receipt.height for receipt in asyncio.run(submit_all())))

    def revoke(self, credential: Credential) -> Height:
        """Have one of Operator A's certificates revoked, and wait until both operators know; returns the height."""

        async def revoke() -> Receipt:
            async with self._ledger("a") as ledger:
                return await ledger.revoke(credential.digest, "keyCompromise", self.site.tokens["submit-a"])

        return self._wait_for_both(asyncio.run(revoke()).height)

    def _wait_for_both(self, height: Height) -> Height:
        async def reach(letter: str) -> None:
            deadline = time.monotonic() + HEIGHT_TIMEOUT_S
            async with self._ledger(letter) as ledger:
                while (await ledger.node_info()).height < height:
                    if time.monotonic() > deadline:
                        raise LocalError(f"ledger-{letter} has not reached height {height}")
                    await asyncio.sleep(0.02)

        async def reach_both() -> None:
            await asyncio.gather(*(reach(operator.letter) for operator in OPERATORS))

        asyncio.run(reach_both())
        return height

    def _ledger(self, letter: str) -> LedgerClient:
        genesis = load_genesis(self.site.genesis.read_bytes())
        return LedgerClient.of_genesis(f"http://{self.addresses[f'ledger-{letter}']}", genesis)


Sections = dict[str, object]


def service_configs(site: Site, *, protected: bool = True) -> dict[str, Sections]:
    """Return the configuration of each service by actor, what others wait for first.

    Without protection there are proxies alone.
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
        "authn-a": {
            "domain": OPERATORS[0].domain,
            "organization": OPERATORS[0].organization,
            "info_url": X5U,
            "certificate": site.signer.certificate,
            "key": site.signer.key,
            "tokens": "sign-a.token",
            "listen": site.listen("authn-a"),
        },
        "verify-b": verifier_config(site, OPERATORS[1]),
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


def verifier_config(site: Site, operator: Operator) -> Sections:
    """Return the configuration of an operator's verification server, which asks that operator's inquiry node."""
    return {
        "domain": operator.domain,
        "ledger_url": f"http://{site.addresses[f'ledger-{operator.letter}']}",
        "genesis": "genesis.json",
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
    say: Path,
    out: Path,
    target: str | None = None,
) -> Sections:
    """Return the configuration of the caller (with a `target`) or the callee; without `srtp` it talks in clear."""
    operator = OPERATORS[0] if role == "caller" else OPERATORS[1]
    telephone = site.caller if role == "caller" else site.callee
    keys = {
        "certificate": telephone.certificate,
        "key": telephone.key,
        "ledger_url": f"http://{site.addresses[f'ledger-{operator.letter}']}",
        "genesis": "genesis.json",
    }
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
        **({"keys": keys} if srtp else {}),
        **({"call": {"target": target}} if target else {}),
    }


def path_config(site: Site, attack: Attack, stolen: Credential) -> Sections:
    """Return the configuration of the attacker, who signs (if at all) with what was `stolen`."""
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


def _ledger_node(site: Site, actor: str) -> Sections:
    node = {"name": actor, "data_dir": f"data-{actor}", "genesis": "genesis.json"}
    return {"node": node, "listen": site.listen(actor)}


def _ordering(site: Site) -> dict[str, Sections]:
    """The nodes that order transactions: one engine with all validators' keys, or each operator's validator."""
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
    }
    return _ledger_node(site, f"validator-{letter}") | {"cometbft": cometbft}


def _proxy_a(site: Site) -> Sections:
    return {
        "domain": OPERATORS[0].domain,
        "operator": OPERATORS[0].organization,
        "users": site.users("a", CALLER),
        "listen": site.listen("proxy-a"),
        "routes": [
            {"prefix": TRANSIT_PREFIX, "next_hop": f"tcp:{site.addresses['path']}"},
            {"domain": OPERATORS[1].domain, "next_hop": f"tcp:{site.addresses['proxy-b']}"},
        ],
        "signing": {"url": f"http://{site.addresses['authn-a']}", "token_file": "sign-a.token"},
    }


def _proxy_b(site: Site) -> Sections:
    return {
        "domain": OPERATORS[1].domain,
        "operator": OPERATORS[1].organization,
        "users": site.users("b", CALLEE, CALLEE_OVER_TRANSIT),
        "listen": site.listen("proxy-b"),
        "routes": [{"domain": OPERATORS[0].domain, "next_hop": f"tcp:{site.addresses['proxy-a']}"}],
        "verification": {"url": f"http://{site.addresses['verify-b']}", "token_file": "verify-b.token"},
    }
