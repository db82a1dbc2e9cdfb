"""What is expected of a transferred call, by traces written by hand."""

from dataclasses import replace

import pytest

from sip_testbed import assess_transfer
from sip_testbed.events import RtpEvent
from sip_testbed.evidence import Evidence
from sip_testbed.transfer import ATTENDED, TRANSFER
from tests.sip_testbed.test_assess import GOOD, MEDIA, SPEECH, evidence, failed, result, wav
from voice_dpki.stage.events import Event

VERSTAT = "TN-Validation-Passed"


def packet_to(port: int, ssrc: bytes) -> RtpEvent:
    return RtpEvent(
        3.0, "callee", "127.0.0.7:5000", f"127.0.0.10:{port}", b"x" * 40, b"\x80\x00" + bytes(6) + ssrc + b"s" * 20
    )


def transferred(kind: str, *more: Event, heard: bytes = SPEECH, ssrc: bytes = b"new1") -> Evidence:
    purpose = assess_transfer.third_is(kind)
    third = "third" if purpose == "call" else "transferred-third"
    events = [
        *GOOD,
        result("callee", purpose="transferred", media=MEDIA, peer_key="first"),
        result("third", purpose=purpose, media=MEDIA, verstat=VERSTAT),
        packet_to(4000, b"old1"),
        packet_to(5000, ssrc),
        *more,
    ]
    given = evidence("authenticated", *events)
    new = {f"{name}.{what}": wav(SPEECH) for name in ("transferred-callee", third) for what in ("said", "heard")}
    new[f"{third}.heard"] = wav(heard)
    return replace(given, changes=("hold", kind), recordings={**given.recordings, **new})


def broken(given: Evidence) -> set[str]:
    return {check.name for check in assess_transfer.checks(given) if not check.held}


@pytest.mark.parametrize("kind", [TRANSFER, ATTENDED])
def test_a_good_transfer(kind: str) -> None:
    given = transferred(kind)
    assert broken(given) == set()
    assert set(assess_transfer.directions(given)) == {"callee_to_third", "third_to_callee"}
    assert failed(given) == {"Both telephones made the changes of the call"}  # of which these results tell nothing


def test_a_call_without_a_transfer_is_not_judged_by_one() -> None:
    given = evidence("authenticated", *GOOD)
    assert list(assess_transfer.checks(given)) == []
    assert assess_transfer.directions(given) == {}


@pytest.mark.parametrize("kind", [TRANSFER, ATTENDED])
def test_what_is_missing_is_told(kind: str) -> None:
    purpose = assess_transfer.third_is(kind)
    assert broken(transferred(kind, heard=bytes(16_000))) == {"Speech was heard, callee to third"}
    assert broken(transferred(kind, ssrc=b"old1")) == {"The new call has keys of its own"}
    third = result("third", purpose=purpose, media=MEDIA, verstat="No-TN-Validation")
    assert broken(transferred(kind, third)) == {"Verdict on the callee's number in the new call"}
    callee = result("callee", purpose="transferred", media=MEDIA, established=False, peer_key="changed")
    assert broken(transferred(kind, callee)) == {
        "The callee spoke to the end of the new call",
        "Key of the third one",
    }
