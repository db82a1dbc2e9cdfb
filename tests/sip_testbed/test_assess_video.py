"""What a call's video is held to."""

from typing import Any

import pytest

from sip_testbed import assess_video
from tests.sip_testbed.test_assess import evidence, result

NAMES = ["Video was seen, caller to callee", "Video was seen, callee to caller"]


def video(**changes: Any) -> dict[str, Any]:
    return {"sent": 50, "shown": 50, "missed": 0, "asked": 0, "sync_ms": 3.0, "sync_worst_ms": 9.0, **changes}


def held(caller: dict[str, Any] | None, callee: dict[str, Any] | None) -> list[bool]:
    """Which of the checks of NAMES hold for what the two telephones have counted."""
    given = evidence("authenticated", result("caller", video=caller), result("callee", video=callee))
    checks = list(assess_video.checks(assess_video.directions(given)))
    assert [check.name for check in checks] == NAMES
    return [check.held for check in checks]


@pytest.mark.parametrize(
    ("callee", "is_held"),
    [
        (video(), True),
        (video(shown=45, missed=4, asked=1), True),
        (video(shown=44), False),
        (video(shown=0, sync_ms=None), False),
        (video(sync_ms=None), False),
        (video(sync_ms=60.0), True),
        (video(sync_ms=60.1), False),
    ],
)
def test_pictures_must_be_seen_beside_their_speech(callee: dict[str, Any], is_held: bool) -> None:
    assert held(video(), callee) == [is_held, True]


def test_a_call_without_pictures_on_one_side_does_not_hold() -> None:
    assert held(video(), None) == held(None, video()) == held(None, None) == [False, False]
    assert held(video(sent=0, shown=50), video(shown=0)) == [False, True]


def test_the_figures_are_those_of_sender_and_receiver() -> None:
    given = evidence(
        "authenticated", result("caller", video=video(sent=40)), result("callee", video=video(shown=39))
    )
    there = assess_video.directions(given)["caller_to_callee"]
    assert (there.pictures, there.shown, there.sync_ms) == (40, 39, 3.0)
