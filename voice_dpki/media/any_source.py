"""SRTP and SRTCP on libsrtp, with keys that are not bound to an SSRC, as SDES and DTLS-SRTP agree them."""

from collections.abc import Callable, Mapping
from typing import Final

import pylibsrtp

from voice_dpki.errors import LocalError
from voice_dpki.media.srtp import SrtpError

SUITES: Final[Mapping[str, int]] = {
    "AES_CM_128_HMAC_SHA1_80": pylibsrtp.Policy.SRTP_PROFILE_AES128_CM_SHA1_80,
    "AES_CM_128_HMAC_SHA1_32": pylibsrtp.Policy.SRTP_PROFILE_AES128_CM_SHA1_32,
    "AEAD_AES_128_GCM": pylibsrtp.Policy.SRTP_PROFILE_AEAD_AES_128_GCM,
    "AEAD_AES_256_GCM": pylibsrtp.Policy.SRTP_PROFILE_AEAD_AES_256_GCM,
}
"""The suites by their names in SDP (RFC 4568 §6.2, RFC 7714 §14.2)."""

MAX_SSRCS: Final = 32
"""Most SSRCs received under one key: libsrtp keeps a stream for each, and searches them for every packet."""


class AnySourceSrtp:
    """Protection of one side of a call: each direction has its own key, which serves any SSRC.

    `send` and `receive` are master key and master salt. Once MAX_SSRCS have sent an authentic packet, packets of
    further SSRCs are refused unread.
    """

    def __init__(self, suite: str, *, send: bytes, receive: bytes) -> None:
        policy, profile = pylibsrtp.Policy, SUITES[suite]
        self.suite = suite
        self._out = pylibsrtp.Session(policy(send, policy.SSRC_ANY_OUTBOUND, 0, profile))
        self._in = pylibsrtp.Session(policy(receive, policy.SSRC_ANY_INBOUND, 0, profile))
        self._heard: set[bytes] = set()
        """SSRCs with an authentic packet, of RTP or RTCP; libsrtp keeps one stream for both."""

    def protect(self, packet: bytes) -> bytes:
        """Encrypt and authenticate an RTP packet; raises LocalError if it cannot be."""
        try:
            return self._out.protect(packet)
        except (pylibsrtp.Error, ValueError) as error:
            raise _unprotectable(packet, error) from None

    def unprotect(self, packet: bytes) -> bytes:
        """Check and decrypt an SRTP packet; raises SrtpError."""
        return self._unprotected(self._in.unprotect, packet, packet[8:12])

    def protect_rtcp(self, packet: bytes) -> bytes:
        """Encrypt and authenticate an RTCP packet; raises LocalError if it cannot be."""
        try:
            return self._out.protect_rtcp(packet)
        except (pylibsrtp.Error, ValueError) as error:
            raise _unprotectable(packet, error) from None

    def unprotect_rtcp(self, packet: bytes) -> bytes:
        """Check and decrypt an SRTCP packet; raises SrtpError."""
        return self._unprotected(self._in.unprotect_rtcp, packet, packet[4:8])

    def _unprotected(self, operation: Callable[[bytes], bytes], packet: bytes, ssrc: bytes) -> bytes:
        if len(self._heard) >= MAX_SSRCS and ssrc not in self._heard:
            raise SrtpError(f"more than {MAX_SSRCS} SSRCs under one key")
        try:
            clear = operation(packet)
        except (pylibsrtp.Error, ValueError) as error:
            raise SrtpError(str(error)) from None
        self._heard.add(ssrc)
        return clear


def _unprotectable(packet: bytes, error: Exception) -> LocalError:
    return LocalError(f"SRTP cannot protect a packet of {len(packet)} bytes: {error}")
