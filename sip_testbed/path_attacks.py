"""Attacks on passing messages, one class each; none of them has help from inside a victim.

An attack gets each INVITE outside dialogs before it is forwarded, and each response on its way back. It may change
the message in place, and then returns a sentence for the trace.
"""

import asyncio
import base64
import binascii
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Final, Protocol
from uuid import UUID

from sipmessage import URI, Request, Response

from sip_testbed.proxy_rules import call_facts
from voice_dpki.codec import base64url
from voice_dpki.effects import Clock, Random, Signer
from voice_dpki.names import Tn
from voice_dpki.sip.message import header_values, parse_address, tag_of
from voice_dpki.sip.sdp import KEY_MGMT, PLAIN, SessionDescription
from voice_dpki.sip.video import video_section
from voice_dpki.stir.identity import IdentityHeader
from voice_dpki.stir.passport import Destinations, key_mgmt_digests, signing_input_of
from voice_dpki.stir.shaken import SHAKEN, ShakenClaims
from voice_dpki.wire.sip.invite import caller_uri, number_of

_KEY_MGMT_LINE: Final = f"a={KEY_MGMT}:mikey "
_ADDED_PORT: Final = 4002
_FROM_THE_END: Final = 8
"""The byte of a MIKEY message to change, counted from its end: in the signature or MAC, so that it still parses."""


class PathAttack(Protocol):
    """An attack on passing calls."""

    async def invite(self, request: Request) -> str | None:
        """Change an INVITE in place and return a sentence about it, or let it pass and return None."""
        ...

    def response(self, response: Response) -> str | None:
        """Change a response in place and return a sentence about it, or let it pass and return None."""
        ...


class NoAttack:
    """Lets everything pass."""

    async def invite(self, request: Request) -> str | None:
        """Do nothing."""
        return None

    def response(self, response: Response) -> str | None:
        """Do nothing."""
        return None


class StripIdentity(NoAttack):
    """Removes the Identity, as if nobody had signed the call."""

    async def invite(self, request: Request) -> str | None:
        """Remove the Identity header fields."""
        request.headers.remove("Identity")
        return "the attacker took the Identity out of the INVITE"


class Replay(NoAttack):
    """Remembers the first signed INVITE and sends it again in place of every later call's INVITE."""

    def __init__(self) -> None:
        self._first: Request | None = None

    async def invite(self, request: Request) -> str | None:
        """Remember the first signed INVITE; give later ones its Identity, numbers, Date and body."""
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


class ChangeKeyMgmt(NoAttack):
    """Changes the MIKEY message of the offer, which still looks valid."""

    async def invite(self, request: Request) -> str | None:
        """Change every a=key-mgmt value of the offer."""
        _edit_sdp(request, lambda sdp: sdp.map_lines(_change_key_mgmt))
        return "the attacker changed the MIKEY message of the offer"


class ChangeSdp(NoAttack):
    """Puts the attacker's address for the media into offer and answer, and leaves everything else unchanged.

    A change in only one of them would gain no more than the first packets: under SRTP, media go to the address from
    which the other side's packets come.
    """

    def __init__(self, address: str) -> None:
        self._connection = f"c=IN IP4 {address}"

    async def invite(self, request: Request) -> str | None:
        """Direct the callee's media to the attacker."""
        _edit_sdp(request, lambda sdp: sdp.map_lines(self._change))
        return "the attacker had the offer name their own address for the media"

    def response(self, response: Response) -> str | None:
        """Direct the caller's media to the attacker."""
        if not _answers_invite(response):
            return None
        _edit_sdp(response, lambda sdp: sdp.map_lines(self._change))
        return "the attacker had the answer name their own address for the media"

    def _change(self, line: str) -> str | None:
        return self._connection if line.startswith("c=") else line


class AddMedia(NoAttack):
    """Adds a section of video to the offer, as if the caller had offered it under its keys."""

    async def invite(self, request: Request) -> str | None:
        """Add the section behind all others, with keys by the message at the session level."""
        video = video_section(_ADDED_PORT, keyed=True)
        _edit_sdp(request, lambda sdp: replace(sdp, media=(*sdp.media, video)))
        return "the attacker added a section of video to the offer"


class StripKeyMgmt(NoAttack):
    """Removes the keys from the offer and asks for RTP in clear."""

    async def invite(self, request: Request) -> str | None:
        """Remove a=key-mgmt and turn RTP/SAVP into RTP/AVP."""
        _edit_sdp(request, lambda sdp: sdp.map_lines(_drop_key_mgmt).with_protocol(PLAIN))
        return "the attacker took the keys out of the offer and downgraded it to RTP/AVP"


class ChangeAnswerKeyMgmt(NoAttack):
    """Changes the MIKEY message of the answer, which no Identity covers."""

    def response(self, response: Response) -> str | None:
        """Change every a=key-mgmt value of the answer to an INVITE."""
        if not _answers_invite(response):
            return None
        _edit_sdp(response, lambda sdp: sdp.map_lines(_change_key_mgmt))
        return "the attacker changed the MIKEY message of the answer"


class Hold(NoAttack):
    """Delays every INVITE, for instance until it is stale."""

    def __init__(self, hold_s: float) -> None:
        self._hold_s = hold_s

    async def invite(self, request: Request) -> str | None:
        """Wait, then let the INVITE pass unchanged."""
        await asyncio.sleep(self._hold_s)
        return f"the attacker held the INVITE back for {self._hold_s:g} s"


@dataclass(frozen=True, slots=True)
class Forgery:
    """The key and the claims of a thief or a rogue insider."""

    signer: Signer
    info: str
    """The URL of the signer's certificate."""
    caller: Tn | None = None
    """The caller's number to claim; None keeps the caller's own."""
    attest: str = "A"
    age_s: int = 0
    """Claimed age of the signature."""


class Resign(NoAttack):
    """Signs every call with the attacker's key, for a caller of the attacker's choice."""

    def __init__(self, forgery: Forgery, clock: Clock, random: Random) -> None:
        self._forgery = forgery
        self._clock = clock
        self._random = random

    async def invite(self, request: Request) -> str | None:
        """Replace the caller and the Identity, and remove Date."""
        uri = caller_uri(request)
        caller = self._forgery.caller or number_of(uri)
        if caller is None:
            return None
        self._dress_up(request, replace(uri, user=f"+{caller}"))
        request.headers.set("Identity", self._identity(request, caller))
        return "the attacker signed the INVITE with a key of their own"

    def _dress_up(self, request: Request, uri: URI) -> None:
        """Put the claimed caller into From and P-Asserted-Identity. Remove Date: the verifier has its own clock."""
        tag = tag_of(parse_address(request.headers["From"]))
        request.headers.set("From", f"<{uri}>;tag={tag}")
        if header_values(request, "P-Asserted-Identity"):
            request.headers.set("P-Asserted-Identity", f"<{uri}>")
        request.headers.remove("Date")

    def _identity(self, request: Request, caller: Tn) -> str:
        forgery = self._forgery
        facts = call_facts(request, caller, int(self._clock.now_s()) - forgery.age_s)
        header = {"alg": forgery.signer.algorithm, "ppt": SHAKEN.ppt, "typ": "passport", "x5u": forgery.info}
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
        return IdentityHeader(token, info=forgery.info, alg=forgery.signer.algorithm, ppt=SHAKEN.ppt).serialize()


SIMPLE: Mapping[str, Callable[[], PathAttack]] = {
    "forward": NoAttack,
    "strip-identity": StripIdentity,
    "replay": Replay,
    "change-key-mgmt": ChangeKeyMgmt,
    "add-media": AddMedia,
    "strip-key-mgmt": StripKeyMgmt,
    "change-answer-key-mgmt": ChangeAnswerKeyMgmt,
}
"""Attacks without parameters; the others are change-sdp, hold and resign."""


def _edit_sdp(message: Request | Response, change: Callable[[SessionDescription], SessionDescription]) -> None:
    message.body = change(SessionDescription.parse(message.body)).serialize()


def _answers_invite(response: Response) -> bool:
    return response.code == 200 and bool(response.body) and response.cseq.method == "INVITE"


def _change_key_mgmt(line: str) -> str | None:
    """Change one bit of the MIKEY message in a line, so that the message still parses."""
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
