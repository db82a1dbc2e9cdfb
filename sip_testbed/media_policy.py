"""What a telephone accepts of the other side's media: protocol, key management and codec."""

import logging
from collections.abc import Iterable, Sequence

from voice_dpki.errors import LocalError, MalformedError, PeerError, VoiceDpkiError
from voice_dpki.media.codecs import CODECS, Codec
from voice_dpki.mikey.failures import MikeyError
from voice_dpki.mikey.keys import SrtpKeys
from voice_dpki.sip.keyed import keyed_with
from voice_dpki.sip.sdp import (
    PLAIN_PROTOCOLS,
    SECURE,
    SECURE_PROTOCOLS,
    SessionDescription,
    same_encoding,
)

NOT_ACCEPTABLE = 488
"""Status for an offer whose media or keys are refused (RFC 3261 §21.4.26, RFC 4567 §4.1.2)."""

LOCAL = "local"
"""Step name of a failure of our own."""

SERVER_ERROR = 500
"""Status for an offer that we cannot answer because of a failure of our own (RFC 3261 §21.5.1)."""


class Refusal(PeerError):
    """Our refusal of a call or of its change: `step` is the check that failed, the message says why."""

    status = NOT_ACCEPTABLE
    headers: Sequence[tuple[str, str]] = ()
    """Header fields of our answer, beside those that say why."""

    def __init__(self, step: str, sentence: str) -> None:
        super().__init__(sentence)
        self.step = step


FAILED = (Refusal, MikeyError, MalformedError, LocalError)
"""Errors that end the keying of a call or of a change: the other side did wrong, or we failed ourselves, for
example because a token cannot be reached. In either case the other side gets its answer."""


def protocols(*, keyed: bool) -> tuple[str, ...]:
    """Return the protocols that an m= line may have in a call that is to be keyed, or in one in clear."""
    return SECURE_PROTOCOLS if keyed else PLAIN_PROTOCOLS


def check_protected(described: SessionDescription, *, keyed: bool) -> None:
    """Check that the other side's audio is protected as ours; raises Refusal, or MalformedError without audio."""
    protocol = described.audio.protocol
    fits = protocol in protocols(keyed=keyed)
    if keyed and not (fits and described.audio_key_mgmt):
        missing = "no key management" if fits else f"{protocol[:16]} in place of {SECURE}"
        raise Refusal("SDP key-mgmt", f"the SDP has {missing}: media in clear are refused")
    if not keyed and (not fits or described.key_mgmt):
        raise Refusal("SDP key-mgmt", "the SDP wants SRTP, and this user agent is set to media in clear")


def keys_of(keys: SrtpKeys, described: SessionDescription, at: int) -> SrtpKeys:
    """Return the keys of section `at` of a description, whose key management gave `keys`; raises Refusal.

    A message may key fewer sections than the description has: then the last of these are not keyed.
    """
    sections = keyed_with(described, at)
    place = sections.index(at) if at in sections else len(keys.lines)
    if place >= len(keys.lines):
        raise Refusal("SDP key-mgmt", f"the key management does not key media section {at + 1} of the SDP")
    return keys.lines[place]


def payload_type_of(described: SessionDescription, codec: Codec) -> int:
    """Return the payload type that the other side's audio gives to `codec`; raises Refusal if it is missing."""
    for rtpmap in described.audio.rtpmaps:
        if same_encoding(rtpmap.encoding, codec.rtpmap):
            return rtpmap.payload_type
    raise Refusal("SDP codec", f"the SDP does not have {codec.rtpmap}")


def codec_of(described: SessionDescription, preferred: Codec) -> Codec:
    """Return `preferred` if the other side's audio has it, else the first that it has; raises Refusal."""
    offered = [rtpmap.encoding for rtpmap in described.audio.rtpmaps]
    for codec in (preferred, *_in_order(offered)):
        if any(same_encoding(encoding, codec.rtpmap) for encoding in offered):
            return codec
    raise Refusal("SDP codec", f"the SDP has none of {', '.join(codec.rtpmap for codec in CODECS.values())}")


def severity_of(error: VoiceDpkiError) -> int:
    """Return the log level of an error, which is one of FAILED."""
    return logging.ERROR if isinstance(error, LocalError) else logging.INFO


def status_of(error: VoiceDpkiError) -> int:
    """Return the status of our refusal because of an error, which is one of FAILED."""
    if isinstance(error, Refusal):
        return error.status
    return NOT_ACCEPTABLE if isinstance(error, PeerError) else SERVER_ERROR


def reasons_for(error: VoiceDpkiError) -> list[tuple[str, str]]:
    """Return the header fields of our refusal; the reason for a failure of our own is only logged."""
    if isinstance(error, PeerError):
        return [*reasons(str(error), status_of(error)), *(error.headers if isinstance(error, Refusal) else ())]
    return reasons("this telephone has failed", SERVER_ERROR)


def reasons(sentence: str, status: int = NOT_ACCEPTABLE) -> list[tuple[str, str]]:
    """Return the Reason (RFC 3326) and Warning (RFC 3261 §20.43) header fields of our refusal."""
    text = sentence.replace("\\", "").replace('"', "'")
    return [
        ("Reason", f'SIP;cause={status};text="{text}"'),
        ("Warning", f'399 user-agent "{text}"'),
    ]


def _in_order(encodings: Sequence[str]) -> Iterable[Codec]:
    return (codec for name in encodings for codec in CODECS.values() if same_encoding(name, codec.rtpmap))


def step_of(error: VoiceDpkiError) -> str:
    """Return the name of the step that refused, for results and reports; LOCAL for a failure of our own."""
    if isinstance(error, LocalError):
        return LOCAL
    if isinstance(error, MikeyError):
        return f"MIKEY {error.step}"
    return error.step if isinstance(error, Refusal) else "SDP"
