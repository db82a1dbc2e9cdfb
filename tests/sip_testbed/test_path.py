"""The attacker with a key: what it signs is a PASSporT like any other, for whatever caller it likes."""

from pathlib import Path

import pytest
from sipmessage import Request

from sip_testbed import path
from sip_testbed.path import PathConfig, make_attack
from tests.recorded import recorded
from voice_dpki.effects import SystemClock, SystemRandom
from voice_dpki.errors import MalformedError
from voice_dpki.names import Tn
from voice_dpki.shell.config import load_config
from voice_dpki.sip.message import parse_message
from voice_dpki.sip.sdp import RtpMap, audio_description
from voice_dpki.stir.call import Call
from voice_dpki.stir.examine import Policy, examine
from voice_dpki.stir.passport import Destinations
from voice_dpki.stir.replay import ReplayCache
from voice_dpki.stir.verdict import Step, VerificationFailed
from voice_dpki.stir.verify import judge
from voice_dpki.x509.allotment import Allotment
from voice_dpki.x509.keys import generate_es256, to_pem
from voice_dpki.x509.profile import build_certificate
from voice_dpki.x509.tnauthlist import TnAuthList, TnRange

RANGE = TnRange(Tn("493023125000"), 1000)
KEY_MGMT = "mikey AQAF"
SDP = audio_description("127.0.0.1", 4000, [RtpMap(0, "PCMU/8000")], session_id=1, key_mgmt=[KEY_MGMT]).serialize()
CLOCK = SystemClock()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    signer = generate_es256()
    now_s = int(CLOCK.now_s())
    certificate = build_certificate(
        signer,
        organization="Operator A",
        common_name="thief",
        tn_auth_list=TnAuthList(ranges=(RANGE,)),
        not_before_s=now_s - 60,
        not_after_s=now_s + 3600,
        random=SystemRandom(),
    )
    (tmp_path / "thief.der").write_bytes(certificate)
    (tmp_path / "thief.pem").write_bytes(to_pem(signer))
    return tmp_path


def invite() -> Request:
    data = (
        b"INVITE sip:+442079460123@b.example SIP/2.0\r\nVia: SIP/2.0/UDP 127.0.0.2;branch=z9hG4bKx\r\n"
        b'From: "Alice" <sip:+493023125001@a.example>;tag=1\r\nTo: <sip:+442079460123@b.example>\r\n'
        b"Call-ID: 1\r\nCSeq: 1 INVITE\r\nDate: Thu, 01 Jan 2026 00:00:00 GMT\r\nIdentity: a.b.c;info=<x>\r\n"
        b"P-Asserted-Identity: <sip:+493023125001@a.example>\r\nContent-Type: application/sdp\r\n\r\n" + SDP
    )
    request = parse_message(data)
    assert isinstance(request, Request)
    return request


async def attacked(folder: Path, text: str) -> Request:
    """An INVITE that has passed the attacker configured by `text`."""
    (folder / "path.toml").write_text(text)
    config = load_config(folder / "path.toml", PathConfig)
    attack = make_attack(config, folder / "path.toml", CLOCK, SystemRandom())
    request = invite()
    assert await attack.invite(request)
    return request


def verify(folder: Path, request: Request, caller: str) -> None:
    """Judge the call as the other domain's verification server would, with the thief's certificate recorded."""
    call = Call(
        Tn(caller),
        Destinations((Tn("442079460123"),)),
        int(CLOCK.now_s()),
        (request.headers["Identity"],),
        (KEY_MGMT,),
    )
    examined = examine(call, call.identities[0], Policy(), CLOCK.now_s())
    said = recorded((folder / "thief.der").read_bytes(), Allotment(ranges=(RANGE,)))
    judge(examined, said, Policy(), ReplayCache(100, 120), CLOCK.now_s(), steady_s=0)


async def test_a_number_of_somebody_else_is_claimed(folder: Path) -> None:
    request = await attacked(folder, path.EXAMPLE)
    assert request.headers["From"] == "<sip:+441134960001@a.example>;tag=1"
    assert request.headers["P-Asserted-Identity"] == "<sip:+441134960001@a.example>"
    assert request.headers.get("Date") is None
    with pytest.raises(VerificationFailed) as failed:
        verify(folder, request, "441134960001")
    assert failed.value.step is Step.AUTHORITY


async def test_without_a_number_to_claim_the_signature_is_as_good_as_the_operators(folder: Path) -> None:
    text = "\n".join(line for line in path.EXAMPLE.splitlines() if not line.startswith("caller"))
    verify(folder, await attacked(folder, text), "493023125001")


async def test_a_signature_can_look_old(folder: Path) -> None:
    text = path.EXAMPLE.replace("age_s = 0", "age_s = 300").replace("+441134960001", "+493023125001")
    with pytest.raises(VerificationFailed) as failed:
        verify(folder, await attacked(folder, text), "493023125001")
    assert failed.value.step is Step.IAT


@pytest.mark.parametrize("mode", ["change-key-mgmt", "add-media", "change-sdp", "strip-key-mgmt"])
async def test_an_offer_that_is_no_sdp_cannot_be_changed(folder: Path, mode: str) -> None:
    (folder / "path.toml").write_text(path.EXAMPLE.replace('mode = "resign"', f'mode = "{mode}"'))
    config = load_config(folder / "path.toml", PathConfig)
    attack = make_attack(config, folder / "path.toml", CLOCK, SystemRandom())
    request = invite()
    request.body = b"nonsense"
    with pytest.raises(MalformedError):
        await attack.invite(request)
