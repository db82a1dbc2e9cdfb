"""Ends strongSwan's IKE SAs over one VICI connection, with many commands in flight.

VICI ends SAs by name or number, so a removed vendor takes a command for each of its SAs. charon executes a
connection's commands one after the other, and pipelining keeps it from waiting for us between two of them. Several
connections would end no more SAs per second.
"""

import time
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

from segw_agent.live_log import LiveSa, Standing
from voice_dpki.errors import LocalError
from voice_dpki.ikev2.events import SaName

IN_FLIGHT = 32
"""Commands sent before the answer to the first of them is read."""

LIST_ALL = 4
"""Number of unknown SAs from which all SAs are listed: charon scans all of them even to list one."""

LIST_PAUSE_S = 1.0
"""Shortest time between two lists of all SAs; if the last list took longer than this, its duration counts.

Without it, SAs that were admitted and never established, which are on no list, would cause one list after another.
"""

ESTABLISHED = {b"ESTABLISHED", b"REKEYING"}
"""States of an SA whose peer has authenticated itself, as charon writes them."""

Outcome: TypeAlias = bool | LocalError
"""Outcome of ending an SA: whether charon had it, or the error for which charon did not end it."""


class ViciEnder:
    """One connection, and the numbers of SAs that charon listed over it.

    A connection leads to one charon process, which gives no number to a second SA. A restarted charon can reuse
    numbers, so numbers from another connection are never used.
    """

    def __init__(self, vici: Any, connection: Any) -> None:
        """Use a connected socket, which has a timeout; `vici` is that package."""
        self.connection = connection
        self._protocol, self._session = vici.protocol, vici.Session(connection)
        self._transport = vici.protocol.Transport(connection)
        self._numbers: dict[SaName, int] = {}
        self._list_again_s = 0.0
        """Earliest time of the next list of all SAs, by the monotonic clock."""

    def end(self, sas: Sequence[LiveSa], ended: dict[SaName, Outcome]) -> None:
        """Have charon end SAs, without waiting for their peers; add each outcome to `ended`.

        Raises the errors of `vici` and of the socket. The outcomes that `ended` lacks then are unknown.
        """
        self._learn([sa for sa in sas if sa.name not in self._numbers])
        waiting: deque[SaName] = deque()
        for sa in sas:
            number = self._numbers.pop(sa.name, None)
            if number is None:
                ended[sa.name] = False
                continue
            if len(waiting) >= IN_FLIGHT:
                name = waiting.popleft()
                ended[name] = self._taken()
            self._tell(number)
            waiting.append(sa.name)
        for name in waiting:
            ended[name] = self._taken()

    def _learn(self, unknown: Sequence[LiveSa]) -> None:
        """Have charon list SAs: each by its expected number, or all of them at most once in LIST_PAUSE_S."""
        if len(unknown) < LIST_ALL:
            for sa in unknown:
                self._numbers |= _numbers(listed(self._session, {"ike-id": str(sa.unique_id)}))
        began_s = time.monotonic()
        if began_s >= self._list_again_s and any(sa.name not in self._numbers for sa in unknown):
            self._numbers = _numbers(listed(self._session))
            ended_s = time.monotonic()
            self._list_again_s = ended_s + max(LIST_PAUSE_S, ended_s - began_s)

    def _tell(self, number: int) -> None:
        # With timeout -1 charon does not wait for the peer: it sends the deletion, and forgets the SA in any case.
        command = {"ike-id": str(number), "force": "yes", "timeout": "-1"}
        packet = self._protocol.Packet
        self._transport.send(packet.request("terminate", self._protocol.Message.serialize(command)))

    def _taken(self) -> Outcome:
        """Read the answer to a command."""
        answer = self._protocol.Packet.parse(self._transport.receive())
        if answer.response_type != self._protocol.Packet.CMD_RESPONSE:
            raise ValueError("no answer to the command that ends an SA")
        told = self._protocol.Message.deserialize(answer.payload)
        if told.get("success") == b"yes":
            return True
        if told.get("matches") == b"0":
            return False
        return LocalError(f"charon refuses: {told.get('errmsg', b'').decode('utf-8', 'replace')}")


def listed(session: Any, which: Mapping[str, str] | None = None) -> dict[SaName, Standing]:
    """Return charon's SAs, all of them or those that `which` describes."""
    found: dict[SaName, Standing] = {}
    for entry in session.list_sas(which):
        for sa in entry.values():
            name, unique_id = named(sa)
            remote_id = sa.get("remote-id", b"").decode("utf-8", "replace")
            found[name] = Standing(unique_id, remote_id, sa["state"] in ESTABLISHED)
    return found


def named(sa: Mapping[str, bytes]) -> tuple[SaName, int]:
    """Return name and number of an SA that charon describes."""
    spi_i, spi_r = (bytes.fromhex(sa[f"{side}-spi"].decode("ascii")) for side in ("initiator", "responder"))
    return SaName(spi_i, spi_r), int(sa["uniqueid"])


def _numbers(standing: Mapping[SaName, Standing]) -> dict[SaName, int]:
    return {name: each.unique_id for name, each in standing.items()}
