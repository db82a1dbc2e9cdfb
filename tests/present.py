"""What a lookup found, where a test knows that it is there, and answers that may have to be waited for."""

from collections.abc import Awaitable
from typing import TypeVar

T = TypeVar("T")


def present(found: T | None) -> T:
    """Return what was found; fail the test if nothing was."""
    assert found is not None, "nothing was found"
    return found


async def made(answer: T | Awaitable[T]) -> T:
    """Return an answer that is there at once, or wait for it."""
    return await answer if isinstance(answer, Awaitable) else answer
