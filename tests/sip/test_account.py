"""A user's credentials: which challenges are answered, in which header field, and how often."""

import re
from dataclasses import replace

import pytest
from sipmessage import URI, Request

from voice_dpki.effects import Random
from voice_dpki.sip.account import Account
from voice_dpki.sip.digest import Authenticator, Secret
from voice_dpki.sip.message import make_response

ACCOUNT = Account("sip:+493023125001@a.example", "alice", "right")
FIELDS = {401: ("WWW-Authenticate", "Authorization"), 407: ("Proxy-Authenticate", "Proxy-Authorization")}


@pytest.mark.parametrize(
    ("account", "sender"),
    [
        (ACCOUNT, "<sip:+493023125001@a.example>"),
        (replace(ACCOUNT, display_name="Alice"), '"Alice" <sip:+493023125001@a.example>'),
    ],
)
def test_a_request_outside_dialogs_has_what_every_request_needs(account: Account, sender: str) -> None:
    request = account.new_request("MESSAGE", "sip:1@b.example", "<sip:2@b.example>", "from-tag", "call-1")
    assert (request.method, str(request.uri)) == ("MESSAGE", "sip:1@b.example")
    assert dict(request.headers) == {
        "Max-Forwards": "70",
        "From": f"{sender};tag=from-tag",
        "To": "<sip:2@b.example>",
        "Call-ID": "call-1",
    }


@pytest.fixture
def request_of_user() -> Request:
    request = ACCOUNT.new_request("INVITE", "sip:1@b.example", "<sip:1@b.example>", "tag", "call-1")
    request.headers.set("CSeq", "1 INVITE")
    return request


def server_of(realm: str, random: Random) -> Authenticator:
    return Authenticator(realm, {"alice": Secret("right")}.get, random=random)


@pytest.mark.parametrize("status", FIELDS)
def test_a_challenge_is_answered_once_unless_it_was_stale(
    request_of_user: Request, random: Random, status: int
) -> None:
    server, (asked, answered) = server_of("a.example", random), FIELDS[status]

    def challenged(stale: bool) -> bool:
        challenge = server.challenge("alice", 1.0, stale=stale)
        response = make_response(request_of_user, status, headers=[(asked, challenge)])
        return ACCOUNT.authorize(request_of_user, response, random)

    assert challenged(stale=False)
    assert "nc=00000001" in request_of_user.headers[answered]
    assert re.search(r'cnonce="[0-9a-f]{16}"', request_of_user.headers[answered])
    assert not challenged(stale=False), "the password was refused"
    assert request_of_user.headers["CSeq"] == "2 INVITE"
    assert challenged(stale=True)
    assert request_of_user.headers["CSeq"] == "3 INVITE"
    assert server.authenticate(request_of_user.headers.getlist(answered), "INVITE", 1.0) == "alice"


@pytest.mark.parametrize(("status", "realm"), [(401, "b.example"), (407, "b.example"), (403, "a.example")])
def test_no_other_challenge_is_answered(request_of_user: Request, random: Random, status: int, realm: str) -> None:
    challenge = server_of(realm, random).challenge("alice", 1.0)
    headers = [(asked, challenge) for asked, _ in FIELDS.values()]
    before = bytes(request_of_user)
    assert not ACCOUNT.authorize(request_of_user, make_response(request_of_user, status, headers=headers), random)
    assert bytes(request_of_user) == before


@pytest.mark.parametrize(
    ("user", "named"),
    [("+493023125001", True), ("493023125001", True), ("+493023125001;x=y", True), ("+493023125002", False)],
)
def test_a_user_is_named_with_and_without_plus(user: str, named: bool) -> None:
    assert ACCOUNT.is_named_by(URI("sip", "127.0.0.6", user)) is named
