"""The proxy core: what it forwards, in which form, and what it refuses (RFC 3261 §16)."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sipmessage import Response

from tests.sip.proxy_bench import CALLEE, CALLER, OWN, STRANGER, Bench
from voice_dpki.effects import Random
from voice_dpki.sip.machines import Timers
from voice_dpki.sip.message import (
    Hop,
    copy_request,
    encode,
    header_values,
    make_response,
    set_header_values,
)
from voice_dpki.sip.proxy import ProxyCore
from voice_dpki.sip.transaction import TransactionLayer

RequestText = Callable[..., bytes]


@pytest.fixture
def bench(random: Random) -> Bench:
    return Bench(random)


@pytest.fixture
def called(bench: Bench, request_text: RequestText) -> Bench:
    """A proxy that has forwarded an INVITE."""
    bench.receive(request_text())
    bench.forward()
    return bench


def route_of(bench: Bench) -> str:
    """The Route value that both ends get from the proxy's Record-Route."""
    return header_values(bench.last_request(), "Record-Route")[0]


def test_an_invite_is_tried_recorded_and_forwarded_once(called: Bench, request_text: RequestText) -> None:
    called.receive(request_text())
    assert called.names() == ["100", "INVITE", "100"]
    assert len(called.arrivals) == 1
    invite = called.last_request()
    vias = header_values(invite, "Via")
    assert vias[0].startswith("SIP/2.0/UDP 127.0.0.2:5060;branch=z9hG4bK")
    assert vias[1].startswith("SIP/2.0/UDP 127.0.0.6:5060;branch=z9hG4bKone")
    assert invite.headers["Max-Forwards"] == "69"
    assert route_of(called).startswith("<sip:127.0.0.2:5060;lr;call=")
    assert called.sent[1].hop == CALLEE


def test_both_sides_of_the_proxy_are_recorded_where_their_transports_differ(
    bench: Bench, request_text: RequestText
) -> None:
    bench.receive(request_text(transport="TCP"), Hop("tcp", "127.0.0.6", 40000))
    bench.forward()
    outside, inside = header_values(bench.last_request(), "Record-Route")
    assert "transport" not in outside
    assert inside.endswith(";transport=tcp>")
    bench.answer(200)
    routes = f"Route: {inside}, {outside}\r\n"
    bench.receive(request_text("BYE", f"sip:{CALLEE.address}", branch="z9hG4bKb", to_tag="callee", headers=routes))
    assert header_values(bench.last_request(), "Route") == []
    assert bench.last_request().method == "BYE"


def test_responses_go_back_without_our_via_and_trying_does_not(called: Bench) -> None:
    for status in (100, 180, 200, 200):
        called.answer(status)
    assert called.names()[2:] == ["180", "200", "200"]
    ok = called.messages()[-1]
    assert [via.split(";")[0] for via in header_values(ok, "Via")] == ["SIP/2.0/UDP 127.0.0.6:5060"]
    assert called.sent[-1].hop == CALLER


def test_a_failure_is_acknowledged_here_and_forwarded(called: Bench, request_text: RequestText) -> None:
    called.answer(486)
    assert called.names()[2:] == ["ACK", "486"]
    called.receive(request_text("ACK", to_tag="callee"))
    assert called.names()[4:] == []


def test_a_503_of_the_next_hop_is_not_ours(called: Bench) -> None:
    called.answer(503)
    assert called.names()[2:] == ["ACK", "500"]


def test_requests_of_the_dialog_need_no_decision(called: Bench, request_text: RequestText) -> None:
    called.answer(200)
    route = f"Route: {route_of(called)}\r\n"
    called.receive(request_text("ACK", f"sip:{CALLEE.address}", branch="z9hG4bKa", to_tag="callee", headers=route))
    called.receive(
        request_text("BYE", f"sip:{CALLEE.address}", branch="z9hG4bKb", to_tag="callee", sequence=2, headers=route)
    )
    assert called.names()[-2:] == ["ACK", "BYE"]
    for request, outgoing in list(zip(called.messages(), called.sent, strict=True))[-2:]:
        assert header_values(request, "Route") == []
        assert header_values(request, "Record-Route") == []
        assert outgoing.hop == CALLEE
    called.answer(200)
    assert called.names()[-1] == "200"
    assert len(called.arrivals) == 1


def test_nobody_else_is_relayed_for(called: Bench, request_text: RequestText) -> None:
    called.answer(200)
    sent = len(called.sent)
    stranger = f"Route: {route_of(called)}\r\n"
    bare = "Route: <sip:127.0.0.2:5060;lr>\r\n"
    forged = "Route: <sip:127.0.0.2:5060;lr;call=AAAAAAAAAAAAAAAA>\r\n"
    for number, (headers, call_id) in enumerate(
        ((stranger, "other"), (bare, "call-1"), (forged, "call-1"), ("", "call-1"))
    ):
        text = request_text(
            "BYE", "sip:127.0.0.99", branch=f"z9hG4bK{number}", to_tag="x", call_id=call_id, headers=headers
        )
        called.receive(text)
        called.receive(text.replace(b"BYE", b"ACK").replace(b"z9hG4bK", b"z9hG4bKack"))
    assert called.names()[sent:] == ["481"] * 4
    called.receive(request_text("INVITE", branch="z9hG4bKi", headers="Route: <sip:127.0.0.99;lr>\r\n"))
    assert called.names()[-1] == "403"
    assert len(called.arrivals) == 1


ASSERTED = "P-Asserted-Identity: <sip:+442079460123;verstat=TN-Validation-Passed@a.example>\r\n"


@pytest.mark.parametrize(
    ("from_tag", "to_tag", "answer"),
    [("caller", "", None), ("other", "", None), ("other", "callee", "481"), ("callee", "other", "481")],
)
def test_the_token_of_one_call_opens_no_way_for_another(
    called: Bench, request_text: RequestText, from_tag: str, to_tag: str, answer: str | None
) -> None:
    """Without a To tag it is a new call, which the proxy's owner has to verify; with others it is none of here."""
    called.answer(200)
    sent = len(called.sent)
    headers = f"Route: {route_of(called)}\r\n{ASSERTED}"
    called.receive(
        request_text(branch="z9hG4bKs", from_tag=from_tag, to_tag=to_tag, sequence=7, headers=headers), STRANGER
    )
    assert called.names()[sent:] == ([answer] if answer else [])
    assert len(called.arrivals) == (1 if answer else 2)


@pytest.mark.parametrize("method", ["INVITE", "UPDATE", "ACK", "BYE"])
@pytest.mark.parametrize(("from_tag", "to_tag"), [("caller", "callee"), ("callee", "caller")])
def test_nobody_is_believed_within_a_dialog(
    called: Bench, request_text: RequestText, method: str, from_tag: str, to_tag: str
) -> None:
    """Both ends may send what belongs to the dialog, but not say who they are in the domain's place."""
    called.answer(200)
    headers = f"Route: {route_of(called)}\r\n{ASSERTED}{ASSERTED.replace('Asserted', 'Preferred')}"
    text = request_text(
        method, f"sip:{CALLEE.address}", branch="z9hG4bKs", from_tag=from_tag, to_tag=to_tag, headers=headers
    )
    called.receive(text.replace(b"5001@a.example>", b"5001;verstat=TN-Validation-Passed@a.example>"))
    request = called.last_request()
    assert (request.method, called.sent[-1].hop) == (method, CALLEE)
    assert b"verstat" not in encode(request)
    assert b"\r\nP-" not in encode(request)


def test_a_strict_router_before_us_is_understood(called: Bench, request_text: RequestText) -> None:
    called.answer(200)
    own = route_of(called).strip("<>")
    called.receive(
        request_text("BYE", own, branch="z9hG4bKb", to_tag="callee", headers=f"Route: <sip:{CALLEE.address}>\r\n")
    )
    bye = called.last_request()
    assert (bye.method, str(bye.uri)) == ("BYE", f"sip:{CALLEE.address}")


def test_a_telephone_that_has_our_parameter_in_its_contact_is_no_strict_router(
    called: Bench, request_text: RequestText
) -> None:
    called.answer(200)
    target = f"sip:{CALLEE.address};call=x"
    headers = f"Route: {route_of(called)}, <sip:127.0.0.9:5070;lr>\r\n"
    called.receive(request_text("BYE", target, branch="z9hG4bKb", to_tag="callee", headers=headers))
    assert str(called.last_request().uri) == target


def test_a_sips_request_goes_on_over_tls_alone(bench: Bench, request_text: RequestText) -> None:
    """RFC 5630 §5.3."""
    bench.receive(request_text().replace(b"INVITE sip:", b"INVITE sips:"), Hop("tls", CALLER.host, 5061))
    bench.forward()
    assert bench.names()[-1] == "480"
    (warning,) = header_values(bench.messages()[-1], "Warning")
    assert warning.endswith('"SIPS Not Allowed"')


@pytest.mark.parametrize("transport", ["tls", "tcp", "udp"])
def test_a_sips_request_falls_back_on_tls_alone(bench: Bench, request_text: RequestText, transport: str) -> None:
    """RFC 5630 §5.3, where the flow to the telephone is gone."""
    bench.receive(request_text().replace(b"INVITE sip:", b"INVITE sips:"), Hop("tls", CALLER.host, 5061))
    hop, other = Hop("tls", CALLEE.host, 40_001, flow=1), Hop(transport, CALLEE.host, 5061)
    arrival = bench.arrivals[-1]
    bench.core.forward(arrival.key, copy_request(arrival.request), hop, bench.now_s, fallback=other)
    bench.pump()
    assert (bench.names()[-1], bench.sent[-1].hop) == ("INVITE", hop)
    assert bench.sent[-1].fallback == (other if transport == "tls" else None)


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ((b"Max-Forwards: 70", b"Max-Forwards: 0"), "483"),
        ((b"Max-Forwards: 70", b"Max-Forwards: 256"), "400"),
        ((b"Max-Forwards: 70", b"Max-Forwards: -1"), "400"),
        ((b"Max-Forwards: 70", b"Max-Forwards: 70\r\nProxy-Require: magic"), "420"),
        ((b"INVITE sip:", b"INVITE sips:"), "416"),
        ((b"Max-Forwards: 70", b"Max-Forwards: 70\r\nRoute: nonsense"), "400"),
    ],
)
def test_what_no_proxy_forwards(
    bench: Bench, request_text: RequestText, change: tuple[bytes, bytes], status: str
) -> None:
    bench.receive(request_text().replace(*change))
    assert bench.names() == [status]
    assert bench.arrivals == []


def test_a_loop_is_found(called: Bench) -> None:
    looped = called.last_request()
    vias = header_values(looped, "Via")
    set_header_values(looped, "Via", ["SIP/2.0/UDP 127.0.0.9:5060;branch=z9hG4bKnine", *vias])
    looped.headers.remove("Record-Route")
    called.receive(encode(looped), Hop("udp", "127.0.0.9", 5060))
    assert called.names()[-1] == "482"


def test_a_cancel_is_answered_here_and_sent_on(called: Bench, request_text: RequestText) -> None:
    called.answer(180)
    called.receive(request_text("CANCEL", headers="Reason: SIP;cause=200\r\n"))
    assert called.names()[-2:] == ["200", "CANCEL"]
    assert called.messages()[-1].headers["Reason"] == "SIP;cause=200"
    called.answer(487)
    assert called.names()[-2:] == ["ACK", "487"]


def test_a_call_cancelled_before_it_was_decided_goes_nowhere(bench: Bench, request_text: RequestText) -> None:
    bench.receive(request_text())
    bench.receive(request_text("CANCEL"))
    assert bench.names() == ["200", "487"]
    bench.forward()
    bench.core.answer(bench.arrivals[0].key, 404, None, bench.now_s)
    bench.pump()
    assert bench.names() == ["200", "487"]


def test_a_cancel_of_nothing_is_told_so(bench: Bench, request_text: RequestText) -> None:
    bench.receive(request_text("CANCEL"))
    assert bench.names() == ["481"]


def test_silence_becomes_408_for_an_invite_and_nothing_for_others(called: Bench, request_text: RequestText) -> None:
    called.advance(33)
    assert called.names()[-1] == "408"
    called = Bench(called.core._random)
    called.receive(request_text("OPTIONS"))
    called.forward()
    called.advance(100)
    assert set(called.names()) == {"OPTIONS"}
    assert len(called.layer) == 0


def test_a_call_that_rings_for_ever_is_cancelled(called: Bench) -> None:
    called.answer(180)
    called.advance(Timers().c_s + 1)
    assert "CANCEL" in called.names()
    called.advance(33)
    assert called.names()[-1] == "408"


def test_a_call_that_is_said_to_ring_again_and_again_is_cancelled(called: Bench) -> None:
    """Each 180 begins timer C anew, but not for ever."""
    for _ in range(5):
        called.answer(180)
        called.advance(175)
    assert "CANCEL" not in called.names()
    called.answer(180)
    called.advance(30)
    assert "CANCEL" in called.names()
    called.advance(33)
    assert called.names()[-1] == "408"
    called.advance(100)
    assert len(called.layer) == 0


def test_a_next_hop_that_cannot_be_reached_becomes_500(called: Bench) -> None:
    key = called.sent[1].key
    assert key is not None
    called.layer.transport_failed(key, called.now_s)
    called.pump()
    assert called.names()[-1] == "500"


def test_an_error_of_our_own_on_the_callees_side_ends_the_whole_call(
    called: Bench, request_text: RequestText
) -> None:
    """The caller gets 500, the callee a CANCEL; what the callee then says concerns the caller no more."""
    key = called.sent[1].key
    assert key is not None
    called.core.fail(key, called.now_s)
    called.pump()
    assert (called.names()[-1], called.sent[-1].hop) == ("500", CALLER)
    called.receive(request_text("ACK"))
    called.advance(Timers().t4_s + 1)  # the caller's transaction is over
    before = len(called.sent)
    called.answer(180)
    called.answer(487)
    assert called.names()[before:] == ["CANCEL", "ACK"]
    assert {outgoing.hop for outgoing in called.sent[before:]} == {CALLEE}


def test_nothing_is_kept_when_all_is_over(called: Bench, request_text: RequestText) -> None:
    called.answer(200)
    called.answer(200)
    called.advance(100)
    assert len(called.layer) == 0
    assert (called.core._contexts, called.core._servers) == ({}, {})
    called.answer(200)
    assert called.names()[-1] == "200"
    assert len(called.sent) == 4


def test_a_response_on_its_way_back_can_be_changed(random: Random, request_text: RequestText) -> None:
    bench = Bench(random)
    bench.core = ProxyCore(
        bench.layer, secret=b"k", random=random, change_response=lambda r: r.headers.set("X-Seen", "1")
    )
    bench.receive(request_text())
    bench.forward()
    bench.answer(200)
    assert bench.messages()[-1].headers["X-Seen"] == "1"


def test_an_answer_can_be_held_and_passed_on_later(random: Random, request_text: RequestText) -> None:
    """Each 2xx is the owner's, retransmissions too; other responses are not, nor are those to other requests."""
    bench = Bench(random)
    bench.receive(request_text())
    arrival = bench.arrivals[0]
    bench.forward(holds_answer=True)
    bench.answer(180)
    assert bench.names()[-1] == "180"
    bench.answer(200)
    bench.answer(200)
    assert (bench.names()[-1], [answer.key for answer in bench.answers]) == ("180", [arrival.key] * 2)
    for answer in bench.answers:
        answer.response.headers.set("X-Seen", "1")
        bench.core.pass_answer(answer, bench.now_s)
        bench.pump()
    assert bench.names()[-2:] == ["200", "200"]
    assert bench.messages()[-1].headers["X-Seen"] == "1"
    bench.advance(100)
    bench.core.pass_answer(bench.answers[0], bench.now_s)
    bench.pump()
    assert len(bench.names()) == len(bench.sent)
    assert bench.core._contexts == {}


@pytest.mark.parametrize(("method", "status"), [("INVITE", 486), ("OPTIONS", 200)])
def test_what_is_no_answer_to_an_invite_is_not_held(
    random: Random, request_text: RequestText, method: str, status: int
) -> None:
    bench = Bench(random)
    bench.receive(request_text(method))
    bench.forward(holds_answer=True)
    bench.answer(status)
    assert (bench.names()[-1], bench.answers) == (str(status), [])


@given(st.data())
def test_no_message_breaks_a_proxy(
    make_random: Callable[[], Random], request_text: RequestText, data: st.DataObject
) -> None:
    """Whatever comes, in whatever order: the core raises nothing, sends messages, and in the end keeps nothing."""
    bench = Bench(make_random())
    bench.receive(request_text())
    bench.forward()
    route = f"Route: {route_of(bench)}\r\n"
    texts = [request_text(method, to_tag=tag, headers=h) for method in ("INVITE", "ACK", "CANCEL", "BYE", "OPTIONS")
             for tag in ("", "callee") for h in ("", route)]  # fmt: skip
    texts += [encode(make_response(bench.last_request(), status, to_tag="x")) for status in (100, 180, 200, 486)]
    for _ in range(data.draw(st.integers(1, 5))):
        text = data.draw(st.sampled_from(texts))
        at = data.draw(st.integers(0, len(text)))
        bench.receive(text[:at] + data.draw(st.binary(max_size=8)) + text[at + data.draw(st.integers(0, 8)) :])
        if data.draw(st.booleans()) and bench.arrivals:
            bench.forward()
        bench.advance(data.draw(st.sampled_from([0.0, 1.0, 40.0])))
    assert len(bench.messages()) == len(bench.sent)
    bench.advance(1000)
    left = (len(bench.layer), bench.core._contexts, bench.core._servers, bench.layer._shares.in_use)
    assert left == (0, {}, {}, 0)


# What strangers and broken peers do.

VECTORS = Path(__file__).parents[1] / "vectors/sip"


@pytest.mark.parametrize("method", ["INVITE", "OPTIONS"])
def test_a_max_forwards_of_thousands_of_digits_leaves_nothing_behind(bench: Bench, method: str) -> None:
    bench.receive((VECTORS / f"max-forwards-4401-digits-{method}.sip").read_bytes(), STRANGER)
    bench.core.answer(bench.arrivals[0].key, 404, None, bench.now_s)  # leading zeros do not count
    bench.forward()
    assert bench.names() == ["404"]
    assert (len(bench.layer), bench.core._contexts) == (0, {})


def test_options_that_the_proxy_answers_leave_nothing_behind(bench: Bench, request_text: RequestText) -> None:
    for number in range(100):
        bench.receive(request_text("OPTIONS", branch=f"z9hG4bK{number}"), STRANGER)
        bench.core.answer(bench.arrivals[-1].key, 200, None, bench.now_s)
        bench.pump()
    assert bench.names() == ["200"] * 100
    assert (len(bench.layer), bench.core._contexts, bench.layer._shares.in_use) == (0, {}, 0)


def test_options_that_come_again_get_the_same_answer(bench: Bench, request_text: RequestText) -> None:
    for _ in range(2):
        bench.receive(request_text("OPTIONS"), STRANGER)
        bench.core.answer(bench.arrivals[-1].key, 200, None, bench.now_s)
        bench.pump()
    first, again = bench.messages()
    assert encode(first) == encode(again)


@pytest.mark.parametrize("value", ["1" * 4401, "256", "-1", "+70", "\u0667", "7 0", "0x10"])
def test_no_number_but_a_number_counts(bench: Bench, request_text: RequestText, value: str) -> None:
    bench.receive(request_text().replace(b"Max-Forwards: 70", f"Max-Forwards: {value}".encode()))
    bench.receive(request_text(branch="z9hG4bKc").replace(b"CSeq: 1 ", f"CSeq: {value}9999999999 ".encode()))
    bench.receive(request_text(branch="z9hG4bKl").replace(b"Length: 0", f"Length: {value}".encode()))
    assert bench.names() == ["400"] * 3
    assert len(bench.layer) == 0


@pytest.mark.parametrize("status", [200, 302, 486, 603])
@pytest.mark.parametrize(
    "below",
    [
        [],
        ["SIP/2.0/UDP 127.0.0.6:5060;branch=z9hG4bKother"],
        ["SIP/2.0/UDP 127.0.0.6:5060;branch=z9hG4bKa"],
        ["SIP/2.0/UDP 127.0.0.5:5060;branch=z9hG4bKone"],
        ["nonsense"],
    ],
)
def test_a_final_response_that_lost_its_way_back_ends_the_callers_wait(
    called: Bench, status: int, below: list[str]
) -> None:
    for code in (180, 199, status):
        response = make_response(called.last_request(), code, to_tag="callee")
        set_header_values(response, "Via", [header_values(response, "Via")[0], *below])
        called.receive(encode(response), CALLEE)
    assert called.names()[-1] == "502"
    assert not {"180", "199"} & set(called.names())
    called.advance(100)
    assert (len(called.layer), called.core._contexts, called.core._servers) == (0, {}, {})


def test_a_next_hop_that_says_trying_for_ever_is_given_up(called: Bench) -> None:
    for _ in range(100):
        called.answer(100)
        called.advance(10)
    assert called.names()[-1] == "408"
    assert len(called.layer) == 0


def test_a_response_goes_to_the_sender_whatever_its_via_says(bench: Bench) -> None:
    bench.receive((VECTORS / "reflect-received.sip").read_bytes(), STRANGER)
    bench.forward()
    bench.core.answer(bench.arrivals[0].key, 486, None, bench.now_s)
    bench.pump()
    bench.receive((VECTORS / "refusal-to-via-host.sip").read_bytes(), STRANGER)
    bench.receive(b"NONSENSE\r\nVia: SIP/2.0/UDP 127.0.0.99;received=127.0.0.98;rport=7\r\n\r\n", STRANGER)
    bench.advance(100)
    hosts = {outgoing.hop.host for outgoing in bench.sent if outgoing.data.startswith(b"SIP/2.0")}
    assert hosts == {STRANGER.host}
    assert "400" in bench.names()
    for message, outgoing in zip(bench.messages(), bench.sent, strict=True):
        if isinstance(message, Response) and message.code == 400:
            assert outgoing.hop == STRANGER  # its Via has rport
            assert "received=127.0.0.50" in header_values(message, "Via")[0]


@pytest.mark.parametrize(
    ("via", "port", "stamped"),
    [
        ("127.0.0.99:7000;branch=z9hG4bKx", 7000, "127.0.0.99:7000;branch=z9hG4bKx;received=127.0.0.50"),
        ("127.0.0.50;branch=z9hG4bKx;received=127.0.0.99", 5060, "127.0.0.50;branch=z9hG4bKx"),
        (
            "127.0.0.50 ; Received = 127.0.0.99 ;RPORT=9;branch=z9hG4bKx;rport",
            53989,
            "127.0.0.50 ;rport=53989;branch=z9hG4bKx;received=127.0.0.50",
        ),
        (
            '127.0.0.50;x="a;received=127.0.0.1;\\"";maddr=127.0.0.99;ttl=9;branch=z9hG4bKx',
            5060,
            '127.0.0.50;x="a;received=127.0.0.1;\\"";maddr=127.0.0.99;ttl=9;branch=z9hG4bKx',
        ),
    ],
)
def test_received_and_rport_are_the_receivers_to_write(
    bench: Bench, request_text: RequestText, via: str, port: int, stamped: str
) -> None:
    text = request_text("OPTIONS", "sip:c.example").replace(b"127.0.0.6:5060;branch=z9hG4bKone", via.encode())
    for data in (text, text.replace(b"CSeq: 1 OPTIONS", b"CSeq: 1 INVITE")):  # answered, and refused unread
        bench.receive(data, STRANGER)
        if bench.arrivals:
            bench.core.answer(bench.arrivals.pop().key, 404, None, bench.now_s)
            bench.pump()
        assert bench.sent[-1].hop == Hop("udp", STRANGER.host, port)
        assert bench.messages()[-1].headers["Via"] == f"SIP/2.0/UDP {stamped}"


def test_what_costs_nothing_to_say_again_leaves_no_state(bench: Bench, request_text: RequestText) -> None:
    """RFC 3261 §26.3.2.4: whoever repeats a request without credentials is challenged again, each time alike."""
    for _ in range(3):
        bench.receive(request_text())
        bench.core.answer(bench.arrivals[-1].key, 407, None, bench.now_s, (("Proxy-Authenticate", "x"),))
        bench.pump()
        assert (len(bench.layer), bench.core._contexts) == (0, {})
    bench.receive(request_text("ACK", to_tag=bench.messages()[-1].headers["To"].partition("tag=")[2]))
    bench.advance(100)
    assert bench.names() == ["407"] * 3
    assert len({message.headers["To"] for message in bench.messages()}) == 1


@pytest.mark.parametrize("header", ["", "Authorization: Digest junk\r\n", "Proxy-Authorization: Digest junk\r\n"])
@pytest.mark.parametrize("status", [404, 428, 480])
def test_a_stranger_s_request_leaves_no_state_whatever_it_claims(
    bench: Bench, request_text: RequestText, status: int, header: str
) -> None:
    bench.receive(request_text(headers=header))
    bench.core.answer(bench.arrivals[-1].key, status, None, bench.now_s)
    bench.pump()
    assert (bench.names(), len(bench.layer), bench.core._contexts) == ([str(status)], 0, {})


def test_a_480_after_the_next_hop_was_tried_is_kept(bench: Bench, request_text: RequestText) -> None:
    """The client has 100, and asks no more."""
    bench.receive(request_text())
    arrival = bench.arrivals[-1]

    def otherwise(is_gone: bool) -> None:
        bench.core.answer(arrival.key, 480, None, bench.now_s)

    bench.core.forward(arrival.key, arrival.request, CALLEE, bench.now_s, otherwise=otherwise)
    bench.pump()
    key = bench.sent[-1].key
    assert key is not None
    bench.layer.transport_failed(key, bench.now_s)
    bench.pump()
    assert bench.names() == ["100", "INVITE", "480"]
    bench.receive(request_text())
    assert bench.names()[3:] == ["480"]
    assert len(bench.arrivals) == 1


def test_a_refusal_is_kept_where_the_client_would_not_ask_again(bench: Bench, request_text: RequestText) -> None:
    bench.receive(request_text())
    bench.advance(0.3)  # 100 has gone out: the client repeats nothing any more
    bench.core.answer(bench.arrivals[-1].key, 404, None, bench.now_s)
    bench.receive(request_text(branch="z9hG4bKtwo", headers="Proxy-Authorization: Digest x\r\n"))
    bench.core.authenticated(bench.arrivals[-1].key)
    bench.core.answer(bench.arrivals[-1].key, 404, None, bench.now_s)
    bench.pump()
    assert len(bench.layer) == 2
    bench.advance(100)
    assert bench.names().count("404") > 4
    assert len(bench.layer) == 0


def test_a_call_that_has_no_room_to_go_on_gets_503(random: Random, request_text: RequestText) -> None:
    bench = Bench(random)
    bench.layer = TransactionLayer(OWN.address, random=random, timers=Timers(), max_transactions=1)
    bench.core = ProxyCore(bench.layer, secret=b"key", random=random)
    bench.receive(request_text())
    bench.forward()
    assert bench.names() == ["100", "503"]


def test_no_source_takes_the_room_of_others(random: Random, request_text: RequestText) -> None:
    bench = Bench(random)
    bench.layer = TransactionLayer(OWN.address, random=random, max_transactions=90)
    bench.core = ProxyCore(bench.layer, secret=b"key", random=random)
    for number in range(200):
        bench.receive(request_text("OPTIONS", branch=f"z9hG4bK{number}"), STRANGER)
    assert len(bench.layer) == 60
    assert bench.layer.counters.overload == 140
    assert bench.names() == ["503"] * 140
    assert bench.messages()[-1].headers["Retry-After"] == "5"
    bench.receive(request_text(branch="z9hG4bKcall"))
    assert bench.arrivals[-1].source == CALLER
    bench.receive(request_text("ACK", branch="z9hG4bKack"), STRANGER)
    assert len(bench.names()) == 140
    bench.advance(1000)
    assert (len(bench.layer), bench.layer._shares._held, bench.layer._shares.in_use) == (0, {}, 0)


def test_long_messages_take_more_of_the_room(random: Random, request_text: RequestText) -> None:
    bench = Bench(random)
    bench.layer = TransactionLayer(OWN.address, random=random, max_transactions=100)
    bench.core = ProxyCore(bench.layer, secret=b"key", random=random)
    for number in range(10):
        bench.receive(request_text(branch=f"z9hG4bK{number}", body=b"x" * 60_000), STRANGER)
    assert len(bench.arrivals) == 3
    for index in range(3):
        bench.core.answer(bench.arrivals[index].key, 500, None, bench.now_s)
    assert bench.layer._shares.in_use == len(bench.layer) == 3  # what lingers needs its request no more


def test_a_refusal_is_not_longer_than_its_request(bench: Bench, request_text: RequestText) -> None:
    bench.receive(request_text(headers=f"Proxy-Require: {'a,' * 3_000}b\r\n"))
    assert bench.names() == ["420"]
    assert bench.messages()[0].headers.getlist("Unsupported") == [", ".join("a" * 16)]
    bench.receive(
        request_text(branch="z9hG4bKvia").replace(b"Via: ", b"Via: SIP/2.0/UDP h;x=" + b'"' * 40 + b", ", 1)
    )
    assert len(bench.sent) == 1


def test_timers_that_are_put_off_or_forgotten_do_not_pile_up(called: Bench, request_text: RequestText) -> None:
    ringing = encode(make_response(called.last_request(), 180, to_tag="callee"))
    for _ in range(1_000):
        called.receive(ringing, CALLEE)
    assert len(called.layer._timer_queue) < 10
    for number in range(5_000):
        called.receive(request_text("BYE", branch=f"z9hG4bK{number}", to_tag="x"))
    assert len(called.layer._timer_queue) < 4_200
    called.advance(1000)
    assert len(called.layer) == 0


FLOW = Hop("udp", "203.0.113.9", 40_001, flow=0)
"""A telephone behind a NAT."""


def forward_over_flow(bench: Bench, otherwise: Callable[[bool], None] | None = None) -> None:
    arrival = bench.arrivals[-1]
    request = copy_request(arrival.request)
    bench.core.forward(arrival.key, request, FLOW, bench.now_s, otherwise=otherwise)
    bench.pump()


def test_a_flow_is_recorded_for_its_side_and_used_again(bench: Bench, request_text: RequestText) -> None:
    bench.receive(request_text())
    forward_over_flow(bench)
    bench.answer(200)
    there, here = header_values(bench.last_request(), "Record-Route")
    assert ";flow=" in there
    assert ";flow=" not in here
    for method in ("ACK", "BYE"):
        target = "sip:+442079460123@192.168.0.7:5060"
        headers = f"Route: {here}, {there}\r\n"
        bench.receive(request_text(method, target, to_tag="callee", branch=f"z9hG4bK{method}", headers=headers))
        assert bench.names()[-1] == method
        assert bench.sent[-1].hop == FLOW
    back = request_text(
        "BYE", "sip:c@127.0.0.6:5060", to_tag="x", branch="z9hG4bKb", headers=f"Route: {there}, {here}\r\n"
    )
    bench.receive(back, FLOW)
    assert bench.sent[-1].hop == CALLER


def test_a_flow_that_nobody_recorded_is_not_taken(bench: Bench, request_text: RequestText) -> None:
    """Neither a changed token, nor that of another call."""
    bench.receive(request_text())
    forward_over_flow(bench)
    there, here = header_values(bench.last_request(), "Record-Route")
    at = there.index(";flow=") + 30
    changed = there[:at] + ("A" if there[at] != "A" else "B") + there[at + 1 :]
    for route in (changed, re.sub("call=[^;>]*", re.search("call=[^;>]*", here)[0], changed)):  # type: ignore[index]
        before = len(bench.sent)
        headers = f"Route: {here}, {route}\r\n"
        bench.receive(
            request_text("BYE", "sip:x@127.0.0.9", to_tag="c", branch=f"z9hG4bK{before}", headers=headers)
        )
        assert [str(outgoing.hop) for outgoing in bench.sent[before:]] == ["udp:127.0.0.9:5060"]


def test_a_large_request_stays_on_its_flow(bench: Bench, request_text: RequestText) -> None:
    bench.receive(request_text(body=b"x" * 3000))
    forward_over_flow(bench)
    assert bench.sent[-1].hop.transport == "udp"


def test_a_silent_flow_is_given_up_early_and_the_owner_goes_on(bench: Bench, request_text: RequestText) -> None:
    bench.receive(request_text())
    told: list[bool] = []

    def otherwise(is_gone: bool) -> None:
        told.append(is_gone)
        bench.core.forward(bench.arrivals[-1].key, bench.arrivals[-1].request, CALLEE, bench.now_s)

    forward_over_flow(bench, otherwise)
    bench.advance(Timers().flow_s - 0.1)
    assert told == []
    bench.advance(0.2)
    assert (told, bench.sent[-1].hop) == ([False], CALLEE)
    bench.answer(486)
    assert bench.names()[-1] == "486"
    bench.advance(100)
    assert (len(bench.layer), bench.core._contexts, bench.core._servers) == (0, {}, {})


def test_a_flow_that_answers_may_take_its_time(bench: Bench, request_text: RequestText) -> None:
    bench.receive(request_text())
    forward_over_flow(bench, lambda is_gone: pytest.fail("the telephone is there"))
    bench.answer(180)
    bench.advance(60)
    bench.answer(200)
    assert bench.names()[-1] == "200"


def test_a_call_given_up_on_a_dead_flow_is_487(bench: Bench, request_text: RequestText) -> None:
    bench.receive(request_text())
    forward_over_flow(bench, lambda is_gone: pytest.fail("nobody waits any more"))
    bench.receive(request_text("CANCEL"))
    bench.advance(10)
    assert bench.names()[-1] == "487"
    assert "CANCEL" not in bench.names()


@pytest.mark.parametrize(("source", "held"), [(CALLEE, True), (STRANGER, False)])
def test_an_update_by_who_is_called_is_held_like_the_answer_and_no_strangers(
    bench: Bench, request_text: RequestText, source: Hop, held: bool
) -> None:
    """The owner signs it, so it must come from where the INVITE went to."""
    contact = f"Contact: <sip:caller@{CALLER.address}>\r\n"
    bench.receive(request_text(headers=contact))
    bench.forward(holds_answer=True)
    route = f"Route: {header_values(bench.last_request(), 'Record-Route')[0]}\r\n"
    headers = f"{route}P-Asserted-Identity: <sip:x@y>\r\nIdentity: own\r\n"
    text = request_text(
        "UPDATE",
        f"sip:caller@{CALLER.address}",
        branch="z9hG4bKu",
        from_tag="callee",
        to_tag="caller",
        headers=headers,
    )
    bench.receive(text, source)
    assert len(bench.updates) == held
    assert ("UPDATE" in bench.names()) is not held
    for update in bench.updates:
        assert update.invite == bench.arrivals[0].key
        update.request.headers.set("Identity", "signed")
        bench.core.pass_update(update, bench.now_s)
        bench.pump()
    sent = bench.last_request()
    assert (sent.method, sent.headers["Identity"]) == ("UPDATE", "signed" if held else "own")
    assert sent.headers.get("P-Asserted-Identity") is None


def test_updates_are_held_no_longer_than_their_invite(bench: Bench, request_text: RequestText) -> None:
    bench.receive(request_text())
    bench.forward(holds_answer=True)
    bench.answer(486)
    bench.receive(request_text("ACK", to_tag="callee"))
    bench.advance(100)
    assert (bench.core._held, bench.core._contexts) == ({}, {})
