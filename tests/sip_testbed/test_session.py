"""Changes of a call over a real proxy, with MIKEY and real media: both sides are heard after each."""

import asyncio
import base64
import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from sip_testbed import telephone as telephone_module
from sip_testbed.likeness import likeness_of
from sip_testbed.result import Result
from sip_testbed.session import Agreed, ChangeRefusedError, Session
from sip_testbed.shared_keying import SharedKeying
from sip_testbed.telephone import Telephone
from sip_testbed.user_agent_config import SharedCredentials, load_setup
from tests.media.conftest import SPEECH
from tests.sip_testbed.test_phones import CALLEE, CALLER, TIMEOUT_S, Domain
from tests.sip_testbed.test_phones import domain as domain  # a fixture
from voice_dpki.effects import SystemClock, SystemRandom
from voice_dpki.media.pcm import Pcm
from voice_dpki.media.recording import read_wav, write_wav
from voice_dpki.media.rtp import RtpPacket
from voice_dpki.shell.trace import Tracer
from voice_dpki.sip.sdp import SessionDescription
from voice_dpki.sip.session_timer import Interval
from voice_dpki.wire.sip import changes
from voice_dpki.wire.sip.changes import Reinvite
from voice_dpki.wire.sip.user_agent import Account, Leg, UserAgent

PART_S = 0.9
"""How much is said before, between and after the changes of a call."""


@dataclass
class End:
    """One end of a call: its telephone, and what it wrote."""

    telephone: Telephone
    agent: UserAgent
    folder: Path
    name: str

    @property
    def events(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self.folder / f"{self.name}.jsonl").read_text().splitlines()]

    def recording(self, what: str) -> bytes:
        return (self.folder / f"{self.name}.{what}.wav").read_bytes()


async def end_of(
    domain: Domain,
    folder: Path,
    name: str,
    *,
    srtp: str,
    mode: str = "psk",
    changes: tuple[str, ...] = (),
    spoken_s: float,
    early_s: float = 0.0,
    video: bool = False,
    dtmf: str = "",
    settings: str = "",
) -> End:
    number, other = (CALLER, CALLEE) if name == "caller" else (CALLEE, CALLER)
    pcm = read_wav((SPEECH / f"{name}.wav").read_bytes())
    data = (pcm.data * 20)[: 2 * int(spoken_s * pcm.rate)]
    (folder / f"{name}.wav").write_bytes(write_wav(Pcm(pcm.rate, data)))
    (folder / "password").write_text("right")
    (folder / "shared.key").write_text("00112233445566778899aabbccddeeff")
    keys = f'[shared_keys]\nmode = "{mode}"\n[shared_keys.with]\n"sip:+{other}@a.example" = "shared.key"\n'
    seen = f'video = true\nseen = "{name}.seen.webm"\n' if video else ""
    call = f'[call]\ntarget = "sip:+{other}@a.example"\nchanges = {json.dumps(changes)}\ndtmf = "{dtmf}"\n'
    (folder / f"{name}.toml").write_text(
        f'aor = "sip:+{number}@a.example"\npassword_file = "password"\nproxy = "{domain.hop}"\n'
        f'say = "{name}.wav"\nsaid = "{name}.said.wav"\nheard = "{name}.heard.wav"\nresult = "{name}.json"\n'
        f'{settings}{seen}srtp = "{srtp}"\n'
        f'silence_s = 30\nearly_s = {early_s}\n[listen]\nhost = "127.0.0.1"\nport = 0\n'
        + (keys if srtp != "none" else "")
        + (call if name == "caller" else "")
    )
    tracer = Tracer(folder / f"{name}.jsonl", name)
    domain.stack.callback(tracer.close)
    setup = load_setup(folder / f"{name}.toml")
    agent = domain.caller
    if name == "callee":
        account = Account(f"sip:+{number}@a.example", f"+{number}", "right")
        agent = UserAgent(account, host="127.0.0.1", proxy=domain.hop)
        await agent.start()
        domain.stack.push_async_callback(agent.close)
        await agent.register()
    clock, random = SystemClock(), SystemRandom()
    keying = None
    if isinstance(setup.credentials, SharedCredentials):
        keying = SharedKeying(setup.credentials, tracer, clock, random)
    telephone = Telephone(setup, agent, keying, tracer, clock, random)
    if name == "callee":
        agent.on_invite = telephone.answer
    return End(telephone, agent, folder, name)


async def talk(domain: Domain, folder: Path, srtp: str, changes: tuple[str, ...], **options: Any) -> list[End]:
    """A call in which the caller makes `changes`; returns both ends, of which each has heard the other."""
    parts = len(changes) + 1
    caller = await end_of(domain, folder, "caller", srtp=srtp, changes=changes, spoken_s=PART_S * parts, **options)
    callee = await end_of(domain, folder, "callee", srtp=srtp, spoken_s=PART_S * parts, **options)
    result = await asyncio.wait_for(caller.telephone.call(f"sip:+{CALLEE}@a.example"), TIMEOUT_S)
    async with asyncio.timeout(TIMEOUT_S):
        while not (folder / "callee.json").exists():
            await asyncio.sleep(0.01)
    assert (result.established, result.reason) == (True, None)
    for one, other in ((caller, callee), (callee, caller)):
        likeness = likeness_of(one.recording("said"), other.recording("heard"), parts)
        assert likeness is not None
        assert likeness >= 0.99
    return [caller, callee]


def results(folder: Path) -> list[dict[str, Any]]:
    return [json.loads((folder / f"{name}.json").read_text()) for name in ("caller", "callee")]


@pytest.mark.parametrize(
    ("srtp", "mode", "changes"),
    [
        ("none", "psk", ("hold", "resume")),
        ("AES_CM_128_HMAC_SHA1_80", "dhhmac", ("hold", "resume", "rekey")),
        ("AEAD_AES_128_GCM", "psk", ("rekey", "pcma", "hold", "resume", "rekey")),
        ("none", "psk", ("pcma", "hold", "resume", "pcmu")),
    ],
    ids=lambda value: value if isinstance(value, str) else " ".join(value),
)
async def test_both_are_heard_after_each_change(
    domain: Domain, tmp_path: Path, srtp: str, mode: str, changes: tuple[str, ...]
) -> None:
    caller, callee = await talk(domain, tmp_path, srtp, changes, mode=mode)
    for result in results(tmp_path):
        assert result["changes"] == list(changes)
        counted = result["media"]
        assert (counted["lost"], counted["unauthentic"], counted["foreign"], counted["malformed"]) == (0, 0, 0, 0)
    rtp = [event for end in (caller, callee) for event in end.events if event["kind"] == "rtp"]
    assert all((event["wire"] != event["clear"]) == (srtp != "none") for event in rtp)


class Talk:
    """A long call between two telephones, whose sessions the test changes."""

    def __init__(self, ends: list[End], sessions: list[Session], call: "asyncio.Task[Result]") -> None:
        self.ends = ends
        self.caller, self.callee = sessions
        self.call = call

    @property
    def rtp(self) -> list[dict[str, Any]]:
        return [event for end in self.ends for event in end.events if event["kind"] == "rtp"]

    def sent(self, name: str) -> list[RtpPacket]:
        """What one of them has sent, without reports."""
        packets = [base64.b64decode(event["clear"]) for event in self.rtp if event["actor"] == name]
        return [RtpPacket.parse(data) for data in packets if not 200 <= data[1] <= 207]

    async def flows(self, *names: str) -> None:
        """Wait until each of these has sent 5 more packets, and everybody has received some."""
        before = {name: len(self.sent(name)) for name in names}
        async with asyncio.timeout(TIMEOUT_S):
            while any(len(self.sent(name)) < count + 5 for name, count in before.items()):
                await asyncio.sleep(0.02)


Begin = Callable[..., Any]


@pytest.fixture
async def begin(domain: Domain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    sessions: list[Session] = []

    class Kept(Session):
        def begin(self, agreed: Agreed) -> None:
            super().begin(agreed)
            sessions.append(self)

    monkeypatch.setattr(telephone_module, "Session", Kept)

    async def begin_one(
        srtp: str = "AES_CM_128_HMAC_SHA1_80", session_expires_s: int | None = None, *, video: bool = False
    ) -> Talk:
        domain.caller._session_s = session_expires_s
        names = ("caller", "callee")
        ends = [await end_of(domain, tmp_path, name, srtp=srtp, spoken_s=60, video=video) for name in names]
        call = asyncio.create_task(ends[0].telephone.call(f"sip:+{CALLEE}@a.example"))
        domain.stack.callback(call.cancel)
        async with asyncio.timeout(TIMEOUT_S):
            while len(sessions) < 2:
                await asyncio.sleep(0.01)
        callee, caller = sorted(sessions, key=lambda session: session.peer_uri != f"sip:+{CALLER}@a.example")
        return Talk(ends, [caller, callee], call)

    return begin_one


def leg_of(session: Session) -> Leg:
    assert session._leg is not None
    return session._leg


async def test_the_callee_changes_the_call_and_changes_cross(begin: Begin) -> None:
    talk = await begin()
    await talk.flows("caller", "callee")
    await talk.callee.hold()
    await asyncio.sleep(0.1)
    silent = len(talk.sent("caller")), len(talk.sent("callee"))
    await asyncio.sleep(0.3)
    assert (len(talk.sent("caller")), len(talk.sent("callee"))) == silent
    async with asyncio.timeout(TIMEOUT_S):
        await asyncio.gather(talk.callee.resume(), talk.caller.rekey())
    await talk.flows("caller", "callee")
    await talk.callee.rekey()
    await talk.flows("caller", "callee")
    for session in (talk.caller, talk.callee):
        counted = session._media.statistics()
        assert (counted.lost, counted.unauthentic, counted.foreign) == (0, 0, 0)
        assert sorted(session.done) == ["hold", "rekey", "rekey", "resume"]
    async with asyncio.timeout(TIMEOUT_S):  # a busy machine sends what is late under the keys of before
        while len({packet.ssrc for packet in talk.sent("caller")}) < 3:
            await asyncio.sleep(0.02)
    assert len({packet.ssrc for packet in talk.sent("caller")}) == 3


async def test_a_change_that_crossed_new_keys_is_offered_anew_under_them(
    begin: Begin, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first try was described under the old keys, which the other side would refuse as a replay."""
    monkeypatch.setattr(changes, "glare_wait_s", lambda _random, owns_call_id: 0.6 if owns_call_id else 0.0)
    talk = await begin()
    async with asyncio.timeout(TIMEOUT_S):
        await asyncio.gather(talk.caller.hold(), talk.callee.rekey())
    assert sorted(talk.caller.done) == sorted(talk.callee.done) == ["hold", "rekey"]
    await talk.caller.resume()
    await talk.flows("caller", "callee")
    assert talk.callee._media.statistics().unauthentic == 0


@pytest.mark.parametrize(
    ("pattern", "instead", "reason"),
    [
        ("RTP/SAVP", "RTP/AVP", "in place of RTP/SAVP: media in clear are refused"),
        ("a=key-mgmt:.*\r\n", "", "no key management: media in clear are refused"),
        ("(a=key-mgmt:mikey .{40}).", r"\g<1>=", "base64"),
        ("m=audio", "m=video", "other media in the place"),
        ("m=(.|\r|\n)*", "", "fewer media sections"),
        (r"m=audio (\d+)", "m=audio 0", "no audio"),
        ("PCMU", "G729", "has none of PCMU/8000"),
        ("c=IN IP4 .*\r\n", "c=IN IP4 224.0.0.1\r\n", "not that of one host"),
    ],
)
async def test_a_change_for_the_worse_is_refused_and_the_call_goes_on(
    begin: Begin, pattern: str, instead: str, reason: str
) -> None:
    """What somebody on the path may make of a re-INVITE: no speech goes out in clear, and the session stays."""
    talk = await begin()
    own = talk.caller
    sdp = own.describe(own._now.codec, 0, own._now.own_keys).serialize().decode()
    if pattern == "PCMU":
        sdp = sdp.replace("RTP/SAVP 0", "RTP/SAVP 96").replace("rtpmap:0", "rtpmap:96")
    changed = re.sub(pattern, instead, sdp)
    assert changed != sdp
    answer = await leg_of(own).reinvite(lambda: changed.encode())
    assert answer.status == 488
    assert reason in str(answer.headers.get("Warning"))
    await talk.flows("caller", "callee")
    assert all(event["wire"] != event["clear"] for event in talk.rtp)
    assert talk.callee.done == []


async def test_a_refused_change_leaves_the_events_that_were_agreed(begin: Begin) -> None:
    """Digits and comfort noise are in the other side's next offer as before, and in its next streams."""
    talk = await begin("none")
    bare = talk.caller.describe(talk.caller._now.codec, 0).serialize().decode()
    more = bare.replace("RTP/AVP 0", "RTP/AVP 0 101 13") + "a=rtpmap:101 telephone-event/8000\r\n"
    assert (await leg_of(talk.caller).reinvite(more.encode)).status == 200
    keypad = talk.callee._media.keypad
    before = keypad.ours, keypad.our_noise, keypad.agreed
    assert before[:2] == (101, 13)
    elsewhere = bare.replace("c=IN IP4 127.0.0.1", "c=IN IP4 224.0.0.1")
    assert (await leg_of(talk.caller).reinvite(elsewhere.encode)).status == 488
    assert (keypad.ours, keypad.our_noise, keypad.agreed) == before
    await talk.flows("caller", "callee")


async def test_an_old_agreement_is_not_taken_again(begin: Begin) -> None:
    """The offer of the keys before the present ones is recorded by anybody on the path, and accepted once."""
    talk = await begin()
    before = talk.caller._now.own_keys
    await talk.caller.rekey()
    sdp = talk.caller.describe(talk.caller._now.codec, 0, before)
    assert (await leg_of(talk.caller).reinvite(lambda: sdp.serialize())).status == 488
    await talk.flows("caller", "callee")


async def test_new_keys_that_are_refused_end_the_call(begin: Begin) -> None:
    talk = await begin()

    async def refuse(change: Reinvite) -> None:
        change.refuse(488)

    leg_of(talk.callee).on_reinvite(refuse)
    with pytest.raises(ChangeRefusedError):
        await talk.caller.hold()
    await talk.flows("caller", "callee")  # a hold that is refused changes nothing
    with pytest.raises(ChangeRefusedError):
        await talk.caller.rekey()
    assert (await asyncio.wait_for(talk.call, TIMEOUT_S)).established is False


@pytest.mark.parametrize("answered", ["as offered", "old answer", ""])
async def test_an_answer_with_other_keys_than_were_offered_ends_the_call(begin: Begin, answered: str) -> None:
    talk = await begin()
    values = {"as offered": talk.caller._now.own_keys, "old answer": talk.callee._now.own_keys, "": ()}[answered]

    async def accept(change: Reinvite) -> None:
        await change.accept(talk.callee.describe(talk.callee._now.codec, 0, values).serialize())

    leg_of(talk.callee).on_reinvite(accept)
    with pytest.raises(ChangeRefusedError):
        await talk.caller.rekey()
    assert (await asyncio.wait_for(talk.call, TIMEOUT_S)).established is False
    assert all(event["wire"] != event["clear"] for event in talk.rtp)


@pytest.mark.parametrize("more", ["m=audio 0 RTP/SAVP 0\r\n", "m=video 5002 RTP/SAVP 96\r\n"])
async def test_a_change_that_is_answered_with_other_sections_ends_the_call(begin: Begin, more: str) -> None:
    talk = await begin()

    async def accept(change: Reinvite) -> None:
        own = talk.callee.describe(talk.callee._now.codec, 0, talk.callee._now.own_keys)
        await change.accept(own.serialize() + more.encode())

    leg_of(talk.callee).on_reinvite(accept)
    with pytest.raises(ChangeRefusedError, match="the media sections audio, "):
        await talk.caller.hold()
    assert (await asyncio.wait_for(talk.call, TIMEOUT_S)).established is False


async def test_a_hold_that_is_answered_with_other_keys_ends_the_call(begin: Begin) -> None:
    talk = await begin()

    async def accept(change: Reinvite) -> None:
        await change.accept(talk.callee.describe(talk.callee._now.codec, 0, talk.caller._now.own_keys).serialize())

    leg_of(talk.callee).on_reinvite(accept)
    with pytest.raises(ChangeRefusedError, match="other key management"):
        await talk.caller.hold()
    assert (await asyncio.wait_for(talk.call, TIMEOUT_S)).established is False


@pytest.mark.parametrize(
    ("line", "address", "answered", "callee_speaks"),
    [
        ("a=sendonly", "127.0.0.1", "recvonly", False),
        ("a=recvonly", "127.0.0.1", "sendonly", True),
        ("a=inactive", "127.0.0.1", "inactive", False),
        ("a=sendrecv", "0.0.0.0", "sendrecv", False),
    ],
)
async def test_kinds_of_hold(begin: Begin, line: str, address: str, answered: str, callee_speaks: bool) -> None:
    talk = await begin("none")
    sdp = talk.caller.describe(talk.caller._now.codec, 0).serialize().decode()
    sdp = f"{sdp}{line}\r\n".replace("c=IN IP4 127.0.0.1", f"c=IN IP4 {address}")
    answer = await leg_of(talk.caller).reinvite(lambda: sdp.encode())
    assert SessionDescription.parse(answer.sdp).audio_direction == answered
    await asyncio.sleep(0.1)
    before = len(talk.sent("callee"))
    await talk.flows("caller")
    await asyncio.sleep(0.1)
    assert (len(talk.sent("callee")) > before) is callee_speaks
    await talk.caller.resume()
    await talk.flows("caller", "callee")
    assert talk.callee.done == (["other media"] * 2 if callee_speaks else ["hold", "resume"])


async def test_an_offer_that_was_asked_for_and_has_no_answer_ends_the_call(begin: Begin) -> None:
    talk = await begin()
    answer = await leg_of(talk.caller).reinvite(lambda: b"")
    described = SessionDescription.parse(answer.sdp)
    assert described.audio_key_mgmt == talk.callee._now.own_keys
    assert b" 1 IN IP4 " in answer.sdp  # nothing has changed since the callee's first description
    assert (await asyncio.wait_for(talk.call, TIMEOUT_S)).established is False


async def test_a_refresh_changes_nothing(begin: Begin, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Interval, "refresh_after_s", 0.2)
    talk = await begin(session_expires_s=90)
    callee = [event for event in talk.ends[1].events if event["kind"] == "note"]
    async with asyncio.timeout(TIMEOUT_S):
        while sum(event["text"] == "changed: refresh" for event in callee) < 3:
            await asyncio.sleep(0.05)
            callee = [event for event in talk.ends[1].events if event["kind"] == "note"]
    await talk.flows("caller", "callee")
    for session in (talk.caller, talk.callee):
        assert (session.done, session._version) == ([], 1)
        counted = session._media.statistics()
        assert (counted.lost, counted.unauthentic) == (0, 0)
    assert len({packet.ssrc for packet in talk.sent("caller")}) == 1
