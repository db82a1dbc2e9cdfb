"""A leg of a relayed call that DTLS-SRTP keys, with ICE where the peer does it: one port for all (RFC 7983).

ICE is its lite form. Without ICE, DTLS is taken from the address in the SDP alone.
"""

import asyncio
from collections.abc import Callable
from typing import Final

from voice_dpki.media.any_source import AnySourceSrtp
from voice_dpki.media.rtcp import is_rtcp
from voice_dpki.sip.dtls_sdp import DtlsDescription
from voice_dpki.wire.dtls import DtlsError, DtlsIdentity, DtlsKeys, DtlsSrtp
from voice_dpki.wire.ice_lite import IceLite
from voice_dpki.wire.media_peer import check_address
from voice_dpki.wire.relay import UNAUTHENTIC, Address, Leg

HANDSHAKE_S: Final = 20.0
"""Longest time from the answer to the end of the handshake."""


class DtlsLeg(Leg):
    """See `Leg`; what is read by `handshake` keys it in place of `start`. Make it within a running event loop."""

    def __init__(self, host: str, identity: DtlsIdentity, ice: IceLite) -> None:
        super().__init__(host)
        self.ice = ice
        self.identity = identity
        self.keyed: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        """Done with the agreed suite once media can flow; fails with DtlsError."""
        self.keyed.add_done_callback(
            lambda keyed: keyed.cancelled() or keyed.exception()
        )  # may be nobody's concern
        self.ended = asyncio.Event()
        """Set once the peer has ended the DTLS connection."""
        self._dtls: DtlsSrtp | None = None
        self._begun = self._does_ice = self._nominated = False
        self._peer: Address | None = None
        self._limit: asyncio.TimerHandle | None = None
        self._retry: asyncio.TimerHandle | None = None

    def handshake(self, described: DtlsDescription, remote: Address, *, client: bool) -> None:
        """Begin the handshake with the peer that `described` names; `remote` is its address in the SDP.

        With ICE, that is where a valid check has come or will come from. Raises MalformedError for an address that
        nothing can be sent to.
        """
        self._does_ice = described.ice is not None
        if not self._does_ice:
            check_address(self.host, *remote)
            self._peer = remote
        self._dtls = DtlsSrtp(self.identity, described.fingerprints, client=client)
        overdue = DtlsError(f"no DTLS handshake within {HANDSHAKE_S:g} s")
        self._limit = asyncio.get_running_loop().call_later(HANDSHAKE_S, self._fail, overdue)
        self._begin(self._dtls)

    async def close(self) -> None:
        """End the DTLS connection, and close the port."""
        if self._dtls is not None and self._dtls.keys is not None:
            self._transmit(self._dtls.close())
        self._dtls = None
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
        """Answer a check; media then go where it came from, and once the peer has nominated a pair, there."""
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
        """Send what begins the handshake, once, when the peer's address is known."""
        if self._peer is not None and not self._begun:
            self._begun = True
            self._drive(dtls, dtls.start)

    def _take_dtls(self, data: bytes, source: Address) -> None:
        dtls = self._dtls
        if dtls is None or source != self._peer or self._failed:
            self.dropped[UNAUTHENTIC] += 1
            return
        self._drive(dtls, lambda: dtls.receive(data))

    @property
    def _failed(self) -> bool:
        return self.keyed.done() and not self.is_keyed

    def _drive(self, dtls: DtlsSrtp, step: Callable[[], list[bytes]]) -> None:
        """Do one step of the connection, and what comes of it."""
        try:
            self._transmit(step())
        except DtlsError as error:
            self._fail(error)
            return
        if dtls.keys is not None and not self.keyed.done():
            self._start_media(dtls.keys)
        if dtls.closed:
            self.ended.set()
        self._schedule(dtls)

    def _start_media(self, keys: DtlsKeys) -> None:
        assert self._peer is not None
        self._stop_timers()
        self.start(AnySourceSrtp(keys.suite, send=keys.send, receive=keys.receive), self._peer, self._peer)
        self.keyed.set_result(keys.suite)

    def _schedule(self, dtls: DtlsSrtp) -> None:
        """Wake when the handshake's last flight must be sent again."""
        if self._retry is not None:
            self._retry.cancel()
            self._retry = None
        due_s = dtls.timeout_s()
        if due_s is not None:
            loop = asyncio.get_running_loop()
            self._retry = loop.call_later(due_s, self._drive, dtls, dtls.handle_timeout)

    def _fail(self, error: DtlsError) -> None:
        """End the handshake without keys; what was keyed before stays."""
        self._stop_timers()
        if not self.keyed.done():
            self.keyed.set_exception(error)

    def _stop_timers(self) -> None:
        for timer in (self._limit, self._retry):
            if timer is not None:
                timer.cancel()

    def _transmit(self, datagrams: list[bytes]) -> None:
        for datagram in datagrams:
            if self._peer is not None:
                self.transmit(datagram, self._peer)
