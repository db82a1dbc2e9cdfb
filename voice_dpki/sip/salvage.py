"""Answers to malformed requests, built from the few header fields that a response repeats.

RFC 4475 wants an answer to nearly every malformed request, and RFC 3261 §8.2.6 lists the answer's fields. This
module finds those fields in the bytes, within the bounds of `message`, whatever else is wrong with the request.
"""

import re
from typing import Final

from voice_dpki.sip.hop import MAX_QUOTES, Hop, read_number
from voice_dpki.sip.message import MAX_HEADER_FIELDS, MAX_LINE_BYTES, one_line
from voice_dpki.sip.via import MAX_VIA_CHARS, stamp_via, way_back

MAX_SALVAGE_BYTES: Final = 16_384
"""Most bytes of a message that are read."""
MAX_REPEATED_CHARS: Final = 8_192
"""Most characters of the repeated header fields together; a request with more is not answered."""

_FOLD = re.compile(r"\r?\n[ \t]+")
_LINE_END = re.compile(r"\r?\n")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_START = re.compile(r"([A-Za-z0-9.!%*_+`'~-]{1,64})[ \t]")
_FIELD = re.compile(r"(?ai)(via|v|from|f|to|t|call-id|i|cseq)[ \t]*:[ \t]*(.*)\Z")
_NAMES: Final = {"v": "via", "f": "from", "t": "to", "i": "call-id"}
_ORDER: Final = (("via", "Via"), ("from", "From"), ("to", "To"), ("call-id", "Call-ID"), ("cseq", "CSeq"))
_SENT_BY = re.compile(
    r"SIP[ \t]*/[ \t]*[0-9.]{1,8}[ \t]*/[ \t]*[A-Za-z0-9.!%*_+`'~-]{1,32}[ \t]+"
    r"([A-Za-z0-9._-]{1,255}|\[[0-9A-Fa-f:.]{2,64}\])[ \t]*(?::[ \t]*([0-9]{1,8}))?[ \t]*(?=[;,]|\Z)",
    re.IGNORECASE | re.ASCII,
)
_FIRST_VALUE = re.compile(r'(?:[^,"]|"(?:[^"\\]|\\.)*"|")*')
_RPORT = re.compile(r"(?ai);[ \t]*rport[ \t]*(?=[=;]|\Z)")
_TAG = re.compile(r"(?ai);[ \t]*tag[ \t]*=")
_IN_BRACKETS = re.compile(r"<[^>]*>")


def refuse_unread(data: bytes, source: Hop, status: int, phrase: str, to_tag: str) -> tuple[Hop, bytes] | None:
    """Return the hop to answer the request at the start of `data`, and the response.

    Returns None if there is nothing to answer: a response, an ACK, no readable Via, or fields beyond the bounds.
    """
    lines = _LINE_END.split(_FOLD.sub(" ", _head(data)))
    start = _START.match(lines[0])
    if start is None or start[1] == "ACK" or len(lines) > MAX_HEADER_FIELDS + 1:
        return None
    fields = _collect(lines[1:])
    via = _stamp(fields.get("via", []), source)
    if via is None:
        return None
    hop, fields["via"] = via
    if (to := fields.get("to")) and not _TAG.search(_IN_BRACKETS.sub("", to[0])):
        to[0] += f";tag={to_tag}"
    repeated = [f"{name}: {value}" for key, name in _ORDER for value in fields.get(key, [])]
    head = [f"SIP/2.0 {status} {one_line(phrase)}", *repeated, "Content-Length: 0", "", ""]
    if sum(map(len, repeated)) > MAX_REPEATED_CHARS:
        return None
    return hop, "\r\n".join(head).encode()


def _head(data: bytes) -> str:
    data = data[:MAX_SALVAGE_BYTES].lstrip(b"\r\n")
    return data.partition(b"\r\n\r\n")[0].decode("utf-8", "replace")


def _collect(lines: list[str]) -> dict[str, list[str]]:
    """Return the values of the fields that a response repeats; only Via may have more than one."""
    fields: dict[str, list[str]] = {}
    for line in lines:
        match = _FIELD.match(line[:MAX_LINE_BYTES])
        if match is not None:
            name = match[1].lower()
            values = fields.setdefault(_NAMES.get(name, name), [])
            if not values or name in ("via", "v"):
                values.append(_CONTROL.sub(" ", match[2]).strip())
    return fields


def _stamp(vias: list[str], source: Hop) -> tuple[Hop, list[str]] | None:
    """Return where the response goes, and the Via values with the topmost one stamped; None if it is unreadable."""
    text = vias[0] if vias else ""
    begin = text[: MAX_VIA_CHARS + 1]
    value = _FIRST_VALUE.match(begin) if begin.count('"') <= MAX_QUOTES else None
    top = value[0] if value else ""
    sent_by = _SENT_BY.match(top)
    if sent_by is None or len(top) > MAX_VIA_CHARS:
        return None
    port = read_number(sent_by[2], 65_535) if sent_by[2] else 5060
    hop = way_back(_RPORT.search(top) is not None, port or source.port, source)
    stamped = stamp_via(top, sent_by[1], source) + text[len(top) :]
    return hop if not source.reliable else source, [stamped, *vias[1:]]
