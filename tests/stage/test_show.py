import io
from dataclasses import dataclass
from pathlib import Path

import pytest
from rich.console import Console

from voice_dpki.errors import LocalError
from voice_dpki.stage.report import Check
from voice_dpki.stage.show import list_scenarios, scenario_named, show_checks, show_files


@dataclass(frozen=True)
class Scenario:
    name: str
    shows: str


SCENARIOS = {name: Scenario(name, f"shows {name}") for name in ("good", "revoked")}


@pytest.fixture
def console() -> Console:
    return Console(file=io.StringIO(), width=40)


def printed(console: Console) -> list[str]:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue().splitlines()


def test_scenarios_are_listed_one_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    list_scenarios(SCENARIOS.values())
    assert capsys.readouterr().out == "good\tshows good\nrevoked\tshows revoked\n"


def test_an_unknown_name_is_answered_with_those_that_there_are() -> None:
    assert scenario_named(SCENARIOS, "revoked").shows == "shows revoked"
    with pytest.raises(LocalError, match=r"there is no scenario 'x'; there are: good, revoked$"):
        scenario_named(SCENARIOS, "x")


def test_checks_have_the_mark_of_what_came_of_them_and_long_ones_are_not_cut(console: Console) -> None:
    show_checks(console, [Check("Heard", True, "both ways " * 9), Check("Signed", False, "by nobody")], "ok", "NO")
    assert printed(console) == [f"  ok Heard: {'both ways ' * 9}", "  NO Signed: by nobody"]


def test_only_files_that_were_written_are_named(tmp_path: Path) -> None:
    console = Console(file=io.StringIO(), width=300)
    (tmp_path / "report.json").touch()
    (tmp_path / "logs").mkdir()
    show_files(console, tmp_path, {"report.json": "for programs", "call.wav": "the sound", "logs": "one a program"})
    assert printed(console) == [f"{tmp_path}/", "  report.json  for programs", "  logs         one a program"]
