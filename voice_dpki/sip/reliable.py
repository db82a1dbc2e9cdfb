"""Provisional responses that PRACK acknowledges (RFC 3262): their numbers and their order."""

import re
from dataclasses import dataclass
from typing import Final

from sipmessage import Request, Response

from voice_dpki.effects import Random
from voice_dpki.errors import MalformedError
from voice_dpki.sip.hop import read_number
from voice_dpki.sip.message import header_values

OPTION: Final = "100rel"

MAX_FIRST: Final = (1 << 31) - 1
"""Largest number of the first reliable response to a request (§3)."""
_MAX_NUMBER: Final = (1 << 32) - 1

_RACK = re.compile(r"([0-9]{1,10})[ \t]+([0-9]{1,10})[ \t]+([!-~]{1,64})\Z")


@dataclass(frozen=True, slots=True)
class Rack:
    """RAck = response-num LWS CSeq-num LWS Method (§7.2): which response a PRACK acknowledges."""

    number: int
    sequence: int
    method: str

    @classmethod
    def parse(cls, text: str) -> "Rack":
        """Read the value of a RAck header field; raises MalformedError."""
        found = _RACK.match(text.strip())
        numbers = [read_number(digits, _MAX_NUMBER) for digits in found.groups()[:2]] if found else [None]
        if found is None or None in numbers:
            raise MalformedError("RAck names no response (RFC 3262 §7.2)")
        return cls(int(found[1]), int(found[2]), found[3])

    def serialize(self) -> str:
        """Return the value of the RAck header field."""
        return f"{self.number} {self.sequence} {self.method}"


def is_reliable(response: Response) -> bool:
    """Return whether a response is a provisional one that must be acknowledged (§4)."""
    return 100 < response.code < 200 and OPTION in header_values(response, "Require")


def is_required(invite: Request) -> bool:
    """Return whether all provisional responses to an INVITE, other than 100, must be reliable (§3)."""
    return OPTION in header_values(invite, "Require")


def is_supported(invite: Request) -> bool:
    """Return whether provisional responses to an INVITE may be reliable (§3)."""
    return is_required(invite) or OPTION in header_values(invite, "Supported")


def read_number_of(response: Response) -> int:
    """Return the number of a reliable response, from 1; raises MalformedError (§7.1)."""
    number = read_number((response.headers.get("RSeq") or "").strip(), _MAX_NUMBER)
    if not number:
        raise MalformedError("RSeq is no number from 1 (RFC 3262 §7.1)")
    return number


class Sent:
    """The numbers of the reliable responses that one end sends to an INVITE; one at a time is unacknowledged."""

    def __init__(self, sequence: int, random: Random) -> None:
        """`sequence` is the INVITE's CSeq number."""
        self._sequence = sequence
        self._number = int.from_bytes(random.token(4), "big") % MAX_FIRST
        self._is_waiting = False

    def next(self) -> int:
        """Return the number of the next response, one more than the last, which must be acknowledged (§3)."""
        assert not self._is_waiting
        self._number, self._is_waiting = self._number + 1, True
        return self._number

    def acknowledge(self, rack: Rack) -> bool:
        """Return whether a PRACK acknowledges the unacknowledged response; any other PRACK gets 481 (§3)."""
        if not self._is_waiting or rack != Rack(self._number, self._sequence, "INVITE"):
            return False
        self._is_waiting = False
        return True


class Received:
    """The order of the reliable responses of one early dialog, at the end that receives them."""

    def __init__(self) -> None:
        self._last: int | None = None

    def take(self, number: int) -> bool:
        """Return whether the response of this number is next: the first one, or one more than the last (§4).

        A retransmission, or a response ahead of its turn, is neither acknowledged nor processed.
        """
        if self._last is not None and number != self._last + 1:
            return False
        self._last = number
        return True
