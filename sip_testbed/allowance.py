"""Rate limit on one side's changes of a call: each can cost a signature and an entry in the replay cache."""

import math
from typing import Final

from sip_testbed.media_policy import SERVER_ERROR, Refusal
from voice_dpki.bucket import Bucket

MAX_CHANGES: Final = 8
"""Changes that one side of a call may request in a burst."""

CHANGE_S: Final = 5.0
"""Seconds for each further change: fewer than 50 in the time that the replay cache keeps a message."""


class TooOftenError(Refusal):
    """A side has requested changes too often; `headers` say when it can retry (RFC 3261 §21.5.1)."""

    status = SERVER_ERROR

    def __init__(self, wait_s: float) -> None:
        super().__init__("changes", "this side asks for changes of the call too often")
        self.headers = [("Retry-After", str(math.ceil(wait_s)))]


class Allowance:
    """The change quota of one side of a call."""

    def __init__(self) -> None:
        self._bucket = Bucket(MAX_CHANGES, 1 / CHANGE_S)

    def take(self, now_s: float) -> None:
        """Count a change at a time of the monotonic clock; raises TooOftenError if none is left."""
        if wait_s := self._bucket.take(now_s):
            raise TooOftenError(wait_s)
