import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from sip_testbed import call
from sip_testbed.main import main
from sip_testbed.scenarios import SCENARIOS
from voice_dpki.errors import LocalError
from voice_dpki.shell import cli


def test_scenarios_are_listed_one_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert call.command(["--list-scenarios"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("\t") for line in lines] == [[name, item.shows] for name, item in SCENARIOS.items()]


def test_an_unknown_scenario_is_an_error_for_people(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(LocalError, match="no scenario 'nonsense'"):
        call.command(["--scenario", "nonsense"])
    assert cli.main(["call", "--scenario", "nonsense"]) == 2
    assert "there are: authenticated" in capsys.readouterr().err
    assert main(["call", "--scenario", "nonsense"]) == 2


@pytest.mark.parametrize(
    "arguments",
    [
        ["--codec", "gsm"],
        ["--srtp", "none"],
        ["--repeat", "0"],
        ["--ledger", "paper"],
        ["--say-seconds", "-1"],
        ["--say-seconds", "long"],
        ["--repeat", "often"],
        ["surplus"],
    ],
)
def test_wrong_arguments_end_with_status_2(arguments: Sequence[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        call.command(list(arguments))
    assert stopped.value.code == 2
    told = capsys.readouterr().err
    assert "usage: voice-dpki call" in told
    assert told.endswith("; voice-dpki call --help explains\n")
    assert " _" not in told, "no name from the code"


def test_a_folder_that_cannot_be_made_is_an_error_for_people(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_bytes(b"")
    assert cli.main(["call", "--out", str(tmp_path / "file")]) == 2
    assert capfd.readouterr().err.endswith("cannot make this folder: File exists\n")


def test_without_cometbft_a_federation_is_not_begun_and_the_command_that_installs_it_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    monkeypatch.setenv("PATH", str(tmp_path))
    assert cli.main(["call", "--ledger", "federation", "--out", str(tmp_path / "call")]) == 2
    assert capfd.readouterr().err.endswith("cometbft is not installed; install it: ledger-node install-cometbft\n")
    assert not (tmp_path / "call").exists()


def test_early_media_and_changes_are_shown_one_at_a_time(capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert cli.main(["call", "--early-media", "1", "--change", "hold", "--out", str(tmp_path / "call")]) == 2
    assert "--early-media and --change" in capfd.readouterr().err
    assert not (tmp_path / "call").exists()


@pytest.mark.parametrize("more", [("--change", "hold"), ("--scenario", "sdp-changed"), ("--video",)])
def test_a_transfer_is_shown_by_itself(
    more: tuple[str, ...], capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert cli.main(["call", "--change", "transfer", *more, "--out", str(tmp_path / "call")]) == 2
    assert "a transfer is the only change" in capfd.readouterr().err
    assert not (tmp_path / "call").exists()


@pytest.mark.parametrize("name", ["call", "proxy", "user-agent", "path"])
def test_every_command_teaches(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main([name, "--help"])
    assert stopped.value.code == 0
    assert len(capsys.readouterr().out.splitlines()) > 15


def test_help_of_the_program_lists_its_commands(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    shown = capsys.readouterr().out
    assert all(f"\n  {name} " in shown for name in ("call", "proxy", "user-agent", "path"))
    assert main([]) == 2
    assert main(["nonsense"]) == 2


def test_a_part_does_not_import_the_others() -> None:
    """A proxy's memory is not to pay for numpy and jinja2."""
    script = "import sys, sip_testbed.main; sys.exit(bool({'numpy', 'jinja2', 'rich'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", script], timeout=60).returncode == 0
