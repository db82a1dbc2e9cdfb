"""Digits in calls between two telephones, and how they are assessed."""

import argparse
import asyncio
from pathlib import Path
from typing import Any

import pytest

from sip_testbed.assess_digits import checks
from sip_testbed.call import add_arguments, digits
from sip_testbed.digits import further_maps, take_answered, take_offered
from sip_testbed.evidence import Evidence
from sip_testbed.scenarios import DEFAULT, SCENARIOS
from sip_testbed.user_agent_config import MAX_DIALLED
from tests.sip_testbed.test_phones import CALLEE, TIMEOUT_S, Domain
from tests.sip_testbed.test_phones import domain as domain  # a fixture
from tests.sip_testbed.test_session import end_of, results
from voice_dpki.media.codecs import CODECS
from voice_dpki.media.keypad import Keypad
from voice_dpki.sip.sdp import RtpMap, SessionDescription, audio_description
from voice_dpki.stage.events import Event, ResultEvent

OPUS = CODECS["opus"]


@pytest.mark.parametrize(
    ("srtp", "changes"), [("none", ()), ("AES_CM_128_HMAC_SHA1_80", ("rekey",)), ("none", ("hold",))]
)
async def test_digits_come_through_a_call_and_its_changes(
    domain: Domain, tmp_path: Path, srtp: str, changes: tuple[str, ...]
) -> None:
    """The callee's telephone is not set to digits: it takes them because they are offered, on hold of ours, too."""
    caller = await end_of(domain, tmp_path, "caller", srtp=srtp, changes=changes, spoken_s=1.0, dtmf="0123456789*#")
    callee = await end_of(domain, tmp_path, "callee", srtp=srtp, spoken_s=1.0)
    async with asyncio.timeout(TIMEOUT_S):
        assert (await caller.telephone.call(f"sip:+{CALLEE}@a.example")).established
        while not (tmp_path / "callee.json").exists():
            await asyncio.sleep(0.01)
    assert [result["digits"] for result in results(tmp_path)] == ["", "0123456789*#"]
    assert [result["changes"] for result in results(tmp_path)] == [list(changes)] * 2
    assert [result["media"]["other"] for result in results(tmp_path)] == [0, 0]
    notes = [event["text"] for event in callee.events if event.get("step") == "digits"]
    assert notes == ["digits received: 0123456789*#"]


def described(*maps: RtpMap) -> SessionDescription:
    return SessionDescription.parse(audio_description("127.0.0.1", 4000, maps, session_id=1).serialize())


def test_events_are_offered_only_if_they_are_asked_for_and_in_the_clock_of_the_codec() -> None:
    assert further_maps(Keypad(), OPUS) == []
    assert further_maps(Keypad(offers=True), OPUS) == [RtpMap(101, "telephone-event/48000", "0-15")]
    assert further_maps(Keypad(digits="1"), CODECS["PCMU"])[0] == RtpMap(101, "telephone-event/8000", "0-15")


def test_events_in_the_clock_of_another_codec_are_not_taken() -> None:
    offer = described(RtpMap(0, "PCMU/8000"), RtpMap(97, "Telephone-Event/8000/1", "0-11"))
    keypad = Keypad()
    take_offered(keypad, offer, OPUS)
    assert further_maps(keypad, OPUS) == []
    take_offered(keypad, offer, CODECS["PCMU"])
    assert further_maps(keypad, CODECS["PCMU"]) == [RtpMap(97, "telephone-event/8000", "0-15")]


def test_an_answer_without_events_is_sent_none_and_may_be_offered_them_again() -> None:
    keypad = Keypad(digits="1")
    take_answered(keypad, described(RtpMap(0, "PCMU/8000")), CODECS["PCMU"])
    assert (keypad.agreed.sends, keypad.agreed.receives, keypad.ours) == (None, None, 101)


@pytest.mark.parametrize(("got", "held"), [("1234#", True), ("124#", False), ("1234#1", False), ("", False)])
def test_the_check_compares_what_came_with_what_was_dialled(got: str, held: bool) -> None:
    data: dict[str, Any] = {"purpose": "call", "digits": got}
    events: list[Event] = [ResultEvent(0.0, "callee", data)]
    evidence = Evidence(SCENARIOS[DEFAULT], "pcmu", None, events)
    assert [check.held for check in checks(evidence, "1234#")] == [held]
    assert not list(checks(evidence, ""))


@pytest.mark.parametrize(("given", "read"), [([], None), (["--dtmf", "1234#"], "1234#")])
def test_the_command_dials_what_it_is_given_and_nothing_by_default(given: list[str], read: str | None) -> None:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    assert parser.parse_args(given).dtmf == read


@pytest.mark.parametrize("text", ["", "12E", "1 2", "1\n", "1" * (MAX_DIALLED + 1)])
def test_what_is_no_digits_is_not_dialled(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError):
        digits(text)
