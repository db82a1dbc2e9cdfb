"""Reading bytes from left to right, with every bound checked."""

from voice_dpki.errors import MalformedError


class Cursor:
    """A position in `data`; each read moves it on, and reading past the end raises MalformedError."""

    __slots__ = ("_at", "_data", "_end", "_what")

    def __init__(self, data: bytes, what: str) -> None:
        self._data = data
        self._what = what
        self._at = 0
        self._end = len(data)

    @property
    def position(self) -> int:
        """Offset of the next byte, from 0."""
        return self._at

    @property
    def remaining(self) -> int:
        """Bytes not yet read."""
        return self._end - self._at

    def take(self, size: int) -> bytes:
        """Read exactly `size` bytes."""
        start = self._at
        end = start + size
        if size < 0 or end > self._end:
            raise MalformedError(
                f"{self._what}: {size} bytes expected at offset {start}, {self.remaining} are left"
            )
        self._at = end
        return self._data[start:end]

    def uint(self, size: int) -> int:
        """Read an unsigned big-endian integer of `size` bytes."""
        octets = self.take(size)
        return octets[0] if size == 1 else int.from_bytes(octets, "big")

    def rest(self) -> bytes:
        """Read all that is left."""
        return self.take(self.remaining)

    def finish(self) -> None:
        """Raise MalformedError unless everything was read."""
        if self.remaining:
            raise MalformedError(f"{self._what}: {self.remaining} bytes too many after offset {self._at}")
