"""Sentences for a call's report about the other side: who refused and why, where media went or came from.

Text of another element is bounded and cleaned for a terminal and an HTML page, as it could contain control
characters or a subscriber's number.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Final

from sipmessage import Headers, Request, Response

from sip_testbed.events import SipEvent
from voice_dpki.errors import MalformedError
from voice_dpki.media.figures import MediaStatistics
from voice_dpki.sip.hosts import bare_host, host_text
from voice_dpki.sip.message import parse_message, split_values

MAX_TOLD_CHARS: Final = 200
"""Most characters of one text of another element."""
_MAX_TOLD: Final = 3
_NUMBER: Final = re.compile(r"\+?[0-9]{7,}", re.ASCII)
_TEXT: Final = re.compile(r';\s*text\s*=\s*"((?:[^"\\]|\\.)*)"', re.ASCII | re.IGNORECASE)
_WARNING: Final = re.compile(r'([1-9][0-9]{2}) \S{1,255} "((?:[^"\\]|\\.)*)"', re.ASCII)
_ESCAPED: Final = re.compile(r"\\(.)")


def told(text: str) -> str:
    """Return another element's text ready to be shown: printable, bounded, without subscribers' numbers."""
    shown = "".join(c if c.isprintable() else " " for c in _NUMBER.sub("(number)", text)).strip()
    return shown if len(shown) <= MAX_TOLD_CHARS else shown[: MAX_TOLD_CHARS - 1] + "…"


def reasons_of(headers: Headers) -> str:
    """Return the texts of Reason (RFC 3326) and Warning (RFC 3261 §20.43) in parentheses, or "" without any."""
    texts = []
    for value in split_values(headers.getlist("Reason")):
        found = _TEXT.search(value)
        texts.append(f"Reason: {told(_unescaped(found[1]) if found else value)}")
    for value in split_values(headers.getlist("Warning")):
        warned = _WARNING.match(value)
        texts.append(f"Warning {warned[1]}: {told(_unescaped(warned[2]))}" if warned else f"Warning: {told(value)}")
    distinct = list(dict.fromkeys(texts))[:_MAX_TOLD]
    return f" ({'; '.join(distinct)})" if distinct else ""


def refusal(status: int, phrase: str, headers: Headers) -> str:
    """Describe the response that refused a call: "488 Not Acceptable Here (Warning 305: no codec in common)"."""
    return f"{status} {told(phrase)}{reasons_of(headers)}"


def media_elsewhere(party: str, address: tuple[str, int], contact_host: str) -> list[str]:
    """Return a remark if the media address in `party`'s SDP is not the host of its Contact."""
    host, port = address
    if bare_host(host) == bare_host(contact_host):
        return []
    where = f"{host_text(told(host))}:{port}, and its telephone is at {told(contact_host)}"
    return [f"the {party}'s SDP puts its media at {where}"]


def encryption_end(party: str, elements: Sequence[str]) -> list[str]:
    """Return a remark if the certificate of `party` names elements: they have the keys, not its telephone."""
    if not elements:
        return []
    where = ", ".join(told(each) for each in elements)
    return [f"encryption ends at {where}, which answers for the {party}: it hears the call, and may pass it on"]


def foreign_media(party: str, counted: MediaStatistics) -> list[str]:
    """Return a remark if packets were dropped because they came from another address than `party`'s SDP names."""
    if not counted.foreign:
        return []
    packets = "1 packet" if counted.foreign == 1 else f"{counted.foreign} packets"
    return [
        f"{packets} came from {counted.foreign_from}, where the {party}'s SDP does not put its media, and "
        f"{'was' if counted.foreign == 1 else 'were'} dropped"
    ]


def who_refused(events: Sequence[SipEvent], names: Mapping[str, str]) -> str:
    """Return the name of the element that refused the last refused call, according to the messages.

    `names` maps actors to names; each actor traces the messages that it sends. A foreign element traces nothing, so
    its answer first appears where a proxy that had forwarded the INVITE passes it back. Our proxies' own answers
    are recognised by the explanation in their reason phrases.
    """
    read = [(event, message) for event in events if (message := _read(event.data)) is not None]
    refusals = [(event, m) for event, m in read if isinstance(m, Response) and _is_refusal(m)]
    if not refusals:
        return "The other side"
    call_id, status = refusals[-1][1].headers.get("Call-ID"), refusals[-1][1].code
    sent, first = next((e, m) for e, m in refusals if (m.headers.get("Call-ID"), m.code) == (call_id, status))
    invites = [e for e, m in read if isinstance(m, Request) and m.method == "INVITE" and e.actor == sent.actor]
    name = names.get(sent.actor, sent.actor)
    own = first.code == 408 or ": " in first.phrase or not sent.actor.startswith("proxy-")
    if own or not invites or invites[-1].dst in {event.src for event in events}:
        return name
    return f"The element at {invites[-1].dst}, to which {name} had sent the call,"


def _is_refusal(message: Response) -> bool:
    of_invite = (message.headers.get("CSeq") or "").endswith("INVITE")
    return of_invite and message.code >= 300 and message.code not in (401, 407)


def _read(data: bytes) -> Request | Response | None:
    try:
        return parse_message(data)
    except MalformedError:
        return None


def _unescaped(text: str) -> str:
    return _ESCAPED.sub(r"\1", text)


def media_note(counted: MediaStatistics) -> str:
    """Return a line about the received media, without figures that could not be measured."""
    figures = [f"{'SRTP' if counted.srtp else 'RTP'} {counted.received} packets"]
    figures += [f"loss {counted.loss:.1%}"] if counted.loss is not None else []
    figures += [f"jitter {counted.jitter_ms:.1f} ms"] if counted.jitter_ms is not None else []
    figures += [f"MOS {counted.mos:.1f}"] if counted.mos is not None else []
    return ", ".join(figures)
