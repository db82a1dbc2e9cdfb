"""Which media sections one key management message keys, by the levels of RFC 4567 §3.1.

A message in a media section keys that section. One at the session level keys all others that are in use and
protected: the first two of its crypto sessions belong to the first of these sections, the next two to the second
(RFC 4567 §7.1).
"""

from voice_dpki.errors import MalformedError
from voice_dpki.sip.sdp import KEY_MGMT, SECURE_PROTOCOLS, Media, SessionDescription

_SECTION = "m="
"""Begins what is told of a section."""


def keyed_with(described: SessionDescription, at: int) -> tuple[int, ...]:
    """Return the indices of the sections that are keyed by the message which keys section `at`, in their order.

    Section `at` is among them if it is in use and protected.
    """
    if described.media[at].attributes(KEY_MGMT):
        return (at,)
    return tuple(index for index, section in enumerate(described.media) if _by_session(section))


def key_mgmt_of(described: SessionDescription, at: int) -> tuple[str, ...]:
    """Return the values of a=key-mgmt that apply to section `at`: its own, else the session's."""
    return described.media[at].attributes(KEY_MGMT) or described.attributes(KEY_MGMT)


def signed_key_mgmt(described: SessionDescription) -> tuple[str, ...]:
    """Return the key management of a description as a caller's operator signs it (docs/key-mgmt-claim.md).

    Each value of several sections is told with the section that it keys, and so is a section without any: what is
    keyed cannot be moved, added, taken away or unprotected. A description with one section has its values alone.
    Raises MalformedError for a value that reads like such a section, for it could stand in for one.
    """
    if any(value.startswith(_SECTION) for value in described.key_mgmt):
        raise MalformedError("a value of a=key-mgmt begins with no protocol, but like a media section")
    if len(described.media) < 2 or not described.key_mgmt:
        return described.key_mgmt
    sections = [_told(section) for section in described.media]
    return described.attributes(KEY_MGMT) + tuple(text for told in sections for text in told)


def _told(section: Media) -> tuple[str, ...]:
    """Return "m=video RTP/SAVP mikey AQ..." for each value of a section, or that without a value if it has none.

    Ports are left out, which may be rewritten, but for that of a section that is refused: "m=video 0 RTP/SAVP".
    """
    begins = f"{_SECTION}{section.kind} {'' if section.port else '0 '}{section.protocol}"
    return tuple(f"{begins} {value}" for value in section.attributes(KEY_MGMT)) or (begins,)


def _by_session(section: Media) -> bool:
    return bool(section.port) and section.protocol in SECURE_PROTOCOLS and not section.attributes(KEY_MGMT)
