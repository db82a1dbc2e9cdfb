"""SRTP and SRTCP with keys from MIKEY, on libsrtp (RFC 3711, RFC 7714).

The library gives no access to the roll-over counter. A receiver that gets a stream from its first packets on needs
none. But if a sender starts just below 65536, and its packets up to the wrap are lost, all later ones fail to
authenticate. So until a packet is authentic, each is also tried as one after the wrap.
"""

from collections.abc import Callable
from typing import Protocol

import pylibsrtp

from voice_dpki.errors import LocalError, PeerError
from voice_dpki.media.rtp import RtpPacket
from voice_dpki.mikey.keys import SrtpKeys, StreamKey
from voice_dpki.mikey.policy import SrtpProfile

MAX_CLEAR_BYTES = 1356
"""Longest packet that libsrtp's Python binding protects: its buffer of 1500 bytes minus the largest trailer."""

_PROFILES = {
    SrtpProfile.AES_CM_128_HMAC_SHA1_80: pylibsrtp.Policy.SRTP_PROFILE_AES128_CM_SHA1_80,
    SrtpProfile.AEAD_AES_128_GCM: pylibsrtp.Policy.SRTP_PROFILE_AEAD_AES_128_GCM,
}


class SrtpError(PeerError):
    """A received packet is not authentic, or was received before (`replayed`)."""

    def __init__(self, reason: str) -> None:
        self.replayed = reason.startswith(("replay", "packet index"))
        super().__init__(f"SRTP: {reason}")


class Protection(Protocol):
    """Conversion between packets in clear and packets on the wire, for both directions of one call."""

    def protect(self, packet: bytes) -> bytes:
        """Turn an RTP packet into the packet to send."""
        ...

    def unprotect(self, packet: bytes) -> bytes:
        """Turn a received packet into an RTP packet; raises SrtpError."""
        ...

    def protect_rtcp(self, packet: bytes) -> bytes:
        """Turn an RTCP packet into the packet to send."""
        ...

    def unprotect_rtcp(self, packet: bytes) -> bytes:
        """Turn a received packet into an RTCP packet; raises SrtpError."""
        ...


class Srtp:
    """Protection with the keys of one MIKEY exchange: each direction has its own key and one SSRC."""

    def __init__(self, keys: SrtpKeys) -> None:
        self._out = pylibsrtp.Session(_policy(keys.profile, keys.send))
        self._in = pylibsrtp.Session(_policy(keys.profile, keys.receive))
        self._in_rtp = self._in
        self._wrapped: pylibsrtp.Session | None = _after_wrap(keys.profile, keys.receive)
        """Session for the peer's packets if its sequence numbers have wrapped; None once a packet was authentic."""

    def protect(self, packet: bytes) -> bytes:
        """Encrypt and authenticate an RTP packet; raises LocalError if it cannot be."""
        return _ours(self._out.protect, packet)

    def unprotect(self, packet: bytes) -> bytes:
        """Check and decrypt an SRTP packet; raises SrtpError."""
        try:
            clear = _theirs(self._in_rtp.unprotect, packet)
        except SrtpError:
            if self._wrapped is None:
                raise
            clear = _theirs(self._wrapped.unprotect, packet)
            self._in_rtp = self._wrapped
        self._wrapped = None
        return clear

    def protect_rtcp(self, packet: bytes) -> bytes:
        """Encrypt and authenticate an RTCP packet; raises LocalError if it cannot be."""
        return _ours(self._out.protect_rtcp, packet)

    def unprotect_rtcp(self, packet: bytes) -> bytes:
        """Check and decrypt an SRTCP packet; raises SrtpError."""
        return _theirs(self._in.unprotect_rtcp, packet)


class Clear:
    """No protection, for a call without keys."""

    def protect(self, packet: bytes) -> bytes:
        """Return the packet."""
        return packet

    unprotect = protect_rtcp = unprotect_rtcp = protect


def _policy(profile: SrtpProfile, key: StreamKey) -> pylibsrtp.Policy:
    return pylibsrtp.Policy(
        key=key.tek + key.salt,
        ssrc_type=pylibsrtp.Policy.SSRC_SPECIFIC,
        ssrc_value=key.ssrc,
        srtp_profile=_PROFILES[profile],
    )


def _after_wrap(profile: SrtpProfile, key: StreamKey) -> pylibsrtp.Session:
    """Return a receiver that expects sequence number 0 next, with a roll-over counter of 1 (RFC 3711 §3.3.1).

    For that, it is fed a packet with number 65535 that is made here and never sent.
    """
    packet = RtpPacket(0, 0xFFFF, 0, key.ssrc, b"").serialize()
    receiver = pylibsrtp.Session(_policy(profile, key))
    receiver.unprotect(pylibsrtp.Session(_policy(profile, key)).protect(packet))
    return receiver


def _ours(operation: Callable[[bytes], bytes], packet: bytes) -> bytes:
    try:
        return operation(packet)
    except (pylibsrtp.Error, ValueError) as error:
        raise LocalError(f"SRTP cannot protect a packet of {len(packet)} bytes: {error}") from None


def _theirs(operation: Callable[[bytes], bytes], packet: bytes) -> bytes:
    try:
        return operation(packet)
    except (pylibsrtp.Error, ValueError) as error:
        raise SrtpError(str(error)) from None
