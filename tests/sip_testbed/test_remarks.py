"""Sentences about what a call's other side did: bounded, printable, and about the right party."""

import re
from typing import Any

import pytest
from sipmessage import Headers

from sip_testbed import assess, remarks
from sip_testbed.events import SipEvent
from sip_testbed.evidence import Evidence
from sip_testbed.report import Outcome
from sip_testbed.scenarios import SCENARIOS
from voice_dpki.stage.events import Event, ResultEvent

FOREIGN = "127.0.0.99:5060"
A, B, CALLER, CALLEE = "127.0.0.2:5060", "127.0.0.3:5060", "127.0.0.6:5060", "127.0.0.7:5060"


def headers(**values: str) -> Headers:
    made = Headers()
    for name, value in values.items():
        made.add(name, value)
    return made


@pytest.mark.parametrize(
    ("fields", "shown"),
    [
        # RFC 3261 §20.43 and RFC 3326 §2, as they write them
        (
            {"Warning": "307 isi.edu \"Session parameter 'foo' not understood\""},
            "Warning 307: Session parameter 'foo' not understood",
        ),
        ({"Reason": 'SIP ;cause=600 ;text="Busy Everywhere"'}, "Reason: Busy Everywhere"),
        ({"Reason": "Q.850;cause=65"}, "Reason: Q.850;cause=65"),
        ({"Warning": '399 h "say \\"no\\""'}, 'Warning 399: say "no"'),
        ({"Warning": "whatever"}, "Warning: whatever"),
    ],
)
def test_reason_and_warning_are_told(fields: dict[str, str], shown: str) -> None:
    text = remarks.refusal(488, "Not Acceptable Here", headers(**fields))
    assert text == f"488 Not Acceptable Here ({shown})"


def test_what_another_writes_is_made_fit_to_show() -> None:
    assert remarks.told("\x9b31m red \u202e back") == "31m red   back"
    assert remarks.told("call +442079460123 or 0044207946012 now") == "call (number) or (number) now"
    assert len(remarks.told("x" * 5000)) == remarks.MAX_TOLD_CHARS
    many = headers()
    for count in range(50):
        many.add("Warning", f'399 h "{count}"')
    assert remarks.reasons_of(many).count("Warning") == 3


def message(first_line: str, cseq: str = "1 INVITE", **extra: str) -> bytes:
    lines = [first_line, "Via: SIP/2.0/UDP h;branch=z9hG4bK1", "From: <sip:a@a>;tag=1", "To: <sip:b@b>;tag=2"]
    lines += ["Call-ID: c", f"CSeq: {cseq}", *(f"{name}: {value}" for name, value in extra.items())]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


INVITE = message("INVITE sip:b@b SIP/2.0")


def sent(time_s: float, actor: str, src: str, dst: str, data: bytes) -> SipEvent:
    return SipEvent(time_s, actor, "udp", src, dst, data)


def call(callee: str, status: str, *, first: str) -> list[SipEvent]:
    """An INVITE over both proxies to `callee`, and an answer that `first` gives."""
    refusal = message(f"SIP/2.0 {status}")
    events = [sent(1.0, "caller", CALLER, A, INVITE), sent(1.1, "proxy-a", A, B, INVITE)]
    challenge = message("SIP/2.0 407 Proxy Authentication Required")
    events.insert(1, sent(1.05, "proxy-a", A, CALLER, challenge))
    events += [sent(1.2, "proxy-b", B, callee, INVITE)] if first != "proxy-b early" else []
    events += [sent(1.3, "callee", CALLEE, B, refusal)] if first == "callee" else []
    return [*events, sent(1.4, "proxy-b", B, A, refusal), sent(1.5, "proxy-a", A, CALLER, refusal)]


def seen(events: list[Any], reason: str, **result: object) -> Outcome:
    given: list[Event] = [*events, ResultEvent(9.0, "caller", {"reason": reason, "established": False, **result})]
    return assess.seen(Evidence(SCENARIOS["authenticated"], "pcmu", None, given))


@pytest.mark.parametrize(
    ("callee", "status", "first", "who"),
    [
        (
            FOREIGN,
            "488 Not Acceptable Here",
            "foreign",
            f"The element at {FOREIGN}, to which Operator B's proxy had sent the call,",
        ),
        (CALLEE, "488 Not Acceptable Here", "callee", "The callee's telephone"),
        (
            FOREIGN,
            "480 Temporarily Unavailable: no telephone of the user can be reached",
            "proxy-b",
            "Operator B's proxy",
        ),
        (FOREIGN, "408 Request Timeout", "proxy-b", "Operator B's proxy"),
        (CALLEE, "437 Unsupported Credential", "proxy-b early", "Operator B's proxy"),
    ],
)
def test_the_party_that_refused_is_named(callee: str, status: str, first: str, who: str) -> None:
    outcome = seen(call(callee, status, first=first), status, status=int(status[:3]))
    assert outcome.sentence == f"{who} refused the call with {status}."


def test_remarks_are_part_of_the_sentence() -> None:
    remark = "the callee's SDP puts its media at 192.0.2.9:4000, and its telephone is at 127.0.0.7"
    outcome = seen([], "the other side hung up before the speech was over", status=200, remarks=[remark])
    assert outcome.sentence == f"The other side hung up before the speech was over. T{remark[1:]}."


def test_media_at_the_telephone_s_own_host_are_no_remark() -> None:
    assert remarks.media_elsewhere("caller", ("127.0.0.6", 4000), "127.0.0.6") == []
    assert remarks.media_elsewhere("caller", ("::1", 4000), "[::1]") == []
    (told,) = remarks.media_elsewhere("caller", ("127.0.0.9", 4000), "127.0.0.6")
    assert re.search(r"127\.0\.0\.9:4000.*127\.0\.0\.6", told)


def test_where_encryption_ends_is_told_if_a_certificate_names_an_element() -> None:
    assert remarks.encryption_end("callee", ()) == []
    (remark,) = remarks.encryption_end("callee", ["gateway.b.example"])
    assert remark.startswith("encryption ends at gateway.b.example, which answers for the callee")
