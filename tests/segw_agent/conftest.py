"""A running ledger that tests share, and strongSwan's charon in a network namespace of its own."""

import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from operator import methodcaller
from pathlib import Path
from typing import Any

import pytest

from segw_agent.attachment.network import Testbed

CHARON = Path("/usr/lib/ipsec/charon")
PLUGINS = (
    "random nonce openssl pem pkcs1 pkcs8 x509 pubkey constraints kdf hmac sha1 sha2 aes gcm "
    "kernel-libipsec kernel-netlink socket-default vici"
)


@pytest.fixture(scope="module")
def testbed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Testbed]:
    """A ledger that runs for all of a module's tests; gateway and device are theirs to start."""
    with Testbed(tmp_path_factory.mktemp("logs")) as running:
        running.start_ledger()
        yield running


def run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True, timeout=60)


class Charon:
    """charon at `host`, in a namespace joined to ours, where we are `peer`; nothing in it is trusted at first."""

    def __init__(self, folder: Path, number: int, options: str) -> None:
        self.name = f"vd{os.getpid() % 100_000}-{number}"
        self.host, self.peer = f"10.77.{number}.2", f"10.77.{number}.1"
        self.log = folder / "charon.log"
        self.socket = folder / "vici"
        self._stack = ExitStack()
        try:
            self._start(folder, options)
        except BaseException:
            self.stop()
            raise

    def _start(self, folder: Path, options: str) -> None:
        ours, theirs = f"{self.name}o", f"{self.name}t"
        run("ip", "netns", "add", self.name)
        self._stack.callback(run, "ip", "netns", "del", self.name)
        run("ip", "link", "add", ours, "type", "veth", "peer", "name", theirs, "netns", self.name)
        run("ip", "addr", "add", f"{self.peer}/24", "dev", ours)
        run("ip", "link", "set", ours, "up")
        for words in (
            f"addr add {self.host}/24 dev {theirs}",
            f"link set {theirs} up",
            "link set lo up",
            "addr add 10.8.0.1/32 dev lo",
        ):
            run("ip", "-n", self.name, *words.split())
        config = folder / "strongswan.conf"
        config.write_text(
            f"charon {{\n load_modular = no\n load = {PLUGINS}\n {options}\n retransmit_tries = 2\n"
            f" plugins {{ vici {{ socket = unix://{self.socket} }} }}\n"
            f" filelog {{ log {{ path = {self.log}\n default = 1\n ike = 2\n cfg = 1\n flush_line = yes }} }}\n}}\n"
        )
        script = "mount -t tmpfs tmpfs /run && exec /usr/lib/ipsec/charon"
        process = subprocess.Popen(
            ["ip", "netns", "exec", self.name, "sh", "-c", script],
            env=os.environ | {"STRONGSWAN_CONF": str(config)},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        self._stack.callback(_end, process)
        wait_until(lambda: self.socket.exists() or process.poll() is not None, "charon listens")
        assert process.poll() is None, self.log.read_text()

    def stop(self) -> None:
        self._stack.close()

    def vici(self, use: Callable[[Any], Any]) -> Any:
        import socket

        import vici

        connection = socket.socket(socket.AF_UNIX)
        connection.settimeout(20)
        connection.connect(str(self.socket))
        with connection:
            return use(vici.Session(connection))

    def load(self, own: Any, *trusted: Any) -> None:
        """Give it its own certificate and key, and certificates to trust, as stock charon must have them."""
        from cryptography.hazmat.primitives.serialization import (
            Encoding,
            NoEncryption,
            PrivateFormat,
            load_pem_private_key,
        )

        pem = load_pem_private_key(own.key.read_bytes(), None)
        key = pem.private_bytes(Encoding.DER, PrivateFormat.TraditionalOpenSSL, NoEncryption())
        kind = "rsa" if "RSA" in type(pem).__name__ else "ecdsa"
        self.vici(lambda session: session.load_key({"type": kind, "data": key}))
        for credential in trusted:
            data = {"type": "X509", "flag": "NONE", "data": credential.der}
            self.vici(methodcaller("load_cert", data))

    def connect(self, own: Any, **options: Any) -> None:
        children = {"net": {"esp_proposals": [options.pop("esp", "aes128gcm16")], **options.pop("child", {})}}
        connection = {
            "version": "2",
            "local_addrs": [self.host],
            "local": {"auth": "pubkey", "certs": [own.der], "id": own.name},
            "remote": {"auth": "pubkey"},
            "proposals": ["aes128gcm16-prfsha256-ecp256"],
            "children": children,
            **options,
        }
        self.vici(lambda session: session.load_conn({"test": connection}))

    def initiate(self) -> bool:
        try:
            self.vici(lambda session: list(session.initiate({"child": "net", "timeout": "10000"})))
        except Exception as error:
            if "CommandException" in type(error).__name__:
                return False
            raise
        return True

    def sas(self) -> list[dict[str, Any]]:
        """The SAs that stand."""
        listed = self.vici(lambda session: list(session.list_sas()))
        return [sa for entry in listed for sa in entry.values() if sa["state"] == b"ESTABLISHED"]


def _end(process: "subprocess.Popen[bytes]") -> None:
    process.terminate()
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait(10)


def wait_until(condition: Callable[[], bool], what: str, timeout_s: float = 60.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, f"not within {timeout_s} s: {what}"
        time.sleep(0.02)


_NUMBERS = iter(range(1, 250))


@pytest.fixture
def charon(tmp_path: Path) -> Iterator[Callable[..., Charon]]:
    """Start charon; `options` are lines of its strongswan.conf. Needs root, and leaves nothing behind."""
    if os.geteuid() != 0 or not CHARON.exists() or shutil.which("ip") is None:
        pytest.skip("charon in a network namespace needs root and strongswan-charon")
    pytest.importorskip("vici")
    with ExitStack() as stack:

        def start(options: str = "") -> Charon:
            started = Charon(tmp_path, next(_NUMBERS), options)
            stack.callback(started.stop)
            return started

        yield start
