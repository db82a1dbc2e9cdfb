"""Calls that end otherwise than by a BYE after the speech: telephones in raw octets, over a real proxy."""

import re
from pathlib import Path

import pytest

from sip_testbed import answers
from sip_testbed.answers import UNANSWERED
from tests.sip_testbed.test_phones import CALLEE, Domain, TcpPhone, reported
from tests.sip_testbed.test_phones import domain as domain  # a fixture
from voice_dpki.sip.session_timer import Interval

SDP = "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\nm=audio 4000 RTP/AVP 0\r\n"
OK = "200 OK\r\nContent-Type: application/sdp"
CONTACT = f"<sip:{CALLEE}@127.0.0.1:9;transport=tcp;ob>"
LONG_S = 60.0
"""Longer than any test, so that nothing but what is tested ends a call."""


async def registered(domain: Domain) -> TcpPhone:
    phone = await domain.phone(TcpPhone)
    assert isinstance(phone, TcpPhone)
    await phone.register(CONTACT)
    return phone


def tag_of(message: str) -> str:
    return re.findall("(?m)^To: .*;tag=(\\w+)", message)[0]


async def test_an_answer_that_crosses_our_cancel_is_ended_and_not_taken(
    domain: Domain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is acknowledged and ended at once (RFC 3261 §13.2.2.4): no media, and no key is pinned."""
    monkeypatch.setattr(answers, "ANSWER_TIMEOUT_S", 0.1)
    phone = await registered(domain)

    async def answer(_target: str) -> None:
        invite = await phone.receive("INVITE ")
        phone.answer(invite, "180 Ringing", CONTACT)
        cancel = await phone.receive("CANCEL ")
        phone.answer(invite, OK, CONTACT, SDP)
        phone.answer(cancel, "200 OK")
        await phone.receive("ACK ")
        phone.answer(await phone.receive("BYE "), "200 OK")

    result = await reported(domain, tmp_path, answer, LONG_S)
    assert (result.established, result.status, result.reason) == (False, 200, UNANSWERED)
    assert (result.media, result.codec) == (None, None)


async def test_a_second_telephone_that_answers_is_acknowledged_and_ended(domain: Domain, tmp_path: Path) -> None:
    """Both answer at the same time, so both 200 reach the caller (RFC 3261 §13.2.2.4)."""
    phone = await registered(domain)
    tags: list[str] = []

    async def answer(_target: str) -> None:
        invite = await phone.receive("INVITE ")
        other = re.sub("(?m)^(To: .*)\r$", r"\1;tag=other\r", invite)
        phone.answer(invite, OK, CONTACT, SDP)
        phone.answer(other, OK, CONTACT, SDP)
        tags.extend([tag_of(await phone.receive("ACK ")) for _ in range(2)])
        bye = await phone.receive("BYE ")
        tags.append(tag_of(bye))
        phone.answer(bye, "200 OK")
        phone.hang_up(invite)
        await phone.receive("SIP/2.0 200 ")

    result = await reported(domain, tmp_path, answer, LONG_S)
    assert tags == ["phone", "other", "other"]
    assert result.status == 200
    assert str(result.reason).startswith("the other side hung up"), "the first call went on until then"


async def test_a_call_that_nobody_refreshes_ends_and_says_so(
    domain: Domain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other telephone was to refresh the session (RFC 4028 §10), and never does."""
    monkeypatch.setattr(Interval, "end_after_s", 0.5)
    phone = await registered(domain)
    byes: list[str] = []

    async def answer(_target: str) -> None:
        invite = await phone.receive("INVITE ")
        timed = f"{OK}\r\nRequire: timer\r\nSession-Expires: 90;refresher=uas"
        phone.answer(invite, timed, CONTACT, SDP)
        await phone.receive("ACK ")
        byes.append(await phone.receive("BYE "))
        phone.answer(byes[0], "200 OK")

    result = await reported(domain, tmp_path, answer, LONG_S)
    assert 'Reason: SIP;cause=408;text="the session was not refreshed (RFC 4028)"' in byes[0]
    assert result.established is False
    assert str(result.reason).startswith("this telephone hung up before ")
    assert str(result.reason).endswith("(Reason: the session was not refreshed (RFC 4028))")
