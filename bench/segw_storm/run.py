"""A gateway with strongSwan in its shipped configuration, its agent and a ledger, and storms of devices."""

import re
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from vici.exception import CommandException

from bench.segw_storm.devices import Farm, Storm
from bench.segw_storm.inquiries import Inquiries, inquire
from bench.segw_storm.processor import processor_ms
from tests.interop.strongswan.charon import ROOT, Charon, gateway_connection, ip, link, wait_until
from tests.interop.strongswan.world import CHAIN, Identity, Ledger, Process, folder, inside, start_agent
from voice_dpki.ledger.proposals import RemoveMember, encode_change
from voice_dpki.ledger.propose import Propose
from voice_dpki.ledger.transactions import Batch

GATEWAY, GATEWAY_ADDRESS, NAT_ADDRESS = "segw.a.example", "10.1.0.1", "10.1.0.2"
MANY = "10.2.0.0/16"
"""Where the devices are that have an address each."""

FEW, ALL = "Vendor W", "Vendor V"
"""The vendors that are removed, one with at most 1,000 devices, and one with the others."""

BATCH = 30
"""Certificates in one transaction of at most 16 KiB."""

AT_ONCE = 64
"""Inquiries at the same time: as many as the shipped configuration gives charon threads."""

DEADLINE_S = 900.0
"""How long a storm is waited for."""

SHIPPED = re.compile(r"```\ncharon \{\n    max_packet.*?\n    threads = (\d+)\n(.*?)\}\n```", re.DOTALL)
_TOOK = re.compile(r"voice-dpki: '.*' vouched for: .* \((\d+) us\)")
_BLOCKED = re.compile(r"per-IP half-open IKE_SA limit")


@dataclass
class Stage:
    """What the storms go over."""

    ledger: Ledger
    gateway: Charon
    agent: Process
    socket: Path
    names: dict[str, str]
    devices: dict[str, list[Identity]]

    @property
    def everybody(self) -> list[Identity]:
        """All devices."""
        return [device for devices in self.devices.values() for device in devices]


def run(count: int, few: int) -> None:
    """Measure with `count` devices, of which `few` are the first vendor's, and print."""
    with folder() as path, stage(path, count, few) as made:
        for what in ("cold", "warm"):
            before_ms = [processor_ms(each.pid) for each in (made.agent, made.ledger.process)]
            done = inquire(made.socket, made.everybody, AT_ONCE)
            after_ms = [processor_ms(each.pid) for each in (made.agent, made.ledger.process)]
            costs = [(now - then) / count for now, then in zip(after_ms, before_ms, strict=True)]
            report_inquiries(what, done, *costs)
        for nat in (True, False):
            with farm(made, nat=nat) as devices:
                for what in ("after a restart", "after a power cut"):
                    since = len(made.gateway.log())
                    storm = devices.attach_all(DEADLINE_S)
                    where = "behind one NAT address" if nat else "each with an address"
                    report_storm(f"{count} devices {where}, {what}", storm, made.gateway.log()[since:])
                if not nat:
                    for vendor in (FEW, ALL):
                        report_end(made, devices, vendor)
            if nat:
                report_ceiling(made.gateway)
            wait_until(lambda: not standing(made.gateway) or end_all(made.gateway), "all SAs are gone")


def run_end(count: int, few: int) -> None:
    """Attach `count` devices with an address each, remove their vendors by vote, and print how long that took."""
    with folder() as path, stage(path, count, few) as made, farm(made, nat=False) as devices:
        since = len(made.gateway.log())
        storm = devices.attach_all(DEADLINE_S)
        report_storm(f"{count} devices each with an address, after a restart", storm, made.gateway.log()[since:])
        for vendor in (FEW, ALL):
            report_end(made, devices, vendor)


def end_all(gateway: Charon) -> bool:
    """End all SAs, without waiting for devices that are gone; returns False."""
    with gateway.session() as session, suppress(CommandException):  # an SA may go meanwhile
        list(session.terminate({"ike": "tunnel", "force": "yes", "timeout": "-1"}))
    return False


@contextmanager
def stage(path: Path, count: int, few: int) -> Iterator[Stage]:
    """Start a ledger on which the devices and the gateway are recorded, the gateway and its agent."""
    shipped = SHIPPED.search((ROOT / "docs" / "strongswan.md").read_text())
    assert shipped is not None
    limits = re.sub(r"\s*#.*", "", shipped[2])
    ledger, gateway = Ledger(path, "delay_s = 0"), Identity(GATEWAY, "Operator A")
    devices = {
        FEW: [Identity(f"enb{number}.w.example", FEW) for number in range(few)],
        ALL: [Identity(f"enb{number}.vendor.example", ALL) for number in range(few, count)],
    }
    try:
        ledger.record(gateway)
        for vendor, identities in devices.items():
            for first in range(0, len(identities), BATCH):
                certificates = tuple(device.certificate for device in identities[first : first + BATCH])
                ledger.post(Batch(CHAIN, vendor, certificates), vendor)
        with link() as names:
            agent_socket = path / "agent.sock"
            charon = Charon(
                names["gateway"], path / "gateway", {"socket": agent_socket}, threads=int(shipped[1]), limits=limits
            )
            charon.start()
            try:
                with charon.session() as session:
                    session.load_pool({"pool": {"addrs": "10.64.0.0/10"}})
                charon.configure(gateway_connection(GATEWAY, [gateway.certificate]), gateway.pem)
                top = {
                    "socket": str(agent_socket),
                    "vici": str(path / "gateway/vici.sock"),
                    "state": str(path / "s"),
                }
                own = gateway.write(path / "segw")
                policy = f'[policy]\norganizations = ["{FEW}", "{ALL}"]\nallow = ["*.example"]\n'
                agent = start_agent(path / "agent", top, ledger.section() + policy + own)
                try:
                    yield Stage(ledger, charon, agent, agent_socket, names, devices)
                finally:
                    agent.stop()
            finally:
                charon.stop()
    finally:
        ledger.end()


@contextmanager
def farm(made: Stage, *, nat: bool) -> Iterator[Farm]:
    """Make the devices' sockets in their network namespace, all at one address or each at its own."""
    device, gateway = made.names["device"], made.names["gateway"]
    if not nat:
        ip("-n", device, "route", "add", "local", MANY, "dev", "lo")
        ip("-n", gateway, "route", "add", MANY, "via", NAT_ADDRESS)
    addresses = [NAT_ADDRESS if nat else f"10.2.{at // 250}.{1 + at % 250}" for at in range(len(made.everybody))]

    def bound() -> list[socket.socket]:
        sockets = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in addresses]
        for sock, address in zip(sockets, addresses, strict=True):
            sock.bind((address, 0 if nat else 500))
        return sockets

    devices = Farm(made.everybody, inside(device, bound), GATEWAY_ADDRESS, nat=nat)
    try:
        yield devices
    finally:
        devices.close()


def report_inquiries(what: str, done: Inquiries, agent_ms: float, node_ms: float) -> None:
    """Print what the agent's socket gave."""
    took = sorted(done.took_ms)
    print(
        f"{what} inquiries at the agent, {AT_ONCE} at a time: {done.rate:6.0f} a second   "
        f"p50 {_at(took, 0.5):.1f} ms   p99 {_at(took, 0.99):.1f} ms   refused {done.refused or 'none'}\n"
        f"   processor {agent_ms:.2f} ms each at the agent, {node_ms:.2f} ms at the node",
        flush=True,
    )


def report_storm(what: str, storm: Storm, log: str) -> None:
    """Print how a storm went, and what charon's log says of it."""
    took, waits = sorted(storm.took_s), sorted(int(us) / 1000 for us in _TOOK.findall(log))
    print(f"{what}: {len(took)} attached in {storm.lasted_s:.1f} s, {len(took) / storm.lasted_s:.0f} a second")
    print(f"   a device waits p50 {_at(took, 0.5):.1f} s   p99 {_at(took, 0.99):.1f} s   longest {took[-1]:.1f} s")
    print(f"   charon waits for the agent p50 {_at(waits, 0.5):.1f} ms   p99 {_at(waits, 0.99):.1f} ms")
    print(f"   sent {dict(storm.sent)}; attempts that failed {dict(storm.failed) or 'none'}")
    print(f"   not answered because of block_threshold: {len(_BLOCKED.findall(log))} IKE_SA_INIT", flush=True)


def report_ceiling(gateway: Charon) -> None:
    """Have charon end all SAs of a name by one command, and print how long that took: it can be no faster."""
    before, before_ms = standing(gateway), charon_ms(gateway)
    began_s = time.monotonic()
    with gateway.session() as session:
        session.transport.socket.settimeout(DEADLINE_S)
        list(session.terminate({"ike": "tunnel", "force": "yes", "timeout": "-1"}))
    wait_until(lambda: not standing(gateway), "all SAs are gone")
    took_s, used_ms = time.monotonic() - began_s, charon_ms(gateway) - before_ms
    print(f"charon by itself, told once: {before} SAs ended in {took_s:.1f} s")
    print(f"   processor {used_ms / before:.2f} ms each", flush=True)


def report_end(made: Stage, devices: Farm, vendor: str) -> None:
    """Remove a vendor by vote, and print how long its SAs stood after the block that says so."""
    before, count = standing(made.gateway), len(made.devices[vendor])
    ends, look = Ends(made.agent), Rarely(lambda: standing(made.gateway) <= before - count)
    until_s = int(time.time()) + 3600
    made.ledger.post(Propose(CHAIN, "Operator A", until_s, encode_change(RemoveMember(vendor))), "Operator A")
    devices.serve(lambda: not made.ledger.has_member(vendor), DEADLINE_S)
    began_s = time.monotonic()
    before_ms = charon_ms(made.gateway)
    devices.serve(lambda: ends.count() >= count or look(), DEADLINE_S)
    took_s = time.monotonic() - began_s
    used_ms = charon_ms(made.gateway) - before_ms
    ended = before - standing(made.gateway)
    print(f"{ended} of {count} SAs of a removed vendor ended in {took_s:.1f} s after the block, of {before}")
    print(f"   processor {used_ms / max(ended, 1):.2f} ms each at charon", flush=True)


class Ends:
    """Counts the SAs that the agent has ended since this was made, by what it logs since then."""

    def __init__(self, agent: Process) -> None:
        self._log = agent.log_path.open("rb")
        self._log.seek(0, 2)
        self._count, self._rest = 0, b""

    def count(self) -> int:
        """Read on, and return their number."""
        lines = (self._rest + self._log.read()).split(b"\n")
        self._rest = lines.pop()
        self._count += sum(b'"live SA ended"' in line for line in lines)
        return self._count


class Rarely:
    """A condition that is looked at twice a second, as charon's statistics walk through all of its memory."""

    def __init__(self, condition: Callable[[], bool]) -> None:
        self._condition, self._next_s = condition, 0.0

    def __call__(self) -> bool:
        """Look, if it is time to."""
        if time.monotonic() < self._next_s:
            return False
        found = self._condition()
        self._next_s = time.monotonic() + 0.5
        return found


def charon_ms(gateway: Charon) -> float:
    """Return the processor time that charon has used."""
    assert gateway.process is not None
    return processor_ms(gateway.process.pid)


def standing(gateway: Charon) -> int:
    """Return how many IKE SAs charon has."""
    with gateway.session() as session:
        return int(session.stats()["ikesas"]["total"])


def _at(values: Sequence[float], quantile: float) -> float:
    """Return a quantile of sorted values."""
    return values[min(len(values) - 1, int(len(values) * quantile))]
