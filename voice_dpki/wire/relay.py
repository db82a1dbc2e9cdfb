"""The media of a relayed call: two legs, each with its sockets and its protection, and RTP and RTCP between them.

A packet leaves one leg only after it was authentic on the other. Before a leg has keys, a few of its packets wait
for them, and nothing is sent on it.
"""

import asyncio
from collections import Counter
from collections.abc import Callable
from typing import Final, Protocol

from voice_dpki.errors import LocalError
from voice_dpki.media.relay import NotRelayedError, Translation
from voice_dpki.media.rtcp import is_rtcp
from voice_dpki.media.rtp import MAX_PACKET_BYTES
from voice_dpki.media.srtp import Protection, SrtpError
from voice_dpki.wire.early import Address, EarlyPackets
from voice_dpki.wire.media_peer import HOLD_ADDRESSES, check_address
from voice_dpki.wire.media_ports import listen_pair

UNAUTHENTIC: Final = "unauthentic"
UNPROTECTED: Final = "unprotectable"
NOT_KEYED: Final = "no-keys"

MAX_HELD: Final = 50
"""Most packets of one source that wait for the keys: a second of speech."""

MAX_HELD_SOURCES: Final = 4
"""Most sources whose packets wait; see `EarlyPackets` for which."""


class Leg:
    """One side of the call: an even port for RTP and the next for RTCP, at `host`. Close it in any case.

    Media go to where the SDP says, and from then on to where the newest authentic packet came from (RFC 7362 §4).
    """

    def __init__(self, host: str) -> None:
        self.host = host
        self.port = 0
        self.dropped: Counter[str] = Counter()
        self.heard_s: float | None = None
        """When the latest authentic packet came, by the loop's clock."""
        self._deliver: Callable[[bytes, bool], None] | None = None
        self._held: EarlyPackets[tuple[bytes, bool]] = EarlyPackets(each=MAX_HELD, sources=MAX_HELD_SOURCES)
        self._transports: list[asyncio.DatagramTransport] = []
        self._protection: Protection | None = None
        self._remote: list[Address] = []
        self._newest: tuple[bytes, int] | None = None
        """SSRC and sequence number of the newest authentic RTP packet."""

    async def open(self) -> None:
        """Bind the ports; raises LocalError."""
        self.port, self._transports = await listen_pair(self.host, self.take)

    async def close(self) -> None:
        """Close the ports."""
        self._protection = None
        for transport in self._transports:
            transport.close()
        await asyncio.sleep(0)  # lets the loop close the sockets

    @property
    def is_keyed(self) -> bool:
        """Whether media can flow."""
        return self._protection is not None

    def start(self, protection: Protection, remote: Address, remote_control: Address) -> None:
        """Let media flow; the same address twice means that RTP and RTCP share a port (RFC 5761).

        Raises MalformedError for an address that nothing can be sent to.
        """
        for address in (remote, remote_control):
            check_address(self.host, *address)
        self._remote = [remote, remote_control]
        self._protection = protection

    def move(self, remote: Address, remote_control: Address) -> None:
        """Send media elsewhere, until authentic packets show where to; raises MalformedError as `start` does."""
        for address in (remote, remote_control):
            check_address(self.host, *address)
        self._remote = [remote, remote_control]

    def deliver_to(self, deliver: Callable[[bytes, bool], None]) -> None:
        """Have `deliver` called with each authentic packet in clear, and with whether it is RTCP.

        Packets that have come before begin it, if there are keys.
        """
        self._deliver = deliver
        for source, (data, is_control) in self._held.release():
            self._take(data, source, is_control)

    def take(self, data: bytes, source: Address, is_control: bool) -> None:
        """Take a datagram from a socket; until packets can be delivered, a few wait."""
        if len(data) > MAX_PACKET_BYTES:
            self.dropped[UNAUTHENTIC] += 1
        elif self._protection is not None and self._deliver is not None:
            self._take(data, source, is_control)
        else:
            self.dropped[NOT_KEYED] += self._held.hold(source, (data, is_control))

    def _take(self, data: bytes, source: Address, is_control: bool) -> None:
        protection, deliver = self._protection, self._deliver
        if protection is None or deliver is None:
            self.dropped[NOT_KEYED] += 1
            return
        is_control = is_control or (self._shares_port and is_rtcp(data))
        try:
            clear = protection.unprotect_rtcp(data) if is_control else protection.unprotect(data)
        except SrtpError:
            self.dropped[UNAUTHENTIC] += 1
            return
        self.heard_s = asyncio.get_running_loop().time()
        self._follow(clear, source, is_control)
        deliver(clear, is_control)

    def send(self, clear: bytes, is_control: bool) -> None:
        """Protect a packet and send it; without keys it is dropped."""
        if self._protection is None:
            self.dropped[NOT_KEYED] += 1
            return
        try:
            wire = self._protection.protect_rtcp(clear) if is_control else self._protection.protect(clear)
        except LocalError:
            self.dropped[UNPROTECTED] += 1
            return
        self.transmit(wire, self._remote[is_control], by_control=is_control and not self._shares_port)

    def transmit(self, wire: bytes, remote: Address, *, by_control: bool = False) -> None:
        """Send a datagram as it is, unless the peer is on hold."""
        transport = self._transports[by_control]
        if not transport.is_closing() and remote[0] not in HOLD_ADDRESSES:
            transport.sendto(wire, remote)

    @property
    def _shares_port(self) -> bool:
        return self._remote[0] == self._remote[1]

    def _follow(self, clear: bytes, source: Address, is_control: bool) -> None:
        """Send to where an authentic packet came from, if it is newer than those before."""
        if self._shares_port:
            if not is_control and self._is_newest(clear):
                self._remote = [source, source]
        elif is_control or self._is_newest(clear):
            self._remote[is_control] = source

    def _is_newest(self, clear: bytes) -> bool:
        sequence, ssrc = int.from_bytes(clear[2:4], "big"), clear[8:12]
        if self._newest is not None and self._newest[0] == ssrc:
            ahead = (sequence - self._newest[1]) & 0xFFFF
            if not 0 < ahead < 0x8000:
                return False
        self._newest = (ssrc, sequence)
        return True


class Counts(Protocol):
    """Where what was relayed, and what was not, is counted by its reason."""

    def relayed(self, to: str) -> None:
        """Count a packet that was passed on to the side `to`."""
        ...

    def dropped(self, why: str) -> None:
        """Count an authentic packet that was not."""
        ...


class Relay:
    """Passes the media of two legs on to each other, once both have keys."""

    def __init__(self, inside: Leg, outside: Leg, counts: Counts) -> None:
        self._inside, self._outside = inside, outside
        self._counts = counts

    def start(self, outwards: Translation, inwards: Translation) -> None:
        """Begin: `outwards` is for what comes from inside."""
        self._inside.deliver_to(self._passing(self._outside, outwards, inwards, "outside"))
        self._outside.deliver_to(self._passing(self._inside, inwards, outwards, "inside"))

    def silent_s(self, since_s: float) -> float:
        """Return for how long the leg that has been silent for longer has been, counted from `since_s` at most."""
        now_s = asyncio.get_running_loop().time()
        return now_s - min(max(leg.heard_s or since_s, since_s) for leg in (self._inside, self._outside))

    def _passing(self, to: Leg, there: Translation, back: Translation, side: str) -> Callable[[bytes, bool], None]:
        def deliver(clear: bytes, is_control: bool) -> None:
            now_s = asyncio.get_running_loop().time()
            try:
                made = there.rtcp(clear, back) if is_control else there.rtp(clear, now_s)
            except NotRelayedError as error:
                self._counts.dropped(error.why)
                return
            to.send(made, is_control)
            self._counts.relayed(side)

        return deliver
