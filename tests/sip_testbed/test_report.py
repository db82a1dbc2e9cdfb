import io
import json
import re
import subprocess
import wave
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import jsonschema  # type: ignore[import-untyped]
import numpy as np
import pytest

from sip_testbed.ladder import build
from sip_testbed.report import (
    Connected,
    Direction,
    Outcome,
    OutputFile,
    Process,
    Report,
    TrustLink,
    VideoDirection,
    outline,
    schema,
    to_html,
    to_json,
)
from voice_dpki.stage.report import Check

PASSED = Outcome("TN-Validation-Passed", None, None, 200, "The number is verified.")
REPORT = Report(
    scenario="authenticated",
    shows="One call <between> two operators.",
    started_at="2026-11-24 07:12:44 UTC",
    held=True,
    expected=PASSED,
    seen=PASSED,
    setup_ms=83.4,
    codec="opus",
    srtp="AEAD_AES_128_GCM",
    keying="MIKEY DH-SIGN",
    ledger="federation",
    directions={"caller_to_callee": Direction(250, 0, 0.9999, 4.41, 0.3), "callee_to_caller": Direction(249, 1)},
    video={"caller_to_callee": VideoDirection(50, 49, 1, 1, 3.2, 17.5)},
    connected=Connected("TN-Validation-Passed", "Operator B"),
    checks=(Check("answered", True, "200 OK"),),
    trust=(TrustLink("Operator A", "Signs", ("a.example",), "ok"),),
    timings_ms={"set up the call": 83.4},
    processes=(Process("caller", 88.3), Process("callee", 80.1)),
    files=(OutputFile("call.pcap", 1234, "every packet"),),
)
REFUSED = Outcome("TN-Validation-Failed", 437, "E17 certificate", 437, "The certificate was revoked.")


def wav(samples: list[int]) -> bytes:
    file = io.BytesIO()
    with wave.open(file, "wb") as out:
        out.setnchannels(1)
        out.setsampwidth(2)
        out.setframerate(8000)
        out.writeframes(np.array(samples, dtype="<i2").tobytes())
    return file.getvalue()


RECORDINGS = {name: wav([0, 12_000, -32_768] * 300) for name in ("caller.said", "callee.heard")}


def page(report: Report, call_trace: Any) -> str:
    return to_html(report, build(call_trace().events()), RECORDINGS).decode("utf-8")


class TestJson:
    @pytest.mark.parametrize(
        "report", [REPORT, replace(REPORT, seen=REFUSED, expected=REFUSED, directions={}, connected=None)]
    )
    def test_it_keeps_the_committed_schema(self, report: Report) -> None:
        jsonschema.Draft202012Validator.check_schema(schema())
        jsonschema.validate(json.loads(to_json(report)), schema())

    def test_what_was_seen_stands_at_the_top(self) -> None:
        members = json.loads(to_json(replace(REPORT, seen=REFUSED)))
        seen = {name: members[name] for name in ("verstat", "reasoncode", "refused_by", "reason")}
        assert seen == {
            "verstat": "TN-Validation-Failed",
            "reasoncode": 437,
            "refused_by": "E17 certificate",
            "reason": "The certificate was revoked.",
        }
        assert members["expected"]["verstat"] == "TN-Validation-Passed"
        assert members["memory_mb"] == 168.4
        assert members["directions"]["callee_to_caller"]["lost"] == 1


class Outline(HTMLParser):
    """Collects what a page would load, and whether its tags are balanced."""

    VOID = frozenset({"meta", "wbr", "link", "br", "line", "path", "circle", "rect"})

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.loads: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in self.VOID:
            self.open.append(tag)
        self.loads += [value or "" for name, value in attrs if name in ("src", "href", "srcset", "data", "poster")]

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        pass

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


class TestHtml:
    def test_it_loads_nothing_from_elsewhere(self, call_trace: Any) -> None:
        outline = Outline()
        outline.feed(page(REPORT, call_trace))
        assert outline.open == []
        assert {load.split(":")[0] for load in outline.loads if not load.startswith("#")} == {"data"}
        assert not re.search(r"url\(|@import|<script", page(REPORT, call_trace))

    def test_pictures_are_shown_with_their_figures(self, call_trace: Any) -> None:
        drawn = build(call_trace().events())
        text = to_html(REPORT, drawn, {**RECORDINGS, "callee.seen": b"webm"}).decode("utf-8")
        assert "data:video/webm;base64,d2VibQ==" in text
        assert "49 of 50" in text
        assert "<video" not in page(REPORT, call_trace)

    def test_text_from_the_call_is_escaped(self, call_trace: Any) -> None:
        text = page(REPORT, call_trace)
        assert "One call &lt;between&gt; two operators." in text
        assert "&lt;sip:+493023125001@a.example&gt;;tag=a1" in text

    @pytest.mark.parametrize(
        ("report", "headline", "kind"),
        [
            (REPORT, "Authenticated, encrypted, heard.", "good"),
            (replace(REPORT, srtp=None), "Authenticated, in clear, heard.", "good"),
            (replace(REPORT, expected=REFUSED, seen=REFUSED), "Refused, as it must be.", "refused"),
            (replace(REPORT, held=False), "Not as expected.", "broken"),
        ],
    )
    def test_the_verdict_comes_first(self, report: Report, headline: str, kind: str, call_trace: Any) -> None:
        text = page(report, call_trace)
        assert f"<h1>{headline}</h1>" in text
        assert f'<body class="is-{kind}">' in text

    def test_every_row_of_the_ladder_is_drawn_and_listed(self, call_trace: Any) -> None:
        text = page(REPORT, call_trace)
        rows = len(build(call_trace().events()).rows)
        assert text.count('href="#row-') == text.count('id="row-') == rows

    def test_sound_is_inside_the_page(self, call_trace: Any) -> None:
        assert page(REPORT, call_trace).count('src="data:audio/wav;base64,UklGR') == 2


@pytest.mark.peer("chromium")
@pytest.mark.parametrize("width", [1280, 390])
def test_nothing_is_wider_than_the_window_in_chromium(width: int, call_trace: Any, tmp_path: Path) -> None:
    """The page stands in a frame, since a window cannot be made narrower than 500 pixels."""
    tell = "<script>onload = () => parent.postMessage(document.documentElement.scrollWidth, '*')</script>"
    measured = re.sub('<meta http-equiv="Content-Security-Policy".*?>', tell, page(REPORT, call_trace))
    (tmp_path / "page.html").write_text(measured, encoding="utf-8")
    (tmp_path / "frame.html").write_text(
        "<script>onmessage = told => document.title = 'width ' + told.data</script>"
        f"<iframe src=page.html style='width:{width}px;height:2000px;border:0'></iframe>"
    )
    command = ["chromium", "--headless", "--no-sandbox", "--hide-scrollbars", f"--user-data-dir={tmp_path}/profile"]
    command += ["--virtual-time-budget=4000", "--dump-dom", (tmp_path / "frame.html").as_uri()]
    dom = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout
    assert f"<title>width {width}</title>" in dom


class TestWaveform:
    def test_said_stands_above_the_middle_and_heard_below(self) -> None:
        loud = np.array([32_767] * 600, dtype=np.int16)
        assert heights(outline(loud, up=True)) == {0.0, 60.0}
        assert heights(outline(loud, up=False)) == {60.0, 120.0}

    def test_silence_and_nothing(self) -> None:
        assert heights(outline(np.zeros(10, dtype=np.int16), up=True)) == {60.0}
        assert outline(np.zeros(0, dtype=np.int16), up=True) == ""


def heights(path: str) -> set[float]:
    return {round(float(y)) + 0.0 for _, y in re.findall(r"[ML]([\d.]+) ([\d.]+)", path)}
