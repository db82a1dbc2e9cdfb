"""SDP offers and answers for one audio stream and further streams beside it (RFC 3264).

An offer has a section for each stream that the offerer wants. The answer has as many sections, in the same order;
those that are not taken up are refused with port 0.
"""

from collections.abc import Collection, Mapping
from dataclasses import replace
from types import MappingProxyType

from voice_dpki.errors import MalformedError
from voice_dpki.sip.sdp import KEY_MGMT, RTCP_MUX, Media, SessionDescription, same_encoding


def audio_to_take(offer: SessionDescription, protocols: Collection[str], encoding: str) -> int:
    """Return the index of the section to take up: the first audio with one of `protocols` and with `encoding`.

    If none fits, this is the first audio, whose faults explain the refusal. Raises MalformedError without audio.
    """
    audio = [at for at, section in enumerate(offer.media) if section.kind == "audio" and section.port]
    if not audio:
        raise MalformedError("the session description has no audio")
    return next((at for at in audio if _fits(offer.media[at], protocols, encoding)), audio[0])


def answer_to(
    offer: SessionDescription,
    taken: int,
    own: SessionDescription,
    further: Mapping[int, Media] = MappingProxyType({}),
) -> SessionDescription:
    """Return the answer that takes up section `taken` of `offer` with the one section of `own`.

    `further` maps indices of other offered sections to ours for them. The answer has the offer's protocols and
    time (RFC 3264 §6), multiplexes RTCP where the offer does (RFC 5761 §5.1.1), and has its key management at the
    level where the offer has it.
    """
    offered, section = offer.media[taken], own.only
    keys = tuple(f"a={KEY_MGMT}:{value}" for value in own.key_mgmt) if offered.attributes(KEY_MGMT) else ()
    ours = {**further, taken: replace(section, lines=(*section.lines, *keys))}
    time = next((line for line in offer.lines if line.startswith("t=")), "t=0 0")
    lines = tuple(time if line.startswith("t=") else line for line in own.lines if line not in keys)
    media = tuple(
        _answered(ours[at], each) if at in ours else _refused(each) for at, each in enumerate(offer.media)
    )
    return SessionDescription(lines, media)


def check_answer(offer: SessionDescription, answer: SessionDescription) -> None:
    """Raise MalformedError for an answer whose sections are not those of the offer (RFC 3264 §6)."""
    offered, answered = ([section.kind for section in sdp.media] for sdp in (offer, answer))
    if offered != answered:
        told = ", ".join(kind[:16] for kind in answered) or "none"
        raise MalformedError(
            f"the answer has the media sections {told}, and the offer {', '.join(offered)} (RFC 3264 §6)"
        )


def check_next_offer(before: SessionDescription, offer: SessionDescription) -> None:
    """Raise MalformedError for an offer in mid-call that drops or moves sections of the one `before` (RFC 3264 §8).

    A section may change its kind only where it was refused or removed, by port 0.
    """
    if len(offer.media) < len(before.media):
        raise MalformedError("the offer has fewer media sections than the one before it (RFC 3264 §8)")
    for old, new in zip(before.media, offer.media, strict=False):
        if old.port and old.kind != new.kind:
            raise MalformedError("the offer has other media in the place of a section in use (RFC 3264 §8)")


def _fits(section: Media, protocols: Collection[str], encoding: str) -> bool:
    return section.protocol in protocols and any(same_encoding(m.encoding, encoding) for m in section.rtpmaps)


def _answered(section: Media, offered: Media) -> Media:
    mux = (f"a={RTCP_MUX}",) if offered.has(RTCP_MUX) else ()
    return replace(section, protocol=offered.protocol, lines=(*section.lines, *mux))


def _refused(section: Media) -> Media:
    return replace(section, port=0, port_count=1, lines=())
