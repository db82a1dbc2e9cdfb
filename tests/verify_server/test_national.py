"""Both ways into the verification service read numbers as its country writes them."""

import json
from collections.abc import Awaitable

from tests.clocks import SettableClock
from tests.stir.conftest import NOW_S, Operator, make_operator
from verify_server.invites import InviteVerifier
from verify_server.service import VerifyService
from voice_dpki.shell.trace import Tracer
from voice_dpki.stir.examine import Policy
from voice_dpki.stir.national import Country
from voice_dpki.stir.replay import ReplayCache

from .test_service import ToldResolver


def server(operator: Operator, country: Country | None) -> tuple[VerifyService, InviteVerifier]:
    clock, resolver = SettableClock(NOW_S), ToldResolver()
    resolver.records = {operator.record.digest: operator.record}
    service = VerifyService(resolver, Policy(), ReplayCache(9, 180), clock, Tracer(None, "v"), country=country)
    return service, InviteVerifier(service, clock, country=country)


async def test_a_call_in_national_forms() -> None:
    operator = make_operator()
    identity = operator.call(key_mgmt=()).identities[0]
    members = {"from": {"tn": "03023125001"}, "to": {"tn": ["00442079460001"]}, "time": NOW_S, "identity": identity}
    text = (
        "INVITE sip:00442079460001@b.example SIP/2.0\r\nVia: SIP/2.0/UDP 192.0.2.7;branch=z9hG4bK1\r\n"
        "From: <sip:03023125001@a.example>;tag=1\r\nTo: <sip:00442079460001@b.example>\r\nCall-ID: c1\r\n"
        f"CSeq: 1 INVITE\r\nDate: Mon, 21 Sep 2026 14:13:20 GMT\r\nIdentity: {identity}\r\n\r\n"
    )
    for country, verstat in ((Country("DE"), "TN-Validation-Passed"), (None, "No-TN-Validation")):
        service, invites = server(operator, country)
        told = service.verify(json.dumps({"verificationRequest": members}).encode())
        answer = await told if isinstance(told, Awaitable) else told
        assert json.loads(answer)["verificationResponse"]["verstat"] == verstat
        assert f";verstat={verstat}" in (await invites.verify_text(text.encode())).decode()
