"""What holds for the commands of all programs: numbers within bounds, and an end that is said in a line."""

import argparse
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import authn_server.main
import ledger_node.command.federation
import ledger_node.command.ledger
import ledger_node.command.main
import segw_agent.attach
import segw_agent.main
import segw_agent.provision
import sip_testbed.call
import sip_testbed.main
import verify_server.cps_main
import verify_server.main
import verify_server.passport_command
import voice_dpki.shell.completion
from tests.leftovers import Leftovers
from tests.signals import heed_interrupts
from voice_dpki.stage.temporary import remove_abandoned

BIN = Path(sys.executable).parent

COMMANDS: dict[str, Callable[[list[str]], int]] = {
    "authn-server": authn_server.main.main,
    "verify-server": verify_server.main.main,
    "cps-server": verify_server.cps_main.main,
    "ledger-node": ledger_node.command.main.main,
    "segw-agent": segw_agent.main.main,
    "sip-testbed call": lambda argv: sip_testbed.main.main(["call", *argv]),
    "sip-testbed proxy": lambda argv: sip_testbed.main.main(["proxy", *argv]),
    "sip-testbed pins": lambda argv: sip_testbed.main.main(["pins", *argv]),
    "sip-testbed gateway": lambda argv: sip_testbed.main.main(["gateway", *argv]),
    "sip-testbed path": lambda argv: sip_testbed.main.main(["path", *argv]),
    "sip-testbed user-agent": lambda argv: sip_testbed.main.main(["user-agent", *argv]),
    "voice-dpki completion": voice_dpki.shell.completion.command,
    "voice-dpki call": sip_testbed.call.command,
    "voice-dpki device attach": segw_agent.attach.command,
    "voice-dpki device provision": segw_agent.provision.command,
    "voice-dpki federation": ledger_node.command.federation.command,
    "voice-dpki ledger": ledger_node.command.ledger.command,
    "voice-dpki passport": verify_server.passport_command.command,
}

OUT_OF_BOUNDS = ("-1", "0", "x", "", "nan", "inf", "1e400", "9" * 30, "٣", "1_0")


class _Captured(Exception):
    pass


def parser_of(command: Callable[[list[str]], int], monkeypatch: pytest.MonkeyPatch) -> argparse.ArgumentParser:
    """Return the parser that a command makes for its arguments."""

    def capture(self: argparse.ArgumentParser, *_: object) -> None:
        raise _Captured(self)

    with monkeypatch.context() as patch:
        patch.setattr(argparse.ArgumentParser, "parse_args", capture)
        with pytest.raises(_Captured) as captured:
            command([])
    parser = captured.value.args[0]
    assert isinstance(parser, argparse.ArgumentParser)
    return parser


def options(parser: argparse.ArgumentParser, words: tuple[str, ...] = ()) -> Iterator[tuple[list[str], Any]]:
    """Give each option of a parser and of its subcommands, with the words that lead to it."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for name, below in action.choices.items():
                yield from options(below, (*words, name))
        elif action.option_strings:
            yield [*words, action.option_strings[-1]], action.type


def is_number(kind: Any) -> bool:
    try:
        return kind is not None and isinstance(kind("1"), int | float)
    except argparse.ArgumentTypeError:
        return False


@pytest.mark.parametrize("name", COMMANDS)
def test_every_number_has_bounds(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    command = COMMANDS[name]
    for words, kind in options(parser_of(command, monkeypatch)):
        assert kind not in (int, float), f"{name} {words}: a number without bounds"
        for value in OUT_OF_BOUNDS if is_number(kind) else ():
            with pytest.raises(SystemExit) as ended:
                command([*words, value])
            said = capsys.readouterr().err
            assert ended.value.code == 2, (words, value)
            assert f"argument {words[-1]}: give" in said.splitlines()[-1], (words, value, said)


def test_the_commands_with_numbers_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    found = {
        f"{name} {' '.join(words)}"
        for name, command in COMMANDS.items()
        for words, kind in options(parser_of(command, monkeypatch))
        if is_number(kind)
    }
    assert found == {
        "authn-server make-credential --days",
        "authn-server rotate --days",
        "authn-server rotate --overlap-s",
        "authn-server rotate --pid",
        "authn-server rotate --spread-s",
        "authn-server rotate --wait-s",
        "ledger-node certificate --days",
        "ledger-node keys signer --days",
        "ledger-node restore --height",
        "ledger-node restore --last-block",
        "segw-agent bridge init --days",
        "segw-agent bridge init --responder-days",
        "segw-agent bridge renew --responder-days",
        "sip-testbed call --early-media",
        "sip-testbed call --repeat",
        "sip-testbed call --say-seconds",
        "voice-dpki call --early-media",
        "voice-dpki call --repeat",
        "voice-dpki call --say-seconds",
        "voice-dpki device provision --days",
        "voice-dpki federation check --certificates",
        "voice-dpki federation check --operators",
        "voice-dpki federation up --operators",
        "voice-dpki ledger propose --days",
        "voice-dpki ledger propose --from",
        "voice-dpki passport csv --callers",
        "voice-dpki passport csv --rate",
        "voice-dpki passport explain --at",
        "voice-dpki passport verify --at",
    }


WITHOUT_READER = """
import os, sys
reading, writing = os.pipe()
os.close(reading)
os.dup2(writing, 1)
os.execv(sys.argv[1], sys.argv[1:])
"""
"""Runs a command whose standard output nobody reads, in a process of its own, where nobody else has files open."""


@pytest.mark.parametrize(
    ("line", "unbuffered"), [("voice-dpki call --list-scenarios", "1"), ("ledger-node certificate", "")]
)
def test_a_reader_that_is_gone_ends_a_command_without_a_word(tmp_path: Path, line: str, unbuffered: str) -> None:
    program, *arguments = line.split()
    if program == "ledger-node":
        arguments += ["--name", "n", "--organization", "o", "--out", str(tmp_path)]
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_READER, BIN / program, *arguments],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONUNBUFFERED": unbuffered},
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (141, "")


def test_standard_output_on_a_full_disk_is_said_in_a_sentence() -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [BIN / "voice-dpki", "device", "attach", "--list-scenarios"],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            timeout=60,
        )
    assert done.returncode == 2
    assert done.stderr.startswith("voice-dpki: a file or standard output: No space left on device")
    assert done.stderr.count("\n") == 1


def interrupted(line: str, folder: Path, after_s: float, number: signal.Signals) -> None:
    """Start a command, send it a signal a while after its code has begun to run, and see that nothing is left."""
    leftovers = Leftovers()
    program, *arguments = line.format(out=folder / "out").split()
    with subprocess.Popen(
        [BIN / program, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=os.environ | leftovers.environment | {"TMPDIR": str(folder)},
        preexec_fn=heed_interrupts,
    ) as process:
        leftovers.wait_loaded(process, "uvloop")
        time.sleep(after_s)
        process.send_signal(number)
        said, _ = process.communicate(timeout=60)
    assert (process.returncode, "Traceback" in said) == (130, False), said
    assert said.splitlines()[-1].startswith("voice-dpki: interrupted"), said
    leftovers.wait_none()
    assert not list(folder.glob("voice-dpki-*"))


CALL, ATTACH = "voice-dpki call --out {out}", "voice-dpki device attach --out {out}"
UP = "voice-dpki federation up --folder {out} --operators 2"


@pytest.mark.parametrize(
    ("line", "after_s", "number"),
    [
        (CALL, 0.0, signal.SIGINT),
        (CALL, 0.6, signal.SIGTERM),
        (ATTACH, 0.4, signal.SIGHUP),
    ],
)
def test_an_interrupted_command_says_so_and_leaves_nothing_behind(
    tmp_path: Path, line: str, after_s: float, number: signal.Signals
) -> None:
    interrupted(line, tmp_path, after_s, number)


@pytest.mark.parametrize(
    ("line", "processes"),
    [
        (CALL, 6),
        pytest.param(ATTACH, 4, marks=pytest.mark.long),
        pytest.param(UP, 7, marks=pytest.mark.long),
        pytest.param(f"{CALL} --ledger federation", 17, marks=pytest.mark.long),
    ],
)
def test_nothing_is_left_of_a_command_that_is_killed(tmp_path: Path, line: str, processes: int) -> None:
    leftovers = Leftovers()
    program, *arguments = line.format(out=tmp_path / "out").split()
    with subprocess.Popen(
        [BIN / program, *arguments],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=os.environ | leftovers.environment | {"TMPDIR": str(tmp_path)},
    ) as process:
        leftovers.wait_some(processes)
        process.kill()
    leftovers.wait_none()
    remove_abandoned(tmp_path)
    assert not list(tmp_path.glob("voice-dpki-*"))


@pytest.mark.long
@pytest.mark.parametrize("line", [CALL, ATTACH, UP])
def test_it_does_so_at_any_moment(tmp_path: Path, line: str) -> None:
    for number in range(40):
        folder = tmp_path / str(number)
        folder.mkdir()
        interrupted(line, folder, number * 0.04, signal.SIGINT)
