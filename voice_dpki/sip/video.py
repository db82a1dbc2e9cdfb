"""The media section for VP8 video in a session description, beside the audio's (RFC 7741 §6, RFC 4585 §4)."""

from collections.abc import Collection

from voice_dpki.sip.keyed import keyed_with
from voice_dpki.sip.sdp import Direction, Media, SessionDescription, same_encoding

ENCODING = "VP8/90000"

PAYLOAD_TYPE = 100
"""The payload type that we give to VP8."""

FEEDBACK = {True: "RTP/SAVPF", False: "RTP/AVPF"}
"""Our protocol with keys (True) or in clear (False). Its feedback requests a new picture for a lost one."""


def video_section(
    port: int, *, keyed: bool, payload_type: int = PAYLOAD_TYPE, direction: Direction = Direction.SENDRECV
) -> Media:
    """Describe our video at a port of the session's address."""
    lines = (
        f"a=rtpmap:{payload_type} {ENCODING}",
        f"a=rtcp-fb:{payload_type} nack pli",
        f"a=rtcp-fb:{payload_type} ccm fir",
        f"a={direction}",
    )
    return Media("video", port, FEEDBACK[keyed], (str(payload_type),), lines)


def video_to_take(offer: SessionDescription, audio: int, protocols: Collection[str], *, keyed: bool) -> int | None:
    """Return the index of the first video that can be taken up beside the `audio`; None if there is none.

    If `keyed`, the message that keys the audio must key the video, too.
    """
    with_audio = keyed_with(offer, audio) if keyed else range(len(offer.media))
    for at, section in enumerate(offer.media):
        if at in with_audio and section.protocol in protocols and vp8_type(section) is not None:
            return at
    return None


def vp8_type(section: Media) -> int | None:
    """Return the payload type of VP8 in a section of video in use; None if it has none."""
    if section.kind != "video" or not section.port:
        return None
    found = (each.payload_type for each in section.rtpmaps if same_encoding(each.encoding, ENCODING))
    return next(found, None)
