"""The media of a relayed call: two legs, each with its sockets and its protection, and RTP and RTCP between them.

A packet leaves one leg only after it was authenticated on the other. Before a leg has keys, a few of its packets
wait for them, and nothing is sent on it. After a change of keys, packets under old and new keys are accepted for a
while; ours are sent under one of them.
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

OLD_KEYS_S: Final = 2.0
"""How long packets under the old keys are accepted after ours are sent under the new ones (RFC 4568 §7.1.4)."""

HEARD_S: Final = 1.0
"""Longest wait for a packet under the new keys before we send under them."""


class MediaLeg:
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
        self._receiving: tuple[Protection, ...] = ()
        """Protections for received packets, the newest first: two after a change of keys."""
        self._sending: Protection | None = None
        self._expecting = False
        """Whether an answer with new keys may be on the way, so that packets under them can come first."""
        self._forgetting: asyncio.TimerHandle | None = None
        self._turn: Callable[[], None] | None = None
        self._turning: asyncio.TimerHandle | None = None
        self._remote: list[Address] = []
        self._newest: tuple[bytes, int] | None = None
        """SSRC and sequence number of the newest authentic RTP packet."""

    async def open(self) -> None:
        """Bind the ports; raises LocalError."""
        self.port, self._transports = await listen_pair(self.host, self.take)

    async def close(self) -> None:
        """Close the ports."""
        self._receiving, self._sending, self._turn = (), None, None
        self._stop_timers()
        for transport in self._transports:
            transport.close()
        await asyncio.sleep(0)  # lets the loop close the sockets

    @property
    def is_keyed(self) -> bool:
        """Whether media can flow."""
        return self._sending is not None

    def start(self, protection: Protection, remote: Address, remote_control: Address) -> None:
        """Let media flow; the same address twice means that RTP and RTCP share a port (RFC 5761).

        Raises MalformedError for an address that nothing can be sent to.
        """
        for address in (remote, remote_control):
            check_address(self.host, *address)
        self._remote = [remote, remote_control]
        self._receiving, self._sending = (protection,), protection

    def expect_keys(self) -> None:
        """Hold packets that are not authentic, as before the first keys, until `take_keys`."""
        self._expecting = True

    def take_keys(self, protection: Protection | None) -> None:
        """Accept packets also under new keys from now on, beginning with those held; None if there are no new keys.

        Our packets stay under the old keys until `switch`.
        """
        self._expecting = False
        if protection is not None:
            self._turn_now()
            self._receiving = (protection, *self._receiving[:1])
        if self._deliver is not None:
            self.deliver_to(self._deliver)

    def switch(self, protection: Protection | None) -> None:
        """Send under these keys from now on, or keep the old ones if None.

        Received packets are accepted under the old keys for another OLD_KEYS_S.
        """
        self._sending = protection or self._sending
        self._stop_timers()
        self._forgetting = asyncio.get_running_loop().call_later(OLD_KEYS_S, self._forget)

    def turn_once_heard(self, turn: Callable[[], None]) -> None:
        """Call `turn`, which is to `switch`, once a packet is authentic under the newest keys, or in HEARD_S.

        An offerer has the keys only after it has verified our answer, which can take an inquiry.
        """
        self._turn = turn
        self._turning = asyncio.get_running_loop().call_later(HEARD_S, self._turn_now)

    def _turn_now(self) -> None:
        turn, self._turn = self._turn, None
        if turn is not None:
            turn()

    def _forget(self) -> None:
        self._receiving = self._receiving[:1]

    def _stop_timers(self) -> None:
        for timer in (self._forgetting, self._turning):
            if timer is not None:
                timer.cancel()

    def move(self, remote: Address, remote_control: Address) -> None:
        """Send media to new addresses, until authentic packets show others; raises as `start` does."""
        for address in (remote, remote_control):
            check_address(self.host, *address)
        self._remote = [remote, remote_control]

    def deliver_to(self, deliver: Callable[[bytes, bool], None]) -> None:
        """Have `deliver` called with each authentic packet in clear, and with whether it is RTCP.

        Held packets are delivered first, if there are keys.
        """
        self._deliver = deliver
        for source, (data, is_control) in self._held.release():
            self._take(data, source, is_control)

    def take(self, data: bytes, source: Address, is_control: bool) -> None:
        """Take a datagram from a socket; hold a few until packets can be delivered."""
        if len(data) > MAX_PACKET_BYTES:
            self.dropped[UNAUTHENTIC] += 1
        elif self._receiving and self._deliver is not None:
            self._take(data, source, is_control)
        else:
            self.dropped[NOT_KEYED] += self._held.hold(source, (data, is_control))

    def _take(self, data: bytes, source: Address, is_control: bool) -> None:
        deliver = self._deliver
        if not self._receiving or deliver is None:
            self.dropped[NOT_KEYED] += 1
            return
        clear = self._unprotected(data, is_control=is_control or (self._shares_port and is_rtcp(data)))
        if clear is None and self._expecting:
            self.dropped[UNAUTHENTIC] += self._held.hold(source, (data, is_control))
        elif clear is None:
            self.dropped[UNAUTHENTIC] += 1
        else:
            is_control = is_control or (self._shares_port and is_rtcp(data))
            self.heard_s = asyncio.get_running_loop().time()
            self._follow(clear, source, is_control)
            deliver(clear, is_control)

    def _unprotected(self, data: bytes, *, is_control: bool) -> bytes | None:
        """Return a packet in clear; None if it is authentic under none of the keys."""
        for protection in self._receiving:
            try:
                clear = protection.unprotect_rtcp(data) if is_control else protection.unprotect(data)
            except SrtpError:
                continue
            if protection is self._receiving[0]:
                self._turn_now()
            return clear
        return None

    def send(self, clear: bytes, is_control: bool) -> None:
        """Protect a packet and send it; without keys it is dropped."""
        protection = self._sending
        if protection is None:
            self.dropped[NOT_KEYED] += 1
            return
        try:
            wire = protection.protect_rtcp(clear) if is_control else protection.protect(clear)
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
    """Counters of relayed and dropped packets."""

    def relayed(self, to: str) -> None:
        """Count a packet that was passed on to the side `to`."""
        ...

    def dropped(self, why: str) -> None:
        """Count an authentic packet that was dropped, by the reason `why`."""
        ...


class Relay:
    """Passes the media of two legs on to each other, once both have keys."""

    def __init__(self, inside: MediaLeg, outside: MediaLeg, counts: Counts) -> None:
        self._inside, self._outside = inside, outside
        self._counts = counts
        self._to: dict[MediaLeg, Translation] = {}
        """For each leg, the translation that makes the stream sent on it."""

    def start(self, outwards: Translation, inwards: Translation) -> None:
        """Begin to relay: `outwards` translates packets from inside, `inwards` those from outside."""
        self._to = {self._outside: outwards, self._inside: inwards}
        self._inside.deliver_to(self._passing(self._inside, self._outside, "outside"))
        self._outside.deliver_to(self._passing(self._outside, self._inside, "inside"))

    def sent_to(self, leg: MediaLeg) -> Translation:
        """Return the translation that makes the stream sent on `leg`."""
        return self._to[leg]

    def expect_source(self, leg: MediaLeg) -> None:
        """Accept a new SSRC from a leg that has new keys."""
        self._to[self._other(leg)].expect_source()

    def send_other(self, leg: MediaLeg, stream: Translation) -> None:
        """Have `leg` send another stream, of another SSRC, from now on."""
        self._to[leg] = stream

    def silent_s(self, since_s: float) -> float:
        """Return the longer silence of the two legs in seconds, counted from `since_s` at the earliest."""
        now_s = asyncio.get_running_loop().time()
        return now_s - min(max(leg.heard_s or since_s, since_s) for leg in (self._inside, self._outside))

    def _other(self, leg: MediaLeg) -> MediaLeg:
        return self._outside if leg is self._inside else self._inside

    def _passing(self, of: MediaLeg, to: MediaLeg, side: str) -> Callable[[bytes, bool], None]:
        def deliver(clear: bytes, is_control: bool) -> None:
            there, back = self._to[to], self._to[of]
            try:
                made = (
                    there.rtcp(clear, back) if is_control else there.rtp(clear, asyncio.get_running_loop().time())
                )
            except NotRelayedError as error:
                self._counts.dropped(error.why)
                return
            to.send(made, is_control)
            self._counts.relayed(side)

        return deliver
