"""The rules of a domain's proxy, each by itself."""

import pytest
from sipmessage import Response

from sip_testbed.proxy_rules import remove_challenges
from voice_dpki.errors import MalformedError
from voice_dpki.sip.digest import choose_challenge
from voice_dpki.sip.message import header_values, set_header_values

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
