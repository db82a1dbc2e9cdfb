"""Both ways into the authentication service sign in E.164 what its country writes otherwise."""

import json
import time
from collections.abc import Awaitable

from authn_server.config import load_setup
from authn_server.invites import InviteSigner
from authn_server.service import AuthnService
from authn_server.standing import UnknownStanding
from authn_server.switching import Switch
from voice_dpki.codec import base64url
from voice_dpki.effects import SystemClock, SystemRandom
from voice_dpki.shell.trace import Tracer
from voice_dpki.stir.national import Country

from .conftest import Site
from .test_bypass import Registry

UUID = "5f4e3b1c-7d2a-4b8e-9c1d-2e3f4a5b6c7d"
INVITE = b"""\
INVITE sip:00442079460001@b.example SIP/2.0
Via: SIP/2.0/UDP 192.0.2.7;branch=z9hG4bK1
From: <sip:03023125001@a.example>;tag=1
To: <sip:00442079460001@b.example>
Call-ID: c1
CSeq: 1 INVITE
Attestation-Info: A

""".replace(b"\n", b"\r\n")


def parties(identity: str) -> tuple[str, list[str]]:
    payload = json.loads(base64url.decode(identity.split(".")[1]))
    return payload["orig"]["tn"], payload["dest"]["tn"]


async def test_a_call_in_national_forms(site: Site) -> None:
    setup, country = load_setup(site.config, SystemClock()), Country("DE")
    switch = Switch(setup.credential, Registry(UnknownStanding))
    service = AuthnService(switch, 60.0, SystemClock(), Tracer(None, "a"), country=country)
    members = {
        "attest": "A", "dest": {"tn": ["00442079460001"]}, "iat": int(time.time()),
        "orig": {"tn": "03023125001"}, "origid": UUID,
    }  # fmt: skip
    told = service.sign(json.dumps({"signingRequest": members}).encode())
    answer = json.loads(await told if isinstance(told, Awaitable) else told)
    assert parties(answer["signingResponse"]["identity"]) == ("493023125001", ["442079460001"])
    text = (await InviteSigner(service, SystemClock(), SystemRandom(), country).sign_text(INVITE)).decode()
    identity = next(line for line in text.split("\r\n") if line.startswith("Identity: "))
    assert parties(identity) == ("493023125001", ["442079460001"])
    assert "From: <sip:03023125001@a.example>;tag=1" in text, "the INVITE itself stays as it is"
