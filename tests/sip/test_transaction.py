"""Transactions: retransmission and its end, over UDP and TCP, and every state with every input."""

from collections.abc import Callable
from dataclasses import asdict
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sipmessage import Request

from tests.sip.layer_bench import PEER, TCP, UDP, Bench
from voice_dpki.effects import Random
from voice_dpki.errors import LocalError
from voice_dpki.sip.events import Counters
from voice_dpki.sip.machines import CLIENT as CLIENT_MACHINE
from voice_dpki.sip.machines import INVITE_CLIENT, INVITE_SERVER, Input, Machine, State, Timers
from voice_dpki.sip.machines import SERVER as SERVER_MACHINE
from voice_dpki.sip.message import Hop, encode, header_values, make_response, parse_message
from voice_dpki.sip.shares import PLACE_BYTES
from voice_dpki.sip.transaction import (
    AckReceived,
    RequestReceived,
    ResponseReceived,
    Terminated,
    TimedOut,
    TransactionKey,
    TransportBroken,
)

RequestText = Callable[..., bytes]


@pytest.fixture
def bench(random: Random) -> Bench:
    return Bench(random)


def test_an_invite_is_repeated_at_doubling_intervals_until_timer_b(bench: Bench) -> None:
    bench.send()
    bench.advance(40)
    assert bench.times() == [0, 0.5, 1.5, 3.5, 7.5, 15.5, 31.5]
    assert bench.events == [TimedOut(bench.events[0].key), Terminated(bench.events[0].key)]  # type: ignore[union-attr]
    assert len(bench.layer) == 0


def test_another_request_is_repeated_up_to_t2_until_timer_f(bench: Bench) -> None:
    bench.send("BYE")
    bench.advance(40)
    assert bench.times() == [0, 0.5, 1.5, 3.5, 7.5, 11.5, 15.5, 19.5, 23.5, 27.5, 31.5]
    assert bench.told(TimedOut) == 1


def test_over_tcp_nothing_is_repeated(bench: Bench) -> None:
    bench.send("INVITE", TCP)
    bench.send("BYE", TCP)
    bench.advance(40)
    assert bench.methods() == ["INVITE", "BYE"]
    assert bench.told(TimedOut) == 2


def test_a_provisional_response_stops_an_invite_and_slows_another_request(bench: Bench) -> None:
    bench.send("BYE")
    bench.answer(100)
    bench.advance(12)
    assert bench.times() == [0, 0.5, 4.5, 8.5]
    bench = Bench(bench.layer._random)
    bench.send()
    bench.answer(180)
    bench.advance(100)
    assert bench.methods() == ["INVITE"]


def test_a_failure_is_acknowledged_each_time_and_told_once(bench: Bench) -> None:
    bench.send()
    bench.answer(486)
    bench.answer(486)
    assert bench.methods() == ["INVITE", "ACK", "ACK"]
    assert bench.told(ResponseReceived) == 1
    invite, ack = parse_message(bench.sent[0][1].data), parse_message(bench.sent[1][1].data)
    assert header_values(ack, "Via") == header_values(invite, "Via")
    assert ack.headers.get("Route") == "<sip:127.0.0.9;lr>"
    assert (ack.headers["CSeq"], ack.headers["To"]) == ("1 ACK", "<sip:b@b.example>;tag=callee")
    for name in ("From", "Call-ID"):
        assert ack.headers[name] == invite.headers[name]
    assert ack.headers["Max-Forwards"] == "70"
    bench.advance(33)
    assert bench.told(Terminated) == 1


def test_each_success_is_told_and_none_acknowledged(bench: Bench) -> None:
    bench.send()
    bench.answer(200)
    bench.answer(200)
    bench.answer(200, "another-branch")
    assert bench.methods() == ["INVITE"]
    assert bench.told(ResponseReceived) == 3
    bench.advance(33)
    bench.answer(200)
    assert bench.told(ResponseReceived) == 3
    assert bench.layer.counters.stray_responses == 1


def test_a_response_to_another_element_is_no_business_of_ours(bench: Bench) -> None:
    bench.send()
    data = bench.sent[0][1].data.replace(b"127.0.0.2:5060", b"127.0.0.3:5060")
    request = parse_message(data)
    assert isinstance(request, Request)
    bench.receive(encode(make_response(request, 200, to_tag="x")))
    assert bench.events == []


def test_a_server_repeats_its_failure_until_the_ack(bench: Bench, request_text: RequestText) -> None:
    bench.receive(request_text())
    bench.respond(bench.events[0].key, 486)  # type: ignore[union-attr]
    bench.advance(5)
    assert bench.times() == [0, 0.5, 1.5, 3.5]
    bench.receive(request_text())
    assert bench.methods() == ["486"] * 5
    bench.receive(request_text("ACK", to_tag="callee"))
    bench.advance(4)
    assert bench.methods() == ["486"] * 5
    assert bench.told(AckReceived) == 0
    bench.advance(2)
    assert len(bench.layer) == 0


def test_without_an_ack_the_failure_times_out(bench: Bench, request_text: RequestText) -> None:
    bench.receive(request_text())
    bench.respond(bench.events[0].key, 486)  # type: ignore[union-attr]
    bench.advance(33)
    assert bench.told(TimedOut) == bench.told(Terminated) == 1


def test_an_invite_is_one_call_however_often_it_comes(bench: Bench, request_text: RequestText) -> None:
    for _ in range(3):
        bench.receive(request_text())
    key = bench.events[0].key  # type: ignore[union-attr]
    bench.respond(key, 180)
    bench.receive(request_text())
    bench.respond(key, 200)
    bench.receive(request_text())
    assert bench.told(RequestReceived) == 1
    assert bench.methods() == ["180", "180", "200"]
    bench.respond(key, 200)
    assert bench.methods()[-1] == "200"
    bench.receive(request_text("ACK", to_tag="callee", branch="z9hG4bKack"))
    assert bench.told(AckReceived) == 1
    bench.respond(key, 486)
    assert bench.methods()[-1] == "200"


def test_trying_is_sent_after_200_ms_or_at_once(random: Random, request_text: RequestText) -> None:
    late, prompt = Bench(random), Bench(random, timers=Timers(trying_after_s=0))
    late.receive(request_text())
    late.advance(1)
    assert (late.methods(), late.times()) == (["100"], [0.2])
    prompt.receive(request_text())
    prompt.advance(1)
    assert (prompt.methods(), prompt.times()) == (["100"], [0])


def test_an_element_older_than_rfc_3261_is_understood(bench: Bench, request_text: RequestText) -> None:
    bench.receive(request_text(branch="1"))
    bench.receive(request_text(branch="1"))
    assert bench.told(RequestReceived) == 1
    bench.respond(bench.events[0].key, 486)  # type: ignore[union-attr]
    bench.receive(request_text("ACK", branch="1", to_tag="callee"))
    bench.advance(6)
    assert len(bench.layer) == 0


def test_a_cancel_waits_for_a_provisional_response(bench: Bench) -> None:
    key = bench.send()
    bench.layer.cancel(key, bench.now_s, reasons=["SIP;cause=200"])
    bench.collect()
    assert bench.methods() == ["INVITE"]
    bench.answer(180)
    assert bench.methods() == ["INVITE", "CANCEL"]
    cancel, invite = parse_message(bench.sent[1][1].data), parse_message(bench.sent[0][1].data)
    assert header_values(cancel, "Via") == header_values(invite, "Via")
    assert (cancel.headers["CSeq"], cancel.headers["Reason"]) == ("1 CANCEL", "SIP;cause=200")
    bench.answer(200, index=1)
    bench.answer(487)
    assert [e.response.code for e in bench.events if isinstance(e, ResponseReceived)] == [180, 487]


def test_a_cancelled_invite_that_stays_unanswered_times_out(bench: Bench) -> None:
    key = bench.send()
    bench.answer(180)
    bench.layer.cancel(key, bench.now_s)
    bench.layer.cancel(key, bench.now_s)
    bench.collect()
    assert bench.methods() == ["INVITE", "CANCEL"]
    bench.advance(33)
    assert bench.told(TimedOut) == 1
    assert len(bench.layer) == 0


def test_timer_c_gives_up_a_call_that_rings_too_long(random: Random) -> None:
    bench = Bench(random, timers=Timers(c_s=185))
    bench.send()
    bench.answer(180)
    bench.advance(180)
    bench.answer(180)
    bench.advance(184)
    assert bench.methods() == ["INVITE"]
    bench.advance(2)
    assert "CANCEL" in bench.methods()


def test_a_large_request_goes_over_tcp_and_back_to_udp_where_nobody_listens(random: Random) -> None:
    bench = Bench(random, udp_max_bytes=600)
    key = bench.send(body=b"x" * 700)
    hop, request = bench.sent[0][1].hop, parse_message(bench.sent[0][1].data)
    assert hop.transport == "tcp"
    assert header_values(request, "Via")[0].startswith("SIP/2.0/TCP ")
    bench.layer.transport_failed(key, bench.now_s)
    bench.collect()
    again = parse_message(bench.sent[1][1].data)
    assert bench.sent[1][1].hop == PEER
    assert header_values(again, "Via")[0] == header_values(request, "Via")[0].replace("TCP", "UDP")
    bench.advance(1)
    assert len(bench.sent) == 3
    bench.layer.transport_failed(key, bench.now_s)
    bench.collect()
    assert bench.told(TransportBroken) == bench.told(Terminated) == 1


def test_a_response_over_tcp_knows_another_way_back(bench: Bench, request_text: RequestText) -> None:
    bench.receive(request_text(transport="TCP"), TCP)
    bench.respond(bench.events[0].key, 486)  # type: ignore[union-attr]
    outgoing = bench.sent[0][1]
    assert (outgoing.hop, outgoing.fallback) == (TCP, Hop("tcp", "127.0.0.6", 5060))


def test_what_cannot_be_understood_gets_400_if_it_can_be_answered(bench: Bench, request_text: RequestText) -> None:
    bench.receive(request_text().replace(b"CSeq: 1 INVITE", b"CSeq: 1 BYE"))
    bench.receive(request_text("ACK").replace(b"CSeq: 1 ACK", b"CSeq: 1 BYE"))
    bench.receive(b"nonsense")
    bench.receive(request_text().replace(b"Via: SIP", b"Via: PIS"))
    assert bench.methods() == ["400"]
    assert bench.layer.counters.malformed == 4
    assert bench.events == []


def test_too_many_transactions_are_refused(random: Random, request_text: RequestText) -> None:
    bench = Bench(random, max_transactions=1)
    bench.receive(request_text())
    bench.receive(request_text(branch="z9hG4bKtwo"))
    assert bench.methods() == ["503"]
    with pytest.raises(LocalError):
        bench.send()


def test_an_open_call_can_be_cancelled_without_room(random: Random, request_text: RequestText) -> None:
    bench = Bench(random, max_transactions=1)
    bench.receive(request_text())
    bench.receive(request_text("CANCEL", branch="z9hG4bKtwo"))
    assert bench.methods() == ["503"], "it cancels nothing"
    bench.receive(request_text("CANCEL"))
    assert bench.methods() == ["503"]
    methods = [event.request.method for event in bench.events if isinstance(event, RequestReceived)]
    assert methods == ["INVITE", "CANCEL"]


@pytest.mark.parametrize(("body", "places"), [(0, 1), (10 * PLACE_BYTES, 11)])
def test_a_failure_that_is_kept_takes_the_places_of_its_body(
    random: Random, request_text: RequestText, body: int, places: int
) -> None:
    bench = Bench(random)
    bench.receive(request_text())
    key = next(event.key for event in bench.events if isinstance(event, RequestReceived))
    request = next(event.request for event in bench.events if isinstance(event, RequestReceived))
    response = make_response(request, 486, to_tag="callee")
    response.body = bytes(body)
    bench.layer.respond(key, response, bench.now_s)
    assert bench.layer._shares.in_use == places
    bench.receive(request_text("ACK"))
    assert bench.layer._shares.in_use == 1, "confirmed, it is sent no more"
    bench.advance(40)
    assert (len(bench.layer), bench.layer._shares.in_use) == (0, 0)


# Every state with every input, and walks through them.

Deed = Callable[[Bench, bytes, TransactionKey], object]

ANYTIME: dict[str, Deed] = {
    "request": lambda b, text, key: b.receive(text),
    "ack": lambda b, text, key: b.receive(text.replace(b"INVITE", b"ACK").replace(b"BYE", b"ACK")),
    "broken": lambda b, text, key: b.layer.transport_failed(key, b.now_s),
    "retransmission timer": lambda b, text, key: b.advance(0.5),
    "last timer": lambda b, text, key: b.advance(33),
    "cancel": lambda b, text, key: b.layer.cancel(key, b.now_s),
}


def _server_answer(status: int) -> Deed:
    return lambda b, text, key: b.respond(key, status)


def _client_answer(status: int) -> Deed:
    return lambda b, text, key: b.answer(status)


STATUSES = (100, 180, 200, 299, 300, 486, 699)
SERVER: dict[str, Deed] = ANYTIME | {str(status): _server_answer(status) for status in STATUSES}
CLIENT: dict[str, Deed] = ANYTIME | {str(status): _client_answer(status) for status in STATUSES}

INPUTS = {
    "request": Input.REQUEST,
    "ack": Input.ACK,
    "broken": Input.BROKEN,
    "180": Input.PROVISIONAL,
    "200": Input.SUCCESS,
    "486": Input.FAILURE,
}
TO_STATE: dict[Machine, dict[State, list[str]]] = {
    INVITE_CLIENT: {
        State.CALLING: [],
        State.PROCEEDING: ["180"],
        State.ACCEPTED: ["200"],
        State.COMPLETED: ["486"],
    },
    CLIENT_MACHINE: {State.TRYING: [], State.PROCEEDING: ["180"], State.COMPLETED: ["486"]},
    INVITE_SERVER: {
        State.PROCEEDING: [],
        State.ACCEPTED: ["200"],
        State.COMPLETED: ["486"],
        State.CONFIRMED: ["486", "ack"],
    },
    SERVER_MACHINE: {State.TRYING: [], State.PROCEEDING: ["180"], State.COMPLETED: ["486"]},
}
CASES = [(machine, state) for machine, states in TO_STATE.items() for state in states]


class Walk:
    """One transaction, and what is done to it."""

    def __init__(self, machine: Machine, hop: Hop, random: Random, request_text: RequestText) -> None:
        method = "INVITE" if machine in (INVITE_CLIENT, INVITE_SERVER) else "BYE"
        self.bench = Bench(random)
        self.text = request_text(method, transport=hop.transport.upper())
        self.hop = hop
        if machine in (INVITE_CLIENT, CLIENT_MACHINE):
            self.deeds, self.key = CLIENT, self.bench.send(method, hop)
        else:
            self.deeds = SERVER
            self.bench.receive(self.text, hop)
            event = self.bench.events[0]
            assert isinstance(event, RequestReceived)
            self.key = event.key

    def do(self, name: str) -> None:
        self.deeds[name](self.bench, self.text, self.key)
        self.bench.collect()

    @property
    def state(self) -> State:
        transaction = self.bench.layer._transactions.get(self.key)
        return transaction.state if transaction else State.TERMINATED


def test_the_ways_lead_to_every_state() -> None:
    for machine, states in TO_STATE.items():
        assert set(states) == {state for state, _ in machine.table}


@pytest.mark.parametrize("name", INPUTS)
@pytest.mark.parametrize(("machine", "state"), CASES, ids=lambda value: getattr(value, "name", None))
def test_every_state_takes_every_input(
    machine: Machine, state: State, name: str, random: Random, request_text: RequestText
) -> None:
    walk = Walk(machine, UDP, random, request_text)
    for step in TO_STATE[machine][state]:
        walk.do(step)
    assert walk.state is state
    sent, told = len(walk.bench.sent), len(walk.bench.events)
    walk.do(name)
    after, actions = machine.table.get((state, INPUTS[name]), (state, ()))
    assert walk.state is after
    if not actions:
        assert len(walk.bench.sent) == sent
        new = walk.bench.events[told:]
        assert not [e for e in new if not isinstance(e, Terminated | RequestReceived | AckReceived)]


@given(st.data())
def test_any_walk_ends(make_random: Callable[[], Random], request_text: RequestText, data: st.DataObject) -> None:
    machine = data.draw(st.sampled_from(list(TO_STATE)))
    walk = Walk(machine, data.draw(st.sampled_from([UDP, TCP])), make_random(), request_text)
    for name in data.draw(st.lists(st.sampled_from(sorted(walk.deeds)), max_size=12)):
        walk.do(name)
        for _, outgoing in walk.bench.sent:
            parse_message(outgoing.data)
    finals = [int(m) for m in walk.bench.methods() if m.isdigit() and int(m) >= 200]
    assert all((first < 300) == (later < 300) for first, later in pairwise(finals)) or walk.deeds is SERVER
    walk.bench.advance(1000)
    assert len(walk.bench.layer) == 0
    ends = [event.key for event in walk.bench.events if isinstance(event, Terminated)]
    assert walk.key in ends


def test_an_owner_that_fails_is_not_waited_for(random: Random, request_text: RequestText) -> None:
    """What came in gets 500, whatever became of it; whoever waits for an answer is told that none comes."""
    bench = Bench(random)
    for method in ("INVITE", "BYE"):
        bench.receive(request_text(method))
        bench.layer.give_up(bench.events[-1].key, bench.now_s)  # type: ignore[union-attr]
        bench.collect()
    assert bench.methods() == ["500", "500"]
    bench.layer.give_up(bench.send("BYE"), bench.now_s)
    bench.layer.give_up(bench.send(), bench.now_s)
    bench.collect()
    assert bench.told(TimedOut) == 1
    bench.advance(100)
    assert bench.told(TimedOut) == 3  # nobody acknowledged the 500, and nobody answered the INVITE
    assert len(bench.layer) == 0


def test_an_owner_that_is_silent_is_answered_for(bench: Bench, request_text: RequestText) -> None:
    bench.receive(request_text())
    bench.receive(request_text("BYE", branch="z9hG4bKbye"))
    bench.advance(Timers().answer_s + 1)
    assert bench.methods()[:2] == ["100", "500"]
    assert bench.layer.counters.overdue == 1
    bench.advance(100)
    assert len(bench.layer) == 0


def test_counters_begin_at_zero() -> None:
    assert set(asdict(Counters()).values()) == {0}


def test_only_who_saw_a_request_can_say_that_it_did_not_arrive(bench: Bench, request_text: RequestText) -> None:
    """ICMP is easily forged: the random branch must be quoted, and for the hop that the request went to."""
    bench.send()
    data = bench.sent[0][1].data
    assert data.split(b"\r\n")[1].startswith(b"Via: ")
    forged = data.replace(b"branch=z9hG4bK", b"branch=z9hG4bKx")
    for quoted, hop in ((forged, PEER), (data[:60], PEER), (data, UDP), (b"", PEER), (request_text(), PEER)):
        bench.layer.unreachable(quoted, hop, bench.now_s)
    bench.collect()
    assert bench.events == []
    bench.layer.unreachable(data[:200], Hop("udp", "127.0.0.9", 5060), bench.now_s)
    bench.collect()
    assert (bench.told(TransportBroken), len(bench.layer)) == (1, 0)
