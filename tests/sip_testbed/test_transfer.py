"""Transfers between three telephones over a real proxy, with MIKEY and media: both sides are heard after each."""

import asyncio
import base64
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from sipmessage import Request

from sip_testbed import telephone as telephone_module
from sip_testbed import transfer
from sip_testbed.making_changes import make_changes
from sip_testbed.result import Result
from sip_testbed.session import Session
from sip_testbed.shared_keying import SharedKeying
from sip_testbed.telephone import Telephone
from sip_testbed.transfer import ATTENDED, OnUp, Transfers
from sip_testbed.user_agent_config import SharedCredentials, load_setup
from tests.media.conftest import SPEECH
from tests.sip_testbed.test_phones import CALLEE, CALLER, THIRD, TIMEOUT_S, Domain
from tests.sip_testbed.test_phones import domain as domain  # a fixture
from voice_dpki.effects import SystemClock, SystemRandom
from voice_dpki.errors import LocalError
from voice_dpki.media.correlate import correlate
from voice_dpki.media.pcm import Pcm
from voice_dpki.media.recording import read_wav, write_wav
from voice_dpki.media.rtcp import is_rtcp
from voice_dpki.shell.trace import Tracer
from voice_dpki.sip.message import parse_uri
from voice_dpki.sip.refer import ReferTo, Replaces
from voice_dpki.wire.sip.user_agent import Account, IncomingCall, UserAgent

NUMBERS = {"caller": CALLER, "callee": CALLEE, "third": THIRD}
SPOKEN_S = 1.5
HEARD_S = 0.4
"""How much of the speech is heard for certain before a change."""
SPEAKERS = {"caller": "caller", "callee": "callee", "third": "caller"}
"""Whose speech each telephone says."""
KEY = "00112233445566778899aabbccddeeff"


def uri(name: str) -> str:
    return f"sip:+{NUMBERS[name]}@a.example"


class Three:
    """Three telephones of one domain: the caller calls the callee, and passes it on to the third one."""

    def __init__(self, domain: Domain, folder: Path) -> None:
        self.domain = domain
        self.folder = folder
        self.agents: dict[str, UserAgent] = {}
        self.telephones: dict[str, Telephone] = {}

    async def add(
        self,
        name: str,
        *,
        changes: tuple[str, ...] = (),
        accepts: bool = True,
        key_of_third: str = KEY,
        scheme: str = "sip",
    ) -> Telephone:
        pcm = read_wav((SPEECH / f"{SPEAKERS[name]}.wav").read_bytes())
        data = pcm.data[: 2 * int(SPOKEN_S * pcm.rate)]
        (self.folder / f"{name}.say.wav").write_bytes(write_wav(Pcm(pcm.rate, data)))
        (self.folder / "password").write_text("right")
        for other in NUMBERS:
            key = key_of_third if other == "third" else KEY
            (self.folder / f"{name}-{other}.key").write_text(key)
        others = [other for other in NUMBERS if other != name and (key_of_third or other != "third")]
        shared = "".join(f'"{uri(other)}" = "{name}-{other}.key"\n' for other in others)
        call = f'[call]\ntarget = "{uri("callee")}"\nchanges = {json.dumps(changes)}\n'
        call += f'transfer_to = "{uri("third").replace("sip:", f"{scheme}:")}"\n'
        (self.folder / f"{name}.toml").write_text(
            f'aor = "{uri(name)}"\npassword_file = "password"\nproxy = "{self.domain.hop}"\nsilence_s = 30\n'
            f'say = "{name}.say.wav"\nsaid = "{name}.said.wav"\nheard = "{name}.heard.wav"\n'
            f'result = "{name}.json"\n'
            f"accept_transfers = {str(accepts).lower()}\n[listen]\nhost = '127.0.0.1'\nport = 0\n"
            f'[shared_keys]\nmode = "dhhmac"\n[shared_keys.with]\n{shared}' + (call if name == "caller" else "")
        )
        setup = load_setup(self.folder / f"{name}.toml")
        tracer = Tracer(self.folder / f"{name}.jsonl", name)
        self.domain.stack.callback(tracer.close)
        agent = UserAgent(
            Account(uri(name), f"+{NUMBERS[name]}", "right"),
            host="127.0.0.1",
            proxy=self.domain.hop,
            tracer=tracer,
            transfers=True,
        )
        await agent.start()
        self.domain.stack.push_async_callback(agent.close)
        await agent.register()
        assert isinstance(setup.credentials, SharedCredentials)
        clock, random = SystemClock(), SystemRandom()
        keying = SharedKeying(setup.credentials, tracer, clock, random)
        telephone = Telephone(setup, agent, keying, tracer, clock, random)
        agent.on_invite = telephone.answer
        self.agents[name], self.telephones[name] = agent, telephone
        return telephone

    async def call(self) -> Result:
        return await asyncio.wait_for(self.telephones["caller"].call(uri("callee")), TIMEOUT_S)

    async def result(self, name: str) -> dict[str, Any]:
        """What a telephone says of a call, once it does."""
        async with asyncio.timeout(TIMEOUT_S):
            while not (self.folder / f"{name}.json").exists():
                await asyncio.sleep(0.01)
        found: dict[str, Any] = json.loads((self.folder / f"{name}.json").read_text())
        return found

    def likeness(self, said: str, heard: str, until_s: float = SPOKEN_S) -> float:
        files = [(self.folder / f"{name}.wav").read_bytes() for name in (f"{said}.said", f"{heard}.heard")]
        spoken, other = map(read_wav, files)
        return correlate(spoken.part(0, until_s), other).coefficient

    def sip(self, name: str) -> list[bytes]:
        """What a telephone has sent of SIP."""
        events = map(json.loads, (self.folder / f"{name}.jsonl").read_text().splitlines())
        return [base64.b64decode(event["data"]) for event in events if event["kind"] == "sip"]

    def packets(self) -> list[tuple[str, bytes, bytes]]:
        """All RTP and RTCP that was sent: the sender, on the wire and in clear."""
        found = []
        for name in self.telephones:
            for line in (self.folder / f"{name}.jsonl").read_text().splitlines():
                event = json.loads(line)
                if event["kind"] == "rtp":
                    found.append((name, base64.b64decode(event["wire"]), base64.b64decode(event["clear"])))
        return found


def check_protected(three: Three) -> None:
    """Nothing goes in clear, reports and goodbyes included, and each agreement has SSRCs of its own."""
    packets = three.packets()
    for _, wire, clear in packets:
        assert len(wire) > len(clear)
        assert clear[8 if is_rtcp(clear) else 12 :][:8] not in wire
    assert {is_rtcp(clear) for _, _, clear in packets} == {True, False}
    assert any(is_rtcp(clear) and clear[-8:-6] == b"\x81\xcb" for _, _, clear in packets), "no RTCP BYE was seen"


HEARD_PACKETS = 25
"""How many packets of the other side's speech come before the first change: half a second."""


@pytest.fixture
def three(domain: Domain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Three:
    async def once_both_are_heard(session: Session, names: Any, _within_s: float, further: Any) -> None:
        async with asyncio.timeout(TIMEOUT_S):
            while names and session._media.statistics().received < HEARD_PACKETS:
                await asyncio.sleep(0.02)
        await make_changes(session, names, 0.0, further)

    monkeypatch.setattr(telephone_module, "make_changes", once_both_are_heard)
    return Three(domain, tmp_path)


async def test_a_blind_transfer_is_a_new_call_under_new_keys(three: Three) -> None:
    await three.add("caller", changes=("hold", "transfer"))
    await three.add("callee")
    await three.add("third")
    result = await three.call()
    assert (result.established, result.reason, result.changes) == (True, None, ["hold", "transfer"])
    callee, third = await three.result("callee"), await three.result("third")
    assert (callee["established"], callee["changes"], callee["purpose"]) == (True, ["hold", "transfer"], "call")
    transferred = await three.result("transferred-callee")
    for one in (transferred, third):
        assert (one["established"], one["reason"], one["srtp"]) == (True, None, "AES_CM_128_HMAC_SHA1_80")
    assert (transferred["role"], transferred["purpose"], third["role"]) == ("caller", "transferred", "callee")
    assert three.likeness("caller", "callee", HEARD_S) >= 0.99
    assert three.likeness("callee", "caller", HEARD_S) >= 0.99
    assert three.likeness("transferred-callee", "third") >= 0.99
    assert three.likeness("third", "transferred-callee") >= 0.99
    check_protected(three)
    assert len({clear[8:12] for name, _, clear in three.packets() if name == "callee" and not is_rtcp(clear)}) == 2


async def test_an_attended_transfer_takes_the_place_of_the_consultation(three: Three) -> None:
    await three.add("caller", changes=("hold", "attended-transfer"))
    await three.add("callee")
    await three.add("third")
    result = await three.call()
    assert (result.established, result.changes) == (True, ["hold", "attended-transfer"])
    consultation, consulted = await three.result("consultation-caller"), await three.result("third")
    assert (consultation["established"], consultation["purpose"]) == (True, "consultation")
    assert (consulted["established"], consulted["changes"]) == (True, ["attended-transfer"])
    for name in ("transferred-callee", "transferred-third"):
        assert (await three.result(name))["established"] is True
    for one, other in (("consultation-caller", "third"), ("transferred-callee", "transferred-third")):
        until_s = HEARD_S if one == "consultation-caller" else SPOKEN_S
        assert three.likeness(one, other, until_s) >= 0.99
        assert three.likeness(other, one, until_s) >= 0.99
    check_protected(three)
    invite = next(data for data in three.sip("callee") if data.startswith(b"INVITE"))
    assert b"\r\nReplaces: " in invite
    assert f"\r\nReferred-By: <{uri('caller')}>\r\n".encode() in invite


async def test_a_telephone_that_does_not_accept_it_is_not_passed_on(three: Three) -> None:
    await three.add("caller", changes=("hold", "transfer"))
    await three.add("callee", accepts=False)
    await three.add("third")
    result = await three.call()
    assert (result.established, result.reason, result.changes) == (True, None, ["hold", "resume"])
    assert (await three.result("callee"))["changes"] == ["hold", "resume"]
    assert not (three.folder / "third.json").exists()


@pytest.mark.parametrize("why", ["absent", "other key", "no key", "busy", "no TLS"])
async def test_a_transfer_that_fails_gives_the_call_back(three: Three, why: str) -> None:
    """The third one has no telephone, or is not who has the key, or refuses, or cannot be called by who is passed
    on: nobody is left alone."""
    await three.add("caller", changes=("hold", "transfer"), scheme="sips" if why == "no TLS" else "sip")
    await three.add("callee", key_of_third={"other key": "ff" * 16, "no key": ""}.get(why, KEY))
    if why != "absent":
        telephone = await three.add("third")
        telephone._busy = why == "busy"
    result = await three.call()
    assert (result.established, result.reason, result.changes) == (True, None, ["hold", "resume"])
    callee, transferred = await three.result("callee"), await three.result("transferred-callee")
    assert (callee["established"], callee["changes"]) == (True, ["hold", "resume"])
    assert (transferred["established"], transferred["media"]) == (False, None)
    told = [data.rpartition(b"\r\n\r\n")[2] for data in three.sip("callee") if data.startswith(b"NOTIFY")]
    statuses = {"absent": b"480", "other key": b"488", "no key": b"488", "busy": b"486", "no TLS": b"500"}
    status = statuses[why]
    assert [each[:11] for each in told] == [b"SIP/2.0 100", b"SIP/2.0 " + status]


async def test_a_consultation_that_fails_leaves_the_call(three: Three) -> None:
    await three.add("caller", changes=("hold", "attended-transfer"))
    await three.add("callee")
    result = await three.call()
    assert (result.established, result.changes) == (True, ["hold", "resume"])
    assert (await three.result("consultation-caller"))["status"] == 480


async def test_a_transferee_that_refuses_ends_the_consultation_alone(three: Three) -> None:
    await three.add("caller", changes=("hold", "attended-transfer"))
    await three.add("callee", accepts=False)
    await three.add("third")
    result = await three.call()
    assert (result.established, result.changes) == (True, ["hold", "resume"])
    assert (await three.result("consultation-caller"))["established"] is True
    assert (await three.result("third"))["changes"] == []


Ask = Callable[[str, tuple[tuple[str, str], ...]], Awaitable[int]]


@pytest.mark.parametrize("by", ["nobody", "third", "caller"])
async def test_a_stranger_takes_nobodys_place(three: Three, by: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The third one knows the call's identifiers, as a proxy does, and is not who was sent by the caller."""
    await three.add("caller")
    await three.add("callee")
    await three.add("third")
    call = asyncio.create_task(three.call())
    async with asyncio.timeout(TIMEOUT_S):
        while not any(leg.on_replaced for leg in three.agents["callee"]._legs.values()):
            await asyncio.sleep(0.01)
    leg = next(iter(three.agents["callee"]._legs.values()))
    assert leg.dialog is not None
    value = Replaces(leg.dialog.call_id, leg.dialog.local_tag, leg.dialog.remote_tag).serialize()
    headers = [("Replaces", value)]
    headers += [("Referred-By", f"<{uri(by)}>")] if by != "nobody" else []
    answered = await three.agents["third"].invite(uri("callee"), b"v=0\r\n", headers)
    status = (await asyncio.wait_for(answered.answered(), TIMEOUT_S)).status
    assert status == (488 if by == "caller" else 403)  # who was sent still needs keys
    result = await call
    assert (result.established, result.changes) == (True, [])


async def test_a_refer_in_anothers_name_is_refused(three: Three) -> None:
    await three.add("caller")
    await three.add("callee")
    call = asyncio.create_task(three.call())
    async with asyncio.timeout(TIMEOUT_S):
        while not any(leg.referrals.on_refer for leg in three.agents["callee"]._legs.values()):
            await asyncio.sleep(0.01)
    leg = next(iter(three.agents["caller"]._legs.values()))
    assert await leg.referrals.send(ReferTo(uri("third")), uri("third")) == transfer.FORBIDDEN
    assert await leg.referrals.send(ReferTo("sip:no-number@a.example"), uri("caller")) == transfer.DECLINED
    assert (await call).changes == []


def test_a_transfer_needs_to_know_to_whom(tmp_path: Path) -> None:
    (tmp_path / "password").write_text("right")
    (tmp_path / "say.wav").write_bytes((SPEECH / "caller.wav").read_bytes())
    (tmp_path / "a.toml").write_text(
        f'aor = "{uri("caller")}"\npassword_file = "password"\nproxy = "udp:127.0.0.1:5060"\nsay = "say.wav"\n'
        f'srtp = "none"\n[listen]\nhost = "127.0.0.1"\nport = 0\n[call]\ntarget = "{uri("callee")}"\n'
        'changes = ["attended-transfer"]\n'
    )
    with pytest.raises(LocalError, match="transfer_to is missing"):
        load_setup(tmp_path / "a.toml")


class Line:
    """A call beside the one that is transferred, which goes on until it is `over`; `lines` has all of them."""

    def __init__(self, lines: "list[Line]", up: OnUp) -> None:
        self.up, self.over, self.cancelled = up, asyncio.Event(), False
        lines.append(self)

    async def call(self, target: str) -> Result:
        try:
            await self.over.wait()
        except asyncio.CancelledError:
            self.cancelled = True
            raise
        return Result("caller")

    async def answer(self, call: IncomingCall) -> None:
        await self.over.wait()


class Replacing:
    """An INVITE with Replaces that says to come from the other side."""

    def __init__(self) -> None:
        self.request = Request("INVITE", parse_uri(uri("callee")))
        self.request.headers.set("Referred-By", f"<{uri('caller')}>")
        self.rejected: int | None = None

    async def reject(self, status: int) -> None:
        self.rejected = status


def transfers(lines: list[Line]) -> Transfers:
    setup = SimpleNamespace(accepts_transfers=True, call=SimpleNamespace(transfer_to=uri("third")))
    return Transfers(cast(Any, setup), Tracer(None, "b"), lambda _purpose, up, _headers: Line(lines, up))


async def test_one_call_at_a_time_takes_the_place_of_another_and_none_after_it() -> None:
    lines: list[Line] = []
    leg = SimpleNamespace(referrals=SimpleNamespace(on_refer=None), on_replaced=None, hang_up=lambda: None)
    session = SimpleNamespace(peer_uri=uri("caller"), passed_on=lambda name: None)
    transfers(lines).attend(cast(Any, leg), cast(Any, session))
    asked = [Replacing() for _ in range(20)]
    on_replaced = leg.on_replaced  # as the agent has it for INVITEs that come together
    under_way = [asyncio.ensure_future(on_replaced(each)) for each in asked]
    await asyncio.sleep(0)
    assert [each.rejected for each in asked] == [None] + [603] * 19
    assert leg.on_replaced is None
    (failed,) = lines
    failed.over.set()
    await asyncio.gather(*under_way)
    assert leg.on_replaced is not None, "nothing came of it, so that another may"
    taken = asyncio.ensure_future(leg.on_replaced(Replacing()))
    await asyncio.sleep(0)
    lines[-1].up(cast(Any, leg), cast(Any, session))
    lines[-1].over.set()
    await taken
    assert leg.on_replaced is None, "its place is taken"


async def test_a_consultation_is_given_up_with_its_transfer_while_it_rings() -> None:
    lines: list[Line] = []
    acts = transfers(lines).acts(cast(Any, SimpleNamespace()), cast(Any, SimpleNamespace()))
    consulting = asyncio.ensure_future(acts[ATTENDED]())
    await asyncio.sleep(0)
    consulting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await consulting
    assert [line.cancelled for line in lines] == [True]
