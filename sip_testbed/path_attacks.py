"""What an attacker on the path does to the messages that pass: one class an attack, none of which knows a victim.

An attack gets each INVITE outside dialogs before it is sent on, and each response on its way back, may change it in
place, and returns a sentence for the trace when it did.
"""

import asyncio
import base64
import binascii
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Final, Protocol
from uuid import UUID

from sipmessage import URI, Request, Response

from sip_testbed.proxy_rules import call_facts, caller_uri, number_of
from voice_dpki.codec import base64url
from voice_dpki.effects import Clock, Random, Signer
from voice_dpki.names import Tn
from voice_dpki.sip.message import header_values, parse_address, tag_of
from voice_dpki.sip.sdp import KEY_MGMT, PLAIN, SessionDescription
from voice_dpki.stir.identity import IdentityHeader
from voice_dpki.stir.passport import Destinations, ShakenClaims, key_mgmt_digests, signing_input_of

_KEY_MGMT_LINE: Final = f"a={KEY_MGMT}:mikey "
_FROM_THE_END: Final = 8
"""Which byte of a MIKEY message is changed: it lies in the signature or MAC, so that the message still parses."""


class Attack(Protocol):
    """What is done to the calls that pass."""

    async def invite(self, request: Request) -> str | None:
        """Change an INVITE in place, or let it pass; return what was done to it."""
        ...

    def response(self, response: Response) -> str | None:
        """Change a response in place, or let it pass; return what was done to it."""
        ...


class Forward:
    """Lets everything pass."""

    async def invite(self, request: Request) -> str | None:
        """Do nothing."""
        return None

    def response(self, response: Response) -> str | None:
        """Do nothing."""
        return None


class StripIdentity(Forward):
    """Takes the Identity away, as if nobody had signed."""

    async def invite(self, request: Request) -> str | None:
        """Remove the Identity header fields."""
        request.headers.remove("Identity")
        return "the attacker took the Identity out of the INVITE"


class Replay(Forward):
    """Remembers the first signed INVITE and sends it again as every later call, whoever places that one."""

    def __init__(self) -> None:
        self._first: Request | None = None

    async def invite(self, request: Request) -> str | None:
        """Remember the first signed INVITE; dress up later ones as that one."""
        if self._first is None:
            if request.headers.get("Identity"):
                self._first = request
            return None
        first = self._first
        request.uri, request.body = first.uri, first.body
        for name in ("Identity", "Date", "Content-Type"):
            request.headers.setlist(name, list(first.headers.getlist(name)))
        tag = tag_of(parse_address(request.headers["From"]))
        request.headers.set("From", f"<{caller_uri(first)}>;tag={tag}")
        request.headers.set("To", f"<{parse_address(first.headers['To']).uri}>")
        return "the attacker sent the signed INVITE of an earlier call again"


class ChangeKeyMgmt(Forward):
    """Exchanges the key management of the offer for another that looks as good."""

    async def invite(self, request: Request) -> str | None:
        """Change every a=key-mgmt value of the offer."""
        _edit_sdp(request, lambda sdp: sdp.map_lines(_change_key_mgmt))
        return "the attacker changed the MIKEY message of the offer"


class ChangeSdp(Forward):
    """Has the offer name the attacker's address for the media, and leaves all else as it was."""

    def __init__(self, address: str) -> None:
        self._connection = f"c=IN IP4 {address}"

    async def invite(self, request: Request) -> str | None:
        """Point the callee's media at the attacker."""
        self.redirect(request)
        return "the attacker had the offer name their own address for the media"

    def redirect(self, message: Request | Response) -> None:
        """Change the c= lines of a message's SDP, and nothing else."""
        _edit_sdp(message, lambda sdp: sdp.map_lines(self._change))

    def _change(self, line: str) -> str | None:
        return self._connection if line.startswith("c=") else line


class StripKeyMgmt(Forward):
    """Takes the keys out of the offer and asks for RTP in clear."""

    async def invite(self, request: Request) -> str | None:
        """Remove a=key-mgmt and turn RTP/SAVP into RTP/AVP."""
        _edit_sdp(request, lambda sdp: sdp.map_lines(_drop_key_mgmt).with_protocol(PLAIN))
        return "the attacker took the keys out of the offer and downgraded it to RTP/AVP"


class ChangeAnswerKeyMgmt(Forward):
    """Changes the MIKEY message of the answer, which no Identity covers."""

    def response(self, response: Response) -> str | None:
        """Change every a=key-mgmt value of the answer to an INVITE."""
        if not _answers_invite(response):
            return None
        _edit_sdp(response, lambda sdp: sdp.map_lines(_change_key_mgmt))
        return "the attacker changed the MIKEY message of the answer"


class ChangeAnswerSdp(Forward):
    """Has the answer name the attacker's address for the media; no Identity covers an answer."""

    def __init__(self, address: str) -> None:
        self._offer = ChangeSdp(address)

    def response(self, response: Response) -> str | None:
        """Point the caller's media at the attacker."""
        if not _answers_invite(response):
            return None
        self._offer.redirect(response)
        return "the attacker had the answer name their own address for the media"


class Hold(Forward):
    """Holds every INVITE back until it is stale."""

    def __init__(self, hold_s: float) -> None:
        self._hold_s = hold_s

    async def invite(self, request: Request) -> str | None:
        """Wait, and then let the INVITE pass as it is."""
        await asyncio.sleep(self._hold_s)
        return f"the attacker held the INVITE back for {self._hold_s:g} s"


@dataclass(frozen=True, slots=True)
class Forgery:
    """What a thief or a rogue insider signs with, and claims."""

    signer: Signer
    info: str
    """The URL that names the signer's certificate."""
    caller: Tn | None = None
    """The caller's number to claim; None leaves the one that is there."""
    attest: str = "A"
    age_s: int = 0
    """How long ago the call is said to have been placed."""


class Resign(Forward):
    """Signs every call with a key of the attacker's own, for whatever caller the attacker likes."""

    def __init__(self, forgery: Forgery, clock: Clock, random: Random) -> None:
        self._forgery = forgery
        self._clock = clock
        self._random = random

    async def invite(self, request: Request) -> str | None:
        """Exchange caller, Date and Identity."""
        uri = caller_uri(request)
        caller = self._forgery.caller or number_of(uri)
        if caller is None:
            return None
        self._dress_up(request, replace(uri, user=f"+{caller}"))
        request.headers.set("Identity", self._identity(request, caller))
        return "the attacker signed the INVITE with a key of their own"

    def _dress_up(self, request: Request, uri: URI) -> None:
        """Make From and P-Asserted-Identity name the claimed caller; the verifier's clock will do for a Date."""
        tag = tag_of(parse_address(request.headers["From"]))
        request.headers.set("From", f"<{uri}>;tag={tag}")
        if header_values(request, "P-Asserted-Identity"):
            request.headers.set("P-Asserted-Identity", f"<{uri}>")
        request.headers.remove("Date")

    def _identity(self, request: Request, caller: Tn) -> str:
        forgery = self._forgery
        facts = call_facts(request, caller, int(self._clock.now_s()) - forgery.age_s)
        header = {"alg": forgery.signer.algorithm, "ppt": "shaken", "typ": "passport", "x5u": forgery.info}
        claims = ShakenClaims(
            attest=forgery.attest,
            dest=Destinations((facts.called,)),
            iat_s=facts.time_s,
            orig=caller,
            origid=str(UUID(bytes=self._random.token(16), version=4)),
            key_mgmt=key_mgmt_digests(facts.key_mgmt),
            sdp=facts.sdp,
        )
        signed = signing_input_of(header, claims.serialize())
        token = f"{signed.decode('ascii')}.{base64url.encode(forgery.signer.sign(signed))}"
        return IdentityHeader(token, info=forgery.info, alg=forgery.signer.algorithm, ppt="shaken").serialize()


SIMPLE: Mapping[str, Callable[[], Attack]] = {
    "forward": Forward,
    "strip-identity": StripIdentity,
    "replay": Replay,
    "change-key-mgmt": ChangeKeyMgmt,
    "strip-key-mgmt": StripKeyMgmt,
    "change-answer-key-mgmt": ChangeAnswerKeyMgmt,
}
"""Attacks that need nothing; the others are change-sdp, change-answer-sdp, hold and resign."""


def _edit_sdp(message: Request | Response, change: Callable[[SessionDescription], SessionDescription]) -> None:
    message.body = change(SessionDescription.parse(message.body)).serialize()


def _answers_invite(response: Response) -> bool:
    return response.code == 200 and bool(response.body) and response.cseq.method == "INVITE"


def _change_key_mgmt(line: str) -> str | None:
    """Change one bit of a MIKEY message, so that it still looks like one."""
    if not line.startswith(_KEY_MGMT_LINE):
        return line
    try:
        mikey = bytearray(base64.b64decode(line.removeprefix(_KEY_MGMT_LINE), validate=True))
    except binascii.Error:
        return line
    if len(mikey) >= _FROM_THE_END:
        mikey[-_FROM_THE_END] ^= 1
    return _KEY_MGMT_LINE + base64.b64encode(mikey).decode("ascii")


def _drop_key_mgmt(line: str) -> str | None:
    return None if line.startswith(f"a={KEY_MGMT}:") else line
