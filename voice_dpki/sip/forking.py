"""The branches of a request that a proxy sends to several telephones at once (RFC 3261 §16.7)."""

from typing import Final

from sipmessage import Response

from voice_dpki.sip.events import TransactionKey

MAX_BRANCHES: Final = 5
"""Most telephones of one user that ring at once; the registrar keeps no more contacts than this."""

_ASKS_FOR_MORE: Final = (401, 407, 415, 420, 484)
"""Statuses preferred within their class, because the caller can react to them (§16.7 step 6)."""


class Branches:
    """The branches of one INVITE, and the best final response so far other than 2xx."""

    def __init__(self) -> None:
        self.waiting: list[TransactionKey] = []
        """The branches without a final response."""
        self._best: Response | None = None
        self._is_won = False

    def open(self, branch: TransactionKey) -> None:
        """Add a branch whose request was sent."""
        self.waiting.append(branch)

    def win(self, branch: TransactionKey) -> list[TransactionKey]:
        """Record a 2xx, which the proxy passes on at once; return the branches to cancel."""
        self._is_won = True
        self._close(branch)
        return list(self.waiting)

    def lose(self, branch: TransactionKey, response: Response) -> tuple[Response | None, list[TransactionKey]]:
        """Record a final response other than 2xx.

        Returns the best such response if no branch is waiting and none has won, else None; and the branches to
        cancel, which are all the others after a 6xx (step 5).
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
    """Return the sort key of a final response; the best has the lowest: 6xx, then the lowest class (step 6)."""
    status_class = 0 if response.code >= 600 else response.code // 100
    return status_class, response.code not in _ASKS_FOR_MORE
