"""Session timers: what both ends say and hear (RFC 4028)."""

from collections.abc import Callable

import pytest
from sipmessage import Request, Response

from voice_dpki.sip.message import make_response, parse_message
from voice_dpki.sip.session_timer import Interval, SessionTimer
from voice_dpki.sip.uas import RequestRefusedError, check_request

RequestText = Callable[..., bytes]


@pytest.fixture
def invite(request_text: RequestText) -> Callable[[str], Request]:
    def make(headers: str = "") -> Request:
        request = parse_message(request_text(headers=headers))
        assert isinstance(request, Request)
        return request

    return make


def ok(request: Request, *headers: tuple[str, str], status: int = 200) -> Response:
    return make_response(request, status, to_tag="b", headers=headers)


@pytest.mark.parametrize(
    ("headers", "answered", "ours"),
    [
        ("Supported: timer\r\nSession-Expires: 1800\r\n", "1800;refresher=uac", False),
        ("Supported: timer\r\nSession-Expires: 1800;refresher=uac\r\n", "1800;refresher=uac", False),
        ("Supported: timer\r\nSession-Expires: 1800 ; refresher=uas\r\n", "1800;refresher=uas", True),
        ("Session-Expires: 1800\r\n", "1800;refresher=uas", True),  # a proxy asked for it
        ("Session-Expires: 30\r\n", "90;refresher=uas", True),
        ("x: 120;refresher=uas\r\nSupported: 100rel, timer\r\n", "120;refresher=uas", True),
    ],
)
def test_answers_by_table_2(invite: Callable[[str], Request], headers: str, answered: str, ours: bool) -> None:
    timer, request = SessionTimer(), invite(headers)
    check_request(request, ["INVITE"])
    told = dict(timer.answer_headers(request))
    assert (told["Session-Expires"], told.get("Require")) == (answered, "timer" if "Supported" in headers else None)
    assert timer.interval == Interval(int(answered.partition(";")[0]), ours)


def test_who_asks_for_no_timer_gets_none(invite: Callable[[str], Request]) -> None:
    timer = SessionTimer()
    assert timer.answer_headers(invite("Supported: timer\r\n")) == (("Supported", "timer"),)
    assert timer.interval is None


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ("Supported: timer\r\nSession-Expires: 89\r\n", 422),
        ("Supported: timer\r\nSession-Expires: 90\r\n", None),
        ("Session-Expires: 89\r\n", None),
        ("Session-Expires: soon\r\n", 400),
        ("Session-Expires: 1800;refresher=proxy\r\n", 400),
        ("Session-Expires: 1800, 90\r\n", 400),
        ("Session-Expires: 2147483647\r\n", None),
        ("Session-Expires: 2147483648\r\n", 400),
        ("Require: timer\r\n", None),
        ("Require: timer, preconditions\r\n", 420),
    ],
)
def test_what_is_refused(invite: Callable[[str], Request], headers: str, status: int | None) -> None:
    if status is None:
        check_request(invite(headers), ["INVITE"])
        return
    with pytest.raises(RequestRefusedError) as refused:
        check_request(invite(headers), ["INVITE"])
    assert refused.value.status == status
    named = {422: (("Min-SE", "90"),), 420: (("Unsupported", "preconditions"),), 400: ()}[status]
    assert refused.value.headers == named


@pytest.mark.parametrize(
    ("headers", "wanted_s", "interval"),
    [
        ([("Session-Expires", "600;refresher=uac"), ("Require", "timer")], None, Interval(600, True)),
        ([("Session-Expires", "600;refresher=uas"), ("Supported", "timer")], 1800, Interval(600, False)),
        ([("Session-Expires", "1;refresher=uac")], None, Interval(90, True)),
        ([], 1800, Interval(1800, True)),  # the other side does not know timers, and we wanted one
        ([("Supported", "timer")], 1800, None),
        ([], None, None),
        ([("Session-Expires", "soon")], 1800, None),
    ],
)
def test_answers_that_are_taken(
    invite: Callable[[str], Request],
    headers: list[tuple[str, str]],
    wanted_s: int | None,
    interval: Interval | None,
) -> None:
    timer = SessionTimer(wanted_s)
    timer.take_answer(ok(invite(""), *headers))
    assert timer.interval == interval


def test_a_422_is_followed_once_for_each_longer_interval(invite: Callable[[str], Request]) -> None:
    timer = SessionTimer(120)
    assert dict(timer.request_headers()) == {"Supported": "timer", "Session-Expires": "120"}
    refusal = ok(invite(""), ("Min-SE", "300"), status=422)
    assert timer.take_refusal(refusal)
    told = {"Supported": "timer", "Session-Expires": "300", "Min-SE": "300"}
    assert dict(timer.request_headers()) == told
    assert not timer.take_refusal(refusal)
    assert not timer.take_refusal(ok(invite(""), status=422))
    assert not timer.take_refusal(ok(invite(""), ("Min-SE", "900"), status=488))


def test_the_refresher_stays_who_it_is(invite: Callable[[str], Request]) -> None:
    timer = SessionTimer()
    for refresher in ("uac", "uas"):
        timer.take_answer(ok(invite(""), ("Session-Expires", f"600;refresher={refresher}")))
        assert dict(timer.request_headers())["Session-Expires"] == f"600;refresher={refresher}"
    timer.answer_headers(invite("Supported: timer\r\nSession-Expires: 400;refresher=uas\r\nMin-SE: 500\r\n"))
    told = {"Supported": "timer", "Session-Expires": "500;refresher=uac", "Min-SE": "500"}
    assert dict(timer.request_headers()) == told


@pytest.mark.parametrize(("seconds", "refresh_s", "end_s"), [(90, 45, 60), (1800, 900, 1768), (96, 48, 64)])
def test_times(seconds: int, refresh_s: float, end_s: float) -> None:
    """RFC 4028 §10: half the interval, and min(32, a third) before its end."""
    interval = Interval(seconds, True)
    assert (interval.refresh_after_s, interval.end_after_s) == (refresh_s, end_s)
