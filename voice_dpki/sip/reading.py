"""Calling sipmessage's parsers on what peers send."""

from collections.abc import Callable
from typing import TypeVar

from voice_dpki.errors import MalformedError

_Parsed = TypeVar("_Parsed")


def read(parse: Callable[[str], _Parsed] | Callable[[bytes], _Parsed], value: str | bytes, what: str) -> _Parsed:
    """Call a parser of sipmessage; raises MalformedError for whatever it raises on odd input.

    TypeError is one of them: a parameter named "self" breaks sipmessage's keyword arguments. Some of its errors are
    one object, raised each time. Python adds a traceback to it at every raise, and each holds the frames with the
    message in them. So the traceback is taken off, or malformed messages would stay in memory for ever.
    """
    try:
        return parse(value)  # type: ignore[arg-type]
    except (ValueError, TypeError, KeyError, IndexError) as error:
        error.__traceback__ = error.__context__ = None
    raise MalformedError(f"not {what} (RFC 3261 §25.1)")
