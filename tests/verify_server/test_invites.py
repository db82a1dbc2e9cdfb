"""What a SIP peer is told of a call that the operator's rules treat."""

from collections.abc import Sequence
from typing import Any, cast

import pytest
from sipmessage import Response

from verify_server.invites import InviteVerifier
from verify_server.service import VerifyService
from voice_dpki.effects import SystemClock
from voice_dpki.shell.stir_sip import SipPeer
from voice_dpki.sip.message import parse_message
from voice_dpki.sip.redirect import Additions
from voice_dpki.stir.call import Call
from voice_dpki.stir.treatment import Act, Treatment
from voice_dpki.stir.verdict import Verdict, Verstat
from voice_dpki.wire.sip.asked import read_invite

from .test_service import INVITE

PEER = SipPeer(address="192.0.2.7", name="sbc-1")
CALLER = "<sip:+493023125001{}@a.example;user=phone>"


class Told:
    """A service whose verdicts the test tells."""

    def __init__(self, treatment: Treatment) -> None:
        self.verdict = Verdict(Verstat.FAILED, 438, "Bad", "It is bad.", treatment=treatment)
        self.calls: list[Call] = []

    async def verdicts_on(self, call: Call) -> Sequence[Verdict]:
        self.calls.append(call)
        return [self.verdict]


@pytest.mark.parametrize(
    ("treatment", "told"),
    [
        (
            Treatment(Act.TAG, verstat="Fraud"),
            {"headers": (("P-Asserted-Identity", CALLER.format(";verstat=Fraud")),)},
        ),
        (Treatment(Act.PASS), {"headers": (("P-Asserted-Identity", CALLER.format("")),)}),
        (
            Treatment(Act.WITHHOLD, verstat="X"),
            {"headers": (("P-Asserted-Identity", CALLER.format(";verstat=X")), ("Privacy", "id"))},
        ),
        (Treatment(Act.REJECT, status=608, text="Rejected"), {"refusal": (608, "Rejected")}),
    ],
)
async def test_the_rules_decide(treatment: Treatment, told: dict[str, Any]) -> None:
    service = Told(treatment)
    added = await InviteVerifier(cast(VerifyService, service), SystemClock()).additions(
        read_invite(INVITE.encode()), PEER
    )
    assert added == Additions(reasons=('STIR;cause=438;text="It is bad."',), **told)
    assert service.calls[0].source.peer == "sbc-1"


def told_text(treatment: Treatment) -> InviteVerifier:
    return InviteVerifier(cast(VerifyService, Told(treatment)), SystemClock())


async def test_a_rejected_call_is_answered_with_the_response_to_send() -> None:
    reason = 'STIR ;cause=438 ;text="Bad"'
    treatment = Treatment(Act.REJECT, status=608, text="Rejected", reasons=(reason,))
    answer = parse_message(await told_text(treatment).verify_text(INVITE.encode()))
    assert isinstance(answer, Response)
    assert (answer.code, answer.phrase, answer.headers.getlist("Reason")) == (608, "Rejected", [reason])
    asked = read_invite(INVITE.encode())
    for name in ("Via", "From", "Call-ID", "CSeq"):
        assert answer.headers.get(name) == asked.headers.get(name)
    assert ";tag=" in (answer.headers.get("To") or "")


@pytest.mark.parametrize(("act", "privacy"), [(Act.TAG, []), (Act.WITHHOLD, ["id"])])
async def test_a_call_that_goes_on_is_answered_with_the_invite(act: Act, privacy: list[str]) -> None:
    answer = read_invite(await told_text(Treatment(act, verstat="X")).verify_text(INVITE.encode()))
    assert answer.headers.getlist("Privacy") == privacy
    assert answer.headers.get("P-Asserted-Identity") == CALLER.format(";verstat=X")
