"""What a lookup found, where a test knows that it is there."""

from typing import TypeVar

T = TypeVar("T")


def present(found: T | None) -> T:
    """Return what was found; fail the test if nothing was."""
    assert found is not None, "nothing was found"
    return found
