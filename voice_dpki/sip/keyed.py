"""The media sections that one key management message keys, by its level in the SDP (RFC 4567 §3.1).

A message in a media section keys that section. One at the session level keys all others that are in use and
protected: the first two of its crypto sessions belong to the first of these sections, the next two to the second
(RFC 4567 §7.1).
"""

from voice_dpki.errors import MalformedError
from voice_dpki.sip.sdp import KEY_MGMT, SECURE_PROTOCOLS, Media, SessionDescription

_SECTION = "m="
"""Prefix of a signed value that names its section."""


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

    If there are several sections, each section's value is prefixed with its section, and a section without a value
    is listed, too. So a value cannot be moved, added or removed, nor a section unprotected. With one section, the
    values have no prefix. Raises MalformedError for a value that begins like a prefix: it could pass for one.
    """
    if any(value.startswith(_SECTION) for value in described.key_mgmt):
        raise MalformedError("a value of a=key-mgmt begins with no protocol, but like a media section")
    if len(described.media) < 2 or not described.key_mgmt:
        return described.key_mgmt
    sections = [_told(section) for section in described.media]
    return described.attributes(KEY_MGMT) + tuple(text for told in sections for text in told)


def _told(section: Media) -> tuple[str, ...]:
    """Return "m=video RTP/SAVP mikey AQ..." for each value of a section, or only the prefix if it has no value.

    Ports may be rewritten, so they are left out, except port 0 of a refused section: "m=video 0 RTP/SAVP".
    """
    begins = f"{_SECTION}{section.kind} {'' if section.port else '0 '}{section.protocol}"
    return tuple(f"{begins} {value}" for value in section.attributes(KEY_MGMT)) or (begins,)


def _by_session(section: Media) -> bool:
    return bool(section.port) and section.protocol in SECURE_PROTOCOLS and not section.attributes(KEY_MGMT)
