"""A proxy that lets several telephones ring (RFC 3261 §16.7): the first 2xx wins, else the best answer counts."""

from collections.abc import Callable

import pytest
from sipmessage import Request, Response

from tests.sip.proxy_bench import CALLER, Bench
from voice_dpki.effects import Random
from voice_dpki.sip.events import TransactionKey
from voice_dpki.sip.forking import MAX_BRANCHES, Branches
from voice_dpki.sip.location import Target
from voice_dpki.sip.message import Hop, copy_request, encode, header_values, make_response, parse_message

RequestText = Callable[..., bytes]
PHONES = [Hop("udp", f"127.0.0.{7 + place}", 5060) for place in range(3)]


@pytest.fixture
def forked(random: Random, request_text: RequestText) -> Bench:
    """A proxy that has sent an INVITE to three telephones."""
    bench = Bench(random)
    bench.receive(request_text())
    fork(bench, PHONES)
    return bench


def fork(bench: Bench, phones: list[Hop]) -> None:
    arrival = bench.arrivals[-1]
    targets = [(copy_request(arrival.request), Target(hop)) for hop in phones]
    bench.core.fork(arrival.key, targets, bench.now_s)
    bench.pump()


def sent_to(bench: Bench, hop: Hop) -> list[Request | Response]:
    return [parse_message(outgoing.data) for outgoing in bench.sent if outgoing.hop == hop]


def answer(bench: Bench, place: int, status: int, **headers: str) -> None:
    """Let one telephone answer its INVITE."""
    invite = sent_to(bench, PHONES[place])[0]
    assert isinstance(invite, Request)
    response = make_response(invite, status, to_tag=f"phone-{place}", headers=list(headers.items()))
    bench.receive(encode(response), PHONES[place])


def told(bench: Bench) -> list[tuple[int, str]]:
    """Status and To tag of what the caller was told, without 100."""
    responses = [message for message in sent_to(bench, CALLER) if isinstance(message, Response)]
    return [(each.code, str(each.to_address.parameters.get("tag"))) for each in responses if each.code != 100]


def methods(bench: Bench, place: int) -> list[str]:
    return [message.method for message in sent_to(bench, PHONES[place]) if isinstance(message, Request)]


def test_each_telephone_gets_the_invite_with_a_branch_of_its_own(forked: Bench) -> None:
    invites = [sent_to(forked, hop) for hop in PHONES]
    assert [len(messages) for messages in invites] == [1, 1, 1]
    assert len({header_values(messages[0], "Via")[0] for messages in invites}) == 3


def test_each_one_is_heard_ringing_and_the_first_that_answers_wins(forked: Bench) -> None:
    for place in range(3):
        answer(forked, place, 180)
    answer(forked, 1, 200)
    assert told(forked) == [(180, "phone-0"), (180, "phone-1"), (180, "phone-2"), (200, "phone-1")]
    assert [methods(forked, place) for place in range(3)] == [
        ["INVITE", "CANCEL"],
        ["INVITE"],
        ["INVITE", "CANCEL"],
    ]
    cancel = sent_to(forked, PHONES[0])[-1]
    assert cancel.headers["Reason"] == 'SIP;cause=200;text="Call completed elsewhere"'
    for place in (0, 2):
        answer(forked, place, 487)
    assert len(told(forked)) == 4, "what the others say counts no more"
    assert methods(forked, 0)[-1] == "ACK"


def test_a_second_2xx_that_crosses_the_cancel_goes_back_too(forked: Bench) -> None:
    """The caller must acknowledge it, and end that call (§13.2.2.4)."""
    for place in (2, 0):
        answer(forked, place, 180)
        answer(forked, place, 200)
    assert [code for code in told(forked) if code[0] == 200] == [(200, "phone-2"), (200, "phone-0")]


@pytest.mark.parametrize(
    ("statuses", "best"),
    [
        ((486, 480, 404), 486),
        ((486, 302, 404), 302),
        ((500, 486, 500), 486),
        *(((486, status, 404), status) for status in (401, 407, 415, 420, 484)),  # RFC 3261 §16.7 step 6
        *(((486, status, 404), 486) for status in (400, 402, 406, 408, 414, 416, 421, 483, 485)),
        ((503, 500, 503), 500),
    ],
)
def test_the_best_of_the_refusals_goes_back_once_all_have_come(
    forked: Bench, statuses: tuple[int, ...], best: int
) -> None:
    for place, status in enumerate(statuses):
        assert told(forked) == []
        answer(forked, place, status)
    ((code, _),) = told(forked)
    assert code == best


def test_after_a_6xx_nobody_else_is_asked(forked: Bench) -> None:
    for place in range(3):
        answer(forked, place, 180)
    answer(forked, 0, 603)
    assert [methods(forked, place)[-1] for place in (1, 2)] == ["CANCEL", "CANCEL"]
    answer(forked, 1, 487)
    assert told(forked)[3:] == []
    answer(forked, 2, 487)
    assert told(forked)[3:] == [(603, "phone-0")]


def test_a_caller_that_gives_up_ends_the_ringing_everywhere(forked: Bench, request_text: RequestText) -> None:
    for place in range(3):
        answer(forked, place, 180)
    cancel = request_text().replace(b"INVITE", b"CANCEL")
    forked.receive(cancel)
    assert [methods(forked, place)[-1] for place in range(3)] == ["CANCEL"] * 3
    for place in range(3):
        answer(forked, place, 487)
    assert told(forked)[-1][0] == 487


def test_telephones_that_say_nothing_or_cannot_be_reached_count_as_refusals(forked: Bench) -> None:
    answer(forked, 0, 486)
    broken = next(outgoing.key for outgoing in forked.sent if outgoing.hop == PHONES[1])
    assert broken is not None
    forked.layer.transport_failed(broken, forked.now_s)
    forked.pump()
    assert told(forked) == []
    forked.advance(40)
    assert {code for code, _ in told(forked)} == {486}, "the first of its class, sent again until its ACK"
    assert len(forked.core._contexts) <= 1


def test_only_so_many_telephones_ring(random: Random, request_text: RequestText) -> None:
    bench = Bench(random)
    bench.receive(request_text())
    fork(bench, [Hop("udp", f"127.0.1.{place}", 5060) for place in range(1, MAX_BRANCHES + 3)])
    assert bench.names().count("INVITE") == MAX_BRANCHES


def test_a_branch_that_ends_twice_ends_once() -> None:
    branches, keys = Branches(), [TransactionKey(name) for name in ("a", "b")]
    for key in keys:
        branches.open(key)
    assert branches.lose(keys[0], Response(486, "Busy Here")) == (None, [])
    assert branches.win(keys[1]) == []
    assert branches.lose(keys[0], Response(480, "x")) == (None, [])
