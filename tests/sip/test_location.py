"""The location service: bindings that last as long as was granted, and no longer."""

from collections.abc import Callable
from dataclasses import replace

import pytest
from sipmessage import URI, Request

from voice_dpki.errors import MalformedError
from voice_dpki.sip.location import (
    Binding,
    IntervalTooBriefError,
    Location,
    NoFirstHopError,
    OutOfOrderError,
    Target,
    _Wanted,
    supports_outbound,
    target_of,
)
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
    register("<sip:1@127.0.0.6>;expires=60", sequence=2)
    assert not location.find("1", 61.0)


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
        ("<sip:a>", "\N{ARABIC-INDIC DIGIT NINE}0", 600),
    ],
)
def test_the_time_is_bounded(
    location: Location, register: Register, contact: str, expires: str, granted_s: int
) -> None:
    register(contact, expires=expires)
    assert location.find("1", granted_s - 1)
    assert not location.find("1", granted_s)


def test_the_shortest_time_is_30_s(location: Location, register: Register) -> None:
    for expires_s in (1, 29):
        with pytest.raises(IntervalTooBriefError, match="at least 30 s"):
            register(f"<sip:a>;expires={expires_s}")
    assert register("<sip:a>;expires=30")
    assert not location.find("1", 30.0)


@pytest.mark.parametrize(("source", "granted_s"), [(Hop("tcp", "127.0.0.6", 40_000, flow=7), 240), (SOURCE, 3_600)])
def test_a_binding_to_a_connection_lasts_240_s_at_most(
    location: Location, request_text: RequestText, source: Hop, granted_s: int
) -> None:
    request = parse_message(request_text("REGISTER", "sip:a.example"))
    assert isinstance(request, Request)
    request.headers.set("Contact", "<sip:1@127.0.0.6>;expires=9999")
    location.register("1", request, "call", 1, source, 0.0)
    assert [binding.expires_s for binding in location.find("1", 0.0)] == [granted_s]


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


def bound(uri: str, instance: str = "", reg_id: int = 0) -> Binding:
    return Binding(URI("sip", uri), 60.0, "call", 1, Target(SOURCE), instance, reg_id)


@pytest.mark.parametrize(
    ("instance", "reg_id", "contact"),
    [("", 0, "<sip:a>"), ("", 1, "<sip:a>"), ('"<i>"', 0, '<sip:a>;+sip.instance="<i>"'),
     ('"<i>"', 2, '<sip:a>;+sip.instance="<i>";reg-id=2')],
)  # fmt: skip
def test_a_binding_is_shown_with_what_tells_it_from_others(instance: str, reg_id: int, contact: str) -> None:
    assert bound("a", instance, reg_id).contact == contact


@pytest.mark.parametrize(
    ("old", "wanted", "replaced"),
    [
        (("a", "", 0), ("a", "", 0), True),
        (("a", "", 0), ("b", "", 0), False),
        (("a", "i", 1), ("b", "i", 1), True),
        (("a", "i", 1), ("b", "i", 2), False),
        (("a", "i", 2), ("b", "i", 1), False),
        (("a", "i", 1), ("b", "i", 0), True),
        (("a", "i", 0), ("b", "i", 1), True),
        (("a", "i", 1), ("b", "j", 1), False),
        (("a", "j", 1), ("b", "i", 1), False),
        (("a", "", 1), ("b", "", 1), False),
        (("a", "i", 1), ("a", "j", 2), True),
    ],
)
def test_which_contact_replaces_which(
    old: tuple[str, str, int], wanted: tuple[str, str, int], replaced: bool
) -> None:
    uri, instance, reg_id = wanted
    assert bound(*old).is_replaced_by(_Wanted(URI("sip", uri), 60, instance, reg_id)) is replaced


def test_a_dead_binding_alone_is_dropped(location: Location, register: Register) -> None:
    register("<sip:a>", "<sip:b>")
    second, first = location.find("1", 0.0)
    location.drop("1", replace(first))
    assert location.find("1", 0.0) == (second, first), "another binding, even if it is equal, is a newer one"
    location.drop("1", first)
    assert location.find("1", 0.0) == (second,)
    location.drop("2", first)


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
    assert register(f"<sip:a>;+sip.instance={'u' * 256}")
    with pytest.raises(MalformedError, match="longer than 256 characters"):
        register(f"<sip:a>;+sip.instance={'u' * 257}", sequence=2)


def test_a_contact_with_reg_id_is_called_on_its_flow_alone(location: Location, register: Register) -> None:
    named = Hop("udp", "127.0.0.6", 5070)
    for number, (contact, target, reg_id) in enumerate(
        [
            (f"<sip:1@127.0.0.6:5070>{INSTANCE};reg-id=1", Target(replace(SOURCE, flow=0)), 1),
            (f"<sip:1@127.0.0.6:5070>{INSTANCE}", Target(named), 0),
            ("<sip:1@127.0.0.6:5070>;reg-id=1", Target(named), 0),
        ]
    ):
        register(contact, call_id=str(number))
        (binding,) = location.find("1", 0.0)
        assert (binding.target, binding.target.hop.flow, binding.reg_id) == (target, target.hop.flow, reg_id)


@pytest.mark.parametrize(
    ("text", "reg_id"),
    [
        ("1", 1),
        ("x", 0),
        ("-1", 0),
        ("4294967294", 2**32 - 2),
        ("4294967296", 2**32 - 1),
        ("9" * 99, 2**32 - 1),
    ],
)
def test_numbers_of_a_contact_are_bounded(location: Location, register: Register, text: str, reg_id: int) -> None:
    register(f"<sip:a>{INSTANCE};reg-id={text}")
    assert [binding.reg_id for binding in location.find("1", 0.0)] == [reg_id]


@pytest.mark.parametrize(
    ("supported", "outbound"), [("outbound", True), ("path, Outbound", True), ("path", False), (None, False)]
)
def test_a_flow_begins_at_the_telephone(
    location: Location, request_text: RequestText, supported: str | None, outbound: bool
) -> None:
    """RFC 5626 §6: behind a proxy without outbound there is no flow; who does not speak of outbound gets none."""
    request = parse_message(request_text("REGISTER", "sip:a.example"))
    assert isinstance(request, Request)
    request.headers.set("Contact", f"<sip:1@127.0.0.6:5070>{INSTANCE};reg-id=1")
    if supported is not None:
        request.headers.set("Supported", supported)
    assert supports_outbound(request) is outbound
    location.register("1", request, "direct", 1, SOURCE, 0.0)
    assert [binding.reg_id for binding in location.find("1", 0.0)] == [1]
    request.headers.add("Via", "SIP/2.0/UDP 192.0.2.1;branch=z9hG4bKfirst")
    if outbound:
        with pytest.raises(NoFirstHopError):
            location.register("1", request, "proxied", 1, SOURCE, 0.0)
        return
    location.register("1", request, "proxied", 1, SOURCE, 0.0)
    assert [binding.reg_id for binding in location.find("1", 0.0)] == [0]


@pytest.mark.parametrize(
    ("source", "contact", "via", "hop", "flow", "fallback"),
    [
        ("udp:192.0.2.1:5060", "sip:1@192.0.2.1", ";rport=5060", "udp:192.0.2.1:5060", None, None),
        ("udp:192.0.2.1:9999", "sip:1@192.0.2.1", ";rport=9999", "udp:192.0.2.1:9999", 0, None),
        ("udp:192.0.2.1:4000", "sip:1@192.0.2.1", ";rport=4000", "udp:192.0.2.1:4000", 0, None),
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
    request.headers.add("Via", f"SIP/2.0/UDP 192.0.2.7;branch=z9hG4bKfirst{'' if via else ';rport'}")
    where = Hop.parse(source)
    where = replace(where, flow=7) if where.reliable else where
    target = target_of(request, parse_uri(contact), where)
    assert (str(target.hop), target.hop.flow) == (hop, flow)
    assert target.fallback == (Hop.parse(fallback) if fallback else None)
    alone = target_of(request, parse_uri(contact), where, flow_only=True)
    assert (str(alone.hop), alone.hop.flow, alone.fallback) == (source, flow or where.flow or 0, None)
