"""Numbers as a command's options: within bounds, or refused in a sentence."""

import argparse
import re
from collections.abc import Callable

_WHOLE = re.compile(r"[0-9]{1,18}", re.ASCII)
_DECIMAL = re.compile(r"[0-9]{1,9}(\.[0-9]{1,9})?", re.ASCII)


def whole_number(least: int, most: int) -> Callable[[str], int]:
    """Return argparse's type of a whole number from `least` to `most`."""

    def parse(text: str) -> int:
        if not _WHOLE.fullmatch(text) or not least <= int(text) <= most:
            raise argparse.ArgumentTypeError(f"give a whole number from {least} to {most}")
        return int(text)

    return parse


def number(*, above: float, most: float, unit: str) -> Callable[[str], float]:
    """Return argparse's type of a number of a `unit`, more than `above` and at most `most`."""

    def parse(text: str) -> float:
        if not _DECIMAL.fullmatch(text) or not above < float(text) <= most:
            raise argparse.ArgumentTypeError(f"give {unit}, more than {above:g} and at most {most:g}")
        return float(text)

    return parse
