"""The holder of a telephone number among many operators, found by bisection, since calls need it."""

from bisect import bisect_right
from collections.abc import Mapping

from voice_dpki.names import Tn
from voice_dpki.x509.allotment import Allotment


class NumberHolders:
    """The ranges of some operators, by organisation. The ledger lets no two members hold the same number."""

    def __init__(self, allotments: Mapping[str, Allotment]) -> None:
        by_length: dict[int, list[tuple[int, int, str]]] = {}
        for organization, allotment in allotments.items():
            for entry in allotment.ranges:
                start = int(entry.start)
                by_length.setdefault(len(entry.start), []).append((start, start + entry.count, organization))
        self._ranges = {digits: sorted(found) for digits, found in by_length.items()}

    def holder_of(self, number: Tn) -> str:
        """Return the organisation that is allotted a number, "" if none is."""
        ranges = self._ranges.get(len(number), [])
        if not ranges or not (number.isascii() and number.isdigit()):
            return ""
        at = bisect_right(ranges, int(number), key=lambda entry: entry[0]) - 1
        return ranges[at][2] if at >= 0 and int(number) < ranges[at][1] else ""
