"""Devices at strongSwan gateways on this machine: the ledger's decision beside stock charon with a CA, in turn.

    python bench/segw.py [--devices 100] [--rounds 5] [--at-once 8] [--recorded 1000]

As root, with what `segw_agent/charon_plugin/install-debian build` installs. Two gateways, each with a charon of
devices in front of it in network namespaces of their own. At one, devices have certificates of a CA that charon
trusts; at the other self-signed ones that are recorded on the ledger, among `--recorded` others, and charon has the
plugin and asks the agent. The devices' side is the same: stock charon that trusts the gateway's certificate. Rounds
alternate; in each all devices attach, `--at-once` of them at a time.

Rates are of both ends together; `processor` is the gateway's own time for an SA, with its agent's. Latency is
charon's wait for the agent, as its log tells: in the first round the agent asks the inquiry node about every
certificate, later it knows them and follows the ledger's blocks. Of it the agent itself takes about 0.1 ms; with
several devices at a time both charons keep all cores of a small machine busy, and the rest is waiting for a core.
With --recorded 100000 this takes three minutes.

    python bench/segw.py --storm 10000

One gateway in the configuration of docs/strongswan.md. The agent is asked about all devices, cold and warm; then
all devices attach at the same time, twice behind one NAT address and twice from an address each: first after the
gateway lost its SAs, then while it still has those of devices that lost their power. At last two vendors are
removed by vote, one with `--few` devices and the other with the rest. Before, charon is told once to end all SAs
of a name: no agent can have it end them faster, and it takes longer for each the more there are. The devices are
this project's Initiator, all in this process, whose own work is part of each figure: see
`bench/segw_storm/devices.py`. `--end 10000` attaches the devices once, and measures the removal of the vendors
alone.
"""

import argparse
import itertools
import os
import re
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

sys.path.insert(0, str(Path(__file__).parents[1]))

from bench.segw_storm.processor import processor_ms
from bench.segw_storm.run import run as run_storm
from bench.segw_storm.run import run_end
from tests.interop.strongswan.charon import (
    PLUGIN,
    Charon,
    device_connection,
    gateway_connection,
    link,
    wait_until,
)
from tests.interop.strongswan.world import CHAIN, Identity, Ledger, Process, folder, policy, start_agent
from voice_dpki.ledger.transactions import Batch

GATEWAY = "segw.a.example"
BATCH = 30
"""Certificates in one transaction of at most 16 KiB."""

_TOOK = re.compile(r"voice-dpki: '.*' vouched for: .* \((\d+) us\)")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--devices", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--at-once", type=int, default=8)
    parser.add_argument("--recorded", type=int, default=1000)
    parser.add_argument("--storm", type=int, metavar="DEVICES", help="devices that come back all at once")
    parser.add_argument("--end", type=int, metavar="DEVICES", help="devices whose vendors are removed, alone")
    parser.add_argument("--few", type=int, default=1000, help="of them the first removed vendor's")
    options = parser.parse_args()
    if os.geteuid() != 0 or not PLUGIN.exists():
        print("bench/segw.py: as root, after segw_agent/charon_plugin/install-debian build; left out")
        return
    if options.storm is not None:
        run_storm(options.storm, min(options.few, options.storm // 2))
        return
    if options.end is not None:
        run_end(options.end, min(options.few, options.end // 2))
        return
    with ExitStack() as stack:
        path = stack.enter_context(folder())
        stock = stack.enter_context(stock_gateway(path / "stock", options.devices))
        ledger = stack.enter_context(ledger_gateway(path, options.devices, options.recorded))
        stock.attach_all(1)
        ledger.attach_all(1)
        report_waits("inquiry node, one at a time", ledger)
        for _ in range(options.rounds):
            ledger.attach_all(1)
        report_waits("agent's cache, one at a time", ledger)
        for side in (stock, ledger):
            side.rates.clear()
            side.processor_ms.clear()
        for _, side in itertools.product(range(options.rounds), (stock, ledger)):
            side.attach_all(options.at_once)
        report_waits(f"agent's cache, {options.at_once} at a time", ledger)
        report_rates(stock, ledger)


@dataclass
class Side:
    """A gateway and its devices, and what was measured with them."""

    gateway: Charon
    devices: Charon
    identities: list[Identity]
    agent: Process | None = None
    rates: list[float] = field(default_factory=list)
    processor_ms: list[float] = field(default_factory=list)
    read: int = 0
    """How much of the gateway's log was read."""

    def start(self, gateway: Identity) -> None:
        """Start both charons; the devices' trusts the gateway's certificate."""
        for charon in (self.gateway, self.devices):
            charon.start()
        self.gateway.load_pool()
        self.gateway.configure(gateway_connection(GATEWAY, [gateway.certificate]), gateway.pem)
        for device in self.identities:
            connection = device_connection(device.name, [device.certificate], GATEWAY)
            connection["children"] = {device.name: connection["children"]["child"]}
            connection["remote"]["certs"] = [gateway.certificate]
            self.devices.configure(connection, device.pem, device.name)

    def stop(self) -> None:
        """Stop everything."""
        self.devices.stop()
        self.gateway.stop()
        if self.agent is not None:
            self.agent.stop()

    def attach_all(self, at_once: int) -> None:
        """Attach every device, note how that went, and end all SAs."""
        before_ms, began_s = self._processor_ms(), time.monotonic()
        with ThreadPoolExecutor(at_once) as pool:
            list(pool.map(self._attach, (self.identities[first::at_once] for first in range(at_once))))
        count = len(self.identities)
        self.rates.append(count / (time.monotonic() - began_s))
        self.processor_ms.append((self._processor_ms() - before_ms) / count)
        with self.devices.session() as session:
            for device in self.identities:
                list(session.terminate({"ike": device.name, "force": "yes", "timeout": "-1"}))
        wait_until(lambda: not self.gateway.sas() and not self.devices.sas(), "all SAs are gone")

    def _attach(self, devices: Sequence[Identity]) -> None:
        """Attach devices one after the other."""
        with self.devices.session() as session:
            for device in devices:
                list(session.initiate({"child": device.name, "timeout": "15000", "loglevel": "-1"}))

    def new_waits_ms(self) -> list[float]:
        """Return how long charon waited for each verdict since the last call."""
        log, since = self.gateway.log(), self.read
        self.read = len(log)
        return [int(took) / 1000 for took in _TOOK.findall(log[since:])]

    def _processor_ms(self) -> float:
        processes = [self.gateway.process, self.agent]
        return sum(processor_ms(process.pid) for process in processes if process is not None)


@contextmanager
def stock_gateway(path: Path, count: int) -> Iterator[Side]:
    """Make a gateway without the plugin, and devices with certificates of a CA."""
    authority = Authority()
    identities = [Identity(f"enb{number}.vendor.example", "Vendor V") for number in range(count)]
    for device in identities:
        device.certificate = authority.issue(device)
    with link() as names:
        ends = [Charon(names[name], path / name, None, threads=64) for name in ("gateway", "device")]
        side = Side(ends[0], ends[1], identities)
        try:
            side.start(Identity(GATEWAY, "Operator A"))
            side.gateway.load_ca(authority.certificate)
            yield side
        finally:
            side.stop()


@contextmanager
def ledger_gateway(path: Path, count: int, others: int) -> Iterator[Side]:
    """Make a gateway with plugin and agent, and devices whose certificates are recorded among `others`."""
    ledger = Ledger(path)
    try:
        record_many(ledger, others)
        identities = [Identity(f"enb{number}.vendor.example", "Vendor V") for number in range(count)]
        record(ledger, identities)
        socket = path / "agent.sock"
        sections = ledger.section() + policy("Vendor V", "*.example")
        with link() as names:
            gateway = Charon(names["gateway"], path / "gateway", {"socket": socket}, threads=64)
            side = Side(gateway, Charon(names["device"], path / "device", None, threads=64), identities)
            try:
                side.agent = start_agent(path / "agent", {"socket": str(socket)}, sections)
                side.start(Identity(GATEWAY, "Operator A"))
                yield side
            finally:
                side.stop()
    finally:
        ledger.end()


def record_many(ledger: Ledger, count: int) -> None:
    """Record devices that never attach."""
    began_s = time.monotonic()
    for first in range(0, count, BATCH):
        numbers = range(first, min(first + BATCH, count))
        record(ledger, [Identity(f"other{number}.vendor.example", "Vendor V") for number in numbers])
    print(f"{count} other devices recorded in {time.monotonic() - began_s:.0f} s", flush=True)


def record(ledger: Ledger, identities: Sequence[Identity]) -> None:
    """Record certificates, as many in a transaction as there is room for."""
    for first in range(0, len(identities), BATCH):
        certificates = tuple(device.certificate for device in identities[first : first + BATCH])
        ledger.post(Batch(CHAIN, "Vendor V", certificates), "Vendor V")


class Authority:
    """A CA."""

    def __init__(self) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "A CA")])
        self.certificate = self._sign(self._name, self._key.public_key(), [], ca=True)

    def issue(self, device: Identity) -> bytes:
        """Certify a device's key under its name; returns DER."""
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, device.name)])
        return self._sign(subject, device.key.private_key.public_key(), [x509.DNSName(device.name)], ca=False)

    def _sign(
        self,
        subject: x509.Name,
        key: ec.EllipticCurvePublicKey | rsa.RSAPublicKey,
        names: Sequence[x509.DNSName],
        *,
        ca: bool,
    ) -> bytes:
        now, hour = datetime.now(UTC), timedelta(hours=1)
        builder = x509.CertificateBuilder(self._name, subject, key, x509.random_serial_number())
        builder = builder.not_valid_before(now - hour).not_valid_after(now + hour)
        builder = builder.add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        return builder.sign(self._key, hashes.SHA256()).public_bytes(Encoding.DER)


def report_waits(what: str, side: Side) -> None:
    """Print how long charon waited for the agent since the last report."""
    waits = side.new_waits_ms()
    print(f"added latency, {what:28} p50 {at(waits, 0.5):5.2f} ms   p99 {at(waits, 0.99):5.2f} ms", flush=True)


def report_rates(stock: Side, ledger: Side) -> None:
    """Print both rates and their ratio."""
    rates = [statistics.median(side.rates) for side in (stock, ledger)]
    costs_ms = [statistics.median(side.processor_ms) for side in (stock, ledger)]
    for name, rate, cost_ms in zip(
        ("stock charon with a CA", "the ledger's decision"), rates, costs_ms, strict=True
    ):
        print(f"{name:24} {rate:6.1f} SAs a second   processor {cost_ms:5.2f} ms an SA at the gateway")
    print(f"ratio {rates[1] / rates[0]:.2f}")


def at(values: Sequence[float], quantile: float) -> float:
    """Return a quantile."""
    return sorted(values)[min(len(values) - 1, int(len(values) * quantile))]


if __name__ == "__main__":
    main()
