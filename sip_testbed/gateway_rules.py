"""What the gateway demands of either side's session description, and what it tells either side. No I/O."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from sip_testbed import remarks
from sip_testbed.gateway_config import GatewayTelephone
from voice_dpki.errors import MalformedError, PeerError
from voice_dpki.sip.account import Account
from voice_dpki.sip.message import Hop, parse_address, reason_value
from voice_dpki.sip.sdp import SECURE_PROTOCOLS, RtpMap, SessionDescription, same_encoding
from voice_dpki.wire.sip.incoming_call import IncomingCall
from voice_dpki.wire.sip.line import FinalAnswer

NOT_ACCEPTABLE: Final = 488
MAX_PAYLOADS: Final = 16
"""Most payload types that are passed on; an offer's further ones are left out."""


class GatewayRefusal(PeerError):
    """Our refusal of a call, with the status for it; the message says why."""

    def __init__(self, sentence: str, status: int = NOT_ACCEPTABLE) -> None:
        super().__init__(sentence)
        self.status = status


class NotAnswered(Exception):
    """The other side's answer, if that is not 2xx."""

    def __init__(self, answer: FinalAnswer) -> None:
        super().__init__(answer.status)
        self.answer = answer


@dataclass(frozen=True, slots=True)
class Offer:
    """The caller's offer. All that can be refused in it is read before any key is agreed."""

    whole: SessionDescription
    taken: int
    """Index of the section that is taken up."""
    audio: SessionDescription
    """That section alone."""
    payloads: tuple[RtpMap, ...]
    remotes: tuple[tuple[str, int], tuple[str, int]]
    """Addresses to which RTP and RTCP go, from the offer."""

    @classmethod
    def read(cls, sdp: bytes, protocols: Sequence[str]) -> "Offer":
        """Read an offer, of which a section has one of `protocols`; raises MalformedError."""
        whole = SessionDescription.parse(sdp)
        taken = secure_audio(whole, protocols)
        audio = whole.narrowed(taken)
        remotes = audio.audio_address, audio.audio_control_address
        return cls(whole, taken, audio, payloads_of(audio), remotes)


def notice(name: str, media: str, hop: Hop) -> tuple[str, str]:
    """Return the header field that tells either side where encryption ends (RFC 3261 §20.9).

    `media` is how the telephone's side is keyed, and `hop` how its SIP is carried: without TLS an attacker may have
    keyed it. The purpose value is this project's own; others ignore it.
    """
    unprotected = "" if is_protected(hop) else ";sip=unprotected"
    return "Call-Info", f"<sip:{name}>;purpose=media-gateway;outside={media};inside=mikey{unprotected}"


def is_protected(hop: Hop) -> bool:
    """Tell whether TLS keeps others on the path from reading or changing the SDP of a hop."""
    return hop.transport == "tls"


def check_flow(telephone: GatewayTelephone, hop: Hop) -> None:
    """Raise GatewayRefusal if the telephone needs SIP over TLS and the hop has none.

    Others must not read keys of SDES (RFC 4568 §7), nor change DTLS fingerprints (RFC 5763 §5, RFC 8122 §7).
    """
    if not is_protected(hop) and not telephone.unprotected_sip:
        what = "keys" if telephone.media == "sdes" else "fingerprints"
        raise GatewayRefusal(f"{what} in SDP need SIP over TLS, and the telephone uses {hop.transport}")


def secure_audio(offer: SessionDescription, protocols: Sequence[str]) -> int:
    """Return the index of the first audio section with one of `protocols`; raises MalformedError."""
    for at, section in enumerate(offer.media):
        if section.kind == "audio" and section.port and section.protocol in protocols:
            return at
    raise MalformedError(f"the offer has no audio of {' or '.join(protocols)}: media in clear are refused")


def check_protocol_of_answer(answer: SessionDescription) -> None:
    """Raise MalformedError if the other side answers without SRTP or without keys."""
    if answer.audio.protocol not in SECURE_PROTOCOLS or not answer.audio_key_mgmt:
        raise MalformedError("the answer has no SRTP with key management: media in clear are refused")


def payloads_of(described: SessionDescription) -> tuple[RtpMap, ...]:
    """Return the payload types of the audio, at most MAX_PAYLOADS; raises MalformedError if there is none."""
    payloads = described.audio.rtpmaps[:MAX_PAYLOADS]
    if not payloads:
        raise MalformedError("the audio has no payload type of known encoding")
    return payloads


def agreed(offered: Sequence[RtpMap], answered: Sequence[RtpMap]) -> list[RtpMap]:
    """Return the offered payload types that the answer took up, in its order; raises MalformedError for none."""
    common = [ours for theirs in answered for ours in offered if same_encoding(ours.encoding, theirs.encoding)]
    if not common:
        raise MalformedError("the answer has no payload type of the offer")
    return list(dict.fromkeys(common))


def payload_types(arriving: Sequence[RtpMap], leaving: Sequence[RtpMap]) -> dict[int, int]:
    """Return which payload type leaves for each that arrives, by encoding; those without a match are left out."""
    found: dict[int, int] = {}
    for one in arriving:
        for other in leaving:
            if same_encoding(one.encoding, other.encoding):
                found.setdefault(one.payload_type, other.payload_type)
    return found


def reasons(sentence: str, name: str) -> list[tuple[str, str]]:
    """Return the Reason (RFC 3326) and Warning (RFC 3261 §20.43) header fields of our refusal."""
    text = sentence.replace("\\", "").replace('"', "'")
    return [("Reason", reason_value("SIP", NOT_ACCEPTABLE, text)), ("Warning", f'399 {name} "{text}"')]


def clock_rate(payload: RtpMap) -> int:
    """Return the clock rate of a payload type in Hz; raises MalformedError."""
    rate = payload.encoding.split("/")[1:2]
    if not rate or not rate[0].isascii() or not rate[0].isdigit() or not 0 < int(rate[0][:7]) <= 192_000:
        raise MalformedError("an encoding has no clock rate (RFC 8866 §6.6)")
    return int(rate[0])


def reason_of(answer: FinalAnswer) -> list[tuple[str, str]]:
    """Return the other side's refusal as a Reason header field for the caller, without subscribers' numbers."""
    said = remarks.reasons_of(answer.headers).strip(" ()").replace('"', "'")
    return [("Reason", reason_value("SIP", answer.status, said))] if said else []


def caller_of(call: IncomingCall) -> str:
    """Return the caller's URI: the number that the domain asserts, at the domain in From."""
    claimed = parse_address(call.from_).uri
    number = (call.asserted_identity or "").removeprefix("sip:").partition("@")[0].partition(";")[0]
    return f"sip:{number or claimed.user}@{claimed.host}"


def account_of(call: IncomingCall) -> Account:
    """Return the caller as shown to the telephone; the display name says where encryption ends."""
    uri = caller_of(call)
    return Account(uri, "", "", display_name="encrypted to the gateway only")


def asserted(call: IncomingCall) -> list[tuple[str, str]]:
    """Return the header field with the caller's number and verstat, as the domain asserts them, if it does."""
    identity = call.asserted_identity
    return [("P-Asserted-Identity", f"<{identity}>")] if identity else []
