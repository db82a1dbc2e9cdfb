"""What a HEP collector is told of a whole call, judged by sip-doctor and by sngrep, which is a collector itself."""

import json
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sip_testbed.network import Testbed
from sip_testbed.placing import CallOptions, PlacedCall, place_call
from sip_testbed.scenarios import DEFAULT, SCENARIOS
from tests.e2e.collector import NAME, PAYLOAD, TYPE, Collector, Told, write_capture
from tests.ports import free_port
from voice_dpki.codec.hep import LOG, SIP
from voice_dpki.shell.hep import HepTarget

SIP_DOCTOR = str(Path(sys.executable).with_name("sip-doctor"))

KNOWN = {"large-udp"}
"""The topics of faults that are known: an answer to an INVITE over UDP goes over UDP, and with the Identity of the
answer it is too large for one Ethernet frame (RFC 3261 §18.2.2)."""


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[PlacedCall, str, list[Told]]]:
    """Place a call, and return it with its Call-ID and what the collector was told of it."""
    folder = tmp_path_factory.mktemp("told")
    with Collector() as collector:
        with Testbed(folder / "logs", hep=HepTarget("127.0.0.1", collector.port)) as testbed:
            testbed.start()
            testbed.record_all()
            placed = place_call(testbed, SCENARIOS[DEFAULT], CallOptions(say_s=1.0), folder / "call")
        call_id = re.findall(
            rb"INVITE sip:.*?\r\nCall-ID: ([^\r]+)\r\n", (folder / "call/call.pcap").read_bytes(), re.S
        )
        yield placed, call_id[0].decode(), collector.about(call_id[0].decode())


def test_every_element_tells_what_it_decided_on_the_call(told: tuple[PlacedCall, str, list[Told]]) -> None:
    placed, _, packets = told
    assert placed.report.held
    decided: dict[str, str] = {}
    for each in packets:
        if each[TYPE] == bytes([LOG]):
            note = json.loads(each[PAYLOAD])
            assert note["ok"] is True
            actor = each[NAME].decode()
            decided[actor] = f"{decided.get(actor, '')}{note['text']}\n"
    expected = {
        "authn-a": ("sign\n",),
        "authn-b": ("sign\n",),
        "verify-a": ("signer on the ledger: valid", "Identity valid"),
        "verify-b": ("signer on the ledger: valid", "Identity A valid, SDP as signed"),
        "proxy-a": ("INVITE signed by", "answer valid by"),
        "proxy-b": ("Identity valid by", "answer signed by"),
        "caller": ("valid on the ledger", "TEK agreed"),
        "callee": ("valid on the ledger", "TEK agreed"),
    }
    assert decided.keys() == expected.keys()
    for actor, texts in expected.items():
        assert [text for text in texts if text not in decided[actor]] == [], actor


def test_sip_doctor_sees_the_call_and_finds_no_other_fault(
    told: tuple[PlacedCall, str, list[Told]], tmp_path: Path
) -> None:
    _, call_id, packets = told
    write_capture(packets, tmp_path / "hep.pcap")
    command = [SIP_DOCTOR, "read", str(tmp_path / "hep.pcap"), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    (call,) = json.loads(done.stdout)["dialogs"]
    assert (call["call_id"], call["status"], call["final"]) == (call_id, "ANSWERED", 200)
    assert [leg["verstat"] for leg in call["stir"]["legs"]] == [None, "TN-Validation-Passed"]
    assert _faults(call) <= KNOWN


def test_sip_doctor_finds_no_other_in_the_capture_with_its_http(
    told: tuple[PlacedCall, str, list[Told]],
) -> None:
    command = [SIP_DOCTOR, "read", str(told[0].folder / "call.pcap"), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    calls = [each for each in json.loads(done.stdout)["dialogs"] if each["kind"] == "INVITE"]
    assert [call["status"] for call in calls] == ["ANSWERED"]
    assert _faults(*calls) <= KNOWN
    asked = calls[0]["stir"]["rest"]
    (host_a, _), (host_b, _) = (
        each["server"].split(":") for each in asked[:2]
    )  # others than usual if those are taken
    assert [(each["kind"], each["server"], each["result"]) for each in asked] == [
        ("sign", f"{host_a}:8081", "200 OK · attest A"),
        ("verify", f"{host_b}:8082", "200 OK · TN-Validation-Passed"),
        ("sign", f"{host_b}:8081", "200 OK"),
        ("verify", f"{host_a}:8082", "200 OK · TN-Validation-Passed"),
    ]


@pytest.mark.peer("tshark")
def test_tshark_dissects_the_http_of_the_capture(told: tuple[PlacedCall, str, list[Told]]) -> None:
    """Proxies ask for signatures and verdicts, telephones and servers for certificates; no token is in the file."""
    path = told[0].folder / "call.pcap"
    fields = ["-T", "fields", "-e", "http.request.method", "-e", "http.request.uri", "-e", "http.authorization"]
    command = ["tshark", "-r", str(path), "-Y", "http.request", *fields]
    seen = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout.splitlines()
    asked = [line.split("\t") for line in seen]
    assert [each[1] for each in asked if each[0] == "POST" and each[1].startswith("/stir/")] == [
        "/stir/v1/signing",
        "/stir/v1/verification",
        "/stir/v1/signing",
        "/stir/v1/verification",
    ]
    assert any(each[:1] == ["GET"] and each[1].startswith("/ledger/v1/certificates/") for each in asked)
    assert {each[2].strip("* ") for each in asked} == {""}
    assert any(each[2] for each in asked)


def _faults(*calls: dict[str, Any]) -> set[str]:
    """Return the topics of what sip-doctor finds wrong with calls."""
    return {each["topic"] for call in calls for each in call["findings"] if each["severity"] != "info"}


@pytest.mark.peer("sngrep", "tshark")
def test_sngrep_is_told_of_each_message(told: tuple[PlacedCall, str, list[Told]], tmp_path: Path) -> None:
    _, call_id, packets = told
    messages = [each[PAYLOAD] for each in packets if each[TYPE] == bytes([SIP])]
    saved = tmp_path / "sngrep.pcap"
    port = free_port()
    command = ["sngrep", "-N", "-q", "-L", f"udp:127.0.0.1:{port}", "-O", str(saved)]
    collector = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    try:
        _wait_bound(port, collector)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            for each in packets:
                sender.sendto(each.packet, ("127.0.0.1", port))
        seen: list[str] = []
        while len(seen) < len(messages):
            assert collector.poll() is None
            seen = _call_ids(saved)
        assert seen == [call_id] * len(messages)
    finally:
        collector.send_signal(signal.SIGTERM)
        collector.wait()


def _wait_bound(port: int, collector: subprocess.Popen[bytes]) -> None:
    bound = f":{port:04X} "
    while bound not in Path("/proc/net/udp").read_text():
        assert collector.poll() is None, "sngrep ended"


def _call_ids(capture: Path) -> list[str]:
    command = ["tshark", "-r", str(capture), "-Y", "sip", "-T", "fields", "-e", "sip.Call-ID"]
    return subprocess.run(command, capture_output=True, text=True, timeout=60).stdout.split()
