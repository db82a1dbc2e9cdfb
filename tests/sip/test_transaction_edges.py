"""The transaction layer at its edges: where messages go, how long what is over lingers, and what is kept of it."""

import re
from collections.abc import Callable, Sequence

import pytest
from sipmessage import Request

from tests.sip.layer_bench import PEER, TCP, UDP, Bench
from voice_dpki.effects import Random
from voice_dpki.errors import MalformedError
from voice_dpki.sip import transaction as transaction_module
from voice_dpki.sip.events import (
    AckReceived,
    RequestReceived,
    ResponseReceived,
    Terminated,
    TimedOut,
    TransactionKey,
    TransportBroken,
)
from voice_dpki.sip.machines import CLIENT, INVITE_CLIENT, INVITE_SERVER, SERVER, Input, Machine, State, Timers
from voice_dpki.sip.message import (
    Hop,
    encode,
    header_values,
    make_response,
    parse_message,
    read_envelope,
    set_header_values,
)
from voice_dpki.sip.shares import PLACE_BYTES
from voice_dpki.sip.transaction import TransactionLayer
from voice_dpki.sip.transaction_state import Transaction, input_of, sibling

RequestText = Callable[..., bytes]

TLS_PEER, TCP_PEER = Hop("tls", "127.0.0.9", 5061), Hop("tcp", "127.0.0.9", 5060)


@pytest.fixture
def bench(random: Random) -> Bench:
    return Bench(random)


def key_of(bench: Bench) -> TransactionKey:
    """The key of the request that came last."""
    return next(event.key for event in reversed(bench.events) if isinstance(event, RequestReceived))


def lingers_s(bench: Bench, key: TransactionKey) -> float:
    """Let time pass until a transaction has ended; returns how long that took."""
    began_s = bench.now_s
    while Terminated(key) not in bench.events:
        due_s = bench.layer.next_timer()
        assert due_s is not None
        assert due_s >= bench.now_s
        bench.advance(due_s - bench.now_s)
    return bench.now_s - began_s


@pytest.mark.parametrize("hop", [PEER, TCP_PEER])
@pytest.mark.parametrize(
    ("method", "status", "udp_s", "tcp_s"),
    [("INVITE", 486, 32, 0), ("INVITE", 200, 32, 32), ("BYE", 486, 5, 0), ("BYE", 200, 5, 0)],
)
def test_how_long_a_request_lingers_after_its_answer(
    bench: Bench, hop: Hop, method: str, status: int, udp_s: int, tcp_s: int
) -> None:
    """Timers D, M and K (RFC 3261 §17.1, RFC 6026 §8.4)."""
    key = bench.send(method, hop)
    bench.answer(status)
    assert lingers_s(bench, key) == pytest.approx(tcp_s if hop.reliable else udp_s)


@pytest.mark.parametrize("source", [UDP, TCP])
@pytest.mark.parametrize(
    ("method", "status", "udp_s", "tcp_s"),
    [("INVITE", 486, 5, 0), ("INVITE", 200, 32, 32), ("BYE", 486, 32, 0), ("BYE", 200, 32, 0)],
)
def test_how_long_an_answered_request_lingers(
    bench: Bench, request_text: RequestText, source: Hop, method: str, status: int, udp_s: int, tcp_s: int
) -> None:
    """Timers I, L and J (RFC 3261 §17.2, RFC 6026 §8.4); an INVITE was acknowledged at once."""
    bench.receive(request_text(method, transport=source.transport.upper()), source)
    key = key_of(bench)
    bench.respond(key, status)
    if (method, status) == ("INVITE", 486):
        bench.receive(request_text("ACK", to_tag="callee", transport=source.transport.upper()), source)
    assert lingers_s(bench, key) == pytest.approx(tcp_s if source.reliable else udp_s)


def test_what_is_answered_holds_its_request_no_more(bench: Bench, request_text: RequestText) -> None:
    for number, (status, kept) in enumerate([(200, False), (486, True)]):
        bench.receive(request_text(branch=f"z9hG4bK{number}"))
        bench.respond(key_of(bench), status)
        transaction = bench.layer._transactions[key_of(bench)]
        assert transaction.request is None
        assert bool(transaction.wire) is kept, "a failure may have to be sent again"


def test_a_branch_has_80_bits_of_randomness(bench: Bench) -> None:
    assert re.fullmatch("z9hG4bK[0-9a-f]{20}", bench.layer.new_branch())
    assert bench.layer.new_branch() != bench.layer.new_branch()


@pytest.mark.parametrize("hop", [TLS_PEER, TCP_PEER, Hop("udp", PEER.host, PEER.port, flow=0)])
def test_a_large_request_changes_its_transport_only_from_udp_without_a_flow(random: Random, hop: Hop) -> None:
    bench = Bench(random, udp_max_bytes=600)
    key = bench.send(hop=hop, body=bytes(700))
    assert bench.sent[0][1].hop == hop
    bench.layer.transport_failed(key, bench.now_s)
    bench.collect()
    assert len(bench.sent) == 1
    assert bench.told(TransportBroken) == 1


@pytest.mark.parametrize(("more", "transport"), [(0, "udp"), (-1, "tcp")])
def test_a_request_of_the_largest_size_for_udp_goes_over_udp(random: Random, more: int, transport: str) -> None:
    bench = Bench(random)
    bench.send(body=bytes(100))
    size = len(bench.sent[0][1].data)
    bench = Bench(random, udp_max_bytes=size + more)
    bench.send(body=bytes(100))
    assert bench.sent[0][1].hop.transport == transport


@pytest.mark.parametrize(("size", "transport"), [(1_300, "udp"), (1_301, "tcp")])
def test_a_request_over_udp_has_at_most_1300_bytes(random: Random, size: int, transport: str) -> None:
    bench = Bench(random)
    bench.send(body=bytes(100))
    bench.send(body=bytes(99 + size - len(bench.sent[0][1].data)))  # Content-Length has a digit more
    outgoing = bench.sent[1][1]
    assert (len(outgoing.data), outgoing.hop) == (size, Hop(transport, PEER.host, PEER.port))


def test_the_salt_of_tags_has_128_bits_and_there_is_room_for_131072_transactions() -> None:
    sizes: list[int] = []

    class Recorded:
        def token(self, size: int) -> bytes:
            sizes.append(size)
            return bytes(size)

    layer = TransactionLayer("127.0.0.2:5060", random=Recorded())
    assert sizes == [16]
    assert layer._max_transactions == 131_072


def test_the_timers_of_rfc_3261() -> None:
    """Table 4; timer C is over 3 minutes (§16.6 step 11), 100 comes after 200 ms (§17.2.1)."""
    timers = Timers()
    assert (timers.t1_s, timers.t2_s, timers.t4_s, timers.d_s, timers.patience_s) == (0.5, 4, 5, 32, 32)
    assert (timers.c_s, timers.trying_after_s) == (185, 0.2)
    assert (timers.ring_s, timers.answer_s, timers.flow_s) == (900, 300, 5)


def test_a_sent_request_takes_the_places_of_its_size(bench: Bench) -> None:
    bench.send(hop=TCP_PEER, body=bytes(3 * PLACE_BYTES))
    assert bench.layer._shares.in_use == 4


def test_an_ack_goes_out_with_our_via_and_leaves_the_request_as_it_was(bench: Bench) -> None:
    bench.send()
    request = parse_message(bench.sent[0][1].data)
    assert isinstance(request, Request)
    before = encode(request)
    bench.layer.send_ack(request, TLS_PEER, TCP_PEER)
    bench.collect()
    outgoing = bench.sent[1][1]
    assert (outgoing.hop, outgoing.fallback, outgoing.key) == (TLS_PEER, TCP_PEER, None)
    ours, theirs = header_values(parse_message(outgoing.data), "Via")
    assert re.fullmatch(r"SIP/2\.0/TLS 127\.0\.0\.2:5060;branch=z9hG4bK[0-9a-f]{20};rport", ours)
    assert [theirs] == header_values(request, "Via")
    assert encode(request) == before


def test_what_is_over_is_not_refused(bench: Bench, request_text: RequestText) -> None:
    bench.receive(request_text())
    key, request = key_of(bench), parse_message(request_text())
    assert isinstance(request, Request)
    bench.respond(key, 486)
    for each in (key, TransactionKey("unknown")):
        bench.layer.refuse(each, make_response(request, 404, to_tag="x"), bench.now_s)
    bench.collect()
    assert bench.methods() == ["486"]


def test_a_refusal_goes_where_the_request_came_from(bench: Bench, request_text: RequestText) -> None:
    bench.receive(request_text(transport="TCP"), TCP)
    request = parse_message(request_text())
    assert isinstance(request, Request)
    bench.layer.refuse(key_of(bench), make_response(request, 404, to_tag="x"), bench.now_s)
    bench.collect()
    outgoing = bench.sent[0][1]
    assert (outgoing.hop, outgoing.fallback) == (TCP, Hop("tcp", "127.0.0.6", 5060))
    assert len(bench.layer) == 0


def test_a_stateless_tag_tells_requests_apart_and_repetitions_not(
    random: Random, request_text: RequestText
) -> None:
    """RFC 3261 §8.2.7; nobody else can make it, for its salt is drawn."""
    layer, other = (TransactionLayer("127.0.0.2:5060", random=random) for _ in range(2))
    options: Sequence[dict[str, object]] = (
        {},
        {"branch": "z9hG4bKtwo"},
        {"sent_by": "127.0.0.7:5060"},
        {"from_tag": "x"},
        {"call_id": "x"},
        {"sequence": 2},
    )
    envelopes = [read_envelope(parse_message(request_text(**option))) for option in options]
    tags = [layer.stateless_tag(envelope) for envelope in envelopes]
    assert len(set(tags)) == len(options)
    assert tags == [layer.stateless_tag(envelope) for envelope in envelopes]
    assert not set(tags) & {other.stateless_tag(envelope) for envelope in envelopes}
    assert all(re.fullmatch("[0-9a-f]{16}", tag) for tag in tags)


def test_trying_at_once_needs_no_timer(random: Random, request_text: RequestText) -> None:
    for trying_after_s, sent in ((0.0, ["100"]), (0.2, []), (1.0, [])):
        bench = Bench(random, timers=Timers(trying_after_s=trying_after_s))
        bench.receive(request_text())
        assert bench.methods() == sent


@pytest.mark.parametrize(
    ("source", "via", "hop"),
    [
        (Hop("udp", "127.0.0.6", 4444), "", "udp:127.0.0.6:5060"),
        (Hop("udp", "127.0.0.6", 4444), ";rport", "udp:127.0.0.6:4444"),
        (TCP, "", "tcp:127.0.0.6:40000"),
    ],
)
def test_who_finds_no_room_hears_so_where_it_listens(
    random: Random, request_text: RequestText, source: Hop, via: str, hop: str
) -> None:
    bench = Bench(random, max_transactions=0)
    bench.receive(request_text(branch=f"z9hG4bKx{via}", transport=source.transport.upper()), source)
    assert (bench.methods(), str(bench.sent[0][1].hop)) == (["503"], hop)


def test_a_transaction_whose_timer_meets_an_error_is_dropped_and_the_error_told(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError

    key = bench.send("BYE")
    monkeypatch.setattr(bench.layer, "_feed", broken)
    with pytest.raises(ZeroDivisionError):
        bench.layer.handle_timer(bench.now_s + 1)
    bench.collect()
    assert bench.events == [TimedOut(key), Terminated(key)]
    assert len(bench.layer) == 0


def test_each_via_names_the_port_of_its_transport(bench: Bench) -> None:
    bench.layer.tls_sent_by = "127.0.0.2:5061"
    for hop, sent_by in ((PEER, "5060"), (TCP_PEER, "5060"), (TLS_PEER, "5061")):
        bench.send("OPTIONS", hop)
        (via,) = header_values(parse_message(bench.sent[-1][1].data), "Via")
        assert via.startswith(f"SIP/2.0/{hop.transport.upper()} 127.0.0.2:{sent_by};branch=z9hG4bK")
        bench.answer(200, index=len(bench.sent) - 1)
    assert bench.told(ResponseReceived) == 3
    assert bench.layer.counters.stray_responses == 0


@pytest.mark.parametrize("branch", ["1", "z9hG4bK"])
def test_an_older_element_acknowledges_a_success_with_the_branch_of_its_invite(
    bench: Bench, request_text: RequestText, branch: str
) -> None:
    bench.receive(request_text(branch=branch))
    bench.respond(key_of(bench), 200)
    bench.receive(request_text("ACK", branch=branch, to_tag="callee"))
    (ack,) = [event for event in bench.events if isinstance(event, AckReceived)]
    assert (ack.request.method, ack.source) == ("ACK", UDP)


@pytest.mark.parametrize(("branch", "calls"), [("1", 2), ("z9hG4bK", 2), ("z9hG4bKx", 1)])
def test_a_branch_without_the_cookie_or_with_nothing_else_names_no_transaction(
    bench: Bench, request_text: RequestText, branch: str, calls: int
) -> None:
    """RFC 3261 §17.2.3."""
    for call_id in ("one", "two"):
        bench.receive(request_text(branch=branch, call_id=call_id))
    assert bench.told(RequestReceived) == calls


@pytest.mark.parametrize(
    ("status", "what"),
    [
        (100, Input.PROVISIONAL),
        (199, Input.PROVISIONAL),
        (200, Input.SUCCESS),
        (299, Input.SUCCESS),
        (300, Input.FAILURE),
        (699, Input.FAILURE),
    ],
)
def test_what_a_status_means(status: int, what: Input) -> None:
    assert input_of(status) is what


@pytest.mark.parametrize("state", State)
@pytest.mark.parametrize("machine", [INVITE_CLIENT, CLIENT, INVITE_SERVER, SERVER], ids=lambda value: value.name)
def test_which_transactions_are_unanswered(machine: Machine, state: State) -> None:
    transaction = Transaction(TransactionKey("x"), machine, PEER, "z9hG4bKx", 1, None, state=state)
    waits = machine in (INVITE_CLIENT, CLIENT) and state in (State.CALLING, State.TRYING)
    assert transaction.is_unanswered is waits


def test_trying_is_not_sent_after_another_answer(bench: Bench, request_text: RequestText) -> None:
    bench.receive(request_text())
    bench.respond(key_of(bench), 180)
    bench.layer.send_trying(key_of(bench), bench.now_s)
    bench.advance(1)
    assert bench.methods() == ["180"]


def test_a_call_that_begins_to_ring_too_late_is_cancelled_at_once(random: Random) -> None:
    bench = Bench(random, timers=Timers(ring_s=1.0))
    bench.send(hop=TCP_PEER)
    bench.advance(5)
    bench.answer(180)
    assert bench.layer.next_timer() == bench.now_s
    bench.advance(0)
    assert bench.methods() == ["INVITE", "CANCEL"]


@pytest.mark.parametrize("by_hand", [False, True])
def test_a_call_is_cancelled_once(random: Random, by_hand: bool) -> None:
    """Neither timer C nor more ringing cancels it again."""
    bench = Bench(random, timers=Timers(c_s=10.0))
    key = bench.send(hop=TCP_PEER)
    bench.answer(180)
    bench.advance(5)
    if by_hand:
        bench.layer.cancel(key, bench.now_s)
    bench.advance(6)
    bench.answer(180)
    bench.advance(15)
    assert bench.methods() == ["INVITE", "CANCEL"]
    bench.advance(20)
    assert bench.told(TimedOut) == 1


def test_a_cancel_is_a_transaction_of_its_own(bench: Bench) -> None:
    key = bench.send()
    bench.answer(180)
    bench.layer.cancel(key, bench.now_s)
    bench.collect()
    bench.advance(2)
    assert bench.methods() == ["INVITE", "CANCEL", "CANCEL", "CANCEL"]
    bench.answer(200, index=1)
    bench.advance(2)
    assert bench.methods().count("CANCEL") == 3
    assert bench.layer.counters.stray_responses == 0


def test_the_500_of_the_layer_has_a_tag_of_48_bits(bench: Bench, request_text: RequestText) -> None:
    bench.receive(request_text())
    bench.layer.give_up(key_of(bench), bench.now_s)
    bench.collect()
    assert re.search(";tag=[0-9a-f]{12}$", parse_message(bench.sent[0][1].data).headers["To"])


@pytest.mark.parametrize("error", [MalformedError("x"), ValueError("x"), AssertionError("x")])
def test_a_request_to_which_no_500_can_be_built_is_forgotten(
    bench: Bench, request_text: RequestText, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise error

    bench.receive(request_text())
    monkeypatch.setattr(transaction_module, "make_response", broken)
    bench.layer.give_up(key_of(bench), bench.now_s)
    bench.collect()
    assert (len(bench.layer), bench.sent) == (0, [])
    assert bench.events[1:] == [Terminated(key_of(bench))]


def test_what_is_forgotten_gives_its_room_back_once(bench: Bench, request_text: RequestText) -> None:
    bench.receive(request_text())
    bench.receive(request_text(branch="z9hG4bKtwo"))
    transaction = bench.layer._transactions[key_of(bench)]
    for _ in range(2):
        bench.layer._forget(transaction)
    bench.collect()
    assert bench.layer._shares.in_use == 1
    assert bench.told(Terminated) == 1


@pytest.mark.parametrize("method", ["CANCEL", "ACK"])
def test_what_belongs_to_an_invite_has_its_first_via_alone(request_text: RequestText, method: str) -> None:
    """RFC 3261 §9.1, §17.1.1.3; the answer comes back to the hop that has sent it, and no further."""
    invite = parse_message(
        request_text("INVITE", headers="Route: <sip:a;lr>\r\nRoute: <sip:b;lr>\r\nSubject: x\r\n")
    )
    assert isinstance(invite, Request)
    first = "SIP/2.0/UDP 127.0.0.1;branch=z9hG4bKfirst"
    set_header_values(
        invite, "Via", [first, *header_values(invite, "Via"), "SIP/2.0/UDP 127.0.0.3;branch=z9hG4bKx"]
    )
    made = sibling(invite, method, 7, "<sip:b>;tag=b")
    assert header_values(made, "Via") == [first]
    assert (made.method, str(made.uri)) == (method, str(invite.uri))
    assert (made.headers.get("CSeq"), made.headers.get("To"), made.headers.get("Max-Forwards")) == (
        f"7 {method}", "<sip:b>;tag=b", "70",
    )  # fmt: skip
    for name in ("From", "Call-ID", "Route"):
        assert made.headers.getlist(name) == invite.headers.getlist(name)
    assert made.headers.get("Subject") is None
