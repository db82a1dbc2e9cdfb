"""Kamailio's own module for STIR, secsipid, judges our Identities, and we judge its."""

import re
import signal
import socket
import subprocess
import time
import uuid
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from tests.recorded import absent
from tests.stir.conftest import Operator, Verifier, make_operator
from voice_dpki.names import Tn
from voice_dpki.stir.call import Call
from voice_dpki.stir.passport import Destinations
from voice_dpki.stir.verdict import Step, VerificationFailed, Verstat
from voice_dpki.x509.keys import to_pem

from .kamailio.operators import Hosts, bound, demand_modules, fields

pytestmark = pytest.mark.peer("kamailio")

PATIENCE_S = 60
CALLER, CALLED = Tn("493023125001"), Tn("442079460001")
CONFIGURATION = """\
#!KAMAILIO
listen=udp:HOST:5060
children=1
auto_aliases=no
loadmodule "sl.so"
loadmodule "pv.so"
loadmodule "textops.so"
loadmodule "textopsx.so"
loadmodule "secsipid.so"
modparam("secsipid", "expire", 60)
request_route {
    if (is_present_hf("Identity")) {
        if (secsipid_check_identity("FOLDER/public.pem")) sl_send_reply("200", "Checked");
        else sl_send_reply("438", "Invalid Identity Header");
        exit;
    }
    if (!secsipid_add_identity("CALLER", "CALLED", "B", "ORIGID", "INFO", "FOLDER/key.pem")) {
        sl_send_reply("500", "Not Signed");
        exit;
    }
    msg_apply_changes();
    append_to_reply("Identity: $hdr(Identity)\\r\\n");
    sl_send_reply("302", "Signed");
    exit;
}
"""


class Secsipid:
    """A Kamailio that signs with an operator's key what has no Identity, and checks what has one."""

    def __init__(self, folder: Path, operator: Operator) -> None:
        hosts = Hosts()
        self._host, self._own = hosts["proxy-a"], hosts["caller"]
        key = operator.signer.private_key.public_key()
        (folder / "public.pem").write_bytes(key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
        (folder / "key.pem").write_bytes(to_pem(operator.signer))
        text, info = CONFIGURATION, operator.credential.info
        values = {"HOST": self._host, "FOLDER": str(folder), "CALLER": CALLER, "CALLED": CALLED, "INFO": info}
        for name, value in {**values, "ORIGID": str(uuid.uuid4())}.items():
            text = text.replace(name, value)
        (folder / "kamailio.cfg").write_text(text)
        self._log = folder / "kamailio.log"
        command = ["kamailio", "-f", str(folder / "kamailio.cfg"), "-DD", "-E", "-m", "64", "-M", "8"]
        with self._log.open("wb") as log:
            self._process = subprocess.Popen([*command, "-Y", str(folder)], stdout=log, stderr=log)
        end_s = time.monotonic() + PATIENCE_S
        while not bound(self._host, "udp"):
            assert self._process.poll() is None, self._log.read_text()[-3000:]
            assert time.monotonic() < end_s, "Kamailio does not listen"
            time.sleep(0.02)

    def ask(self, *more: str) -> str:
        """Send an INVITE with more header fields, and return the answer."""
        lines = [f"INVITE sip:+{CALLED}@b.example SIP/2.0", f"Via: SIP/2.0/UDP {self._own}:5062;branch=z9hG4bK1"]
        lines += [f"From: <sip:+{CALLER}@a.example>;tag=1", f"To: <sip:+{CALLED}@b.example>", "Call-ID: c1"]
        lines += ["CSeq: 1 INVITE", "Max-Forwards: 70", *more, "Content-Length: 0", "", ""]
        with closing(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as client:
            client.settimeout(PATIENCE_S)
            client.bind((self._own, 5062))
            client.sendto("\r\n".join(lines).encode(), (self._host, 5060))
            return client.recv(65536).decode()

    def stop(self) -> None:
        self._process.send_signal(signal.SIGTERM)
        self._process.wait(PATIENCE_S)


@pytest.fixture(scope="module")
def operator() -> Operator:
    return make_operator(int(time.time()))


@pytest.fixture(scope="module")
def secsipid(operator: Operator, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secsipid]:
    demand_modules(["secsipid"])
    running = Secsipid(tmp_path_factory.mktemp("secsipid"), operator)
    yield running
    running.stop()


def ours(operator: Operator) -> str:
    return operator.call(iat_s=int(time.time()), key_mgmt=()).identities[0]


def test_it_accepts_ours(secsipid: Secsipid, operator: Operator) -> None:
    assert secsipid.ask(f"Identity: {ours(operator)}").startswith("SIP/2.0 200 ")


def test_it_refuses_ours_under_another_key(secsipid: Secsipid) -> None:
    answer = secsipid.ask(f"Identity: {ours(make_operator(int(time.time())))}")
    assert answer.startswith("SIP/2.0 438 ")


def theirs(secsipid: Secsipid) -> Call:
    answer = secsipid.ask()
    assert answer.startswith("SIP/2.0 302 "), answer
    (identity,) = fields(answer, "Identity")
    assert re.match(r"[\w-]+\.[\w-]+\.[\w-]+;info=<", identity)
    return Call(CALLER, Destinations((CALLED,)), int(time.time()), (identity,), (), call_id="c1")


def test_its_pass_if_the_key_is_recorded(secsipid: Secsipid, operator: Operator) -> None:
    verdict = Verifier(now_s=time.time()).verify(theirs(secsipid), operator.record)
    assert (verdict.verstat, verdict.attest) == (Verstat.PASSED, "B")


def test_its_fail_if_it_is_not(secsipid: Secsipid, operator: Operator) -> None:
    with pytest.raises(VerificationFailed) as failure:
        Verifier(now_s=time.time()).verify(theirs(secsipid), absent(operator.record.digest))
    assert failure.value.step is Step.CERTIFICATE
