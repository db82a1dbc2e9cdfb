"""Telephones whose disk is full: what they wrote before is kept, and what they cannot write is told."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.disks import fill
from tests.sip_testbed.test_phones import CALLEE, TIMEOUT_S, Domain
from tests.sip_testbed.test_phones import domain as domain  # a fixture
from tests.sip_testbed.test_session import End, end_of
from voice_dpki.errors import LocalError

TARGET = f"sip:+{CALLEE}@a.example"
NO_ROOM = "No space left on device"
BEFORE = b"of a call before"


def without_room(disk: Path, end: End, *kinds: str) -> list[Path]:
    """Have a telephone write these files to a disk that is full, on which each is from a call before."""
    paths = [disk / f"{end.name}.{kind}" for kind in kinds]
    for path in paths:
        path.write_bytes(BEFORE)
        (end.folder / path.name).symlink_to(path)
    fill(disk)
    return paths


def told(end: End) -> list[dict[str, Any]]:
    return [event for event in end.events if event["kind"] == "result"]


async def test_a_caller_says_that_its_result_was_not_kept(
    domain: Domain, tmp_path: Path, disk: Callable[[int], Path], caplog: pytest.LogCaptureFixture
) -> None:
    caller = await end_of(domain, tmp_path, "caller", srtp="none", spoken_s=0.2)
    (path,) = without_room(disk(64), caller, "json")
    with pytest.raises(LocalError, match=rf"caller\.json: cannot be written: {NO_ROOM}"):
        await asyncio.wait_for(caller.telephone.call(TARGET), TIMEOUT_S)
    (result,) = told(caller)
    assert result["status"] == 480
    assert result["remarks"] == [f"a result of the caller was not kept: {path}: cannot be written: {NO_ROOM}"]
    assert path.read_bytes() == BEFORE
    assert "result cannot be written" in caplog.text


async def test_a_callee_without_room_goes_on_to_take_calls(
    domain: Domain, tmp_path: Path, disk: Callable[[int], Path], caplog: pytest.LogCaptureFixture
) -> None:
    caller, callee = [
        await end_of(domain, tmp_path, name, srtp="none", spoken_s=0.2) for name in ("caller", "callee")
    ]
    kinds = ("json", "said.wav", "heard.wav")
    paths = without_room(disk(64), callee, *kinds)
    for calls in (1, 2):
        assert (await asyncio.wait_for(caller.telephone.call(TARGET), TIMEOUT_S)).established
        async with asyncio.timeout(TIMEOUT_S):
            while len(told(callee)) < calls:
                await asyncio.sleep(0.01)
    for result in told(callee):
        assert result["established"]
        assert [remark.partition(": ")[0] for remark in result["remarks"]] == [
            "a recording of the callee was not kept",
            "a recording of the callee was not kept",
            "a result of the callee was not kept",
        ]
    assert [path.read_bytes() for path in paths] == [BEFORE] * len(kinds)
    assert "Traceback" not in caplog.text
