"""What SIGHUP reads again: options that say so, and what they name; nothing of a configuration that is refused."""

import asyncio
import logging
import os
import signal
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import msgspec
import pytest
from prometheus_client import REGISTRY

from voice_dpki.errors import LocalError
from voice_dpki.shell.config import Config, load_config, read_secrets, resolve
from voice_dpki.shell.program import run
from voice_dpki.shell.reload import RELOADABLE, Live, Options, reloadable_options
from voice_dpki.shortfalls import SHORTFALLS


class Section(Config, frozen=True, kw_only=True):
    tokens: Annotated[str, RELOADABLE]
    most: Annotated[int, msgspec.Meta(ge=1), RELOADABLE] = 1
    port: int = 80


class Whole(Config, frozen=True, kw_only=True):
    name: str
    inner: Section
    other: Section | None = None


FIRST = Whole(name="a", inner=Section(tokens="tokens", most=3))


class Service:
    """A service with two values that are made from its configuration."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "service.toml"
        self.write('name = "a"\n[inner]\ntokens = "tokens"\nmost = 3\n')
        self.tokens_are("one")
        self.options = Options(partial(load_config, self.path, Whole))
        self.tokens = self.options.live(self._tokens)
        self.most = self.options.live(lambda config: config.inner.most)

    def _tokens(self, config: Whole) -> tuple[str, ...]:
        return read_secrets(resolve(self.path, config.inner.tokens))

    def write(self, text: str) -> None:
        self.path.write_text(text)

    def tokens_are(self, *tokens: str, file: str = "tokens") -> None:
        self.path.with_name(file).write_text("".join(f"{token}\n" for token in tokens))

    def values(self) -> tuple[tuple[str, ...], int]:
        return self.tokens.value, self.most.value


@pytest.fixture
def service(tmp_path: Path) -> Service:
    return Service(tmp_path)


def said(caplog: pytest.LogCaptureFixture) -> tuple[str, dict[str, Any]]:
    record = caplog.records[-1]
    return record.getMessage(), record.__dict__["fields"]


def count(outcome: str) -> float:
    return REGISTRY.get_sample_value("voice_dpki_reloads_total", {"outcome": outcome}) or 0.0


def test_a_changed_file_of_tokens_counts_from_then_on(service: Service) -> None:
    service.tokens_are("two", "three")
    assert service.values() == (("one",), 3)
    before = count("taken")
    service.options.reload()
    assert service.values() == (("two", "three"), 3)
    assert count("taken") == before + 1


def test_reloadable_options_are_taken_and_others_are_said_to_need_a_restart(
    service: Service, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    service.tokens_are("two", file="others")
    service.write('name = "b"\n[inner]\ntokens = "others"\nmost = 4\nport = 81\n[other]\ntokens = "tokens"\n')
    service.options.reload()
    assert service.values() == (("two",), 4)
    assert service.options.config == Whole(name="a", inner=Section(tokens="others", most=4))
    changed, needs_restart = ["inner.tokens", "inner.most"], ["name", "inner.port", "other"]
    assert said(caplog) == ("configuration read again", {"changed": changed, "needs_restart": needs_restart})


@pytest.mark.parametrize(
    "spoil",
    [
        lambda service: service.write("name = "),
        lambda service: service.write('name = "a"\n[inner]\ntokens = "tokens"\nmost = 0\n'),
        lambda service: service.write('name = "a"\n[inner]\ntokens = "missing"\nmost = 9\n'),
        lambda service: service.tokens_are(),
        lambda service: service.path.unlink(),
    ],
    ids=["no TOML", "out of bounds", "names no file", "no token", "gone"],
)
def test_one_that_cannot_be_used_changes_nothing_and_log_and_health_say_so(
    service: Service, caplog: pytest.LogCaptureFixture, spoil: Any
) -> None:
    before, text = count("refused"), service.path.read_text()
    spoil(service)
    service.options.reload()
    assert service.values() == (("one",), 3)
    assert service.options.config == FIRST
    assert count("refused") == before + 1
    event, fields = said(caplog)
    assert event == "configuration refused, the one before stays"
    assert str(service.path.parent) in fields["reason"]
    notes = SHORTFALLS.notes()
    assert "the changed configuration is refused, the one before stays: see the log" in notes
    assert str(service.path.parent) not in " ".join(notes)

    service.write(text)
    service.tokens_are("two")
    service.options.reload()
    assert service.values() == (("two",), 3)
    assert service.options.shortfall() == ""


def test_one_that_cannot_be_used_at_the_start_starts_nothing(tmp_path: Path) -> None:
    with pytest.raises(LocalError, match=r"service\.toml"):
        Options(partial(load_config, tmp_path / "service.toml", Whole))


def test_an_option_says_in_its_declaration_that_it_is_reloadable() -> None:
    assert reloadable_options(Section) == {"tokens", "most"}
    assert reloadable_options(Whole) == frozenset()
    assert Live("as it is").value == "as it is"


def test_a_hangup_reloads(service: Service) -> None:
    async def work(stop: asyncio.Event) -> None:
        service.tokens_are("two")
        os.kill(os.getpid(), signal.SIGHUP)
        while service.tokens.value != ("two",):
            await asyncio.sleep(0.01)

    assert run(work) == 0
