"""A gateway in Operator B's network, and ordinary telephones at it: baresip, and aiortc in a process of its own."""

import json
import os
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any

from sip_testbed.network import Testbed
from sip_testbed.network_config import user_agent_config
from sip_testbed.provision import CALLEE, CALLER, OPERATORS, aor
from voice_dpki.media.pcm import Pcm
from voice_dpki.media.recording import read_wav
from voice_dpki.sip.message import Hop
from voice_dpki.sip.sdp import SECURE, RtpMap, audio_description
from voice_dpki.stage.processes import Running
from voice_dpki.wire.sip.user_agent import Account, FinalAnswer, UserAgent
from voice_dpki.x509.elements import element_uri
from voice_dpki.x509.keys import generate_es256

NAME = "gateway.b.example"
ENCRYPTION_ENDS = f"encryption ends at {NAME}"
RATE = 8000
PASSWORD = "of-the-telephone"
PATIENCE_S = 60.0
"""For what peers do; they are not judged by their speed."""


@dataclass
class Site:
    """A testbed, its gateway, and where both are."""

    testbed: Testbed

    @property
    def outside(self) -> str:
        """Address of the gateway's outer side: the eleventh of the testbed's block."""
        return self._host(10)

    @property
    def phone(self) -> str:
        """Address of the ordinary telephone."""
        return self._host(11)

    def _host(self, number: int) -> str:
        net, _, last = self.testbed.addresses["engine"].host.rpartition(".")
        return f"{net}.{int(last) - 4 + number}"

    @property
    def ports(self) -> tuple[int, int]:
        """Ports of the outer side: without and with TLS."""
        port = self.testbed.addresses["proxy-b"].port
        return port, port + 1

    def start(self, media: str, **options: object) -> Running:
        """Start the gateway with one telephone, CALLEE, and wait until it is registered at the domain."""
        site = self.testbed.site
        config = {
            "name": NAME,
            "proxy": f"udp:{self.testbed.addresses['proxy-b']}",
            "listen": {"host": self.testbed.addresses["callee"].host, "port": 0},
            "outside": {
                "host": self.outside,
                "port": self.ports[0],
                "tls": {"port": self.ports[1], "certificate": "b/outside.pem", "key": "b/outside-key.pem"},
            },
            "keys": {
                "certificate": "b/gateway.der",
                "key": "b/gateway.pem",
                "ledger_url": f"http://{self.testbed.addresses['ledger-b']}",
                "genesis": "genesis.json",
            },
            "telephones": [
                {
                    "aor": aor(CALLEE, OPERATORS[1]),
                    "password_file": site.secret("gateway.password", site.passwords["b"]),
                    "own_password_file": site.secret("telephone.password", PASSWORD),
                    "media": media,
                    **options,
                }
            ],
        }
        running = self.testbed.start_program("gateway", "sip_testbed.main", ("gateway",), config)
        running.wait_ready()
        return running

    def stop(self) -> None:
        """Stop the gateway, and the telephones of ours."""
        self.testbed.end(("gateway", "caller"))

    def record(self) -> None:
        """Make the gateway's certificates, and record the one for MIKEY on the ledger."""
        site = self.testbed.site
        uris = [aor(CALLEE, OPERATORS[1]), element_uri(NAME)]
        credential = site.certify("b/gateway", generate_es256(), OPERATORS[1].organization, "gateway b", uris=uris)
        self.testbed.record({"b": (credential,)})
        outside = site.certify("b/outside-key", generate_es256(), OPERATORS[1].organization, NAME, dns_names=[NAME])
        site.write("b/outside.pem", ssl.DER_cert_to_PEM_cert(outside.der).encode())

    def telephone(self, out: Path, say: Path, target: str | None = None, changes: tuple[str, ...] = ()) -> Running:
        """Start a telephone of ours at Operator A: it calls `target` and makes `changes`, or answers."""
        out.mkdir(exist_ok=True)
        sections = user_agent_config(
            self.testbed.site, "caller", number=CALLER, codec="PCMU", srtp="AES_CM_128_HMAC_SHA1_80",
            say=say, out=out, target=target, changes=changes,
        )  # fmt: skip
        sections |= {"result": out / "caller.json", "silence_s": 20}
        return self.testbed.launch("caller", sections)


@dataclass
class Baresip:
    """A running baresip, driven over its control socket."""

    folder: Path
    host: str
    process: "subprocess.Popen[bytes]"
    log: Path
    control: socket.socket | None = None

    @classmethod
    @contextmanager
    def at(cls, site: Site, folder: Path, say: Path, account: str) -> Iterator["Baresip"]:
        folder.mkdir(parents=True, exist_ok=True)
        modules = ("g711", "srtp", "dtls_srtp", "aufile", "sndfile", "aubridge", "ctrl_tcp")
        lines = [
            "poll_method epoll",
            f"sip_listen {site.phone}:{site.ports[0]}",
            f"net_interface {site.phone}",
            f"audio_source aufile,{say}",
            "audio_player aubridge,null",
            "audio_alert aubridge,null",
            "rtp_timeout 0",
            "rtcp_mux yes",
            f"module_path {modules_path()}",
            *(f"module {name}.so" for name in modules),
            "module_app account.so",
            "module_app menu.so",
            f"ctrl_tcp_listen {site.phone}:4444",
            f"snd_path {folder}",
        ]
        (folder / "config").write_text("\n".join(lines) + "\n")
        (folder / "accounts").write_text(account + "\n")
        (folder / "contacts").write_text("")
        log = folder / "baresip.log"
        with log.open("wb") as out:
            process = subprocess.Popen(
                ["baresip", "-f", str(folder), "-v"], stdin=subprocess.DEVNULL, stdout=out, stderr=out, cwd=folder
            )
        phone = cls(folder, site.phone, process, log)
        try:
            yield phone
        finally:
            if phone.control is not None:
                phone.control.close()
            process.terminate()
            process.wait(10)

    def wait_for(self, text: str) -> None:
        """Wait until the log says `text`."""
        until = time.monotonic() + PATIENCE_S
        while text not in self.log.read_text(errors="replace"):
            assert self.process.poll() is None, self.log.read_text(errors="replace")
            assert time.monotonic() < until, self.log.read_text(errors="replace")
            time.sleep(0.05)

    def command(self, name: str, params: str = "") -> None:
        if self.control is None:
            self.control = socket.create_connection((self.host, 4444), PATIENCE_S)
        text = json.dumps({"command": name, "params": params}).encode()
        self.control.sendall(b"%d:%s," % (len(text), text))

    def heard(self) -> bytes:
        """The recording of what came, once it is whole."""
        (path,) = self.folder.glob("dump-*-dec.wav")
        return path.read_bytes()


def modules_path() -> Path:
    (found,) = Path("/usr/lib").glob("**/baresip/modules")
    return found


def baresip_account(site: Site, *, transport: str = "tls", media: str = "srtp-mand") -> str:
    port = site.ports[transport == "tls"]
    return (
        f"<sip:+{CALLEE}@{NAME};transport={transport}>;auth_user=+{CALLEE};auth_pass={PASSWORD};"
        f'outbound="sip:{site.outside}:{port};transport={transport}";regint=120;mediaenc={media};'
        "answermode=auto;audio_codecs=PCMU"
    )


@dataclass
class RtcPhone:
    """A running tests/e2e/rtc_phone.py."""

    process: "subprocess.Popen[str]"
    heard: Path
    said: list[dict[str, Any]] = field(default_factory=list)

    @classmethod
    @contextmanager
    def at(cls, site: Site, folder: Path, say: Path, **told: object) -> Iterator["RtcPhone"]:
        folder.mkdir(parents=True, exist_ok=True)
        instructions: Mapping[str, object] = {
            "aor": f"sip:+{CALLEE}@{NAME}",
            "username": f"+{CALLEE}",
            "password": PASSWORD,
            "host": site.phone,
            "port": site.ports[0],
            "gateway": f"udp:{site.outside}:{site.ports[0]}",
            "say": str(say),
            "heard": str(folder / "rtc.heard.wav"),
            "talk_s": 60,
            **told,
        }
        file = folder / "rtc.json"
        file.write_text(json.dumps(instructions))
        with (folder / "rtc.log").open("w") as errors:
            process = subprocess.Popen(
                [sys.executable, str(Path(__file__).with_name("rtc_phone.py")), str(file)],
                stdout=subprocess.PIPE, stderr=errors, text=True, env=os.environ,
            )  # fmt: skip
        try:
            yield cls(process, folder / "rtc.heard.wav")
        finally:
            process.terminate()
            process.communicate(timeout=10)

    def wait_for(self, key: str) -> Any:
        """Read what it says until `key` is told, and return its value."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.said.append(json.loads(line))
            if key in self.said[-1]:
                return self.said[-1][key]
        raise AssertionError(f"{key} was not said, but {self.said}")


class Raw:
    """A user agent of the test's own in the ordinary telephone's place."""

    def __init__(self, site: Site, password: str = PASSWORD) -> None:
        account = Account(f"sip:+{CALLEE}@{NAME}", f"+{CALLEE}", password)
        proxy = Hop.parse(f"udp:{site.outside}:{site.ports[0]}")
        self.host = site.phone
        self.agent = UserAgent(account, host=site.phone, proxy=proxy)

    async def __aenter__(self) -> "Raw":
        await self.agent.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.agent.close()

    async def call(self, *lines: str, protocol: str = SECURE) -> FinalAnswer:
        sdp = audio_description(self.host, 40_000, [RtpMap(0, "PCMU/8000")], session_id=1).serialize().decode()
        sdp = sdp.replace("RTP/AVP", protocol) + "".join(f"{line}\r\n" for line in lines)
        call = await self.agent.invite(aor(CALLER, OPERATORS[0]), sdp.encode())
        return await call.answered()


def speech(who: str, speech_s: float) -> Pcm:
    pcm = read_wav(files("sip_testbed").joinpath("speech", f"{who}.wav").read_bytes()).resampled(RATE)
    return pcm.part(0, speech_s)


def report(folder: Path) -> dict[str, Any]:
    """The report of our telephone, once it is written."""
    until = time.monotonic() + 60
    while not (path := folder / "caller.json").exists():
        assert time.monotonic() < until
        time.sleep(0.05)
    found: dict[str, Any] = json.loads(path.read_text())
    return found


def assert_keyed_and_told(found: dict[str, Any]) -> None:
    """Our side reports SRTP, whom it was keyed with, and that encryption ends there."""
    assert found["established"], found
    assert found["srtp"] == "AES_CM_128_HMAC_SHA1_80"
    assert found["verstat"] == "TN-Validation-Passed"
    assert found["media"]["unauthentic"] == 0
    assert any(ENCRYPTION_ENDS in remark for remark in found["remarks"]), found["remarks"]
