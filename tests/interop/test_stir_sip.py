"""SIPp asks the authentication and the verification server over SIP, in each dialect and over each transport.

SIPp's own checks hold the answers to patterns, and secsipidx verifies the Identities that SIPp received. Debian's
SIPp has no TLS: there `openssl s_client` asks.
"""

import re
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_der_public_key

from authn_server.config import EXAMPLE as AUTHN
from tests.one_operator import OneOperator, Service
from verify_server.config import EXAMPLE as VERIFY
from voice_dpki.effects import SystemRandom
from voice_dpki.names import Tn
from voice_dpki.shell.tls import make_certificate
from voice_dpki.stage.events import ReadyEvent
from voice_dpki.x509.keys import generate_es256, to_pem
from voice_dpki.x509.profile import build_certificate
from voice_dpki.x509.tnauthlist import TnAuthList, TnRange

SCENARIO = (Path(__file__).parent / "sipp/stir.xml").read_text()
SIPP_S = 60
IDENTITY = "([A-Za-z0-9_.-]+;info=&lt;https://[a-z0-9./-]+&gt;;alg=ES256;ppt=shaken)"
ESCAPED = "Identity=([A-Za-z0-9_.-]+%3Binfo%3D%3Chttps%3A%2F%2F[A-Za-z0-9.%-]+%3E%3Balg%3DES256%3Bppt%3Dshaken)&gt;"
VERSTAT = "(verstat=TN-Validation-Passed)@a.example;user=phone"
PASSED = "(verstat%3DTN-Validation-Passed)%40a.example%3Buser%3Dphone"
DIALECTS: dict[int, tuple[str, bool]] = {
    302: ("127.0.0.2", False),
    403: ("127.0.0.3", True),
    404: ("127.0.0.4", False),
    503: ("127.0.0.5", False),
    300: ("127.0.0.6", False),
}
"""By status, the address of the peer that wants it, and whether it wants X- before names."""


class Servers:
    """Operator A's servers, which sign and verify calls of their own, on a ledger of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.signer = generate_es256()
        self.ledger = OneOperator(folder)
        self.ledger.submit(self._credential())
        (folder / "proxy.tokens").write_text("t0ken\n")
        for name in ("server", "peer"):
            make_certificate(folder, name, "Operator A", 30)
        authn = AUTHN.replace("port = 8091", "port = 0")
        verify = VERIFY.replace("http://127.0.0.1:26680", self.ledger.url).replace("port = 8092", "port = 0")
        self.authn = self._start("authn", authn, 'attest = "B"\n')
        self.verify = self._start("verify", verify.replace('"genesis.json"', '"net/genesis.json"'), "")
        key = load_der_public_key(self.signer.public_key_der)
        (folder / "public.pem").write_bytes(key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))

    def _credential(self) -> bytes:
        now_s = int(time.time())
        der = build_certificate(
            self.signer,
            organization="Operator A",
            common_name="sti.a.example",
            tn_auth_list=TnAuthList(ranges=(TnRange(Tn("493023125000"), 1000),)),
            not_before_s=now_s - 3600,
            not_after_s=now_s + 3600,
            random=SystemRandom(),
        )
        (self.folder / "authn.der").write_bytes(der)
        (self.folder / "authn.pem").write_bytes(to_pem(self.signer))
        return der

    def _start(self, name: str, config: str, more: str) -> Service:
        tls = 'tls = { port = 0, certificate = "server.pem", key = "server-key.pem", peers = ["peer.pem"] }\n'
        sip = f'[sip]\nlisten = {{ port = 0 }}\n{tls}[[sip.peers]]\naddress = "127.0.0.1"\n{more}'
        for status, (host, x_header) in DIALECTS.items():
            x = str(x_header).lower()
            sip += f'[[sip.peers]]\naddress = "{host}"\nanswer = {status}\nx_header = {x}\n{more}'
        path = self.folder / f"{name}.toml"
        path.write_text(f'{config}\n[trace]\nfile = "{name}.jsonl"\n{sip}')
        return Service(f"{name}_server.main", path, self.folder / f"{name}.jsonl")

    def address(self, name: str, service: Service) -> str:
        (ready,) = [event for event in service.events() if isinstance(event, ReadyEvent)]
        return ready.addresses[name]

    def stop(self) -> None:
        for running in (self.authn, self.verify, self.ledger):
            assert running.stop() == 0

    def sipp(self, service: Service, status: int, transport: str, field: str, pattern: str, more: str = "") -> str:
        """Let SIPp ask in the dialect, with `more` in the INVITE; returns what it found in the answer."""
        host, x_header = DIALECTS[status]
        header = "Contact" if status == 300 else f"X-{field}" if x_header else field
        text = SCENARIO.replace("@STATUS@", str(status)).replace("@HEADER@", header)
        (self.folder / "stir.xml").write_text(text.replace("@PATTERN@", pattern).replace("@MORE@", more))
        log, errors = self.folder / "stir.log", self.folder / "stir.err"
        for path in (log, errors):
            path.unlink(missing_ok=True)
        command = ["sipp", self.address("sip", service), "-sf", "stir.xml", "-i", host, "-p", "0", "-m", "1"]
        command += ["-t", {"udp": "u1", "tcp": "t1"}[transport], "-nostdin", "-timeout", str(SIPP_S)]
        command += [
            "-timeout_error",
            "-trace_logs",
            "-log_file",
            str(log),
            "-trace_err",
            "-error_file",
            str(errors),
        ]
        done = subprocess.run(command, cwd=self.folder, capture_output=True, timeout=2 * SIPP_S)
        assert done.returncode == 0, errors.read_text() if errors.exists() else done.stdout[-2000:]
        return log.read_text().split(maxsplit=1)[1].strip()

    def secsipidx(self, identity: str) -> str:
        """Return what secsipidx says of an Identity under the public key of the certificate."""
        (self.folder / "identity").write_text(identity)
        command = ["secsipidx", "-check", "-fidentity", "identity", "-fpubkey", "public.pem", "-expire", "60"]
        return subprocess.run(command, cwd=self.folder, capture_output=True, text=True, timeout=60).stdout.strip()

    def over_tls(self, service: Service, text: str, host: str) -> str:
        """Send a message over TLS from `host` with `openssl s_client`, and return what came back."""
        command = ["openssl", "s_client", "-connect", self.address("sips", service), "-bind", f"{host}:0"]
        command += ["-quiet", "-no_ign_eof"]
        command += ["-cert", "peer.pem", "-key", "peer-key.pem", "-CAfile", "server.pem"]
        pipe, nowhere = subprocess.PIPE, subprocess.DEVNULL
        client = subprocess.Popen(command, cwd=self.folder, stdin=pipe, stdout=pipe, stderr=nowhere)
        assert client.stdin is not None
        assert client.stdout is not None
        try:
            client.stdin.write(text.replace("\n", "\r\n").encode())
            client.stdin.flush()
            lines: list[str] = []
            while (line := client.stdout.readline().decode().rstrip("\r\n")) or not lines:
                lines.append(line)
            return "\n".join(lines)
        finally:
            client.kill()
            client.communicate()


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    servers = Servers(tmp_path_factory.mktemp("stir"))
    yield servers
    servers.stop()


@pytest.mark.peer("sipp")
@pytest.mark.peer("secsipidx")
@pytest.mark.parametrize("transport", ["udp", "tcp"])
@pytest.mark.parametrize("status", DIALECTS)
def test_signed_and_verified(servers: Servers, status: int, transport: str) -> None:
    escaped = status == 300
    told = servers.sipp(servers.authn, status, transport, "Identity", ESCAPED if escaped else IDENTITY)
    identity = unquote(told) if escaped else told
    assert servers.secsipidx(identity) == "ok"
    assert servers.secsipidx(identity.replace(".", ".A", 1)) != "ok"
    pattern = PASSED if escaped else VERSTAT
    servers.sipp(servers.verify, status, transport, "P-Asserted-Identity", pattern, f"Identity: {identity}\n")


@pytest.mark.peer("sipp")
def test_why_a_call_is_not_verified(servers: Servers) -> None:
    reason = 'STIR;cause=(428);text="The INVITE has no Identity header field."'.replace('"', "&quot;")
    assert servers.sipp(servers.verify, 302, "udp", "Reason", reason) == "428"


@pytest.mark.peer("sipp")
def test_sipp_judges(servers: Servers) -> None:
    with pytest.raises(AssertionError, match="verstat"):
        servers.sipp(servers.verify, 302, "udp", "P-Asserted-Identity", VERSTAT)


@pytest.mark.peer("openssl")
@pytest.mark.peer("secsipidx")
@pytest.mark.parametrize("status", DIALECTS)
def test_over_tls(servers: Servers, status: int) -> None:
    host, x_header = DIALECTS[status]
    x, escaped = "X-" if x_header else "", status == 300
    invite = re.search(r"(INVITE sip:.*)Content-Type", SCENARIO, re.DOTALL)
    assert invite
    branch = f"z9hG4bK{status}"
    values: dict[str, Any] = {"transport": "TLS", "local_ip": host, "local_port": 9, "branch": branch}
    text = re.sub(r"\[(\w+)\]", lambda name: str(values.get(name[1], "1")), invite[1])
    text = text.replace("@MORE@", "{}Content-Length: 0\n\n")
    signed = servers.over_tls(servers.authn, text.format(""), host)
    assert signed.startswith(f"SIP/2.0 {status} ")
    pattern = r"^Contact: <[^?]*\?Identity=([^>]*)>$" if escaped else f"^{x}Identity: (.*)$"
    identity = re.search(pattern, signed, re.MULTILINE)
    assert identity, signed
    value = unquote(identity[1]) if escaped else identity[1]
    assert servers.secsipidx(value) == "ok"
    verified = servers.over_tls(servers.verify, text.format(f"Identity: {value}\n"), host)
    assert verified.startswith(f"SIP/2.0 {status} ")
    assertion = "<sip:+493023125001;verstat=TN-Validation-Passed@a.example;user=phone>"
    if escaped:
        assert f"?P-Asserted-Identity={assertion}>" in unquote(verified)
    else:
        assert f"\n{x}P-Asserted-Identity: {assertion}" in verified
