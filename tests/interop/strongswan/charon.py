"""strongSwan's charon in network namespaces, a device's and a gateway's, with a link between them.

Each charon is started by hand in its own network and mount namespace: /run is a tmpfs, and the plugin lies among
strongSwan's own. Namespaces, links and mounts vanish with what the tests started.
"""

import itertools
import os
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import vici

ROOT = Path(__file__).parents[3]
BUILD = ROOT / "build" / "charon_plugin"
PLUGIN = BUILD / "libstrongswan-voice-dpki.so"
CHARON = Path("/usr/lib/ipsec/charon")
PLUGINS = "/usr/lib/ipsec/plugins"
DEADLINE_S = 15.0
CAP_S = 60.0
GATEWAY_INNER = "10.8.0.1"
POOL = "10.9.0.0/24"

_NUMBERS = itertools.count()

_LOAD = (
    "random nonce x509 pubkey pkcs1 pkcs8 pem openssl kdf hmac sha2 aes gcm {plugin} "
    "kernel-libipsec kernel-netlink socket-default vici updown attr"
)

_CONFIGURATION = """\
charon {{
    load = {load}
    threads = {threads}
    max_packet = 65535
    install_virtual_ip_on = lo
    {limits}
    reuse_ikesa = no
    retransmit_timeout = 1.0
    retransmit_tries = 3
    filelog {{
        log {{
            path = {folder}/charon.log
            time_format = %s
            flush_line = yes
            default = 1
            ike_name = yes
        }}
    }}
    plugins {{
        vici {{
            socket = unix://{folder}/vici.sock
        }}
        voice-dpki {{
            {settings}
        }}
    }}
}}
"""

_START = """\
set -e
mount -t tmpfs tmpfs /run
if [ -n "$PLUGIN" ]; then
  mkdir /run/plugins
  cp -a {plugins}/. "$PLUGIN" /run/plugins/
  mount --bind /run/plugins {plugins}
fi
exec env ${{PRELOAD:+LD_PRELOAD="$PRELOAD"}} {charon}
"""


def wait_until(condition: Callable[[], Any], what: str, deadline_s: float = CAP_S) -> Any:
    """Wait for a condition, and return what it gave."""
    end_s = time.monotonic() + deadline_s
    while not (found := condition()):
        assert time.monotonic() < end_s, f"in vain: {what}"
        time.sleep(0.01)
    return found


@contextmanager
def link() -> Iterator[dict[str, str]]:
    """Make two network namespaces with a link between them; gives their names, "device" and "gateway"."""
    number = f"{os.getpid()}-{next(_NUMBERS)}"
    names = {"device": f"dpki-d-{number}", "gateway": f"dpki-g-{number}"}
    try:
        for name in names.values():
            ip("netns", "add", name)
            ip("-n", name, "link", "set", "lo", "up")
        ip(
            "link",
            "add",
            "eth0",
            "netns",
            names["device"],
            "type",
            "veth",
            "peer",
            "eth0",
            "netns",
            names["gateway"],
        )
        for name, address in ((names["device"], "10.1.0.2"), (names["gateway"], "10.1.0.1")):
            ip("-n", name, "address", "add", f"{address}/24", "dev", "eth0")
            ip("-n", name, "link", "set", "eth0", "up")
        ip("-n", names["gateway"], "address", "add", f"{GATEWAY_INNER}/32", "dev", "lo")
        yield names
    finally:
        for name in names.values():
            subprocess.run(["ip", "netns", "delete", name], check=False, capture_output=True)


def ip(*arguments: str) -> None:
    done = subprocess.run(["ip", *arguments], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@dataclass
class Charon:
    """One charon; `settings` are charon.plugins.voice-dpki.*, None for a charon without the plugin."""

    namespace: str
    folder: Path
    settings: Mapping[str, object] | None
    plugin: Path = PLUGIN
    environment: Mapping[str, str] = field(default_factory=dict)
    threads: int = 16
    limits: str = "dos_protection = no"
    """What charon bears of strangers, as settings of its section."""
    process: "subprocess.Popen[bytes] | None" = None

    def start(self) -> "Charon":
        """Start it, and wait until it can be configured."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self._write()
        command, environment = self._command()
        with (self.folder / "charon.out").open("ab") as out:
            self.process = subprocess.Popen(
                command, env=environment, stdin=subprocess.DEVNULL, stdout=out, stderr=out
            )
        wait_until(self._listens, "charon listens on its VICI socket")
        return self

    def _command(self) -> tuple[list[str], dict[str, str]]:
        """Return the command that runs it, and its environment."""
        script = _START.format(plugins=PLUGINS, charon=CHARON)
        environment = {
            **os.environ,
            "STRONGSWAN_CONF": str(self.folder / "strongswan.conf"),
            "PLUGIN": "" if self.settings is None else str(self.plugin),
            **self.environment,
        }
        return ["ip", "netns", "exec", self.namespace, "sh", "-c", script], environment

    def set(self, settings: Mapping[str, object]) -> None:
        """Give the running plugin other settings."""
        self.settings = settings
        self._write()
        with self.session() as session:
            session.reload_settings()

    def stop(self) -> int:
        """End it in order; returns its exit status."""
        process, self.process = self.process, None
        if process is None:
            return 0
        self._terminate_process(process)
        try:
            return process.wait(DEADLINE_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise

    def _terminate_process(self, process: "subprocess.Popen[bytes]") -> None:
        process.terminate()

    def log(self) -> str:
        """Return the whole log so far."""
        return (self.folder / "charon.log").read_text(errors="replace")

    def says(self, text: str, since: int = 0) -> None:
        """Wait until the log has a text after its first `since` characters."""
        wait_until(
            lambda: text in self.log()[since:], f"charon says {text!r}; it said:\n{self.log()[since:][-3000:]}"
        )

    def output(self) -> str:
        """Return what it wrote to standard output and error."""
        return (self.folder / "charon.out").read_text(errors="replace")

    @contextmanager
    def session(self) -> Iterator[Any]:
        """Talk VICI."""
        with closing(socket.socket(socket.AF_UNIX)) as connection:
            connection.connect(str(self.folder / "vici.sock"))
            connection.settimeout(DEADLINE_S)
            yield vici.Session(connection)

    def configure(self, connection: Mapping[str, Any], key_pem: bytes, name: str = "tunnel") -> None:
        """Load a private key and the connection `name`."""
        with self.session() as session:
            session.load_key({"type": "any", "data": key_pem})
            session.load_conn({name: connection})

    @contextmanager
    def also(self, name: str, connection: Mapping[str, Any], key_pem: bytes) -> Iterator[None]:
        """Have one more connection for a while."""
        self.configure(connection, key_pem, name)
        try:
            yield
        finally:
            with self.session() as session:
                session.unload_conn({"name": name})

    def load_pool(self) -> None:
        """Have inner addresses for devices."""
        with self.session() as session:
            session.load_pool({"pool": {"addrs": POOL}})

    def load_ca(self, der: bytes) -> None:
        """Trust a CA's certificate."""
        with self.session() as session:
            session.load_cert({"type": "X509", "flag": "CA", "data": der})

    def initiate(self, child: str = "child") -> bool:
        """Set the tunnel up; False if that failed."""
        with self.session() as session:
            try:
                list(session.initiate({"child": child, "timeout": str(int(DEADLINE_S * 1000))}))
            except vici.exception.CommandException:
                return False
        return True

    def terminate(self, name: str = "tunnel") -> None:
        """End the tunnel; it may be gone."""
        self._terminate({"ike": name})

    def terminate_all(self) -> None:
        """End all IKE SAs, of whatever name, also those that are not established."""
        with self.session() as session:
            found = [sa["uniqueid"].decode() for entry in list(session.list_sas()) for sa in entry.values()]
        for number in found:
            self._terminate({"ike-id": number})

    def _terminate(self, which: Mapping[str, str]) -> None:
        with self.session() as session, suppress(vici.exception.CommandException):
            list(session.terminate({**which, "force": "yes", "timeout": "5000"}))

    def rekey(self, name: str = "tunnel") -> None:
        """Rekey the IKE SA, and wait until only the new one is there: ended before that, it stays at the peer."""
        before = self._spis()
        with self.session() as session:
            session.rekey({"ike": name})
        wait_until(lambda: (spis := self._spis()) and not spis & before, "the IKE SA is rekeyed")

    def _spis(self) -> frozenset[bytes]:
        return frozenset(sa["initiator-spi"] for sa in self.sas())

    def sas(self) -> list[dict[str, Any]]:
        """Return the IKE SAs that are established."""
        with self.session() as session:
            # A generator of vici that is left before its end would go on with a socket that is closed by then.
            found = [sa for entry in list(session.list_sas()) for sa in entry.values()]
        return [sa for sa in found if sa["state"] == b"ESTABLISHED"]

    def idle(self) -> bool:
        """Whether no IKE SA is established."""
        return not self.sas()

    def inner_address(self) -> str:
        """Return the virtual address that a device was given."""
        (sa,) = self.sas()
        return bytes(sa["local-vips"][0]).decode()

    def ping(self, source: str, target: str = GATEWAY_INNER) -> bool:
        """Send an echo request through the tunnel; False if it is not answered within a second."""
        command = ["ip", "netns", "exec", self.namespace, "ping", "-c", "1", "-W", "1", "-I", source, target]
        return subprocess.run(command, capture_output=True).returncode == 0

    def _write(self) -> None:
        settings = "\n            ".join(f"{name} = {value}" for name, value in (self.settings or {}).items())
        text = _CONFIGURATION.format(
            load=_LOAD.format(plugin="" if self.settings is None else "voice-dpki"),
            folder=self.folder,
            settings=settings,
            threads=self.threads,
            limits=self.limits,
        )
        (self.folder / "strongswan.conf").write_text(text)

    def _listens(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, self.output()
        try:
            with self.session():
                return True
        except OSError:
            return False


def device_connection(identity: str, certificates: list[bytes], gateway: str, **options: Any) -> dict[str, Any]:
    """Make a device's connection to the gateway at 10.1.0.1."""
    return {
        "version": "2",
        "local_addrs": ["10.1.0.2"],
        "remote_addrs": ["10.1.0.1"],
        "vips": ["0.0.0.0"],
        "proposals": ["aes128gcm16-prfsha256-ecp256"],
        "send_cert": "always",
        "local": {"auth": "pubkey", "id": identity, "certs": certificates},
        "remote": {"auth": "pubkey", "id": gateway},
        "children": {"child": {"remote_ts": ["10.8.0.0/24"], "esp_proposals": ["aes128gcm16"]}},
        **options,
    }


def gateway_connection(identity: str, certificates: list[bytes], **options: Any) -> dict[str, Any]:
    """Make the connection of a gateway that takes any device."""
    return {
        "version": "2",
        "local_addrs": ["10.1.0.1"],
        "pools": ["pool"],
        "proposals": ["aes128gcm16-prfsha256-ecp256"],
        "send_cert": "always",
        "unique": "no",
        "dpd_delay": "30s",
        "local": {"auth": "pubkey", "id": identity, "certs": certificates},
        "remote": {"auth": "pubkey", "id": "%any"},
        "children": {"child": {"local_ts": ["10.8.0.0/24"], "esp_proposals": ["aes128gcm16"]}},
        **options,
    }
