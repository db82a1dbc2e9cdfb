"""The lite implementation of ICE (RFC 8445 §2.5): it sends no checks, and answers the peer's.

A check whose MESSAGE-INTEGRITY is right comes from whoever has the password of our SDP, so media go where it came
from.
"""

import struct
from dataclasses import dataclass
from typing import Final

from aioice import stun

from voice_dpki.effects import Random

MAX_CHECK_BYTES: Final = 548
"""Largest check that is read (RFC 5389 §7.1)."""


@dataclass(frozen=True, slots=True)
class CheckAnswer:
    """The response to a valid check, and whether the peer wants this pair to carry the media."""

    response: bytes
    nominates: bool


class IceLite:
    """Our side of one call: `name` and `password` go into our SDP as ice-ufrag and ice-pwd."""

    def __init__(self, random: Random) -> None:
        self.name = random.token(4).hex()
        self.password = random.token(16).hex()

    def check(self, data: bytes, source: tuple[str, int]) -> CheckAnswer | None:
        """Return the answer to a STUN check from `source`; None if `data` is no check for us, or not authentic."""
        if len(data) > MAX_CHECK_BYTES:
            return None
        try:
            request = stun.parse_message(data)
            is_check = (request.message_class, request.message_method) == (stun.Class.REQUEST, stun.Method.BINDING)
            if not is_check or not request.check_message_integrity(self.password.encode()):
                return None
        except (ValueError, IndexError, struct.error):
            return None
        if str(request.attributes.get("USERNAME", "")).partition(":")[0] != self.name:
            return None
        response = stun.Message(stun.Method.BINDING, stun.Class.RESPONSE, request.transaction_id)
        response.attributes["XOR-MAPPED-ADDRESS"] = source
        response.add_message_integrity(self.password.encode())
        response.add_fingerprint()
        return CheckAnswer(bytes(response), "USE-CANDIDATE" in request.attributes)
