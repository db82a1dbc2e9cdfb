"""The table of docs/stir-codes.md: each fault has its code in each profile, whoever asks and by which interface.

The real service judges, in this process; what the ledger says is told by the test.
"""

import json
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import pytest

from tests.clocks import SettableClock
from tests.stir.cases import FAULTS, Case
from tests.stir.conftest import NOW_S, Operator, make_operator
from verify_server.invites import InviteVerifier
from verify_server.service import VerifyService
from voice_dpki.shell.reload import Live
from voice_dpki.shell.stir_sip import SipPeer
from voice_dpki.shell.trace import Tracer
from voice_dpki.sip.redirect import Dialect, answer
from voice_dpki.stir.call import Call
from voice_dpki.stir.examine import Policy
from voice_dpki.stir.faults import RequestError
from voice_dpki.stir.handling import TEXTS, Handling, HandlingRule
from voice_dpki.stir.kinds import KINDS, Kinds
from voice_dpki.stir.profile import Profile
from voice_dpki.stir.replay import ReplayCache
from voice_dpki.stir.shaken import SHAKEN
from voice_dpki.stir.treatment import Act
from voice_dpki.stir.verdict import REASON_TEXTS, Step, Verstat
from voice_dpki.wire.sip.asked import read_invite

from .test_service import ToldResolver

PAGE = Path(__file__).parents[2] / "docs/stir-codes.md"
UNREADABLE = "From or To cannot be read"
NO_IDENTITY = "there is no Identity"
SEVERAL = {
    "the same Identity is there twice",
    "a token of an unknown type beside a good one",
    "five diversions",
    "six diversions",
    "a diversion by somebody without authority",
}
"""Calls with more Identities than a request of ATIS-1000082 holds."""
IN_SIP = {"the Identity has more than 10240 characters": "400"}
"""Where SIP has another code: such a header field is refused before anybody looks at what it is."""
NOTHING_PROVEN = HandlingRule(name="", act=Act.REJECT, verstats=frozenset((Verstat.FAILED, Verstat.NONE)))
SAID = {"passed": Verstat.PASSED, "failed": Verstat.FAILED, "none": Verstat.NONE}


@dataclass(frozen=True)
class Row:
    codes: dict[Profile, str]
    step: str
    verstat: str


def table() -> dict[str, Row]:
    """The page's rows, by what is wrong."""
    row = r"^\| ([^|]+?) \| (?:\d+ )?\| (\S+) \| (\S+) \| ([^|]*?) ?\| (\w+) \|$"
    rows = re.findall(row, PAGE.read_text(), re.MULTILINE)
    return {what: Row({Profile.ATIS: atis, Profile.MAN: man}, step, said) for what, atis, man, step, said in rows}


@pytest.fixture(scope="module")
def cases() -> dict[str, Case]:
    operator: Operator = make_operator()
    return {what: made(operator) for what, made in FAULTS.items()}


class Server:
    """A verification server that knows the case's signers; with rules it rejects who is not proven."""

    def __init__(self, case: Case, profile: Profile, *, rejects: bool = False) -> None:
        clock, resolver = SettableClock(NOW_S), ToldResolver()
        resolver.records = {record.digest: record for record in case.records}
        resolver.reachable = case.reachable
        kinds = Kinds(SHAKEN) if profile.knows_shaken_alone else KINDS
        policy, handling = Policy(profile=profile, kinds=kinds), Handling((NOTHING_PROVEN,)) if rejects else None
        replays = ReplayCache(100, 180)
        self.service = VerifyService(resolver, policy, replays, clock, Tracer(None, "v"), Live(handling))
        self.invites = InviteVerifier(self.service, clock, profile)

    async def ask(self, body: dict[str, Any]) -> dict[str, Any]:
        told = self.service.verify(json.dumps({"verificationRequest": body}).encode())
        answer = await told if isinstance(told, Awaitable) else told
        verdict: dict[str, Any] = json.loads(answer)["verificationResponse"]
        return verdict


@dataclass(frozen=True)
class Told:
    """What one interface tells: the code, "-" for none, and where it does the verstat and the step."""

    code: str
    verstat: str = ""
    step: str | None = None


Ask = Callable[[Case, Profile], Awaitable[Told]]


def in_json(call: Call, is_ms: bool) -> dict[str, Any]:
    to, *others = [{"tn": tn} for tn in call.dest.tns]
    common = {"from": {"tn": call.orig}, "time": call.time_s, "callId": call.call_id, "keyMgmt": []}
    if not is_ms:
        return {**common, "to": {"tn": list(call.dest.tns)}, "identity": call.identities[0]}
    dest = {"dest": others[0]} if others else {}
    return {**common, **dest, "to": to, "identityHeaders": list(call.identities)}


async def by_atis(case: Case, profile: Profile) -> Told:
    server = Server(case, profile)
    for call in (*case.before, case.call):
        verdict = await server.ask(in_json(call, is_ms=False))
    code = verdict.get("reasoncode")
    assert verdict.get("reasontext") == (REASON_TEXTS[code] if code else None)
    assert bool(verdict.get("reasondesc")) is (code is not None)
    return Told(str(code or "-"), verdict["verstat"], verdict.get("step", ""))


async def by_3gpp(case: Case, profile: Profile) -> Told:
    server = Server(case, profile)
    for call in (*case.before, case.call):
        answer = await server.ask(in_json(call, is_ms=True))
    first = answer["verifyResults"][0]["verifyResult"]
    return Told(str(first.get("reasonCode", "-")), answer.get("verstatValue", Verstat.NONE), first.get("step", ""))


def as_text(call: Call) -> bytes:
    target = (call.target or call.dest).tns[0]
    date = format_datetime(datetime.fromtimestamp(call.time_s, UTC), usegmt=True)
    lines = [
        f"INVITE sip:+{target}@b.example;user=phone SIP/2.0",
        "Via: SIP/2.0/UDP 192.0.2.7;branch=z9hG4bK1",
        f"From: <sip:+{call.orig}@a.example;user=phone>;tag=1",
        f"To: <sip:+{call.dest.tns[0]}@b.example;user=phone>",
        f"Call-ID: {call.call_id}",
        "CSeq: 1 INVITE",
        f"Date: {date}",
        *(f"Identity: {identity}" for identity in call.identities),
    ]
    return "\r\n".join([*lines, "", ""]).encode()


async def by_text(case: Case, profile: Profile) -> Told:
    """The raw INVITE: rules that reject make a response of it, and without them it has the verstat."""
    rejecting, plain = Server(case, profile, rejects=True), Server(case, profile)
    try:
        for call in (*case.before, case.call):
            refused = (await rejecting.invites.verify_text(as_text(call))).decode()
            passed = (await plain.invites.verify_text(as_text(call))).decode()
    except RequestError as error:
        return Told(str(error.status))
    verstat = re.findall(r"^P-Asserted-Identity: .*;verstat=([A-Za-z-]+)", passed, re.M)
    status = re.match(r"SIP/2\.0 (\d{3}) (.*)\r\n", refused)
    if status is None:
        return Told("-", verstat[0])
    assert status[2] == TEXTS[int(status[1])]
    assert f'STIR ;cause={status[1]} ;text="{status[2]}"' in refused
    return Told(status[1], verstat[0])


async def by_redirect(case: Case, profile: Profile) -> Told:
    """SIP: a rejected call is refused by status and Reason, any other one redirected."""
    server = Server(case, profile, rejects=True)
    try:
        for call in (*case.before, case.call):
            request = read_invite(as_text(call))
            additions = await server.invites.additions(request, SipPeer(address="192.0.2.7"))
            told = answer(request, Dialect(), additions, "tag")
    except RequestError as error:
        return Told(str(error.status))
    if told.code == 302:
        return Told("-")
    assert f"STIR;cause={told.code};" in (told.headers.get("Reason") or "")
    return Told(str(told.code))


INTERFACES: dict[str, Ask] = {"atis": by_atis, "3gpp": by_3gpp, "text": by_text, "redirect": by_redirect}


def test_a_request_of_atis_holds_one_identity(cases: dict[str, Case]) -> None:
    assert {what for what, case in cases.items() if len(case.call.identities) > 1} == SEVERAL


@pytest.mark.parametrize("interface", [by_text, by_redirect])
@pytest.mark.parametrize(("others", "code"), [(9, "-"), (10, "400")])
async def test_an_invite_has_ten_identities_at_most(
    cases: dict[str, Case], interface: Ask, others: int, code: str
) -> None:
    case = cases["white space between the claims"]
    call = replace(case.call, identities=(*["a.b.c"] * others, *case.call.identities))
    assert (await interface(replace(case, call=call), Profile.ATIS)).code == code


def test_the_page_has_every_case() -> None:
    assert set(table()) == set(FAULTS) | {UNREADABLE, NO_IDENTITY}
    assert len(table()) > 60


@pytest.mark.parametrize("profile", Profile)
@pytest.mark.parametrize(
    ("what", "interface"),
    [(what, each) for what in FAULTS for each in INTERFACES if each != "atis" or what not in SEVERAL],
)
async def test_each_fault_has_its_code(cases: dict[str, Case], what: str, profile: Profile, interface: str) -> None:
    case, row = cases[what], table()[what]
    told = await INTERFACES[interface](case, profile)
    if interface in ("text", "redirect") and what in IN_SIP:
        assert told.code == IN_SIP[what]
        return
    assert told.code == row.codes[profile]
    if told.step is not None and row.codes[Profile.ATIS] != "-" and profile is Profile.ATIS:
        assert told.step == row.step
    if told.verstat and profile is Profile.ATIS:
        assert told.verstat == SAID[row.verstat]


@pytest.mark.parametrize("profile", Profile)
async def test_what_holds_no_identity(cases: dict[str, Case], profile: Profile) -> None:
    """In JSON the member is missing, which is an error of the request."""
    case = cases["the same token in the same call"]
    bare = Case(Call(case.call.orig, case.call.dest, NOW_S, ()), case.records)
    for interface in ("text", "redirect"):
        assert (await INTERFACES[interface](bare, profile)).code == table()[NO_IDENTITY].codes[profile] == "428"
    server = Server(case, profile)
    for is_ms in (False, True):
        body = in_json(case.call, is_ms)
        del body["identityHeaders" if is_ms else "identity"]
        with pytest.raises(RequestError, match="identity") as failure:
            await server.ask(body)
        assert (failure.value.message_id, failure.value.status) == ("SVC4001", 400)


@pytest.mark.parametrize("profile", Profile)
@pytest.mark.parametrize("place", ["From", "To"])
async def test_what_cannot_be_read(cases: dict[str, Case], profile: Profile, place: str) -> None:
    case = cases["the same token in the same call"]
    server = Server(case, profile)
    text = re.sub(rf"{place}: <sip:", f"{place}: <sip: :", as_text(case.call).decode()).encode()
    assert text != as_text(case.call)
    wanted = table()[UNREADABLE].codes[profile]
    for is_ms in (False, True):
        body = in_json(case.call, is_ms)
        body[place.lower()] = {"tn": "alice" if is_ms or place == "From" else ["alice"]}
        with pytest.raises(RequestError) as failure:
            await server.ask(body)
        assert str(failure.value.status) == wanted
    with pytest.raises(RequestError) as failure:
        await server.invites.verify_text(text)
    assert str(failure.value.status) == wanted


@pytest.mark.parametrize("profile", Profile)
async def test_a_good_call_passes(profile: Profile) -> None:
    operator = make_operator()
    case = Case(operator.call(key_mgmt=()), (operator.record,))
    for interface, ask in INTERFACES.items():
        told = await ask(case, profile)
        assert (interface, told.code, told.verstat or Verstat.PASSED) == (interface, "-", Verstat.PASSED)


def test_steps_are_those_of_the_service() -> None:
    labels = {step.label for step in Step}
    assert {row.step for row in table().values() if row.step} <= labels | {"E2 Identity present"}
