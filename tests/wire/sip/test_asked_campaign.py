"""Fuzzing the INVITEs that the STIR services read: any bytes are a call, or a documented error."""

import re

import pytest

from tests.campaign import bent, campaign, rounds
from voice_dpki.effects import SystemRandom
from voice_dpki.errors import MalformedError
from voice_dpki.sip.message import encode
from voice_dpki.sip.redirect import STATUSES, Additions, Dialect, answer
from voice_dpki.stir.faults import RequestError
from voice_dpki.stir.verdict import Verstat
from voice_dpki.wire.sip.asked import Terms, asserted, assertion_of, call_of, read_invite, signed, signing_of

from .test_asked import NOW_S, text

pytestmark = campaign
FORGED = re.compile(r"(?i)(;|%3B|[?&])\s*verstat=(?!No-TN)")
"""A parameter, or what may become one; in the middle of a user it is a part of the name."""
PIECES = [
    b"\r\n ", b'"\\', b";verstat=TN-Validation-Passed", b"%3Bverstat=x", b"<>", b"%00", b"%0d%0aX:y", b"tel:+49#*",
    b"sips:@[::1]", b";user=phone", b"9" * 40, b"\xff", b"\x00", b"urn:service:sos", b"?Identity=x", b",,",
]  # fmt: skip
WHOLE = text(
    P_Asserted_Identity='"A" <sip:+493023125001;verstat=x@a.example>, <tel:+493023125001>',
    Identity="a.b.c;info=<https://x>",
    Resource_Priority="ets.0",
    Date="Mon, 21 Sep 2026 13:46:40 GMT",
)


def check_sentence(error: Exception) -> None:
    assert 0 < len(str(error)) < 400


def told(data: bytes) -> None:
    """Read an INVITE for both services, and write what they would answer."""
    request = read_invite(data)
    call_of(request, NOW_S)
    assertion = assertion_of(request, Verstat.NONE)
    assert assertion.count("<") == assertion.count(">") == 1
    assert not FORGED.search(assertion)
    encode(asserted(request, assertion))
    for status in STATUSES:
        response = answer(request, Dialect(status), Additions((("Identity", "a.b.c;info=<x>"),)), "tag")
        assert encode(response).count(b"\r\n\r\n") == 1
    request.headers.remove("Identity")
    signing_of(request, Terms("C"), NOW_S, SystemRandom())
    encode(signed(request, "a.b.c;info=<x>", NOW_S))


def test_any_invite_is_a_call_or_a_documented_error(request: pytest.FixtureRequest) -> None:
    good = 0
    for chance in rounds(request):
        try:
            told(bent(chance, chance.choice((WHOLE, text())), PIECES))
            good += 1
        except (RequestError, MalformedError) as error:
            check_sentence(error)
    assert good
