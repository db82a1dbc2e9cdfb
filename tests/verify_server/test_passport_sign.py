"""`voice-dpki passport sign` and `csv`: what they print is what a verifier accepts, and what SIPp sends."""

import json
import socket
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from tests.recorded import recorded
from verify_server.passport_command import command
from voice_dpki.errors import LocalError
from voice_dpki.names import Tn
from voice_dpki.stir.call import Call
from voice_dpki.stir.examine import Policy, examine
from voice_dpki.stir.passport import Destinations
from voice_dpki.stir.replay import ReplayCache
from voice_dpki.stir.verdict import Verstat
from voice_dpki.stir.verify import judge
from voice_dpki.wire.sip.asked import call_of, read_invite
from voice_dpki.x509.allotment import Allotment
from voice_dpki.x509.keys import generate_es256

from .conftest import RANGE_A, Caller

CALL = ("--from", "+493023125001", "--to", "442079460001")
INVITE = (
    "INVITE sip:+442079460001@b.example SIP/2.0\n"
    "Via: SIP/2.0/UDP 127.0.0.1;branch=z9hG4bK1\n"
    "From: <sip:+493023125001@a.example>;tag=1\nTo: <sip:+442079460001@b.example>\n"
    "Call-ID: 1@a.example\nCSeq: 1 INVITE\nMax-Forwards: 70\nContent-Length: 0\n\n"
)
Run = Callable[..., str]


@pytest.fixture
def files(tmp_path: Path, caller: Caller) -> tuple[str, ...]:
    key = caller.signer.private_key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    (tmp_path / "a.pem").write_bytes(key)
    (tmp_path / "a.der").write_bytes(caller.der())
    return "--certificate", str(tmp_path / "a.der"), "--key", str(tmp_path / "a.pem")


@pytest.fixture
def run(files: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> Run:
    def run_with(*arguments: str) -> str:
        assert command([*arguments, *files]) == 0
        return capsys.readouterr().out

    return run_with


def verstat(call: Call, caller_der: bytes, now_s: float) -> Verstat:
    examined = examine(call, call.identities[0], Policy(), now_s)
    record = recorded(caller_der, Allotment(ranges=(RANGE_A,)))
    return judge(examined, record, Policy(), ReplayCache(9, 120), now_s).verstat


def der_of(files: tuple[str, ...]) -> bytes:
    return Path(files[1]).read_bytes()


def test_an_identity_for_two_numbers(run: Run, files: tuple[str, ...]) -> None:
    identity = run("sign", *CALL).strip()
    call = Call(Tn("493023125001"), Destinations((Tn("442079460001"),)), int(time.time()), (identity,))
    assert verstat(call, der_of(files), time.time()) is Verstat.PASSED


def test_an_invite_gets_its_identity(run: Run, files: tuple[str, ...], tmp_path: Path) -> None:
    (tmp_path / "invite.txt").write_text(INVITE)
    call = call_of(read_invite(run("sign", str(tmp_path / "invite.txt")).encode()), time.time())
    assert verstat(call, der_of(files), time.time()) is Verstat.PASSED
    shown = json.loads(run("sign", "--json", "--attest", "C", str(tmp_path / "invite.txt")))
    assert (shown["header"]["ppt"], shown["payload"]["attest"]) == ("shaken", "C")


@pytest.mark.parametrize(
    ("options", "ppt", "claim", "value"),
    [
        (("--div", "493023125009"), "div", "div", {"tn": "493023125009"}),
        (("--rph", "ets.0", "--rph", "wps.0"), "rph", "rph", {"auth": ["ets.0", "wps.0"]}),
        (("--rcd", "Bank"), "rcd", "rcd", {"nam": "Bank"}),
        (("--rcd", "Bank", "--reason", "Your card"), "rcd", "crn", "Your card"),
        (("--attest", "B"), "shaken", "attest", "B"),
    ],
)
def test_other_types(run: Run, options: tuple[str, ...], ppt: str, claim: str, value: object) -> None:
    shown = json.loads(run("sign", "--json", *CALL, *options))
    assert (shown["header"]["ppt"], shown["payload"][claim]) == (ppt, value)
    assert shown["identity"].endswith(f";ppt={ppt}")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("sign", "--from", "1"), "both --from and --to"),
        (("sign", *CALL, "invite.txt"), "both --from and --to"),
        (("sign", "--div", "1", "invite.txt"), "--div, --rph and --rcd go with"),
        (("sign", *CALL, "--reason", "Your card"), "goes with --rcd"),
        (("sign", "--from", "442079460001", "--to", "1"), "not among those"),
        (("sign", "--from", "alice", "--to", "1"), "'orig.tn'"),
        (("sign", *CALL, "--rph", "ets"), "such as ets.0"),
        (("sign", *CALL, "--info-url", "https://certs.example/a.der"), "info_url"),
        (("csv", "1", "--from", "#1", "--to", "1", "--callers", "2"), "digits alone"),
        (("csv", "2000", *CALL, "--callers", "2000"), "not among those"),
    ],
)
def test_what_cannot_be_signed(run: Run, arguments: tuple[str, ...], sentence: str) -> None:
    with pytest.raises(LocalError, match=sentence):
        run(*arguments)


def test_a_key_that_is_not_the_certificates(run: Run, tmp_path: Path) -> None:
    key = generate_es256().private_key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    (tmp_path / "a.pem").write_bytes(key)
    with pytest.raises(LocalError, match="the private key is not the certificate's"):
        run("sign", *CALL)


def test_rows_for_sipp(run: Run, files: tuple[str, ...]) -> None:
    began_s = int(time.time())
    first, *rows = run("csv", "6", *CALL, "--callers", "2", "--rate", "2").splitlines()
    assert first == "SEQUENTIAL"
    fields = [row.split(";") for row in rows]
    assert {len(row) for row in fields} == {6}
    assert [row[0] for row in fields] == ["493023125001", "493023125002"] * 3
    assert len({row[3] for row in fields}) == 6
    for at, (orig, dest, _, token, info, end) in enumerate(fields):
        identity = f"{token};info=<{info}>;alg=ES256;ppt=shaken"
        call = Call(Tn(orig), Destinations((Tn(dest),)), began_s, (identity,))
        assert verstat(call, der_of(files), began_s) is Verstat.PASSED
        examined = examine(call, identity, Policy(), began_s)
        assert at // 2 <= examined.claims.iat_s - began_s <= at // 2 + 5
        assert end == ""


SCENARIO = """\
<?xml version="1.0" encoding="ISO-8859-1" ?>
<scenario name="signed">
  <send>
    <![CDATA[
INVITE sip:+[field1]@[remote_ip]:[remote_port] SIP/2.0
Via: SIP/2.0/[transport] [local_ip]:[local_port];branch=[branch]
From: <sip:+[field0]@a.example>;tag=[call_number]
To: <sip:+[field1]@b.example>
Call-ID: [call_id]
CSeq: 1 INVITE
Max-Forwards: 70
Date: [field2]
Identity: [field3];info=<[field4]>;alg=ES256;ppt=shaken
Content-Length: 0

    ]]>
  </send>
</scenario>
"""


@pytest.mark.peer("sipp")
def test_sipp_sends_what_a_verifier_accepts(run: Run, files: tuple[str, ...], tmp_path: Path) -> None:
    (tmp_path / "calls.csv").write_text(run("csv", "3", *CALL, "--callers", "3"))
    (tmp_path / "signed.xml").write_text(SCENARIO)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as listening:
        listening.bind(("127.0.0.1", 0))
        listening.settimeout(60)
        received: list[bytes] = []

        def receive() -> None:
            received.extend(listening.recv(65_536) for _ in range(3))

        reader = threading.Thread(target=receive, daemon=True)
        reader.start()
        port = listening.getsockname()[1]
        command = ["sipp", f"127.0.0.1:{port}", "-sf", "signed.xml", "-inf", "calls.csv", "-i", "127.0.0.1"]
        subprocess.run(
            [*command, "-m", "3", "-r", "100", "-nostdin", "-timeout", "50"],
            cwd=tmp_path,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=60,
            check=False,
        )
        reader.join(60)
    assert len(received) == 3
    for data in received:
        call = call_of(read_invite(data), time.time())
        assert verstat(call, der_of(files), time.time()) is Verstat.PASSED
