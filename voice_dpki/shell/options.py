"""Options of commands: numbers, checked against bounds, and private keys."""

import argparse
import re
from collections.abc import Callable

from voice_dpki.errors import LocalError
from voice_dpki.shell.token_uri import KeyPlace, key_place

_WHOLE = re.compile(r"[0-9]{1,18}", re.ASCII)
_DECIMAL = re.compile(r"[0-9]{1,9}(\.[0-9]{1,9})?", re.ASCII)


def whole_number(least: int, most: int) -> Callable[[str], int]:
    """Return an argparse type for whole numbers from `least` to `most`."""

    def parse(text: str) -> int:
        if not _WHOLE.fullmatch(text) or not least <= int(text) <= most:
            raise argparse.ArgumentTypeError(f"give a whole number from {least} to {most}")
        return int(text)

    return parse


def number(*, above: float, most: float, unit: str) -> Callable[[str], float]:
    """Return an argparse type for numbers above `above` and at most `most`; `unit` names them in the error."""

    def parse(text: str) -> float:
        if not _DECIMAL.fullmatch(text) or not above < float(text) <= most:
            raise argparse.ArgumentTypeError(f"give {unit}, more than {above:g} and at most {most:g}")
        return float(text)

    return parse


def key_option(text: str) -> KeyPlace:
    """Read an option that names a private key: a file, or a pkcs11: URI."""
    try:
        return key_place(text)
    except LocalError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
