"""Two operators' networks, running: each program a process of its own, meeting over sockets only.

Operator A has what it needs to place calls, Operator B what it needs to take them, and each its own ledger node,
which follows and checks the validators' blocks. `Testbed` starts all of it, changes the ledger as an operator does
and stops it; placing calls in it is `sip_testbed.call`'s part.
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
from sip_testbed.events import Event
from sip_testbed.processes import Program, Running, stop_all
from sip_testbed.provision import (
    CALLEE,
    CALLEE_OVER_TRANSIT,
    CALLER,
    OPERATORS,
    TRANSIT_PREFIX,
    Credential,
    Site,
    aor,
)
from sip_testbed.scenarios import Attack, Key
from voice_dpki.effects import SystemClock, SystemRandom
from voice_dpki.errors import LocalError
from voice_dpki.ledger.client import LedgerClient, Receipt
from voice_dpki.ledger.genesis import load_genesis
from voice_dpki.names import Height, Tn

PROXIES = ("proxy-a", "proxy-b")
SERVICES = ("engine", "ledger-a", "ledger-b", "authn-a", "verify-b", *PROXIES)
"""In the order in which they are started: what others wait for comes first."""

HEIGHT_TIMEOUT_S = 10.0
"""For an inquiry node to reach a block that its operator knows of."""

MODULES: Mapping[str, tuple[str, ...]] = {
    "engine": ("ledger_node.main", "start"),
    "ledger-a": ("ledger_node.main", "start"),
    "ledger-b": ("ledger_node.main", "start"),
    "authn-a": ("authn_server.main", "start"),
    "verify-b": ("verify_server.main", "start"),
    "proxy-a": ("sip_testbed.main", "proxy"),
    "proxy-b": ("sip_testbed.main", "proxy"),
    "path": ("sip_testbed.main", "path"),
    "caller": ("sip_testbed.main", "user-agent"),
    "callee": ("sip_testbed.main", "user-agent"),
}
"""Module and subcommand of each actor's program."""

X5U = "https://certificates.a.example/{digest}.der"
"""Where Operator A publishes its certificates; verifiers read the digest and ask the ledger."""


class Testbed:
    """A running network of two operators.

    `folder` holds what is provisioned (a temporary one by default), `logs` each program's log. Without `protected`
    there are proxies alone: no signing, no verification and no ledger. Use it as a context manager, or call `stop`
    in any case.
    """

    __test__ = False  # pytest: not a test class

    def __init__(self, logs: Path, folder: Path | None = None, *, protected: bool = True) -> None:
        self.logs = logs
        self.protected = protected
        self._stack = ExitStack()
        self.folder = folder or Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="voice-dpki-")))
        self.addresses = Addresses()
        self._stack.callback(self.addresses.close)
        self.site = Site(self.folder, self.addresses, SystemClock(), SystemRandom())
        self.running: dict[str, Running] = {}
        self._runs = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Start all services side by side and wait until they listen; raises ProcessError."""
        configs = service_configs(self.site, protected=self.protected)
        for actor, sections in configs.items():
            self.launch(actor, sections)
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
        module, *arguments = MODULES[actor]
        program = Program(actor, module, (*arguments, "--config", str(config)), trace, self.logs / f"{actor}.log")
        self.running[actor] = Running(program)
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
        """Proportional set size of each running program."""
        return {actor: running.pss_mb() for actor, running in self.running.items()}

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
    """Return the configuration of each service, by actor; without protection there are proxies alone."""
    proxies = {"proxy-a": _proxy_a(site), "proxy-b": _proxy_b(site)}
    if not protected:
        secured = ("signing", "verification")
        return {
            actor: {name: value for name, value in sections.items() if name not in secured}
            for actor, sections in proxies.items()
        }
    return {
        "engine": _ledger_node(site, "engine")
        | {"engine": {"validator_keys": [f"{operator.letter}/validator.pem" for operator in OPERATORS]}},
        "ledger-a": _follower(site, "a"),
        "ledger-b": _follower(site, "b"),
        "authn-a": {
            "domain": OPERATORS[0].domain,
            "organization": OPERATORS[0].organization,
            "info_url": X5U,
            "certificate": site.signer.certificate,
            "key": site.signer.key,
            "tokens": "sign-a.token",
            "listen": site.listen("authn-a"),
        },
        "verify-b": {
            "domain": OPERATORS[1].domain,
            "ledger_url": f"http://{site.addresses['ledger-b']}",
            "genesis": "genesis.json",
            "tokens": "verify-b.token",
            "listen": site.listen("verify-b"),
        },
        **proxies,
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


def _follower(site: Site, letter: str) -> Sections:
    operator = next(operator for operator in OPERATORS if operator.letter == letter)
    submission = {
        "organization": operator.organization,
        "endorsing_key": f"{letter}/endorsing.pem",
        "tokens": f"submit-{letter}.token",
    }
    follow = {"url": f"http://{site.addresses['engine']}"}
    return _ledger_node(site, f"ledger-{letter}") | {"follow": follow, "submission": submission}


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
