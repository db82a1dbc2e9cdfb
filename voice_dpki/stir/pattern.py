"""Patterns of called and calling parties in the rules that operators write: numbers, ranges, prefixes, URIs.

    493023125001                  one number
    493023125000-493023125999     the numbers of a range, both ends included, all of one length
    4930*                         the numbers with this prefix
    urn:service:sos               one URI, compared without regard to case
    urn:service:sos*              the URIs with this prefix

Visual separators and a leading `+` are dropped, as in requests (RFC 8224 §8.3), but a range has one hyphen only.
The last character decides: a number that ends in `*`, as service codes do, cannot be told from a prefix.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from voice_dpki.codec.telephone import MAX_URI_LENGTH, canonical_tn
from voice_dpki.errors import MalformedError
from voice_dpki.names import Tn, ascii_lower
from voice_dpki.stir.passport import Destinations

MAX_PATTERN_LENGTH: Final = MAX_URI_LENGTH


@dataclass(frozen=True, slots=True)
class Pattern:
    """One pattern: it matches from `first` to `last`, or with `is_prefix` whatever begins with `first`."""

    first: str
    last: str
    is_prefix: bool = False
    is_uri: bool = False

    @classmethod
    def parse(cls, text: str) -> "Pattern":
        """Read a pattern; raises MalformedError that says what is admitted."""
        if not 1 <= len(text) <= MAX_PATTERN_LENGTH:
            raise MalformedError(f"a pattern has 1 to {MAX_PATTERN_LENGTH} characters")
        body, is_prefix = (text[:-1], True) if text.endswith("*") else (text, False)
        if ":" in body:
            return cls(ascii_lower(body), ascii_lower(body), is_prefix, is_uri=True)
        first, hyphen, last = body.partition("-")
        if hyphen and is_prefix:
            raise MalformedError("a range of numbers does not end in *")
        begin, end = _number(first), _number(last) if hyphen else _number(first)
        if len(begin) != len(end) or begin > end:
            raise MalformedError("the ends of a range are two numbers of one length, the lower one first")
        return cls(begin, end, is_prefix)

    def covers_tn(self, tn: Tn) -> bool:
        """Tell whether a canonical number matches."""
        if self.is_uri:
            return False
        if self.is_prefix:
            return tn.startswith(self.first)
        return len(tn) == len(self.first) and self.first <= tn <= self.last

    def covers_uri(self, uri: str) -> bool:
        """Tell whether a canonical URI matches."""
        return self.is_uri and (uri.startswith(self.first) if self.is_prefix else uri == self.first)


def _number(text: str) -> str:
    """Read a number of digits alone; raises MalformedError, also for service codes with * or #."""
    try:
        number = canonical_tn(text)
    except MalformedError:
        number = Tn("")
    if not (number.isascii() and number.isdigit()):
        raise MalformedError("it is no number, no range FIRST-LAST, no prefix that ends in *, and no URI")
    return number


Patterns = Sequence[Pattern]


def any_covers(patterns: Patterns, tn: Tn) -> bool:
    """Tell whether one of the patterns covers a number."""
    return any(pattern.covers_tn(tn) for pattern in patterns)


def all_covered(patterns: Patterns, called: Destinations) -> bool:
    """Tell whether each called party is covered."""
    return all(any_covers(patterns, tn) for tn in called.tns) and all(
        any(pattern.covers_uri(uri) for pattern in patterns) for uri in called.uris
    )


def some_covered(patterns: Patterns, called: Destinations) -> bool:
    """Tell whether at least one called party is covered."""
    return any(any_covers(patterns, tn) for tn in called.tns) or any(
        pattern.covers_uri(uri) for pattern in patterns for uri in called.uris
    )
