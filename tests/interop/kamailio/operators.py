"""Two operators with real Kamailios in the configuration of docs/kamailio, our servers beside them, and SIPp.

Everything has an address of 127.0.0.0/8 of its own. Operator A's caller calls operator B's callee. A signs, and B
verifies.
`KAMAILIO` in the environment names another Kamailio, such as `chroot FOLDER kamailio` for that of Debian 13.
"""

import itertools
import os
import re
import shutil
import signal
import socket
import subprocess
import threading
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from authn_server.config import EXAMPLE as AUTHN
from tests.one_operator import OneOperator, Service, until
from verify_server.config import EXAMPLE as VERIFY
from voice_dpki.effects import SystemRandom
from voice_dpki.names import Tn
from voice_dpki.shell.tls import make_certificate
from voice_dpki.stage.events import ReadyEvent
from voice_dpki.stage.patience import STALLED_S
from voice_dpki.x509.keys import generate_es256, to_pem
from voice_dpki.x509.profile import build_certificate
from voice_dpki.x509.tnauthlist import TnAuthList, TnRange

ROOT = Path(__file__).parents[3]
PAGES = ROOT / "docs/kamailio"
SCENARIOS = Path(__file__).parents[1] / "sipp"
KAMAILIO = os.environ.get("KAMAILIO", "kamailio").split()
Program = Callable[[Sequence[str]], Sequence[str]]
"""Returns the command that starts a Kamailio with some arguments."""


def kamailio(arguments: Sequence[str]) -> Sequence[str]:
    """Return the command that starts this machine's Kamailio, or the one that the environment names."""
    return [*KAMAILIO, *arguments]


ASKS = ("SIP", "HTTP", *(("HTTP_ASYNC",) if "KAMAILIO" in os.environ else ()))
"""The ways to ask the servers; Debian 12 has no module for the last one."""
MODULES = ("http_client", "jansson", "uuid")
"""What asking over HTTP needs besides the package kamailio."""
TLS_MODULES = ("tls",)
"""What asking over SIP with TLS needs besides the package kamailio."""
TOKEN = "t0ken-of-the-proxy"
SIPP_S = 60
CALLER, CALLEE = "+493023125001", "+442079460123"
FROM = f"From: <sip:{CALLER}@a.example;user=phone>;tag=[call_number]"

LINE = "\n"
_BLOCKS = itertools.count(os.getpid() % 200 * 16)


@dataclass(frozen=True)
class Answered:
    """How a call went: the INVITE that the callee got, if it got one, and the answer to the caller's."""

    invite: str | None
    answer: str

    def headers(self, name: str) -> list[str]:
        """The values of a header field in the callee's INVITE."""
        assert self.invite is not None, f"the callee got no INVITE: {self.answer}"
        return fields(self.invite, name)


def fields(message: str, name: str) -> list[str]:
    """Return the values of a header field, which is not written in compact form."""
    return re.findall(rf"(?im)^{re.escape(name)}[ \t]*:[ \t]*(.*?)\r?$", message)


def demand_modules(names: Sequence[str]) -> None:
    """Skip the test where modules of Kamailio are missing; in CI fail instead."""
    missing = [name for name in names if not any(Path("/usr/lib").glob(f"*/kamailio/modules/{name}.so"))]
    if missing and "KAMAILIO" not in os.environ:
        leave = pytest.fail if os.environ.get("CI") == "true" else pytest.skip
        leave(f"Kamailio lacks {', '.join(missing)}; as root on Debian: tests/install-peers")


class Hosts:
    """Addresses of the loopback interface that no other test has."""

    def __init__(self) -> None:
        net = next(_BLOCKS)
        self._prefix = f"127.{120 + net // 4096}.{net // 16 % 256}.{net % 16 * 12}"
        names = ("proxy-a", "proxy-b", "caller", "callee", "stranger", "foreign", "inner-a", "inner-b")
        first, last = self._prefix.rsplit(".", 1)
        self._hosts = {name: f"{first}.{int(last) + place}" for place, name in enumerate(names, 1)}

    def __getitem__(self, name: str) -> str:
        return self._hosts[name]


class Kamailio:
    """One operator's Kamailio, with the files of docs/kamailio but for its addresses."""

    def __init__(
        self,
        folder: Path,
        host: str,
        local: Mapping[str, str],
        files: Mapping[str, str],
        program: Program = kamailio,
    ) -> None:
        folder.mkdir()
        self.folder = folder
        for page in PAGES.iterdir():
            shutil.copy(page, folder)
        for name, text in files.items():
            (folder / name).write_text(text)
        changes = {**local, "192.0.2.10": host, "/etc/kamailio": str(folder), "/run/kamailio": str(folder)}
        text = (PAGES / "local.cfg").read_text()
        for there, here in changes.items():
            assert there in text, there
            text = text.replace(there, here)
        (folder / "local.cfg").write_text(text)
        self.log = folder / "kamailio.log"
        arguments = ["-f", str(folder / "kamailio.cfg"), "-DD", "-E", "-m", "64", "-M", "8"]
        command = program([*arguments, "-P", str(folder / "pid"), "-Y", str(folder)])
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        try:
            self._wait_until_bound(host)
        except BaseException:
            self.stop()
            raise

    def _wait_until_bound(self, host: str) -> None:
        end_s = time.monotonic() + SIPP_S
        while not bound(host, "tcp"):
            assert self._process.poll() is None, self.log.read_text()[-3000:]
            assert time.monotonic() < end_s, "Kamailio does not listen"
            time.sleep(0.02)

    def statistics(self) -> dict[str, int]:
        """What it has counted."""
        command = ["kamcmd", "-s", f"unix:{self.folder}/kamailio_ctl", "stats.get_statistics", "script:"]
        told = subprocess.run(command, capture_output=True, text=True, timeout=SIPP_S, check=True).stdout
        return {name: int(value) for name, value in re.findall(r"script:(\w+) = (\d+)", told)}

    def stop(self) -> None:
        """End it and its children."""
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(STALLED_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def bound(host: str, transport: str) -> bool:
    """Tell whether a process listens at port 5060 of `host`, as the kernel's table says."""
    wanted = "".join(f"{int(part):02X}" for part in reversed(host.split("."))) + ":13C4"
    return any(wanted == line.split()[1] for line in Path(f"/proc/net/{transport}").read_text().splitlines()[1:])


class Servers:
    """A ledger, authentication servers of operator A and verification servers of operator B."""

    def __init__(self, folder: Path, hosts: Hosts, *, tls: bool = False) -> None:
        self.folder = folder
        self._hosts = hosts
        self._tls = tls
        for name in ("servers", "proxy") if tls else ():
            make_certificate(folder, name, "Operator A", 30)
        self.ledger = OneOperator(folder)
        self.ledger.submit(self._credential())
        (folder / "proxy.tokens").write_text(f"proxy {TOKEN}\n")
        self.running: dict[str, Service] = {}

    def _credential(self) -> bytes:
        now_s, signer = int(time.time()), generate_es256()
        der = build_certificate(
            signer,
            organization="Operator A",
            common_name="sti.a.example",
            tn_auth_list=TnAuthList(ranges=(TnRange(Tn("493023125000"), 1000),)),
            not_before_s=now_s - 3600,
            not_after_s=now_s + 86_400,
            random=SystemRandom(),
        )
        (self.folder / "authn.der").write_bytes(der)
        (self.folder / "authn.pem").write_bytes(to_pem(signer))
        return der

    def start_authn(self, name: str = "authn", port: int = 0, rules: str = "") -> Service:
        """Start an authentication server that signs for operator A's Kamailio, by `rules` if there are any."""
        text = AUTHN.replace("port = 8091", "port = 0")
        if rules:
            (self.folder / f"{name}-rules.toml").write_text(rules)
            text = text.replace('# rules = "attestation.toml"', f'rules = "{name}-rules.toml"')
        # What came in at inner-a is asked about from there over UDP; over TLS all is asked from proxy-a.
        peers = ("proxy-a",) if self._tls else ("inner-a", "proxy-a")
        peer = "".join(f'[[sip.peers]]\naddress = "{self._hosts[each]}"\nattest = "A"\n' for each in peers)
        return self._start(name, "authn_server.main", text, peer, port)

    def start_verify(self, name: str = "verify", port: int = 0, rules: str = "") -> Service:
        """Start a verification server that verifies for operator B's Kamailio, by `rules` if there are any."""
        text = VERIFY.replace("http://127.0.0.1:26680", self.ledger.url).replace("port = 8092", "port = 0")
        text = text.replace('"genesis.json"', '"net/genesis.json"').replace("ledger-trust", f"{name}-trust")
        if rules:
            (self.folder / f"{name}-rules.toml").write_text(rules)
            text = text.replace('# rules = "verdicts.toml"', f'rules = "{name}-rules.toml"')
        peer = f'[[sip.peers]]\naddress = "{self._hosts["proxy-b"]}"\n'
        return self._start(name, "verify_server.main", text, peer, port)

    def _start(self, name: str, module: str, text: str, peer: str, port: int) -> Service:
        path = self.folder / f"{name}.toml"
        if self._tls:
            own = 'certificate = "servers.pem", key = "servers-key.pem"'
            text += f'\n[tls]\n{own.replace(", ", LINE)}\nclients = ["proxy.pem"]\n'
            peer = f'tls = {{ port = 0, {own}, peers = ["proxy.pem"] }}\n{peer}transport = "tls"\n'
        path.write_text(f'{text}\n[trace]\nfile = "{name}.jsonl"\n[sip]\nlisten = {{ port = {port} }}\n{peer}')
        self.running[name] = Service(module, path, self.folder / f"{name}.jsonl")
        return self.running[name]

    def url(self, name: str) -> str:
        """Where Kamailio asks a server over HTTP."""
        url = self.running[name].url
        return url.replace("http://", "https://") if self._tls else url

    def signed(self) -> str:
        """Return an Identity for a call of CALLER to CALLEE, as it would come from operator A's network."""
        request = {"attest": "A", "orig": {"tn": CALLER}, "dest": {"tn": [CALLEE]}, "iat": int(time.time())}
        request["origid"] = str(uuid.uuid4())
        answer = httpx.post(
            f"{self.running['authn'].url}/stir/v1/signing",
            json={"signingRequest": request},
            headers={"Authorization": f"Bearer {TOKEN}"},
            timeout=SIPP_S,
            trust_env=False,
        )
        return str(answer.raise_for_status().json()["signingResponse"]["identity"])

    def sip(self, name: str) -> str:
        """The address where a server takes INVITEs, with the transport where it is not UDP."""
        (ready,) = [event for event in self.running[name].events() if isinstance(event, ReadyEvent)]
        return f"{ready.addresses['sips']};transport=tls" if self._tls else ready.addresses["sip"]

    def stop(self, name: str) -> None:
        assert self.running.pop(name).stop() == 0

    def stop_all(self) -> None:
        for service in self.running.values():
            service.stop()
        self.ledger.stop()


class Losing(threading.Thread):
    """A path to a server over UDP on which each request is lost once.

    It sends from a proxy's host, so the server takes it for that proxy, and answers that at once.
    """

    def __init__(self, host: str, target: str) -> None:
        super().__init__(daemon=True)
        self.sent_s: dict[str, list[float]] = {}
        """When each INVITE came, by the branch of its transaction."""
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind((host, 0))
        self.address = "{}:{}".format(*self._socket.getsockname())
        to, port = target.rsplit(":", 1)
        self._target = (to, int(port))
        self._lost: set[str] = set()
        self.start()

    def run(self) -> None:
        while data := self._socket.recv(65_535):
            method, branch = data.split(b" ", 1)[0].decode(), re.findall(rb"branch=([^;\s]+)", data)[0].decode()
            if method == "INVITE":
                self.sent_s.setdefault(branch, []).append(time.monotonic())
            if f"{method} {branch}" in self._lost:
                self._socket.sendto(data, self._target)
            self._lost.add(f"{method} {branch}")

    def stop(self) -> None:
        """Have it end: an empty datagram says so."""
        self._socket.sendto(b"", self._socket.getsockname())
        self.join()
        self._socket.close()


class Operators:
    """Both operators; `local_a` and `local_b` change their local.cfg, and `files` are others than the pages'."""

    def __init__(
        self,
        folder: Path,
        *,
        asks: str = "SIP",
        tls: bool = False,
        authn: Sequence[str] = ("authn",),
        verify: Sequence[str] = ("verify",),
        rules: str = "",
        attestation: str = "",
        local_a: Mapping[str, str] | None = None,
        local_b: Mapping[str, str] | None = None,
        files: Mapping[str, str] | None = None,
        callee: str = "",
        program: Program = kamailio,
        loses: bool = False,
    ) -> None:
        """`callee` is the text of the callee's scenario, if it is another than docs/kamailio/callee.xml.

        With `loses`, each request to a server is lost when it is sent for the first time.
        """
        self._program = program
        if program is kamailio:
            demand_modules(MODULES if asks != "SIP" else TLS_MODULES if tls else ())
        self.folder, self.hosts, self._files = folder, Hosts(), files or {}
        with ExitStack() as stack:
            self.servers = Servers(folder, self.hosts, tls=tls)
            stack.callback(self.servers.stop_all)
            for name in authn:
                self.servers.start_authn(name, rules=attestation)
            for name in verify:
                self.servers.start_verify(name, rules=rules)
            self.losing: dict[str, Losing] = {}
            for name in (*authn, *verify) if loses else ():
                proxy = "proxy-a" if name in authn else "proxy-b"
                self.losing[name] = Losing(self.hosts[proxy], self.servers.sip(name))
                stack.callback(self.losing[name].stop)
            ways = self._ways(asks, authn, verify) | (self._over_tls(asks) if tls else {})
            self.a = self._kamailio("a", "proxy-b", "caller", 1, authn, ways | dict(local_a or {}))
            stack.callback(self.a.stop)
            self.b = self._kamailio("b", "foreign", "callee", 2, verify, ways | dict(local_b or {}))
            stack.callback(self.b.stop)
            self._callee = self._start_callee(callee)
            stack.callback(self._end_callee)
            self._running = stack.pop_all()

    def _asked(self, name: str) -> str:
        """Return the address at which a server is asked over SIP."""
        return self.losing[name].address if name in self.losing else self.servers.sip(name)

    def _ways(self, asks: str, authn: Sequence[str], verify: Sequence[str]) -> dict[str, str]:
        urls = {name: self.servers.url(name) for name in (*authn, *verify)}
        return {
            "#!define ASK_SIP": f"#!define ASK_{asks}",
            "sip:127.0.0.1:5070": f"sip:{self._asked(authn[0])}",
            "sip:127.0.0.1:5071": f"sip:{self._asked(verify[0])}",
            "http://127.0.0.1:8091": urls[authn[0]],
            "http://127.0.0.1:8093": urls[authn[-1]],
            "http://127.0.0.1:8092": urls[verify[0]],
            "http://127.0.0.1:8094": urls[verify[-1]],
            "replace-me": TOKEN,
        }

    def _over_tls(self, asks: str) -> dict[str, str]:
        servers = self.folder / "servers.pem"
        if asks == "HTTP_ASYNC":
            servers = self.folder / "listed"
            servers.mkdir()
            shutil.copy(self.folder / "servers.pem", servers)
            subprocess.run(["openssl", "rehash", str(servers)], check=True, capture_output=True)
        own = {f"/etc/kamailio/{name}": str(self.folder / name) for name in ("proxy.pem", "proxy-key.pem")}
        chosen = "SIP_TLS" if asks == "SIP" else "HTTP_TLS"
        return {f"##!define {chosen}": f"#!define {chosen}", "/etc/kamailio/servers.pem": str(servers), **own}

    def _kamailio(
        self, letter: str, other: str, own: str, number: int, servers: Sequence[str], local: Mapping[str, str]
    ) -> Kamailio:
        hosts = self.hosts
        addresses = f"1 {hosts[own]} 32 0 {own}\n"
        others = ("proxy-a", "foreign") if letter == "b" else ("proxy-b",)
        addresses += "".join(f"2 {hosts[name]} 32 0 {name}\n" for name in others)
        dispatcher = "".join(f"{number} sip:{self._asked(name)}\n" for name in servers)
        inner = {"##!define INNER_UDP": "#!define INNER_UDP", "10.0.0.10": hosts[f"inner-{letter}"]}
        own_side = {"192.0.2.11:5060;transport=tcp": f"{hosts[own]}:5060;transport=udp"}
        changes = {"198.51.100.20": hosts[other], **own_side, **inner, **local}
        files = {"address.list": addresses, "dispatcher.list": dispatcher, **self._files}
        return Kamailio(self.folder / letter, hosts[f"proxy-{letter}"], changes, files, self._program)

    def _start_callee(self, scenario: str) -> "subprocess.Popen[bytes]":
        (self.folder / "callee.xml").write_text(scenario or (ROOT / "docs/kamailio/callee.xml").read_text())
        command = ["sipp", "-sf", "callee.xml", "-i", self.hosts["callee"], "-p", "5060", "-t", "u1"]
        command += ["-key", "number", CALLEE, "-nostdin"]
        command += [] if scenario else ["-trace_msg", "-message_file", "callee.msg"]
        with (self.folder / "callee.out").open("wb") as out:
            process = subprocess.Popen(command, cwd=self.folder, stdin=subprocess.DEVNULL, stdout=out, stderr=out)
        while not bound(self.hosts["callee"], "udp"):
            assert process.poll() is None, (self.folder / "callee.out").read_text()
            time.sleep(0.01)
        return process

    def call(
        self,
        *more: str,
        status: int = 200,
        from_: str = FROM,
        callee: str = CALLEE,
        source: str = "caller",
        to: str = "",
        transport: str = "u1",
        to_tag: str = "",
        contact: str = "sip:caller@[local_ip]:[local_port];transport=[transport]",
    ) -> Answered:
        """Let a SIPp call with more header fields, and hold the answer to `status`; with 487 it gives up."""
        scenario = {200: "kamailio_caller", 487: "kamailio_cancelled"}.get(status, "kamailio_refused")
        call_id = str(uuid.uuid4())
        text = (SCENARIOS / f"{scenario}.xml").read_text()
        values = {"CALLEE": callee, "DOMAIN": "b.example", "CALLER": CALLER, "STATUS": str(status)}
        values |= {"HEADERS": "\n".join([from_, *more]), "HOLD_MS": "10", "TAG": to_tag, "CONTACT": contact}
        for name, value in values.items():
            text = text.replace(f"@{name}@", value)
        (self.folder / f"{call_id}.xml").write_text(text)
        proxy = self.hosts[to or ("inner-a" if source == "caller" else "proxy-b")]
        command = ["sipp", f"{proxy}:5060", "-sf", f"{call_id}.xml", "-i", self.hosts[source], "-p", "5061"]
        command += [
            "-t",
            transport,
            "-m",
            "1",
            "-nostdin",
            "-cid_str",
            call_id,
            "-timeout",
            str(SIPP_S),
            "-timeout_error",
        ]
        command += ["-trace_msg", "-message_file", f"{call_id}.msg", "-trace_err", "-error_file", f"{call_id}.err"]
        done = subprocess.run(command, cwd=self.folder, capture_output=True, timeout=2 * SIPP_S)
        errors = self.folder / f"{call_id}.err"
        assert done.returncode == 0, (
            errors.read_text() if errors.exists() else done.stdout[-2000:],
            self.a.log.read_text()[-1500:],
            self.b.log.read_text()[-1500:],
        )
        invites = self._invites(call_id)
        heard = [
            each for each in self._messages(f"{call_id}.msg", call_id) if each.startswith(f"SIP/2.0 {status} ")
        ]
        return Answered(invites[0] if invites else None, heard[0])

    def send_foreign(self, *more: str) -> str:
        """Send another network's INVITE with more header fields as they are, and return what the callee got."""
        call_id, host = str(uuid.uuid4()), self.hosts["foreign"]
        lines = [f"INVITE sip:{CALLEE}@b.example SIP/2.0", f"Via: SIP/2.0/UDP {host}:5062;branch=z9hG4bK{call_id}"]
        lines += [FROM.replace("[call_number]", "1"), f"To: <sip:{CALLEE}@b.example>", f"Call-ID: {call_id}", *more]
        lines += ["CSeq: 1 INVITE", "Max-Forwards: 70", f"Contact: <sip:{host}:5062>", "Content-Length: 0", "", ""]
        with closing(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as bare:
            bare.bind((host, 5062))
            bare.sendto("\r\n".join(lines).encode(), (self.hosts["proxy-b"], 5060))
            return until(lambda: self._invites(call_id))[0]

    def _invites(self, call_id: str) -> list[str]:
        return [each for each in self._messages("callee.msg", call_id) if each.startswith("INVITE")]

    def _messages(self, name: str, call_id: str) -> list[str]:
        text = (self.folder / name).read_text()
        found = re.split(r"(?m)^-{20,}.*\n", text)
        return [each.partition("\n\n")[2] for each in found if call_id in each]

    def _end_callee(self) -> None:
        self._callee.kill()
        self._callee.wait()

    def stop(self) -> None:
        """End everything."""
        self._running.close()
