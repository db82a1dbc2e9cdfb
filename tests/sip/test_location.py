"""The location service: bindings that last as long as was granted, and no longer."""

from collections.abc import Callable
from dataclasses import replace

import pytest
from sipmessage import Request

from voice_dpki.errors import MalformedError
from voice_dpki.sip.location import IntervalTooBriefError, Location, OutOfOrderError, target_of
from voice_dpki.sip.message import Hop, parse_message, parse_uri

RequestText = Callable[..., bytes]
Register = Callable[..., list[str]]

SOURCE = Hop("udp", "127.0.0.6", 5060)


@pytest.fixture
def location() -> Location:
    return Location()


@pytest.fixture
def register(location: Location, request_text: RequestText) -> Register:
    """Register contacts and return what is then bound, as seen at the same moment."""

    def act(
        *contacts: str, expires: str = "", sequence: int = 1, call_id: str = "r", now_s: float = 0.0
    ) -> list[str]:
        data = request_text("REGISTER", "sip:a.example", sequence=sequence, call_id=call_id)
        request = parse_message(data)
        assert isinstance(request, Request)
        request.headers.remove("Contact")
        if contacts:
            request.headers.setlist("Contact", list(contacts))
        if expires:
            request.headers.set("Expires", expires)
        location.register("1", request, call_id, sequence, SOURCE, 0.0)
        return [str(binding.uri) for binding in location.find("1", 0.0)]

    return act


def test_a_binding_lasts_as_long_as_granted(location: Location, register: Register) -> None:
    assert register("<sip:1@127.0.0.6>;expires=60") == ["sip:1@127.0.0.6"]
    assert location.find("1", 59.9)
    assert not location.find("1", 60.0)


def test_what_has_expired_is_forgotten(location: Location, register: Register) -> None:
    register("<sip:1@127.0.0.6>;expires=60", "<sip:1@127.0.0.7>;expires=120")
    for now_s, left in ((59.9, 2), (60.0, 1)):
        location.find("1", now_s)
        assert len(location._bindings["1"]) == left
    location.find("1", 120.0)
    assert location._bindings == {}


@pytest.mark.parametrize(
    ("contact", "expires", "granted_s"),
    [
        ("<sip:a>", "", 600),
        ("<sip:a>", "90", 90),
        ("<sip:a>;expires=99999999999", "", 3600),
        ("<sip:a>", "soon", 600),
    ],
)
def test_the_time_is_bounded(
    location: Location, register: Register, contact: str, expires: str, granted_s: int
) -> None:
    register(contact, expires=expires)
    assert location.find("1", granted_s - 1)
    assert not location.find("1", granted_s)


def test_a_time_too_short_is_refused_whole(location: Location, register: Register) -> None:
    with pytest.raises(IntervalTooBriefError):
        register("<sip:a>", "<sip:b>;expires=5")
    assert location.find("1", 0) == ()


def test_the_latest_contact_comes_first_and_renewal_moves_it(register: Register) -> None:
    register("<sip:a>")
    assert register("<sip:b>", sequence=2) == ["sip:b", "sip:a"]
    assert register("<sip:a>", sequence=3) == ["sip:a", "sip:b"]


def test_contacts_are_removed_one_by_one_or_all(register: Register) -> None:
    register("<sip:a>", "<sip:b>")
    assert register("<sip:a>;expires=0", sequence=2) == ["sip:b"]
    assert register(sequence=3) == ["sip:b"]
    assert register("*", expires="0", sequence=4) == []
    with pytest.raises(MalformedError):
        register("*", sequence=5)


def test_an_older_register_changes_nothing(register: Register) -> None:
    register("<sip:a>", sequence=2)
    with pytest.raises(OutOfOrderError):
        register("<sip:a>;expires=0", sequence=2)
    assert register("<sip:a>", call_id="another", sequence=1) == ["sip:a"]


def test_contacts_are_few_and_sip(register: Register) -> None:
    with pytest.raises(MalformedError):
        register(*(f"<sip:{n}@a>" for n in range(5)))
    with pytest.raises(MalformedError):
        register("<tel:+49>")


UUID = "urn:uuid:00000000-0000-1000-8000-000A95A0E128"  # RFC 5626 §9.2
INSTANCE = f';+sip.instance="<{UUID}>"'


def test_a_restarted_telephone_is_known_by_its_instance(register: Register) -> None:
    register(f"<sip:old>{INSTANCE}", sequence=9)
    assert register(f"<sip:new>{INSTANCE}", call_id="restarted") == ["sip:new"]
    assert register("<sip:other>", call_id="o") == ["sip:other", "sip:new"]
    with pytest.raises(OutOfOrderError):
        register(f"<sip:newer>{INSTANCE}", call_id="restarted")


def test_flows_of_one_telephone_are_bindings_of_their_own(register: Register) -> None:
    register(f"<sip:a>{INSTANCE};reg-id=1")
    assert register(f"<sip:x>{INSTANCE};reg-id=2", sequence=2) == ["sip:x", "sip:a"]
    assert register(f"<sip:b>{INSTANCE};reg-id=1", call_id="again") == ["sip:b", "sip:x"]
    assert register(f"<sip:c>{INSTANCE};reg-id=2;expires=0", call_id="off") == ["sip:b"]
    with pytest.raises(MalformedError):
        register(f"<sip:a>{INSTANCE};reg-id=1", "<sip:b>", call_id="two")


def test_the_oldest_contact_makes_room(register: Register) -> None:
    for number in range(6):
        bound = register(f"<sip:{number}@h>", call_id=str(number))
    assert bound == ["sip:5@h", "sip:4@h", "sip:3@h", "sip:2@h"]


def test_an_instance_is_bounded(register: Register) -> None:
    with pytest.raises(MalformedError):
        register(f'<sip:a>;+sip.instance="<{"u" * 300}>"')


@pytest.mark.parametrize(
    ("source", "contact", "via", "hop", "flow", "fallback"),
    [
        ("udp:192.0.2.1:5060", "sip:1@192.0.2.1", ";rport=5060", "udp:192.0.2.1:5060", None, None),
        ("udp:192.0.2.1:9999", "sip:1@192.0.2.1", ";rport=9999", "udp:192.0.2.1:9999", 0, None),
        ("udp:192.0.2.1:9999", "sip:1@192.0.2.1", "", "udp:192.0.2.1:5060", None, None),
        ("udp:192.0.2.1:5060", "sip:1@10.0.0.1", ";rport=5060", "udp:192.0.2.1:5060", 0, None),
        ("udp:192.0.2.1:5060", "sip:1@phone.invalid", "", "udp:192.0.2.1:5060", 0, None),
        ("udp:192.0.2.1:5060", "sip:1@192.0.2.1;transport=tcp", "", "tcp:192.0.2.1:5060", None, None),
        ("udp:192.0.2.1:9999", "sip:1@192.0.2.1;transport=tcp", ";rport=9999", "tcp:192.0.2.1:5060", None, None),
        ("tcp:192.0.2.1:9999", "sip:1@10.0.0.1;transport=tcp", "", "tcp:192.0.2.1:9999", 7, "tcp:10.0.0.1:5060"),
        ("tcp:192.0.2.1:9999", "sip:1@10.0.0.1", "", "tcp:192.0.2.1:9999", 7, None),
    ],
)
def test_where_a_telephone_is_called(
    request_text: RequestText, source: str, contact: str, via: str, hop: str, flow: int | None, fallback: str | None
) -> None:
    request = parse_message(request_text("REGISTER", "sip:a.example", branch="z9hG4bKx" + via))
    assert isinstance(request, Request)
    where = Hop.parse(source)
    where = replace(where, flow=7) if where.reliable else where
    target = target_of(request, parse_uri(contact), where)
    assert (str(target.hop), target.hop.flow) == (hop, flow)
    assert target.fallback == (Hop.parse(fallback) if fallback else None)
    alone = target_of(request, parse_uri(contact), where, flow_only=True)
    assert (str(alone.hop), alone.hop.flow, alone.fallback) == (source, flow or where.flow or 0, None)
