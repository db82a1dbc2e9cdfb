"""Stock charon at both ends, without our plugin: they trust the bridge CA, and ask its OCSP responder."""

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from segw_agent import main
from tests.ports import free_port

from .charon import CHARON, PLUGINS, Charon, device_connection, gateway_connection, link, wait_until
from .world import Identity, Ledger, Process, folder, forwarded

GATEWAY = "segw.a.example"
VALIDITY_S = 1
FETCHER = Path(PLUGINS) / "libstrongswan-curl.so"
STRICT = {"auth": "pubkey", "revocation": "strict"}


def demand() -> None:
    """Skip the test, naming what is missing; in CI fail instead."""
    missing = [str(path) for path in (CHARON, FETCHER) if not path.exists()]
    missing += [] if os.geteuid() == 0 else ["root"]
    if missing:
        leave = pytest.fail if os.environ.get("CI") == "true" else pytest.skip
        leave(f"these tests need {', '.join(missing)}; as root: segw_agent/charon_plugin/install-debian build")


class StockCharon(Charon):
    """charon with what Debian's asks OCSP responders by."""

    def _write(self) -> None:
        super()._write()
        path = self.folder / "strongswan.conf"
        text = path.read_text().replace(" vici updown", " constraints revocation curl vici updown")
        path.write_text(text)

    def flush(self) -> None:
        """Forget OCSP answers, as `swanctl --flush-certs --type ocsp_response` does."""
        with self.session() as session:
            session.flush_certs({"type": "OCSP_RESPONSE"})


class Bridge:
    """A bridge CA with its files in a folder, and its responder as a process."""

    def __init__(self, path: Path, ledger: Ledger, number: int = 1, top: str = "") -> None:
        self.path, self.port = path, free_port()
        path.mkdir()
        self.config = path / "bridge.toml"
        self.config.write_text(
            f'ocsp_url = "http://127.0.0.1:{self.port}/ocsp"\nvalidity_s = {VALIDITY_S}\n{top}'
            f'[ca]\nname = "Operator A bridge CA {number}"\ncertificate = "ca.pem"\nkey = "ca.key"\n'
            '[responder]\ncertificate = "ocsp.pem"\nkey = "ocsp.key"\n'
            f"[listen]\nport = {self.port}\n{ledger.section()}timeout_s = 0.5\n"
            '[policy]\norganizations = ["Vendor V", "Operator A"]\nallow = ["*.vendor.example", "*.a.example"]\n'
        )
        assert self.run("init") == 0
        self.ca = self.read(path / "ca.pem")
        self.process = Process(path / "bridge.log", "segw_agent.main", "bridge", "start", "--config", self.config)
        self.process.says('"ready"')

    def run(self, command: str, *arguments: object) -> int:
        return main.main(["bridge", command, "--config", str(self.config), *map(str, arguments)])

    def issue(self, identity: Identity) -> bytes:
        """Issue a certificate, as its administrator does."""
        own = self.path / f"{identity.digest.hex()}.der"
        own.write_bytes(identity.certificate)
        assert self.run("issue", own, "--out", self.path / "issued") == 0
        return self.read(self.path / "issued" / f"{own.stem}.pem")

    @staticmethod
    def read(path: Path) -> bytes:
        return x509.load_pem_x509_certificate(path.read_bytes()).public_bytes(Encoding.DER)


@dataclass
class StockSite:
    """The ledger, the bridge and both ends."""

    path: Path
    ledger: Ledger
    bridge: Bridge
    names: dict[str, str]
    charons: dict[str, StockCharon]
    responders: dict[str, ExitStack] = field(default_factory=dict)
    serial: int = 0

    def recorded(self) -> Identity:
        """Make a new device's identity, and have it recorded."""
        self.serial += 1
        device = Identity(f"enb{self.serial}.vendor.example", "Vendor V")
        self.ledger.record(device)
        return device

    def reach(self, side: str) -> None:
        """Let a side reach the responder."""
        self.responders[side] = ExitStack()
        self.responders[side].enter_context(forwarded(self.names[side], self.bridge.port))

    @contextmanager
    def unreachable(self, side: str) -> Iterator[None]:
        """Have the responder be away for a side."""
        self.responders.pop(side).close()
        try:
            yield
        finally:
            self.reach(side)

    def end(self) -> None:
        for reached in self.responders.values():
            reached.close()

    def load_gateway(self, gateway: Identity, name: str = "tunnel") -> None:
        connection = gateway_connection(gateway.name, [self.bridge.issue(gateway)], remote={**STRICT, "id": "%any"})
        self.charons["gateway"].configure(connection, gateway.pem, name)

    def attach(self, device: Identity, certificate: bytes, gateway: str = GATEWAY) -> bool:
        """Have the device's charon set a tunnel up."""
        connection = device_connection(device.name, [certificate], gateway, remote={**STRICT, "id": gateway})
        self.charons["device"].configure(connection, device.pem)
        return self.charons["device"].initiate()

    def admits(self, device: Identity, certificate: bytes) -> bool:
        """Try to set a tunnel up, and leave none."""
        try:
            return self.attach(device, certificate)
        finally:
            self.clear()

    @contextmanager
    def attached(self, device: Identity, certificate: bytes, gateway: str = GATEWAY) -> Iterator[None]:
        assert self.attach(device, certificate, gateway), self.charons["gateway"].log()[-3000:]
        try:
            yield
        finally:
            self.clear()

    def refused(self, device: Identity, certificate: bytes, *reasons: str) -> None:
        """Have the gateway refuse the device, with reasons in its log and AUTH_FAILED on the wire."""
        since = len(self.charons["gateway"].log())
        assert not self.attach(device, certificate)
        said = self.charons["gateway"].log()[since:]
        for reason in (*reasons, "generating IKE_AUTH response 1 [ N(AUTH_FAILED) ]"):
            assert reason in said, said

    def clear(self) -> None:
        """End all tunnels."""
        for charon in self.charons.values():
            charon.terminate_all()
            wait_until(charon.idle, "the tunnels are gone")


class Forgetful(StockCharon):
    """charon that keeps no OCSP answers, and can have a clock that is wrong."""

    def __init__(self, namespace: str, folder: Path, settings: None, error_s: int = 0) -> None:
        (library,) = Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1")
        faked = {
            "PRELOAD": str(library),
            "FAKETIME": f"{error_s:+d}",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "FAKETIME_FORCE_MONOTONIC_FIX": "0",  # charon's timers would stand still
        }
        super().__init__(
            namespace,
            folder,
            settings,
            environment=faked if error_s else {},
            limits="dos_protection = no\n    cert_cache = no",
        )


@contextmanager
def make_stock_site(kind: Any = StockCharon, top: str = "") -> Iterator[StockSite]:
    """Make a site whose gateway is recorded, and has a certificate of the bridge CA.

    `top` are further lines of the bridge's configuration.
    """
    demand()
    with ExitStack() as stack:
        path = stack.enter_context(folder())
        names = stack.enter_context(link())
        ledger = Ledger(path)
        stack.callback(ledger.end)
        gateway = Identity(GATEWAY, "Operator A")
        ledger.record(gateway)
        bridge = Bridge(path / "bridge", ledger, top=top)
        stack.callback(bridge.process.stop)
        charons = {side: kind(names[side], path / f"charon-{side}", None) for side in names}
        site = StockSite(path, ledger, bridge, names, charons)
        stack.callback(site.end)
        for side, charon in charons.items():
            site.reach(side)
            stack.callback(charon.stop)
            charon.start().load_ca(bridge.ca)
        charons["gateway"].load_pool()
        site.load_gateway(gateway)
        yield site
