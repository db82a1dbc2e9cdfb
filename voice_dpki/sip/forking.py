"""The branches of a request that a proxy sends to several telephones at once (RFC 3261 §16.7)."""

from typing import Final

from sipmessage import Response

from voice_dpki.sip.events import TransactionKey

MAX_BRANCHES: Final = 5
"""Telephones of one user that ring at once; a registrar here keeps no more contacts."""

_ASKS_FOR_MORE: Final = (401, 407, 415, 420, 484)
"""Preferred in their class: the caller can do something about them (§16.7 step 6)."""


class Branches:
    """The branches of one INVITE, and the best final response so far that is no 2xx."""

    def __init__(self) -> None:
        self.waiting: list[TransactionKey] = []
        """The branches without a final response."""
        self._best: Response | None = None
        self._is_won = False

    def open(self, branch: TransactionKey) -> None:
        """Add a branch whose request was sent."""
        self.waiting.append(branch)

    def win(self, branch: TransactionKey) -> list[TransactionKey]:
        """Take a 2xx, which the proxy passes on at once; return the branches to cancel."""
        self._is_won = True
        self._close(branch)
        return list(self.waiting)

    def lose(self, branch: TransactionKey, response: Response) -> tuple[Response | None, list[TransactionKey]]:
        """Take another final response.

        Returns the best one, once no branch waits any more and none has won, and the branches to cancel: after a
        6xx nobody else is to be asked (step 5).
        """
        self._close(branch)
        if self._best is None or _rank(response) < _rank(self._best):
            self._best = response
        best = self._best if not self.waiting and not self._is_won else None
        return best, list(self.waiting) if response.code >= 600 else []

    def _close(self, branch: TransactionKey) -> None:
        if branch in self.waiting:
            self.waiting.remove(branch)


def _rank(response: Response) -> tuple[int, int]:
    """Return how good a final response is, the best first: 6xx, else the lowest class (step 6)."""
    status_class = 0 if response.code >= 600 else response.code // 100
    return status_class, response.code not in _ASKS_FOR_MORE
