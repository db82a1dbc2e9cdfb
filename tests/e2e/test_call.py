"""Whole calls between two operators: every program a process, every message over a socket, every attack real."""

import json
import os
import re
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import jsonschema  # type: ignore[import-untyped]
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from sip_testbed import call as command
from sip_testbed.call_files import FILES
from sip_testbed.conversation import SILENCE
from sip_testbed.network import Testbed
from sip_testbed.placing import (
    MIKEY_MODES,
    SRTP_PROFILES,
    CallOptions,
    PlacedCall,
    place_call,
)
from sip_testbed.report import schema
from sip_testbed.scenarios import DEFAULT, PLAIN, SCENARIOS
from voice_dpki.media.correlate import correlate
from voice_dpki.media.pcm import Pcm
from voice_dpki.media.recording import read_wav

ATTACKS = [name for name, scenario in SCENARIOS.items() if scenario.attack]
SILENT = [name for name in ATTACKS if SCENARIOS[name].expected.refused_by == SILENCE]

Place = Callable[..., PlacedCall]


@pytest.fixture(scope="module")
def testbed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Testbed]:
    with Testbed(tmp_path_factory.mktemp("logs")) as testbed:
        testbed.start()
        testbed.record_all()
        yield testbed


@pytest.fixture
def place(testbed: Testbed, tmp_path: Path) -> Place:
    def place_named(name: str, **options: object) -> PlacedCall:
        return place_call(testbed, SCENARIOS[name], CallOptions(**options), tmp_path / "call")  # type: ignore[arg-type]

    return place_named


@pytest.fixture(scope="module")
def good_call(testbed: Testbed, tmp_path_factory: pytest.TempPathFactory) -> PlacedCall:
    return place_call(testbed, SCENARIOS[DEFAULT], CallOptions(), tmp_path_factory.mktemp("call"))


def assert_held(call: PlacedCall) -> None:
    failed = [f"{check.name}: {check.detail}" for check in call.report.checks if not check.held]
    assert not failed
    assert call.report.held


def tshark(capture: Path, *arguments: str) -> str:
    command = ["tshark", "-r", str(capture), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout


class TestGoodCall:
    def test_everything_holds_and_every_file_is_there(self, good_call: PlacedCall) -> None:
        assert_held(good_call)
        written = [name for name in FILES if re.match(r"report|ladder|call\.|(caller|callee)\.(said|heard)", name)]
        assert len(written) == 9
        assert {path.name for path in good_call.folder.iterdir()} == set(written)
        assert [file.name for file in good_call.report.files] == written

    def test_the_report_keeps_its_schema(self, good_call: PlacedCall) -> None:
        report = json.loads((good_call.folder / "report.json").read_bytes())
        jsonschema.validate(report, schema())
        assert report["verstat"] == "TN-Validation-Passed"
        assert report["setup_ms"] > 0
        assert set(report["directions"]) == {"caller_to_callee", "callee_to_caller"}
        assert all(direction["correlation"] >= 0.99 for direction in report["directions"].values())
        assert report["connected"] == {"verstat": "TN-Validation-Passed", "signer": "Operator B"}
        assert len(report["processes"]) == 11
        assert report["memory_mb"] <= 600

    def test_trust_came_over_the_ledger(self, good_call: PlacedCall) -> None:
        assert [(link.role, link.state) for link in good_call.report.trust] == [
            (role, "ok") for role in ("Caller", "Signs", "Ledger", "Verifies", "Callee")
        ]

    @pytest.mark.peer("tshark")
    @pytest.mark.parametrize("name", ["call.pcap", "call.decrypted.pcap"])
    def test_tshark_finds_nothing_malformed(self, name: str, good_call: PlacedCall) -> None:
        # Encrypted RTCP is left out: tshark 4.0 tries to read what follows the first header, which is ciphertext.
        wrong = "(_ws.malformed or _ws.expert.severity >= 0x800000 or tcp.analysis.flags) and !srtcp"
        assert tshark(good_call.folder / name, "-Y", wrong) == ""
        for protocol in ("sip", "sdp", "mikey", "rtp"):
            assert len(tshark(good_call.folder / name, "-Y", protocol).splitlines()) >= 6

    @pytest.mark.peer("tshark")
    @pytest.mark.parametrize(("speaker", "listener"), [("caller", "callee"), ("callee", "caller")])
    def test_tshark_recovers_the_speech_from_the_decrypted_capture_alone(
        self, speaker: str, listener: str, good_call: PlacedCall, testbed: Testbed
    ) -> None:
        heard = read_wav((good_call.folder / f"{listener}.heard.wav").read_bytes())
        which = f"rtp.payload && ip.src == {testbed.addresses[speaker].host}"

        def recovered(name: str) -> float:
            lines = tshark(good_call.folder / name, "-Y", which, "-T", "fields", "-e", "rtp.payload").split()
            octets = bytes.fromhex("".join(lines).replace(":", ""))
            return correlate(Pcm(8000, ulaw_decoded(octets)), heard).coefficient if octets else 0.0

        assert recovered("call.decrypted.pcap") > 0.999
        assert recovered("call.pcap") < 0.1

    @pytest.mark.peer("tshark")
    @pytest.mark.peer("secsipidx")
    def test_secsipidx_verifies_the_identity_of_the_call(
        self, good_call: PlacedCall, testbed: Testbed, tmp_path: Path
    ) -> None:
        fields = ("-Y", "sip.Method == INVITE && sip.Identity", "-T", "fields", "-e", "sip.Identity")
        identity = tshark(good_call.folder / "call.pcap", *fields).splitlines()[0]
        key = x509.load_der_x509_certificate(testbed.site.signer.der).public_key()
        (tmp_path / "key.pem").write_bytes(key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
        (tmp_path / "identity").write_text(identity)
        command = ["secsipidx", "-check", "-fidentity", "identity", "-fpubkey", "key.pem", "-expire", "600"]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("mode", ["hybrid", "dh-sign", "pke", "rsa-r"])
def test_calls_by_other_modes_with_certificates(place: Place, mode: str) -> None:
    call = place(DEFAULT, mikey=mode, say_s=1.0)
    assert_held(call)
    assert call.report.keying == MIKEY_MODES[mode]
    name = mode if mode == "hybrid" else mode.upper()
    assert len([row for row in call.ladder.rows if f"MIKEY {name}, TEK agreed" in row.label]) == 2


@pytest.mark.parametrize("mode", [mode for mode in MIKEY_MODES if "both telephones share" in MIKEY_MODES[mode]])
def test_calls_under_a_shared_key(place: Place, mode: str) -> None:
    call = place(DEFAULT, mikey=mode, say_s=1.0)
    assert_held(call)
    assert call.report.keying == f"MIKEY {mode.upper()}, a key that both telephones share"
    steps = [row.label for row in call.ladder.rows if "TEK agreed" in row.label]
    assert len(steps) == 2
    assert all(f"MIKEY {mode.upper()}, TEK agreed" in step for step in steps)


@pytest.mark.parametrize(("codec", "srtp"), [("pcma", 0), ("opus", 1), ("pcmu", 1)])
def test_other_codecs_and_ciphers_are_heard_too(codec: str, srtp: int, place: Place) -> None:
    call = place(DEFAULT, codec=codec, srtp=SRTP_PROFILES[srtp])
    assert_held(call)
    assert (call.report.codec, call.report.srtp) == (codec, SRTP_PROFILES[srtp])


def test_both_are_heard_after_each_change_of_the_call(place: Place) -> None:
    call = place(DEFAULT, changes=("hold", "rekey", "pcma"))
    assert_held(call)
    labels = [" ".join((row.label, *row.extras)) for row in call.ladder.rows]
    hops = 3
    assert sum(label.startswith("INVITE") for label in labels) >= 5 * hops  # the call and four changes
    assert sum("+hold" in label for label in labels) == hops


@pytest.mark.long
@pytest.mark.parametrize("kind", ["transfer", "attended-transfer"])
def test_both_are_heard_after_a_transfer(place: Place, kind: str) -> None:
    """The new call crosses the operators: it is signed by one and verified by the other, as its answer is."""
    call = place(DEFAULT, changes=(kind,))
    assert_held(call)
    labels = [" ".join((row.label, *row.extras)) for row in call.ladder.rows]
    assert {"REFER", "NOTIFY"} <= {row.label for row in call.ladder.rows}
    assert sum(label.startswith("INVITE") and "+Identity" in label for label in labels) >= 2 * 2
    assert "third" in call.ladder.actors
    again = place(DEFAULT, changes=(kind,))
    assert_held(again)
    key = next(check for check in again.report.checks if check.name == "Key of the third one")
    assert key.detail == "known", "the pin of the one to whom the callee was passed on"


def test_a_caller_who_refuses_the_keys_says_why_in_its_bye(place: Place) -> None:
    call = place("mikey-answer-changed")
    capture = (call.folder / "call.pcap").read_bytes()
    bye = capture[capture.index(b"BYE sip:") :]
    assert b'Reason: SIP;cause=488;text="step SIGN' in bye[:2000]


@pytest.mark.parametrize("name", [SILENT[0], *(pytest.param(name, marks=pytest.mark.long) for name in SILENT[1:])])
def test_media_that_go_elsewhere_end_the_call_and_say_so_everywhere(name: str, place: Place) -> None:
    call = place(name)
    assert_held(call)
    sentence = "o authenticated SRTP or SRTCP came within 2 s of the ACK"
    assert sentence in call.report.seen.sentence
    assert call.report.seen.verstat == "TN-Validation-Passed"
    for direction in call.report.directions.values():
        assert (direction.packets, direction.mos, direction.correlation) == (0, None, None)
    ladder = (call.folder / "ladder.txt").read_text()
    assert f"ended: n{sentence}" in ladder
    assert "no media arrived" in ladder
    page = (call.folder / "report.html").read_text()
    assert "Ended, as it must be" in page
    assert sentence in page
    report = json.loads((call.folder / "report.json").read_bytes())
    jsonschema.validate(report, schema())
    assert report["refused_by"] == SILENCE
    assert any(row.src == "path" for row in call.ladder.rows)
    capture = (call.folder / "call.pcap").read_bytes()
    assert b'Reason: RELEASE_CAUSE;cause=2;text="RTP/RTCP time-out"' in capture[capture.index(b"BYE sip:") :][:2000]


@pytest.mark.parametrize("name", [name for name in ATTACKS if name not in SILENT])
def test_every_attack_is_refused_by_the_step_that_is_documented(name: str, place: Place) -> None:
    call = place(name)
    assert_held(call)
    seen, expected = call.report.seen, SCENARIOS[name].expected
    assert (seen.verstat, seen.reasoncode, seen.refused_by, seen.sip_status) == (
        expected.verstat,
        expected.reasoncode,
        expected.refused_by,
        expected.sip_status,
    )
    assert seen.sentence.endswith(".")
    attack = SCENARIOS[name].attack
    assert any(row.src == "path" for row in call.ladder.rows) == bool(attack and attack.mode)
    assert not any(name.startswith("caller.") for name in os.listdir(call.folder))
    jsonschema.validate(json.loads((call.folder / "report.json").read_bytes()), schema())


def test_an_attack_that_is_not_refused_is_reported(testbed: Testbed, tmp_path: Path) -> None:
    scenario = SCENARIOS["no-identity"]
    harmless = replace(scenario, attack=replace(scenario.attack, mode="forward"))  # type: ignore[type-var]
    call = place_call(testbed, harmless, CallOptions(), tmp_path)
    assert not call.report.held
    failed = {check.name for check in call.report.checks if not check.held}
    assert failed >= {"Step that refused", "No speech was sent", "The callee's telephone did not ring"}
    assert "Not as expected." in (tmp_path / "report.html").read_text("utf-8")


class TestCommand:
    """The command as a person starts it: its own network, and an exit status that can be relied on."""

    def test_a_plain_call(self, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
        assert command.command(["--plain", "--say-seconds", "1", "--repeat", "2", "--out", str(tmp_path)]) == 0
        shown = capfd.readouterr().out
        assert "2 of 2 calls held, median set-up" in shown
        assert "INVITE" in shown
        assert "\x1b" not in shown
        report = json.loads((tmp_path / "report.json").read_bytes())
        assert (report["scenario"], report["srtp"], report["verstat"]) == (PLAIN, None, None)
        assert len(json.loads((tmp_path / "repeat.json").read_bytes())["setup_ms"]) == 2
        assert {path.name for path in (tmp_path / "logs").iterdir()} >= {"proxy-a.log", "caller.log"}

    def test_json_alone_on_the_output_and_a_status_for_what_did_not_hold(
        self, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        wrong = replace(SCENARIOS[PLAIN], expected=replace(SCENARIOS[PLAIN].expected, sip_status=486))
        monkeypatch.setattr(command, "scenario_named", lambda scenarios, name: wrong)
        assert command.command(["--say-seconds", "1", "--json", "--out", str(tmp_path)]) == 1
        report = json.loads(capfd.readouterr().out)
        jsonschema.validate(report, schema())
        assert not report["held"]


def ulaw_decoded(octets: bytes) -> bytes:
    """Decode G.711 µ-law by its definition (ITU-T G.711, table 2a): sign, segment, interval."""
    samples = []
    for octet in octets:
        code = ~octet & 0xFF
        magnitude = (((code & 0x0F) << 3) + 132 << ((code >> 4) & 7)) - 132
        samples.append((-magnitude if code & 0x80 else magnitude).to_bytes(2, "little", signed=True))
    return b"".join(samples)
