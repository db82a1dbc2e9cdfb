"""What a line of the log holds, as JSON and as text, and which lines are written."""

import json
import logging
from collections.abc import Iterator

import msgspec
import pytest

from voice_dpki.shell.current import work_for, work_on
from voice_dpki.shell.log import JsonFormatter, LogConfig, TextFormatter, setup_logging


@pytest.fixture
def root() -> Iterator[logging.Logger]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield root
    root.handlers[:] = handlers
    root.setLevel(level)


def record(event: str, **fields: object) -> logging.LogRecord:
    made = logging.LogRecord("a.module", logging.WARNING, "a.py", 1, event, None, None)
    made.fields = fields
    return made


def test_both_forms_tell_the_same() -> None:
    work_on("call-1")
    work_for("request-1")
    told = record("call refused", step="E17", worker=2)
    line = json.loads(JsonFormatter("verify-server").format(told))
    text = TextFormatter("verify-server").format(told)
    work_on("")
    work_for("")
    assert line.pop("time") == text.split()[0]
    assert line == {
        "level": "warning",
        "service": "verify-server",
        "logger": "a.module",
        "event": "call refused",
        "call": "call-1",
        "requestId": "request-1",
        "step": "E17",
        "worker": 2,
    }
    told_of = 'call="call-1" requestId="request-1" step="E17" worker=2'
    assert text.partition(" ")[2] == f"WARNING verify-server: call refused {told_of}"


def test_nothing_that_a_stranger_chooses_begins_another_line() -> None:
    told = record("refused\nforged", reason="a\nforged line\x1b[0m")
    text = TextFormatter("a").format(told)
    assert (text.count("\n"), "\x1b" in text) == (0, False)


def test_the_level_and_the_form_are_configured(root: logging.Logger, capsys: pytest.CaptureFixture[str]) -> None:
    log = logging.getLogger("tests.level")
    setup_logging("a", LogConfig(level="warning", form="text"))
    log.info("left out")
    log.warning("written")
    assert capsys.readouterr().err.endswith("WARNING a: written\n")
    setup_logging("a")
    log.info("written, too")
    assert json.loads(capsys.readouterr().err)["event"] == "written, too"
    assert root.level == logging.INFO


@pytest.mark.parametrize("section", [{"level": "loud"}, {"form": "xml"}, {"file": "a.log"}])
def test_a_mistake_is_refused(section: dict[str, str]) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert(section, LogConfig)
