"""TN Authorization List: which telephone numbers a certificate's subject may sign for (RFC 8226 §9).

TNAuthorizationList  ::= SEQUENCE SIZE (1..MAX) OF TNEntry
TNEntry              ::= CHOICE { spc [0] ServiceProviderCode, range [1] TelephoneNumberRange,
                                  one [2] TelephoneNumber }          -- explicit tags
ServiceProviderCode  ::= IA5String
TelephoneNumberRange ::= SEQUENCE { start TelephoneNumber, count INTEGER (2..MAX), ... }
TelephoneNumber      ::= IA5String (SIZE (1..15)) (FROM ("0123456789#*"))
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from voice_dpki.codec.cursor import Cursor
from voice_dpki.errors import MalformedError
from voice_dpki.names import Tn
from voice_dpki.x509 import der

OID = "1.3.6.1.5.5.7.1.26"
"""id-pe-TNAuthList, a non-critical extension."""

MAX_SPC_LENGTH = 32
"""Characters of a service provider code; RFC 8226 sets no limit, and the codes in use have 4 to 8."""

_SPC, _RANGE, _ONE = 0xA0, 0xA1, 0xA2
_TN = re.compile(r"[0-9#*]{1,15}\Z")
_DIGITS = re.compile(r"[0-9]{1,15}\Z")
_SPC_TEXT = re.compile(r"[\x21-\x7e]+\Z")


@dataclass(frozen=True, slots=True)
class TnRange:
    """`count` consecutive numbers from `start` on, all with as many digits as `start`; 1 allots one number."""

    start: Tn
    count: int

    def __post_init__(self) -> None:
        if not _DIGITS.match(self.start):
            raise MalformedError("a number range starts with 1 to 15 digits (RFC 8226 §9)")
        if self.count < 1:
            raise MalformedError("a number range holds at least one number")
        if self.count > 1 and int(self.start) + self.count >= 10 ** len(self.start):
            raise MalformedError("a number range must not make its numbers longer (RFC 8226 §9)")

    def covers(self, tn: Tn) -> bool:
        """Tell whether `tn`, a canonical number, lies in the range."""
        if len(tn) != len(self.start) or not (tn.isascii() and tn.isdigit()):
            return False
        return 0 <= int(tn) - int(self.start) < self.count


@dataclass(frozen=True, slots=True)
class TnAuthList:
    """The entries by kind, each kind in the order of the list; there is at least one entry."""

    spcs: tuple[str, ...] = ()
    ranges: tuple[TnRange, ...] = ()
    tns: tuple[Tn, ...] = ()

    def __post_init__(self) -> None:
        if not (self.spcs or self.ranges or self.tns):
            raise MalformedError("a TNAuthList has at least one entry (RFC 8226 §9)")
        if any(entry.count < 2 for entry in self.ranges):
            raise MalformedError("a number range holds at least 2 numbers (RFC 8226 §9)")
        for spc in self.spcs:
            _check_spc(spc)
        for tn in self.tns:
            _check_tn(tn)

    @classmethod
    def of(cls, spcs: Iterable[str], entries: Iterable[TnRange]) -> "TnAuthList":
        """Make a list of codes and of allotted ranges, which may have one number; raises MalformedError."""
        listed = tuple(entries)
        several = tuple(entry for entry in listed if entry.count > 1)
        return cls(tuple(spcs), several, tuple(entry.start for entry in listed if entry.count == 1))

    @classmethod
    def parse(cls, data: bytes) -> "TnAuthList":
        """Parse the extension's value; raises MalformedError on anything but strict DER of the syntax above."""
        outer = Cursor(data, "TNAuthList")
        entries = Cursor(der.read_as(outer, der.SEQUENCE, "TNAuthList"), "TNAuthList")
        outer.finish()
        spcs: list[str] = []
        ranges: list[TnRange] = []
        tns: list[Tn] = []
        while entries.remaining:
            tag, content = der.read(entries)
            if tag == _SPC:
                spcs.append(_ia5(Cursor(content, "TNAuthList spc"), last=True))
            elif tag == _RANGE:
                ranges.append(_parse_range(Cursor(content, "TNAuthList range")))
            elif tag == _ONE:
                tns.append(Tn(_ia5(Cursor(content, "TNAuthList number"), last=True)))
            else:
                raise MalformedError(f"TNAuthList: tag {tag:#04x} is none of spc, range and one")
        return cls(tuple(spcs), tuple(ranges), tuple(tns))

    def serialize(self) -> bytes:
        """Encode as DER: codes first, then ranges, then single numbers."""
        entries = [der.encode(_SPC, _encode_ia5(spc)) for spc in self.spcs]
        entries += [der.encode(_RANGE, _encode_range(entry)) for entry in self.ranges]
        entries += [der.encode(_ONE, _encode_ia5(tn)) for tn in self.tns]
        return der.encode(der.SEQUENCE, b"".join(entries))

    def covers(self, tn: Tn) -> bool:
        """Tell whether a range or a single number names `tn`; service provider codes are not resolved here."""
        return tn in self.tns or any(entry.covers(tn) for entry in self.ranges)

    def authorises(self, tn: Tn, code_ranges: Sequence[TnRange]) -> bool:
        """Tell whether an entry gives authority over `tn`; `code_ranges` are the numbers that codes stand for."""
        by_code = bool(self.spcs) and any(entry.covers(tn) for entry in code_ranges)
        return by_code or self.covers(tn)

    def inside(self, ranges: Sequence[TnRange], spcs: Sequence[str]) -> bool:
        """Tell whether every entry lies inside the allotted `ranges` (taken together) and `spcs`."""
        return self.is_within(ranges, spcs) and all(any(entry.covers(tn) for entry in ranges) for tn in self.tns)

    def is_within(self, ranges: Sequence[TnRange], spcs: Sequence[str]) -> bool:
        """Tell what `inside` does for codes and ranges, without the single numbers."""
        allotted = _merge(_interval(entry) for entry in ranges)
        return set(self.spcs) <= set(spcs) and all(_inside(_interval(entry), allotted) for entry in self.ranges)


_Interval = tuple[int, int, int]
"""Digits in each number, first number, and the number after the last."""


def _interval(entry: TnRange) -> _Interval:
    start = int(entry.start)
    return len(entry.start), start, start + entry.count


def _merge(intervals: Iterable[_Interval]) -> list[_Interval]:
    """Join intervals that overlap or touch, so that a range across two adjacent allotments counts as inside."""
    merged: list[_Interval] = []
    for digits, first, end in sorted(intervals):
        if merged and merged[-1][0] == digits and first <= merged[-1][2]:
            merged[-1] = (digits, merged[-1][1], max(end, merged[-1][2]))
        else:
            merged.append((digits, first, end))
    return merged


def _inside(wanted: _Interval, allotted: list[_Interval]) -> bool:
    digits, first, end = wanted
    return any(digits == of and start <= first and end <= stop for of, start, stop in allotted)


def _parse_range(cursor: Cursor) -> TnRange:
    body = Cursor(der.read_as(cursor, der.SEQUENCE, "TNAuthList range"), "TNAuthList range")
    cursor.finish()
    start = _ia5(body)
    count = der.unsigned(der.read_as(body, der.INTEGER, "TNAuthList range count"))
    # "..." lets later versions add members; what they would mean for authority is unknown, so none is accepted.
    body.finish()
    return TnRange(Tn(start), count)


def _ia5(cursor: Cursor, *, last: bool = False) -> str:
    content = der.read_as(cursor, der.IA5_STRING, "TNAuthList entry")
    if last:
        cursor.finish()
    try:
        return content.decode("ascii")
    except UnicodeDecodeError:
        raise MalformedError("TNAuthList: an IA5String holds a byte above 127") from None


def _encode_ia5(text: str) -> bytes:
    return der.encode(der.IA5_STRING, text.encode("ascii"))


def _encode_range(entry: TnRange) -> bytes:
    return der.encode(der.SEQUENCE, _encode_ia5(entry.start) + der.encode_unsigned(entry.count))


def _check_spc(spc: str) -> None:
    if len(spc) > MAX_SPC_LENGTH or not _SPC_TEXT.match(spc):
        raise MalformedError(f"a service provider code has 1 to {MAX_SPC_LENGTH} visible ASCII characters")


def _check_tn(tn: str) -> None:
    if not _TN.match(tn):
        raise MalformedError("a telephone number has 1 to 15 of 0-9 # * (RFC 8226 §9)")
