"""Dialogs: the route set, the target and the order of requests (RFC 3261 §12)."""

from collections.abc import Callable
from dataclasses import replace

import pytest
from sipmessage import Request

from voice_dpki.errors import MalformedError
from voice_dpki.sip.dialog import Dialog
from voice_dpki.sip.message import Hop, header_values, make_response, parse_message, read_envelope

RequestText = Callable[..., bytes]

ROUTES = "Record-Route: <sip:127.0.0.3;lr>, <sip:127.0.0.2;lr>\r\n"


@pytest.fixture
def invite(request_text: RequestText) -> Request:
    request = parse_message(request_text(headers=ROUTES))
    assert isinstance(request, Request)
    return request


def ends(invite: Request, contact: str = "<sip:b@127.0.0.7:5070>") -> tuple[Dialog, Dialog]:
    """Both ends of the dialog that an INVITE and its 200 make."""
    routes = [("Record-Route", value) for value in header_values(invite, "Record-Route")]
    response = make_response(invite, 200, to_tag="callee", headers=[*routes, ("Contact", contact)])
    caller = Dialog.of_caller(invite, response, read_envelope(response))
    return caller, Dialog.of_callee(invite, read_envelope(invite), "callee")


def test_both_ends_go_through_the_same_proxies_in_their_order(invite: Request) -> None:
    caller, callee = ends(invite)
    bye = caller.request("BYE")
    assert header_values(bye, "Route") == ["<sip:127.0.0.2;lr>", "<sip:127.0.0.3;lr>"]
    assert (str(bye.uri), bye.headers["CSeq"]) == ("sip:b@127.0.0.7:5070", "2 BYE")
    assert caller.next_hop() == Hop("udp", "127.0.0.2", 5060)
    bye = callee.request("BYE")
    assert header_values(bye, "Route") == ["<sip:127.0.0.3;lr>", "<sip:127.0.0.2;lr>"]
    assert bye.headers["From"].endswith(";tag=callee")
    assert bye.headers["To"].endswith(";tag=caller")
    assert bye.headers["CSeq"] == "1 BYE"
    assert (bye.headers["Max-Forwards"], bye.headers["Call-ID"]) == ("70", "call-1")
    assert caller.request("ACK", 1).headers["CSeq"] == "1 ACK"


def test_a_strict_router_gets_the_request_uri(invite: Request) -> None:
    invite.headers.setlist("Record-Route", ["<sip:127.0.0.3>"])
    caller, _ = ends(invite)
    bye = caller.request("BYE")
    assert str(bye.uri) == "sip:127.0.0.3"
    assert header_values(bye, "Route") == ["<sip:b@127.0.0.7:5070>"]


def test_the_first_router_alone_decides_whether_routing_is_strict(invite: Request) -> None:
    invite.headers.setlist("Record-Route", ["<sip:127.0.0.3;lr>", "<sip:127.0.0.2>"])
    caller, callee = ends(invite)
    bye = caller.request("BYE")
    assert str(bye.uri) == "sip:127.0.0.2"
    assert header_values(bye, "Route") == ["<sip:127.0.0.3;lr>", "<sip:b@127.0.0.7:5070>"]
    bye = callee.request("BYE")
    assert str(bye.uri) == "sip:+493023125001@127.0.0.6:5060"
    assert header_values(bye, "Route") == ["<sip:127.0.0.3;lr>", "<sip:127.0.0.2>"]


def test_requests_out_of_order_are_told(invite: Request, request_text: RequestText) -> None:
    _, callee = ends(invite)
    later = read_envelope(parse_message(request_text("BYE", sequence=5)))
    assert callee.accept(later)
    assert not callee.accept(later)
    assert not callee.accept(read_envelope(parse_message(request_text("BYE", sequence=4))))


@pytest.mark.parametrize("contact", ["", "<sip:a>, <sip:b>", "<tel:+49>"])
def test_a_dialog_needs_one_sip_contact(invite: Request, contact: str) -> None:
    with pytest.raises(MalformedError):
        ends(invite, contact)


def test_a_response_without_contact_makes_no_dialog(invite: Request) -> None:
    response = make_response(invite, 200, to_tag="callee")
    with pytest.raises(MalformedError, match="exactly one Contact"):
        Dialog.of_caller(invite, response, read_envelope(response))


def test_a_sips_call_keeps_to_sips(invite: Request) -> None:
    invite.uri = replace(invite.uri, scheme="sips")
    invite.headers.set("Contact", "<sips:a@127.0.0.6>")
    caller, callee = ends(invite, "<sips:b@127.0.0.7>")
    assert (caller.target.scheme, callee.target.scheme) == ("sips", "sips")
    with pytest.raises(MalformedError, match="no sips: URI in a sips: call"):
        ends(invite, "<sip:b@127.0.0.7>")


def test_a_dialog_has_at_most_32_routes(invite: Request) -> None:
    routes = ["<sip:127.0.0.3;lr>"] * 32
    invite.headers.setlist("Record-Route", routes)
    assert [end.routes for end in ends(invite)] == [tuple(routes)] * 2
    invite.headers.setlist("Record-Route", [*routes, routes[0]])
    with pytest.raises(MalformedError, match="more than 32 Record-Route values"):
        ends(invite)


def test_a_dialog_needs_a_to_tag(invite: Request) -> None:
    response = make_response(invite, 200, headers=[("Contact", "<sip:b@127.0.0.7>")])
    with pytest.raises(MalformedError, match="To tag"):
        Dialog.of_caller(invite, response, read_envelope(response))


def test_each_route_of_a_dialog_can_be_read(invite: Request) -> None:
    response = make_response(invite, 200, to_tag="callee", headers=[("Contact", "<sip:b@127.0.0.7>")])
    for message in (response, invite):
        message.headers.setlist("Record-Route", ["<sip:127.0.0.3;lr>", "nonsense", "<sip:127.0.0.2;lr>"])
    with pytest.raises(MalformedError):
        Dialog.of_caller(invite, response, read_envelope(response))
    with pytest.raises(MalformedError):
        Dialog.of_callee(invite, read_envelope(invite), "callee")


def test_a_name_is_no_next_hop(invite: Request) -> None:
    invite.headers.remove("Record-Route")
    with pytest.raises(MalformedError):
        ends(invite, "<sip:b@b.example>")
