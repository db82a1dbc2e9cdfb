"""The proxy core's ways: where each request of a dialog goes, and what follows an answer, an error or a silence."""

import re
from collections.abc import Callable

import pytest
from sipmessage import URI, Response

from tests.sip.proxy_bench import CALLEE, CALLER, OWN, Bench
from voice_dpki.effects import Random
from voice_dpki.sip.message import Hop, copy_request, encode, header_values, set_header_values

RequestText = Callable[..., bytes]

FLOW = Hop("tcp", "203.0.113.9", 40_001, flow=3)
"""A telephone's connection."""


@pytest.fixture
def bench(random: Random) -> Bench:
    return Bench(random)


@pytest.fixture
def called(bench: Bench, request_text: RequestText) -> Bench:
    """A proxy that has forwarded an INVITE."""
    bench.receive(request_text())
    bench.forward()
    return bench


def routes_of(bench: Bench) -> str:
    """The Route values by which the caller reaches the callee."""
    return ", ".join(reversed(header_values(bench.last_request(), "Record-Route")))


def test_what_is_forwarded_is_a_copy_with_one_hop_less(bench: Bench, request_text: RequestText) -> None:
    for number, (before, after) in enumerate([("70", "69"), ("1", "0"), ("0", "0")]):
        bench.receive(request_text("OPTIONS", branch=f"z9hG4bK{number}"))
        arrival = bench.arrivals[-1]
        arrival.request.headers.set("Max-Forwards", before)
        bench.core.forward(arrival.key, arrival.request, CALLEE, bench.now_s)
        bench.pump()
        assert arrival.request.headers["Max-Forwards"] == before
        assert bench.last_request().headers["Max-Forwards"] == after


@pytest.mark.parametrize(("line", "after"), [(b"", "69"), (b"Max-Forwards: 255\r\n", "254")])
def test_a_request_without_max_forwards_has_70(
    bench: Bench, request_text: RequestText, line: bytes, after: str
) -> None:
    bench.receive(request_text().replace(b"Max-Forwards: 70\r\n", line))
    bench.forward()
    assert bench.last_request().headers["Max-Forwards"] == after


STATELESS = {400, 401, 403, 404, 405, 407, 416, 420, 428, 480, 481, 482, 483, 501}


@pytest.mark.parametrize(
    "status", [*sorted(STATELESS), 399, 402, 406, 408, 415, 417, 419, 421, 427, 429, 479, 484, 500, 502]
)
def test_a_refusal_that_can_be_said_again_leaves_no_state(
    bench: Bench, request_text: RequestText, status: int
) -> None:
    bench.receive(request_text())
    bench.core.answer(bench.arrivals[-1].key, status, None, bench.now_s)
    bench.pump()
    assert bench.names() == [str(status)]
    assert (len(bench.layer) == 0) is (status in STATELESS)


def test_a_request_is_forwarded_once(called: Bench) -> None:
    called.forward()
    assert called.names() == ["100", "INVITE"]


def test_a_tel_uri_needs_no_tls(bench: Bench, request_text: RequestText) -> None:
    bench.receive(request_text(uri="tel:+442079460123"))
    bench.forward()
    assert bench.names() == ["100", "INVITE"]


def test_a_scheme_that_no_proxy_knows_is_refused(bench: Bench, request_text: RequestText) -> None:
    """The transaction layer refuses it first; the core does not rely on that."""
    bench.layer.receive(request_text(), CALLER, bench.now_s)
    (event,) = bench.layer.take_events()
    event.request.uri = URI("urn", "service")  # type: ignore[union-attr]
    assert bench.core.handle(event, bench.now_s) is None
    bench.pump()
    assert bench.names() == ["416"]


def test_the_next_hop_is_the_first_route_beyond_this_proxy(called: Bench, request_text: RequestText) -> None:
    called.answer(200)
    headers = f"Route: {routes_of(called)}, <sip:127.0.0.8;lr>, <sip:127.0.0.9;lr>\r\n"
    called.receive(
        request_text("BYE", f"sip:{CALLEE.address}", branch="z9hG4bKb", to_tag="callee", headers=headers)
    )
    assert str(called.sent[-1].hop) == "udp:127.0.0.8:5060"
    assert header_values(called.last_request(), "Route") == ["<sip:127.0.0.8;lr>", "<sip:127.0.0.9;lr>"]


@pytest.mark.parametrize(
    ("target", "beyond", "hop"),
    [
        ("sip:phone.example", "", "udp:127.0.0.9:5060"),
        ("sip:127.0.0.7:5070", "", "udp:127.0.0.7:5070"),
        ("sip:nobody.example", "", None),
        ("sip:127.0.0.7:5070", ", <sip:phone.example;lr>", None),
    ],
)
def test_names_are_resolved_for_the_target_alone(
    random: Random, request_text: RequestText, target: str, beyond: str, hop: str | None
) -> None:
    known = {"phone.example": Hop("udp", "127.0.0.9", 5060)}
    bench = Bench(random, resolve=lambda uri: known.get(uri.host))
    bench.receive(request_text())
    bench.forward()
    bench.answer(200)
    headers = f"Route: {routes_of(bench)}{beyond}\r\n"
    bench.receive(request_text("BYE", target, branch="z9hG4bKb", to_tag="callee", headers=headers))
    if hop is None:
        assert bench.names()[-1] == "404"
        assert "next hop of this dialog is no known address" in bench.messages()[-1].phrase  # type: ignore[union-attr]
    else:
        assert (bench.names()[-1], str(bench.sent[-1].hop)) == ("BYE", hop)


@pytest.mark.parametrize(
    ("flow", "target", "fallback"),
    [
        (FLOW, "sip:x@192.168.0.7:5060;transport=tcp", "tcp:192.168.0.7:5060"),
        (FLOW, "sip:x@192.168.0.7:5060;transport=tcp;ob", None),
        (FLOW, "sip:x@192.168.0.7:5060", None),
        (FLOW, "sip:x@phone.invalid;transport=tcp", None),
        (Hop("udp", "203.0.113.9", 40_001, flow=0), "sip:x@192.168.0.7:5060", None),
    ],
)
def test_a_request_leaves_its_flow_only_for_the_address_that_the_telephone_names(
    bench: Bench, request_text: RequestText, flow: Hop, target: str, fallback: str | None
) -> None:
    bench.receive(request_text())
    bench.forward(hop=flow)
    bench.answer(200)
    headers = f"Route: {routes_of(bench)}\r\n"
    bench.receive(request_text("BYE", target, branch="z9hG4bKb", to_tag="callee", headers=headers))
    sent = bench.sent[-1]
    assert (bench.names()[-1], sent.hop, sent.hop.flow) == ("BYE", flow, flow.flow)
    assert sent.fallback == (Hop.parse(fallback) if fallback else None)


@pytest.mark.parametrize(
    ("transport", "value"),
    [
        ("udp", r"<sip:127\.0\.0\.2:5060;lr;call=[A-Za-z0-9_-]{16}>"),
        ("tcp", r"<sip:127\.0\.0\.2:5060;lr;call=[A-Za-z0-9_-]{16};transport=tcp>"),
        ("tls", r"<sips:127\.0\.0\.2:5061;lr;call=[A-Za-z0-9_-]{16}>"),
    ],
)
def test_each_side_is_recorded_with_its_transport(
    random: Random, request_text: RequestText, transport: str, value: str
) -> None:
    bench = Bench(random)
    bench.layer.tls_sent_by = "127.0.0.2:5061"
    bench.receive(request_text(transport=transport.upper()), Hop(transport, CALLER.host, 4444))
    bench.forward(hop=Hop(transport, CALLEE.host, 5060))
    (record,) = header_values(bench.last_request(), "Record-Route")
    assert re.fullmatch(value, record)


def test_a_spiral_is_no_loop(called: Bench) -> None:
    """RFC 5393: a request may come back, if it then goes elsewhere."""
    spiral = called.last_request()
    spiral.uri = URI("sip", "c.example", "+442079460999")
    spiral.headers.remove("Record-Route")
    set_header_values(spiral, "Via", ["SIP/2.0/UDP 127.0.0.9:5060;branch=z9hG4bK9", *header_values(spiral, "Via")])
    called.receive(encode(spiral), Hop("udp", "127.0.0.9", 5060))
    assert len(called.arrivals) == 2
    same = copy_request(called.messages()[1])  # type: ignore[arg-type]
    same.headers.remove("Record-Route")
    for branch in ("z9hG4bKa", "z9hG4bKb"):  # a loop that does not begin at our Via is another proxy's to find
        theirs = [f"SIP/2.0/UDP 127.0.0.9:5060;branch={branch}.{header_values(same, 'Via')[0].rpartition('.')[2]}"]
        set_header_values(same, "Via", theirs)
        called.receive(encode(same), Hop("udp", "127.0.0.9", 5060))
    assert len(called.arrivals) == 4


@pytest.mark.parametrize(
    ("scheme", "hop", "sent"),
    [("sip", CALLEE, True), ("sips", CALLEE, False), ("sips", Hop("tls", CALLEE.host, 5061), True)],
)
def test_an_ack_of_a_sips_dialog_goes_over_tls_alone(
    called: Bench, request_text: RequestText, scheme: str, hop: Hop, sent: bool
) -> None:
    called.answer(200)
    before = len(called.sent)
    headers = f"Route: {routes_of(called)}, <sip:{hop.address};transport={hop.transport};lr>\r\n"
    text = request_text("ACK", f"{scheme}:x@127.0.0.7", branch="z9hG4bKa", to_tag="callee", headers=headers)
    called.receive(text, Hop("tls", CALLER.host, 5061))
    assert [outgoing.hop for outgoing in called.sent[before:]] == ([hop] if sent else [])


def test_an_ack_that_cannot_be_read_or_comes_back_is_dropped(called: Bench, request_text: RequestText) -> None:
    called.answer(200)
    before = len(called.sent)
    for headers in ("Route: nonsense\r\n", f"Route: {routes_of(called)}\r\n"):
        called.receive(
            request_text("ACK", f"sip:{OWN.address}", branch="z9hG4bKa", to_tag="callee", headers=headers)
        )
    assert called.sent[before:] == []


def test_a_cancel_of_a_call_that_the_core_has_forgotten_is_told_so(bench: Bench, request_text: RequestText) -> None:
    bench.layer.receive(request_text(), CALLER, bench.now_s)
    bench.layer.take_events()
    bench.receive(request_text("CANCEL"))
    assert bench.names() == ["481"]


def test_the_owner_hears_of_each_final_answer_once(random: Random, request_text: RequestText) -> None:
    heard: list[tuple[str, int]] = []
    bench = Bench(random, on_answer=lambda method, status: heard.append((method, status)))
    bench.receive(request_text())
    bench.forward()
    for status in (100, 180, 199):
        bench.answer(status)
    assert heard == []
    for _ in range(2):
        bench.answer(200)
    assert heard == [("INVITE", 200)]
    assert bench.names()[2:] == ["180", "199", "200", "200"]
    bench.receive(request_text("OPTIONS", branch="z9hG4bKo"))
    bench.core.answer(bench.arrivals[-1].key, 404, None, bench.now_s)
    assert heard == [("INVITE", 200), ("OPTIONS", 404)]


@pytest.mark.parametrize(("status", "forwarded"), [(500, 500), (502, 502), (503, 500), (504, 504), (603, 603)])
def test_a_failure_of_the_next_hop_goes_back(
    random: Random, request_text: RequestText, status: int, forwarded: int
) -> None:
    changed: list[int] = []

    def change(response: Response) -> None:
        changed.append(response.code)

    bench = Bench(random, change_response=change)
    bench.receive(request_text())
    bench.forward()
    bench.answer(status)
    assert bench.names()[2:] == ["ACK", str(forwarded)]
    assert changed == ([status] if status == forwarded else [])


def last_key(bench: Bench, method: str) -> str:
    """The key of the transaction by which the last request of a method was forwarded."""
    sent = reversed(list(zip(bench.names(), bench.sent, strict=True)))
    return next(outgoing.key for name, outgoing in sent if name == method and outgoing.key)


def break_transport(bench: Bench, method: str = "INVITE") -> None:
    bench.layer.transport_failed(last_key(bench, method), bench.now_s)  # type: ignore[arg-type]
    bench.pump()


def test_a_flow_that_breaks_is_430(bench: Bench, request_text: RequestText) -> None:
    """The owner is asked for another way only as long as nothing has come over the flow."""
    bench.receive(request_text())
    bench.forward(hop=FLOW)
    break_transport(bench)
    assert bench.names()[-1] == "430"
    bench.receive(request_text("MESSAGE", branch="z9hG4bKm"))
    bench.forward(hop=FLOW, otherwise=lambda is_gone: pytest.fail("the telephone has answered"))
    bench.answer(100)
    break_transport(bench, "MESSAGE")
    assert bench.names()[-1] == "430"


def test_a_refusal_after_a_request_was_forwarded_is_kept(bench: Bench, request_text: RequestText) -> None:
    """A MESSAGE has no 100, so its sender asks again, and must hear the same."""
    bench.receive(request_text("MESSAGE"))
    key = bench.arrivals[-1].key
    bench.forward(otherwise=lambda is_gone: bench.core.answer(key, 480, None, bench.now_s))
    break_transport(bench, "MESSAGE")
    bench.receive(request_text("MESSAGE"))
    assert bench.names() == ["MESSAGE", "480", "480"]
    assert len(bench.arrivals) == 1


def test_after_an_error_of_our_own_nothing_more_is_said(called: Bench, request_text: RequestText) -> None:
    key = called.arrivals[-1].key
    called.core.fail(key, called.now_s)
    called.core.answer(key, 404, None, called.now_s)
    called.core.forward(key, called.arrivals[-1].request, CALLEE, called.now_s)
    called.pump()
    assert [name for name in called.names() if name not in ("100", "INVITE")] == ["500"]
    break_transport(called)
    called.advance(100)
    assert set(called.names()[3:]) <= {"500"}


def test_an_own_answer_that_nobody_acknowledges_ends_the_other_side(
    called: Bench, request_text: RequestText
) -> None:
    called.answer(180)
    called.core.answer(called.arrivals[-1].key, 500, None, called.now_s)
    called.pump()
    assert "CANCEL" not in called.names()
    called.advance(33)
    assert "CANCEL" in called.names()


def test_what_the_other_side_does_after_the_callers_has_ended_concerns_nobody(
    called: Bench, request_text: RequestText
) -> None:
    called.answer(180)
    called.core.answer(called.arrivals[-1].key, 500, None, called.now_s)
    called.pump()
    to_tag = called.messages()[-1].headers["To"].partition("tag=")[2]
    called.receive(request_text("ACK", to_tag=to_tag))
    called.advance(10)
    assert called.core._contexts == {}
    before = called.names()
    called.answer(200)
    break_transport(called)
    assert called.names() == before
