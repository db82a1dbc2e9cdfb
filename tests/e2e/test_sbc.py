"""Calls through a session border controller that rewrites addresses: there a signature can cover key-mgmt alone."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from sip_testbed.placing import CallOptions, PlacedCall, place_call
from sip_testbed.scenarios import DEFAULT, SCENARIOS, Attack
from tests.e2e.altered import Altered

pytestmark = pytest.mark.long

FORWARD = Attack("forward", "relays media", "nothing")


class Bordered(Altered):
    """A network with an SBC on the path."""

    altered: Mapping[str, tuple[str, ...]] = {"path": ("tests.sbc",)}


@pytest.fixture(scope="module")
def testbed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bordered]:
    with Bordered(tmp_path_factory.mktemp("logs")) as testbed:
        testbed.start()
        testbed.record_all()
        yield testbed


def place(testbed: Bordered, folder: Path, *, rewrites_sdp: bool) -> PlacedCall:
    attack = replace(FORWARD, rewrites_sdp=rewrites_sdp)
    return place_call(testbed, replace(SCENARIOS[DEFAULT], attack=attack), CallOptions(say_s=2.5), folder)


def test_a_call_on_a_way_that_is_known_to_rewrite(testbed: Bordered, tmp_path: Path) -> None:
    """Keyed end to end and heard both ways, past an element that changes every address."""
    call = place(testbed, tmp_path, rewrites_sdp=True)
    assert [f"{check.name}: {check.detail}" for check in call.report.checks if not check.held] == []
    assert call.report.seen.verstat == "TN-Validation-Passed"
    assert any(row.label == "the SBC put its own address into the answer" for row in call.ladder.rows)
    told = {check.name: check.detail for check in call.report.checks}
    assert told["What was signed of the session description"] == "not-signed"


def test_a_call_on_a_way_that_nobody_said_rewrites(testbed: Bordered, tmp_path: Path) -> None:
    call = place(testbed, tmp_path, rewrites_sdp=False)
    seen = call.report.seen
    assert (seen.refused_by, seen.sip_status, seen.verstat) == ("E22 SDP", 438, "TN-Validation-Failed")
