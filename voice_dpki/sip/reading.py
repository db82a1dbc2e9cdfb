"""Calls of sipmessage's parsers on text from peers."""

from collections.abc import Callable
from typing import TypeVar

from voice_dpki.errors import MalformedError

_Parsed = TypeVar("_Parsed")


def read(parse: Callable[[str], _Parsed] | Callable[[bytes], _Parsed], value: str | bytes, what: str) -> _Parsed:
    """Call a parser of sipmessage; raises MalformedError for every error that it raises on malformed input.

    TypeError is one of them: a parameter named "self" breaks sipmessage's keyword arguments. Some of its errors are
    single objects that are raised again and again. Each raise adds a traceback, whose frames hold the message. So
    the traceback is removed here; otherwise malformed messages would stay in memory for ever.
    """
    try:
        return parse(value)  # type: ignore[arg-type]
    except (ValueError, TypeError, KeyError, IndexError) as error:
        error.__traceback__ = error.__context__ = None
    raise MalformedError(f"not {what} (RFC 3261 §25.1)")
