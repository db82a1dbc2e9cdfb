"""What a server refuses before it processes a request: the statuses of RFC 3261 §8.2 and their header fields."""

import pytest
from sipmessage import Message, Request

from voice_dpki.sip.uas import RequestRefusedError, check_request

METHODS = ("INVITE", "ACK", "BYE")
SDP = "Content-Type: application/sdp"


def request(*fields: str, method: str = "INVITE", uri: str = "sip:b@b.example", body: str = "v=0") -> Request:
    head = (f"{method} {uri} SIP/2.0", f"CSeq: 1 {method}", *fields, f"Content-Length: {len(body)}", "", body)
    message = Message.parse("\r\n".join(head).encode())
    assert isinstance(message, Request)
    return message


REFUSED = {
    "a method that SIP defines": (request(SDP, method="REGISTER"), 405, {"Allow": "INVITE, ACK, BYE"}),
    "a method that SIP does not define": (request(SDP, method="NEWMETHOD"), 501, {"Allow": "INVITE, ACK, BYE"}),
    "a required extension": (request(SDP, "Require: a, b"), 420, {"Unsupported": "a, b"}),
    "many required extensions": (
        request(SDP, f"Require: {', '.join('abcdefghijklmnopq')}"),
        420,
        {"Unsupported": ", ".join("abcdefghijklmnop")},
    ),
    "another body": (
        request("Content-Type: text/plain"),
        415,
        {"Accept": "application/sdp", "Accept-Encoding": "identity"},
    ),
    "a body that is encoded": (
        request(SDP, "Content-Encoding: gzip"),
        415,
        {"Accept": "application/sdp", "Accept-Encoding": "identity"},
    ),
    "an answer that would not be read": (
        request(SDP, "Accept: text/plain"),
        406,
        {"Warning": '399 user-agent "an answer is application/sdp"'},
    ),
}


@pytest.mark.parametrize(("refused", "status", "headers"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_processed_is_refused(refused: Request, status: int, headers: dict[str, str]) -> None:
    with pytest.raises(RequestRefusedError) as caught:
        check_request(refused, METHODS)
    assert (caught.value.status, dict(caught.value.headers)) == (status, headers)


@pytest.mark.parametrize(
    "served",
    [
        request(SDP),
        request(body=""),
        request(SDP, "Accept: application/*;q=0.5, text/plain"),
        request("Content-Type: text/plain", "Content-Disposition: render; handling=optional"),
        request("Content-Type: text/plain", method="BYE"),
        request("Content-Type: Application/SDP ;x=y", "Content-Encoding:  Identity"),
        request(SDP, "Accept: application/SDP"),
        request(SDP, "Accept: */*"),
    ],
    ids=[
        "an offer",
        "no body",
        "an Accept that fits",
        "an optional body",
        "a body in another method",
        "identity",
        "an Accept of SDP",
        "any",
    ],
)
def test_what_can_be_processed_is_not(served: Request) -> None:
    check_request(served, METHODS)
