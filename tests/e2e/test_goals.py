"""Every attack reaches its goal where the one check that refuses it is taken away: no scenario is refused by luck.

The programs are those of a call; the one that holds the check runs by `tests.without`, which takes it away.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from sip_testbed.conversation import SILENCE
from sip_testbed.network_config import Sections, service_configs
from sip_testbed.placing import CallOptions, PlacedCall, place_call
from sip_testbed.provision import CALLER, OUTSIDE
from sip_testbed.scenarios import PASSED, SCENARIOS
from tests.e2e.altered import Altered
from voice_dpki.stage.ladder import Mood

pytestmark = pytest.mark.long

ATTACKS = {name: scenario.attack for name, scenario in SCENARIOS.items() if scenario.attack}


class Weakened(Altered):
    """A network in which some actors run without a check."""

    def renew(self, actors: Sequence[str]) -> None:
        """Start services again, with the checks that they are to have now."""
        self.end(actors)
        configs: dict[str, Sections] = service_configs(self.site)
        for actor in actors:
            self.launch(actor, configs[actor]).wait_ready()


@pytest.fixture(scope="module")
def testbed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Weakened]:
    with Weakened(tmp_path_factory.mktemp("logs")) as testbed:
        testbed.start()
        testbed.record_all()
        yield testbed


@dataclass(frozen=True)
class Seen:
    """What became of a call: the INVITE at the callee, and who spoke to whom."""

    call: PlacedCall

    @property
    def invite(self) -> bytes:
        """The INVITE that the callee's telephone got; empty if it got none."""
        found = [
            getattr(row.event, "data", b"")
            for row in self.call.ladder.rows
            if (row.src, row.dst, row.label) == ("proxy-b", "callee", "INVITE")
        ]
        return bytes(found[-1]) if found else b""

    @property
    def verified_number(self) -> bytes | None:
        """The number that the callee's telephone shows as verified."""
        found = re.search(rb"P-Asserted-Identity: <sip:\+(\d+);verstat=" + PASSED.encode(), self.invite)
        return found[1] if found else None

    @property
    def speech(self) -> set[tuple[str, str | None]]:
        """Who sent media to whom."""
        return {(row.src, row.dst) for row in self.call.ladder.rows if row.mood is Mood.MEDIA}


def verified(number: str = CALLER) -> Callable[[Seen], None]:
    def reached(seen: Seen) -> None:
        assert seen.verified_number == number.encode()

    return reached


def both_speak_to_the_attacker(seen: Seen) -> None:
    assert seen.verified_number == CALLER.encode()
    assert {("callee", "path"), ("caller", "path")} <= seen.speech
    assert [direction.packets for direction in seen.call.report.directions.values()] == [0, 0]


def both_speak_to_the_end_in_silence(seen: Seen) -> None:
    both_speak_to_the_attacker(seen)
    assert not any(row.label.startswith("ended") for row in seen.call.ladder.rows)
    said = [(seen.call.folder / f"{role}.said.wav").stat().st_size for role in ("caller", "callee")]
    assert min(said) > 16_000  # a whole second each


def an_offer_in_clear(seen: Seen) -> None:
    assert seen.verified_number == CALLER.encode()
    assert b"RTP/AVP" in seen.invite
    assert b"key-mgmt" not in seen.invite


def other_keys(seen: Seen) -> None:
    assert seen.verified_number == CALLER.encode()
    sent = next(row.event for row in seen.call.ladder.rows if (row.src, row.label) == ("caller", "INVITE"))
    values = [re.findall(rb"a=key-mgmt:(.+)\r\n", data) for data in (seen.invite, getattr(sent, "data", b""))]
    assert len(values[0]) == len(values[1]) == 1
    assert values[0] != values[1]


def another_section(seen: Seen) -> None:
    assert seen.verified_number == CALLER.encode()
    assert [line.split()[0] for line in re.findall(rb"\r\nm=(.+)", seen.invite)] == [b"audio", b"video"]


def an_answered_call(seen: Seen) -> None:
    assert seen.call.report.seen.sip_status == 200
    assert all(direction.packets > 25 for direction in seen.call.report.directions.values())


def an_unsigned_call(seen: Seen) -> None:
    assert b"\r\nIdentity:" not in seen.invite
    an_answered_call(seen)


GOALS: Mapping[str, Callable[[Seen], None]] = {
    "number-outside-range": verified(OUTSIDE),
    "identity-replayed": verified(),
    "sdp-changed": both_speak_to_the_attacker,
    "media-redirected": both_speak_to_the_end_in_silence,
    "signer-not-recorded": verified(),
    "signer-revoked": verified(),
    "stale-date": verified(),
    "key-mgmt-stripped": an_offer_in_clear,
    "mikey-changed": other_keys,
    "media-added": another_section,
    "mikey-answer-changed": an_answered_call,
    "second-certificate": an_answered_call,
    "no-identity": an_unsigned_call,
}


def holders(check: str) -> tuple[str, ...]:
    """The actors that do a check; services are started again, telephones start with each call."""
    if check == SILENCE:
        return ("caller", "callee")
    return {"E2 Identity present": ("proxy-b",), "MIKEY SIGN": ("caller",), "MIKEY pin": ("caller",)}.get(
        check, ("verify-b",)
    )


def test_every_attack_has_a_goal() -> None:
    assert list(GOALS) == list(ATTACKS)


@pytest.mark.parametrize("name", ATTACKS)
def test_an_attack_reaches_its_goal_without_the_check(name: str, testbed: Weakened, tmp_path: Path) -> None:
    check = SCENARIOS[name].expected.refused_by
    assert check
    services = [actor for actor in holders(check) if actor in testbed.running]
    testbed.altered = dict.fromkeys(holders(check), ("tests.without", check))
    try:
        testbed.renew(services)
        call = place_call(testbed, SCENARIOS[name], CallOptions(), tmp_path)
    finally:
        testbed.altered = {}
        testbed.renew(services)
    assert not call.report.held
    assert call.report.seen.refused_by != check
    GOALS[name](Seen(call))
