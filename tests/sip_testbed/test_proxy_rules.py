"""The rules of a domain's proxy, each by itself."""

import pytest
from sipmessage import URI, Request, Response

from sip_testbed.proxy_rules import date_call, remove_challenges
from voice_dpki.errors import MalformedError
from voice_dpki.sip.digest import choose_challenge
from voice_dpki.sip.message import header_values, set_header_values
from voice_dpki.wire.sip.invite import date_of

DOMAIN = "a.example"
REST = 'nonce="n", algorithm=SHA-256, qop="auth"'
OTHERS = f'Digest realm="b.example", {REST}'


@pytest.mark.parametrize("name", ["WWW-Authenticate", "Proxy-Authenticate"])
@pytest.mark.parametrize(
    "challenge",
    [
        f'Digest realm="a.example", {REST}',
        f'Digest realm="\\a.example", {REST}',
        f'Digest realm="A\\.ex\\ample", {REST}',
        f"Digest {REST}, REALM = a.example",
        f'Digest realm=" a.example ", {REST}',
        f'Digest x="realm=\\"b.example\\"", realm="\\a.example", {REST}',
        f'Digest realm="b.example", realm="a.example", {REST}',
        f'Digest realm="b.example", {REST}, Digest realm="a.example", {REST}',
        'Digest realm="\\a.example", nonce="n"; qop="auth"',
        'Digest realm="\\a.example", nonce="n", qop="auth-int"',
        'Basic realm="\\a.example"',
    ],
)
def test_no_challenge_for_the_own_realm_goes_through(name: str, challenge: str) -> None:
    """However it is written; what cannot be read does not go through either."""
    response = Response(407, "Proxy Authentication Required")
    set_header_values(response, name, [challenge, OTHERS])
    remove_challenges(response, DOMAIN)
    assert response.headers.getlist(name) == [OTHERS]
    with pytest.raises(MalformedError):
        choose_challenge(header_values(response, name), realm=DOMAIN)


def test_a_call_without_date_gets_one() -> None:
    """RFC 8224 §6.1 step 3; the time and its spelling are those of the example in §4.1 and RFC 3261 §20.17."""
    request = Request("INVITE", URI.parse("sip:+442079460123@b.example"))
    assert date_call(request, 1_443_208_345.9) == 1_443_208_345
    assert request.headers["Date"] == "Fri, 25 Sep 2015 19:12:25 GMT"
    assert date_of(request, 0) == 1_443_208_345
    assert date_call(request, 1_443_208_399) == 1_443_208_345, "the caller's own Date stays"
