"""A leg of a relayed call that DTLS-SRTP keys, with ICE where the peer does it: one port for all (RFC 7983).

ICE is its lite form. Without ICE a telephone can be behind a NAT: the peer is the source that completes the
handshake with the SDP's certificate. A few sources may try, each after it has returned a cookie.
"""

import asyncio
from collections.abc import Callable
from typing import Final

from voice_dpki.media.any_source import AnySourceSrtp
from voice_dpki.media.rtcp import is_rtcp
from voice_dpki.sip.dtls_sdp import DtlsDescription
from voice_dpki.wire.dtls import DtlsError, DtlsIdentity, DtlsKeys, DtlsSrtp, WrongPeerError
from voice_dpki.wire.dtls_listener import DtlsListener
from voice_dpki.wire.early import Address, EarlyPackets
from voice_dpki.wire.ice_lite import IceLite
from voice_dpki.wire.media_peer import check_address
from voice_dpki.wire.relay import UNAUTHENTIC, MediaLeg

HANDSHAKE_S: Final = 20.0
"""Longest time from the answer to the end of the handshake."""

MAX_OTHERS: Final = 4
"""Most sources, besides the SDP's address, with a handshake in progress at the same time."""

EARLY_RECORDS: Final = 2
"""Most datagrams of one source that wait for the SDP: a ClientHello in two fragments, or retransmitted."""


class DtlsLeg(MediaLeg):
    """A `MediaLeg` that `handshake` keys, in place of `start`. Make it within a running event loop."""

    def __init__(self, host: str, identity: DtlsIdentity, ice: IceLite) -> None:
        super().__init__(host)
        self.ice = ice
        self.identity = identity
        self.keyed: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        """Done with the agreed suite once media can flow; fails with DtlsError."""
        self.keyed.add_done_callback(
            lambda keyed: keyed.cancelled() or keyed.exception()
        )  # the result may never be awaited
        self.ended = asyncio.Event()
        """Set once the peer has ended the DTLS connection."""
        self._dtls: DtlsSrtp | None = None
        """The connection with the peer; with a listener, None until one of `_open` is keyed."""
        self._begun = self._nominated = False
        self._peer: Address | None = None
        self._listener: DtlsListener | None = None
        """Answers sources that may be the peer; None unless the peer is the client and does no ICE."""
        self._open: dict[Address, DtlsSrtp] = {}
        """Handshakes with sources that have returned the listener's cookie."""
        self._error: DtlsError | None = None
        """Error of the last of these handshakes that failed."""
        self._limit: asyncio.TimerHandle | None = None
        self._retries: dict[DtlsSrtp, asyncio.TimerHandle] = {}
        self._early: EarlyPackets[bytes] | None = EarlyPackets(each=EARLY_RECORDS, sources=MAX_OTHERS + 1)
        """Datagrams that arrive before the peer's SDP: a ClientHello can overtake the answer (RFC 5763 §5)."""

    def handshake(self, described: DtlsDescription, remote: Address, *, client: bool) -> None:
        """Begin the handshake with the peer that `described` names; `remote` is its address in the SDP.

        With ICE, the source of valid checks replaces `remote`. Raises MalformedError for an address to which
        nothing can be sent.
        """
        if described.ice is None:
            check_address(self.host, *remote)
            self._peer = remote
        self._limit = asyncio.get_running_loop().call_later(HANDSHAKE_S, self._overdue)
        if described.ice is None and not client:
            self._listener = DtlsListener(self.identity, described.fingerprints)
        else:
            self._dtls = DtlsSrtp(self.identity, described.fingerprints, client=client)
            self._begin(self._dtls)
        self._take_early()

    def _take_early(self) -> None:
        early, self._early = self._early, None
        for source, data in early.release() if early is not None else ():
            self._take_dtls(data, source)

    async def close(self) -> None:
        """End the DTLS connection, and close the port."""
        if self._dtls is not None and self._dtls.keys is not None:
            self._transmit(self._dtls.close(), self._peer)
        self._dtls = self._listener = None
        self._open.clear()
        self._stop_timers()
        self.keyed.cancel()
        await super().close()

    def take(self, data: bytes, source: Address, is_control: bool) -> None:
        """Take a datagram: STUN, DTLS, RTP or RTCP, by its first octet (RFC 7983 §7)."""
        first = data[0] if data else 255
        if first < 4:
            self._take_check(data, source)
        elif 20 <= first < 64:
            self._take_dtls(data, source)
        elif 128 <= first < 192:
            super().take(data, source, is_rtcp(data))

    def _take_check(self, data: bytes, source: Address) -> None:
        """Answer a check; media then go to its source or, once the peer has nominated a pair, to that pair's."""
        answer = self.ice.check(data, source)
        if answer is None:
            self.dropped[UNAUTHENTIC] += 1
            return
        self.transmit(answer.response, source)
        if answer.nominates or not self._nominated:
            self._nominated = self._nominated or answer.nominates
            self._peer = source
            if self.is_keyed:
                self._remote = [source, source]
        if self._dtls is not None:
            self._begin(self._dtls)

    def _begin(self, dtls: DtlsSrtp) -> None:
        """Send the first flight, once, when the peer's address is known."""
        if self._peer is not None and not self._begun:
            self._begun = True
            self._drive(dtls, dtls.start, self._peer)

    def _take_dtls(self, data: bytes, source: Address) -> None:
        if self._early is not None:
            self.dropped[UNAUTHENTIC] += self._early.hold(source, data)
            return
        dtls = None if self._failed else self._connection_with(source)
        if dtls is not None:
            self._drive(dtls, lambda: dtls.receive(data), source)
        elif self._listener is not None and self._may_begin(source):
            self._greet(self._listener, data, source)
        else:
            self.dropped[UNAUTHENTIC] += 1

    def _connection_with(self, source: Address) -> DtlsSrtp | None:
        """Return the connection with `source`; None if it has none."""
        if self._dtls is not None:
            return self._dtls if source == self._peer else None
        return self._open.get(source)

    def _may_begin(self, source: Address) -> bool:
        """Return whether a handshake with `source` may begin: a place is kept for the SDP's address."""
        others = self._open.keys() - {self._peer}
        return not self.keyed.done() and (source == self._peer or len(others) < MAX_OTHERS)

    def _greet(self, listener: DtlsListener, data: bytes, source: Address) -> None:
        """Answer a ClientHello, and begin a handshake if it has the cookie; drop other datagrams."""
        dtls, answer = listener.receive(data, source)
        if dtls is not None:
            self._open[source] = dtls
            self._drive(dtls, dtls.start, source)
        elif answer:
            self._transmit(answer, source)
        else:
            self.dropped[UNAUTHENTIC] += 1

    @property
    def _failed(self) -> bool:
        return self.keyed.done() and not self.is_keyed

    def _drive(self, dtls: DtlsSrtp, step: Callable[[], list[bytes]], peer: Address) -> None:
        """Do one step of the connection with `peer`, and process its result."""
        try:
            self._transmit(step(), peer)
        except DtlsError as error:
            self._broke(dtls, error, peer)
            return
        if dtls.keys is not None and not self.keyed.done():
            self._dtls, self._peer = dtls, peer
            self._start_media(dtls.keys, peer)
        if dtls.closed and dtls is self._dtls:
            self.ended.set()
        self._schedule(dtls, peer)

    def _start_media(self, keys: DtlsKeys, peer: Address) -> None:
        self._stop_timers()
        self._open.clear()
        self.start(AnySourceSrtp(keys.suite, send=keys.send, receive=keys.receive), peer, peer)
        self.keyed.set_result(keys.suite)

    def _schedule(self, dtls: DtlsSrtp, peer: Address) -> None:
        """Set the timer for retransmission of the handshake's last flight."""
        timer = self._retries.pop(dtls, None)
        if timer is not None:
            timer.cancel()
        due_s = dtls.timeout_s()
        if due_s is not None and not self.keyed.done():
            loop = asyncio.get_running_loop()
            self._retries[dtls] = loop.call_later(due_s, self._drive, dtls, dtls.handle_timeout, peer)

    def _broke(self, dtls: DtlsSrtp, error: DtlsError, peer: Address) -> None:
        """End the call's handshake if it is the only one; otherwise free this one's place.

        An attacker can break one of several: a record that breaks a handshake needs no key. A handshake with the
        SDP's address is an exception.
        """
        timer = self._retries.pop(dtls, None)
        if timer is not None:
            timer.cancel()
        if dtls is self._dtls:
            self._fail(error)
            return
        self._open.pop(peer, None)
        self._error = error
        if peer == self._peer and isinstance(error, WrongPeerError):
            self._fail(error)

    def _overdue(self) -> None:
        self._fail(self._error or DtlsError(f"no DTLS handshake within {HANDSHAKE_S:g} s"))

    def _fail(self, error: DtlsError) -> None:
        """End the handshake without keys; media keyed earlier stay."""
        self._stop_timers()
        self._open.clear()
        if not self.keyed.done():
            self.keyed.set_exception(error)

    def _stop_timers(self) -> None:
        if self._limit is not None:
            self._limit.cancel()
        for timer in self._retries.values():
            timer.cancel()
        self._retries.clear()

    def _transmit(self, datagrams: list[bytes], peer: Address | None) -> None:
        for datagram in datagrams:
            if peer is not None:
                self.transmit(datagram, peer)
