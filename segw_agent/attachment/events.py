"""Trace events of IKEv2, read back: the counterpart of `segw_agent.tracer`."""

from dataclasses import dataclass
from typing import cast

from voice_dpki.stage.events import COMMON_KINDS, Event, Kinds, ends, octets


@dataclass(frozen=True, slots=True)
class IkeEvent(Event):
    """A datagram, as its sender put it on the wire; `payloads` are the names of its payloads."""

    src: str
    dst: str
    data: bytes
    exchange: str
    is_response: bool
    payloads: tuple[str, ...]
    fragment: tuple[int, int]
    repeated: bool


@dataclass(frozen=True, slots=True)
class AskEvent(Event):
    """An inquiry that this actor sends to `peer` ("host:port") about H(CERT) `digest`, in hexadecimal."""

    peer: str
    text: str
    digest: str


@dataclass(frozen=True, slots=True)
class AnswerEvent(AskEvent):
    """The answer to an inquiry: the certificate's status at a height, and how long the answer took."""

    status: str
    height: int
    ms: float


@dataclass(frozen=True, slots=True)
class KeysEvent(Event):
    """An IKE SA's SPIs and keys, in hexadecimal, by their names in RFC 7296."""

    cipher: str
    values: dict[str, str]


def _ike(time_s: float, actor: str, members: dict[str, object]) -> Event:
    number, total = (int(each) for each in cast("list[int]", members["fragment"]))
    return IkeEvent(
        time_s,
        actor,
        *ends(members),
        octets(members["data"]),
        str(members["exchange"]),
        bool(members["response"]),
        tuple(str(name) for name in cast("list[str]", members["payloads"])),
        (number, total),
        bool(members["repeated"]),
    )


def _ask(time_s: float, actor: str, members: dict[str, object]) -> Event:
    return AskEvent(time_s, actor, str(members["peer"]), str(members["text"]), str(members["digest"]))


def _answer(time_s: float, actor: str, members: dict[str, object]) -> Event:
    peer, text, digest, status = (str(members[name]) for name in ("peer", "text", "digest", "status"))
    height, ms = int(cast("int", members["height"])), float(cast("float", members["ms"]))
    return AnswerEvent(time_s, actor, peer, text, digest, status, height, ms)


def _keys(time_s: float, actor: str, members: dict[str, object]) -> Event:
    cipher = str(members.pop("cipher"))
    return KeysEvent(time_s, actor, cipher, {name: str(value) for name, value in members.items()})


KINDS: Kinds = {**COMMON_KINDS, "ike": _ike, "ask": _ask, "answer": _answer, "keys": _keys}
"""The kinds of events that the programs of an attachment may write."""
