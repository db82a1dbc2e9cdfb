"""Every scenario, with real processes: who must be refused is, by whom and where; and what is written down."""

import json
import re
import shutil
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from segw_agent import attach, device_command
from segw_agent.attachment import ladder, report
from segw_agent.attachment.events import KINDS, IkeEvent
from segw_agent.attachment.network import Testbed
from segw_agent.attachment.scenarios import SCENARIOS, Scenario
from segw_agent.attachment.site import GATEWAY_NAME, OPERATOR, VENDOR
from voice_dpki.errors import LocalError, MalformedError
from voice_dpki.shell.output import MARK
from voice_dpki.stage.events import Event, NoteEvent, ReadyEvent, ResultEvent, parse_line
from voice_dpki.stage.ladder import render_text
from voice_dpki.stage.processes import ProcessError
from voice_dpki.x509.keys import generate_es256


def played(testbed: Testbed, scenario: Scenario) -> list[Event]:
    """Play a scenario in a ledger that others have used, and return what belongs to it."""
    before = len(testbed.events())
    scenario.play(testbed)
    testbed.end(["device", "gateway"])
    events = testbed.events()
    ready = [event for event in events[:before] if isinstance(event, ReadyEvent)]
    return ready + events[before:]


@pytest.mark.parametrize("name", SCENARIOS)
def test_scenario(testbed: Testbed, name: str) -> None:
    scenario = SCENARIOS[name]
    described = report.assess(scenario, played(testbed, scenario), "now", {})
    assert described.held, [check for check in described.checks if not check.held]


def test_device_is_told_to_stop_while_it_attaches(testbed: Testbed) -> None:
    nobody: dict[str, Any] = {"gateway": {"host": testbed.addresses["gateway"].host, "port": 9, "nat_port": 10}}
    device = testbed.site.credential("enb1", "enb1.vendor.example", "Vendor V")
    running = testbed.start_device(device, **nobody)
    running.wait_for(lambda event: isinstance(event, IkeEvent), "send IKE_SA_INIT", 60)
    testbed.end(["device"])
    assert running.status == 1
    (result,) = (event for event in running.trace.events if isinstance(event, ResultEvent))
    assert result.data["code"] == "stopped"


def test_a_changed_list_ends_a_live_sa_while_no_node_answers(testbed: Testbed) -> None:
    """SIGHUP has the gateway read its lists again. The device came in under another name than the one denied."""
    gateway = testbed.site.credential("segw", GATEWAY_NAME, OPERATOR)
    names = ["enb8.vendor.example", "enb7.vendor.example"]
    device = testbed.site.certify("enb-hup", generate_es256(), VENDOR, names[0], dns_names=names)
    testbed.record(gateway, device)
    testbed.start_gateway(gateway, policy={"organizations": [VENDOR], "allow": ["*"], "deny": ["x.example"]})
    running = testbed.start_device(device, stay=True)
    running.wait_for(lambda event: isinstance(event, ResultEvent), "attach", 60)
    config = testbed.folder / "gateway.toml"
    config.write_text(config.read_text().replace("x.example", "ENB7.vendor.example"))
    testbed.freeze("ledger-a")
    try:
        testbed.running["gateway"].send(signal.SIGHUP)
        running.wait_end(60)
    finally:
        testbed.thaw("ledger-a")
    notes = [event.text for event in testbed.end(["gateway"]) if isinstance(event, NoteEvent)]
    assert "live SA ended: a name of the peer is on the deny list" in notes
    testbed.end(["device"])


def test_recording_ends_with_the_node_that_died(tmp_path: Path) -> None:
    with Testbed(tmp_path) as testbed:
        testbed.start_ledger()
        testbed.running["engine"].send(signal.SIGKILL)
        with pytest.raises(ProcessError, match=r"engine ended with status -9, and is still needed .*; its log "):
            testbed.record(testbed.site.credential("enb1", "enb1.vendor.example", "Vendor V"))


def test_command_and_its_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    assert device_command.command(["attach", "--out", str(out)]) == 0
    printed = capsys.readouterr().out
    steps = ["IKE_SA_INIT", "4 IKE_AUTH", "N(INTEGRITY_INFO)", "5.1 CERT_Status Request", "5.2 inquiry"]
    steps += ["5.3 CERT_Status Response", "5.4 certificate verified", "6 INTEGRITY_INFO verified", "7 IKE_AUTH"]
    steps += ["8 SeGW's certificate verified", "9 the old IKE SA is deleted by the device"]
    at = [printed.index(step) for step in steps]
    assert at == sorted(at)
    assert {path.name for path in out.iterdir()} == {*attach.FILES, MARK}
    told = json.loads((out / "report.json").read_bytes())
    assert told["held"]
    assert [each["address"] for each in told["attachments"]] == ["10.9.0.1", "10.9.0.1"]


@pytest.mark.peer("tshark")
def test_tshark_reads_and_decrypts_the_capture(tmp_path: Path) -> None:
    described, drawn = attach.play(SCENARIOS["device-asks"], tmp_path, Console(quiet=True))
    assert described.held
    assert "device" in drawn.actors
    table = [line for line in (tmp_path / "ikev2_decryption_table").read_text().splitlines() if line]
    tshark = shutil.which("tshark")
    assert tshark
    command = [tshark, "-r", str(tmp_path / "attach.pcap"), "-V"]
    command += [word for line in table for word in ("-o", f"uat:ikev2_decryption_table:{line}")]
    command += ["-d", "udp.port==10500,isakmp"]  # the port where 500 is not ours
    text = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout
    assert "alformed" not in text
    for line in (
        "Exchange type: IKE_SA_INIT (34)",
        "Exchange type: IKE_AUTH (35)",
        "Payload: Identification - Initiator (35)",
        "Identification Data:enb1.vendor.example",
        "dNSName: enb1.vendor.example",
        "Notify Message Type: Private Use - STATUS TYPES (40970)",
        "INTERNAL_IP4_ADDRESS",
    ):
        assert line in text, line
    assert re.search(r"Checksum: 0x[0-9a-f]{4} \[(correct|unverified)\]", text)


def test_scenarios_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert attach.command(["--list-scenarios"]) == 0
    assert [line.split("\t")[0] for line in capsys.readouterr().out.splitlines()] == list(SCENARIOS)
    with pytest.raises(LocalError, match="there are: attached"):
        attach.command(["--scenario", "nonsense"])


def test_device_command_explains_itself(capsys: pytest.CaptureFixture[str]) -> None:
    assert device_command.command([]) == 0
    assert "provision" in capsys.readouterr().out
    with pytest.raises(LocalError, match="attach, provision"):
        device_command.command(["nonsense"])


# --- what a report finds wrong --------------------------------------------------------------------------------


def ike(time_s: float, exchange: str, payloads: tuple[str, ...] = (), *, repeated: bool = False) -> IkeEvent:
    ends = "127.0.0.2:500", "127.0.0.3:500"
    return IkeEvent(time_s, "device", *ends, b"x", exchange, False, payloads, (1, 1), repeated)


def test_a_report_that_does_not_hold() -> None:
    result = {"attached": False, "code": "x", "step": "y", "sentence": "z"}
    events: list[Event] = [ike(1.0, "IKE_SA_INIT"), ResultEvent(2.0, "device", result)]
    described = report.assess(SCENARIOS["attached"], events, "now", {})
    assert not described.held
    assert described.attachments[0].refused_by == "device"
    assert json.loads(described.to_json())["attachments"][0]["setup_ms"] == 1000.0


def test_nothing_happened() -> None:
    assert ladder.build([]).rows == ()
    assert not report.assess(SCENARIOS["revoked-live"], [], "now", {}).held


def test_ladder_in_a_narrow_terminal_and_in_ascii() -> None:
    events: list[Event] = [
        ReadyEvent(0.5, "gateway", {"ike": "127.0.0.3:500"}),
        ike(1.0, "IKE_AUTH", ("IDi", "CERT"), repeated=True),
        NoteEvent(1.1, "gateway", "no " * 40, {"ok": False}),
    ]
    drawn = ladder.build(events)
    assert "4 IKE_AUTH again IDi CERT" in render_text(drawn)
    assert "│" not in render_text(drawn, encoding="ascii")
    assert "device ─▶ SeGW  4 IKE_AUTH again IDi CERT" in render_text(drawn, width=50)


@pytest.mark.parametrize(
    "members",
    [
        {"kind": "ike"},
        {"kind": "ike", "src": "a:1", "dst": "b:2", "data": "!", "exchange": "x", "response": 1, "payloads": []},
        {"kind": "ask", "peer": "a:1"},
        {"kind": "answer", "peer": "a:1", "text": "", "digest": "", "status": "", "height": "x", "ms": 1},
        {"kind": "keys"},
        {"kind": "nonsense"},
    ],
)
def test_lines_that_are_no_events(members: dict[str, object]) -> None:
    with pytest.raises(MalformedError):
        parse_line(json.dumps({"t": 1, "actor": "device", **members}).encode(), KINDS)
