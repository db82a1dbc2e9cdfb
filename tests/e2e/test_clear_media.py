"""A telephone that sends one packet in clear, in a call that was to be encrypted: the call does not hold."""

from collections.abc import Iterator

import pytest

from sip_testbed.assess_capture import NAME
from sip_testbed.placing import CallOptions, place_call
from sip_testbed.scenarios import DEFAULT, SCENARIOS
from tests.clear_media import FORGOTTEN
from tests.e2e.altered import Altered

pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def testbed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Altered]:
    with Altered(tmp_path_factory.mktemp("logs")) as testbed:
        testbed.start()
        testbed.record_all()
        yield testbed


@pytest.mark.parametrize(("what", "codec"), [("goodbye", "pcmu"), ("report", "pcmu"), ("speech", "opus")])
def test_one_packet_in_clear_is_seen_in_the_capture(
    testbed: Altered, tmp_path_factory: pytest.TempPathFactory, what: str, codec: str
) -> None:
    assert what in FORGOTTEN
    testbed.altered = {"callee": ("tests.clear_media", what)}
    call = place_call(
        testbed, SCENARIOS[DEFAULT], CallOptions(codec=codec, say_s=1.0), tmp_path_factory.mktemp("call")
    )
    (check,) = (check for check in call.report.checks if check.name == NAME)
    assert not check.held
    assert check.detail.startswith("1 of ") or what == "report"
    assert not call.report.held
