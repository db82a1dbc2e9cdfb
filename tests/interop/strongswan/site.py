"""A site: a device's and a gateway's charon with their agents, and the ledger that decides."""

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from .charon import CHARON, PLUGIN, Charon, device_connection, gateway_connection, link, wait_until
from .world import Identity, Ledger, Process, folder, policy, start_agent

GATEWAY = "segw.a.example"
DOMAINS = {"Vendor V": "vendor.example", "Vendor W": "w.example"}
WIRE_REFUSAL = "N(AUTH_FAILED)"
SHOWN = 4000
"""Characters of each log that are shown of a test that fails."""
HOW = "as root on Debian: segw_agent/charon_plugin/install-debian build"


def demand() -> None:
    """Skip the test, naming what is missing; in CI fail instead."""
    missing = [str(path) for path in (CHARON, PLUGIN) if not path.exists()]
    missing += [] if os.geteuid() == 0 else ["root"]
    if missing:
        leave = pytest.fail if os.environ.get("CI") == "true" else pytest.skip
        leave(f"strongSwan's tests need {', '.join(missing)}; {HOW}")


@dataclass
class Site:
    """The ledger, a device's and a gateway's charon and agents, and the gateway's identity, which is recorded."""

    path: Path
    ledger: Ledger
    names: dict[str, str]
    charons: dict[str, Charon]
    gateway: Identity
    agents: dict[str, Process] = field(default_factory=dict)
    serial: int = 0

    def identity(self, organization: str = "Vendor V", **validity: Any) -> Identity:
        """Make a new device's identity."""
        self.serial += 1
        return Identity(f"enb{self.serial}.{DOMAINS[organization]}", organization, **validity)

    def recorded(self, **options: Any) -> Identity:
        device = self.identity(**options)
        self.ledger.record(device)
        return device

    def socket(self, side: str) -> Path:
        return self.path / f"{side}.sock"

    def start_agents(self) -> None:
        own = self.gateway.write(self.path / "segw")
        self.start_agent("gateway", policy("Vendor V", "*.example") + own)
        self.start_agent("device", policy("Operator A", "*.a.example"))

    def start_agent(self, side: str, sections: str) -> None:
        """Start an agent, instead of the one that serves this side now."""
        if side in self.agents:
            self.agents.pop(side).stop()
        top = {
            "socket": str(self.socket(side)),
            "vici": str(self.charons[side].folder / "vici.sock"),
            "state": f"{side}-live.jsonl",
        }
        self.agents[side] = start_agent(self.path / f"{side}-agent", top, self.ledger.section() + sections)

    def stop_agents(self) -> None:
        while self.agents:
            self.agents.popitem()[1].stop()

    def attach(self, device: Identity, gateway: str = GATEWAY) -> bool:
        """Have the device's charon set a tunnel up."""
        connection = device_connection(device.name, [device.certificate], gateway)
        self.charons["device"].configure(connection, device.pem)
        return self.charons["device"].initiate()

    @contextmanager
    def attached(self, device: Identity) -> Iterator[None]:
        assert self.attach(device), self.charons["gateway"].log()[-3000:]
        try:
            yield
        finally:
            self.charons["device"].terminate()
            wait_until(lambda: not self.charons["gateway"].sas(), "the gateway has no SA any more")

    def refused(self, device: Identity, code: str) -> None:
        """Have the gateway refuse the device, with a reason in its log and AUTH_FAILED on the wire."""
        since = len(self.charons["gateway"].log())
        assert not self.attach(device)
        said = self.charons["gateway"].log()[since:]
        assert f"voice-dpki: '{device.name}' refused: {code}: " in said
        assert f"generating IKE_AUTH response 1 [ {WIRE_REFUSAL} ]" in said

    def clear(self) -> None:
        """End all tunnels, and print the ends of all logs, which pytest shows if the test has failed."""
        for kind, programs in (("agent", self.agents), ("charon", self.charons)):
            for side, program in programs.items():
                print(f"{side}'s {kind}:\n{program.log()[-SHOWN:]}")
        for charon in self.charons.values():
            charon.terminate_all()
            wait_until(charon.idle, "the tunnels are gone")

    def start(self, side: str) -> None:
        """Start a charon; the gateway's is configured to take devices."""
        self.charons[side].start()
        if side == "gateway":
            self.charons[side].load_pool()
            self.configure_gateway()

    def configure_gateway(self) -> None:
        """Give the gateway the connection that every test begins with."""
        connection = gateway_connection(GATEWAY, [self.gateway.certificate])
        self.charons["gateway"].configure(connection, self.gateway.pem)

    @contextmanager
    def without_charon(self, side: str) -> Iterator[None]:
        """Have no charon at a side, so that its address is free for another program."""
        try:
            self.charons[side].stop()
            yield
        finally:
            self.start(side)


@contextmanager
def make_site(**options: Any) -> Iterator[Site]:
    """Make a site whose gateway is recorded; no agents run yet. `options` are those of Charon."""
    demand()
    with ExitStack() as stack:
        path = stack.enter_context(folder())
        names = stack.enter_context(link())
        ledger = Ledger(path)
        stack.callback(ledger.end)
        charons = {
            side: Charon(names[side], path / f"charon-{side}", {"socket": path / f"{side}.sock"}, **options)
            for side in names
        }
        gateway = Identity(GATEWAY, "Operator A")
        site = Site(path, ledger, names, charons, gateway)
        stack.callback(site.stop_agents)
        ledger.record(gateway)
        for side, charon in charons.items():
            stack.callback(charon.stop)
            site.start(side)
        yield site


@contextmanager
def settings(charon: Charon, **changed: object) -> Iterator[None]:
    """Run with other settings of the plugin for a while."""
    before = dict(charon.settings or {})
    charon.set(before | changed)
    try:
        yield
    finally:
        charon.set(before)
