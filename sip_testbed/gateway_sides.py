"""The outer side of one call through the gateway: its session description and its keys, by SDES or by DTLS-SRTP.

A side either offers and confirms the answer, or takes an offer up and answers it. The description tells the
telephone in an i= line that the media are encrypted to the gateway only.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Final, Protocol

from sip_testbed.gateway_keys import DtlsKeys, SdesKeys, SideKeys
from sip_testbed.gateway_refresh import Described, only, renewed, with_setup
from voice_dpki.effects import Random
from voice_dpki.errors import MalformedError
from voice_dpki.media.any_source import AnySourceSrtp
from voice_dpki.sip.dtls_sdp import DTLS_PROTOCOLS, DtlsDescription, Setup
from voice_dpki.sip.offer_answer import answer_to, check_answer
from voice_dpki.sip.sdes import CRYPTO, Crypto, CryptoSuite, check_crypto_answer, crypto_to_take
from voice_dpki.sip.sdp import (
    RTCP_MUX,
    SECURE,
    SECURE_PROTOCOLS,
    Direction,
    RtpMap,
    SessionDescription,
    audio_description,
)
from voice_dpki.wire.dtls import DtlsIdentity
from voice_dpki.wire.dtls_leg import DtlsLeg
from voice_dpki.wire.ice_lite import IceLite
from voice_dpki.wire.relay import MediaLeg

INFORMATION: Final = "i=encrypted to the gateway only"
"""The line of the media section that a telephone may show (RFC 8866 §5.4)."""


class Side(Protocol):
    """What the bridge needs of either kind. All methods raise MalformedError, `begin` DtlsError as well."""

    @property
    def protocols(self) -> Sequence[str]:
        """The SDP protocols that the side accepts."""
        ...

    @property
    def leg(self) -> MediaLeg:
        """The sockets and protection of the media."""
        ...

    @property
    def keys(self) -> SideKeys:
        """How the side gets new keys in the middle of the call."""
        ...

    def offer(self, payloads: Sequence[RtpMap], direction: Direction) -> SessionDescription:
        """Return our offer."""
        ...

    def confirm(self, answer: SessionDescription) -> None:
        """Check the answer to our offer, and take its keys or fingerprints."""
        ...

    def take(self, offer: SessionDescription) -> None:
        """Check an offer's one section, and take its keys or fingerprints."""
        ...

    def answer(
        self, offer: SessionDescription, taken: int, payloads: Sequence[RtpMap], direction: Direction
    ) -> SessionDescription:
        """Return our answer to the offer whose section at index `taken` was taken up."""
        ...

    def settled(self, ours: SessionDescription, theirs: SessionDescription, audio: SessionDescription) -> Described:
        """Return both descriptions, reduced to what was agreed, for the call's refreshes.

        `audio` is the one section of `theirs` that is in use.
        """
        ...

    async def begin(self) -> str:
        """Let media flow, and return the suite; with DTLS, once the handshake is done."""
        ...


class SdesSide:
    """Keys in the session description (RFC 4568)."""

    protocols = SECURE_PROTOCOLS

    def __init__(self, leg: MediaLeg, advertised: str, random: Random) -> None:
        self.leg = leg
        self.keys = SdesKeys(random)
        self._advertised = advertised
        self._random = random
        self._offered: list[Crypto] = []
        self._offer: SessionDescription | None = None
        self._agreed: tuple[Crypto, Crypto, SessionDescription] | None = None
        """Our key, the telephone's, and its description."""

    def offer(self, payloads: Sequence[RtpMap], direction: Direction) -> SessionDescription:
        """Offer each suite under a key of its own."""
        self._offered = [self._crypto(tag, suite) for tag, suite in enumerate(CryptoSuite, 1)]
        self._offer = self._described(payloads, direction, self._offered)
        return self._offer

    def confirm(self, answer: SessionDescription) -> None:
        """Check the answer's crypto attribute."""
        assert self._offer is not None
        check_answer(self._offer, answer)
        _check_protocol(answer, self.protocols)
        ours, theirs = check_crypto_answer(self._offered, answer.audio.attributes(CRYPTO))
        self._agreed = ours, theirs, answer

    def take(self, offer: SessionDescription) -> None:
        """Take up the first crypto attribute that is supported."""
        _check_protocol(offer, self.protocols)
        theirs = crypto_to_take(offer.audio.attributes(CRYPTO), frozenset(CryptoSuite))
        self._agreed = self._crypto(theirs.tag, theirs.suite), theirs, offer

    def answer(
        self, offer: SessionDescription, taken: int, payloads: Sequence[RtpMap], direction: Direction
    ) -> SessionDescription:
        """Answer with a key of our own."""
        assert self._agreed is not None
        return answer_to(offer, taken, self._described(payloads, direction, [self._agreed[0]]))

    def settled(self, ours: SessionDescription, theirs: SessionDescription, audio: SessionDescription) -> Described:
        """Keep only the agreed key of each side: an answer has one crypto attribute (RFC 4568 §5.1.2)."""
        assert self._agreed is not None
        own, other, _ = self._agreed
        return Described(renewed(ours, only(ours, own)), theirs, only(audio, other))

    async def begin(self) -> str:
        """Let media flow."""
        assert self._agreed is not None
        ours, theirs, described = self._agreed
        protection = AnySourceSrtp(ours.suite, send=ours.key, receive=theirs.key)
        self.leg.start(protection, described.audio_address, described.audio_control_address)
        return ours.suite

    def _crypto(self, tag: int, suite: CryptoSuite) -> Crypto:
        return Crypto(tag, suite, self._random.token(suite.key_bytes))

    def _described(
        self, payloads: Sequence[RtpMap], direction: Direction, cryptos: Sequence[Crypto]
    ) -> SessionDescription:
        lines = [f"a={CRYPTO}:{crypto.serialize()}" for crypto in cryptos]
        return _description(self._advertised, self.leg.port, payloads, direction, SECURE, lines, self._random)


class DtlsSide:
    """Keys by a DTLS handshake on the media's port, which the SDP's fingerprints authenticate (RFC 5763)."""

    protocols = DTLS_PROTOCOLS

    def __init__(self, leg: DtlsLeg, advertised: str, random: Random) -> None:
        self.leg = leg
        self.keys = DtlsKeys()
        self._dtls = leg
        self._advertised = advertised
        self._random = random
        self._offer: SessionDescription | None = None
        self._peer: tuple[DtlsDescription, SessionDescription] | None = None
        self._client = False

    def offer(self, payloads: Sequence[RtpMap], direction: Direction) -> SessionDescription:
        """Offer to take either DTLS role (RFC 5763 §5)."""
        self._offer = self._described(payloads, direction, Setup.ACTPASS, mid="0")
        return self._offer

    def confirm(self, answer: SessionDescription) -> None:
        """Check the answer's fingerprints and its DTLS role."""
        assert self._offer is not None
        check_answer(self._offer, answer)
        peer = self._read(answer)
        if peer.setup is Setup.ACTPASS:
            raise MalformedError("the answer does not choose a side of the DTLS handshake (RFC 5763 §5)")
        self._client = peer.setup is Setup.PASSIVE

    def take(self, offer: SessionDescription) -> None:
        """Take up an offer; if it leaves the DTLS role open, the offerer begins the handshake."""
        self._client = self._read(offer).setup is Setup.PASSIVE

    def answer(
        self, offer: SessionDescription, taken: int, payloads: Sequence[RtpMap], direction: Direction
    ) -> SessionDescription:
        """Answer with our fingerprint."""
        mid = next(iter(offer.media[taken].attributes("mid")), None)
        setup = Setup.ACTIVE if self._client else Setup.PASSIVE
        own = self._described(payloads, direction, setup, mid=mid)
        made = answer_to(offer, taken, own)
        section = made.media[taken]
        lines = tuple(dict.fromkeys(section.lines))  # rtcp-mux is in both
        media = (*made.media[:taken], replace(section, lines=lines), *made.media[taken + 1 :])
        return replace(made, media=media)

    def settled(self, ours: SessionDescription, theirs: SessionDescription, audio: SessionDescription) -> Described:
        """Fix the DTLS role of each side: an answer does not leave it open (RFC 5763 §5)."""
        own, other = (Setup.ACTIVE, Setup.PASSIVE) if self._client else (Setup.PASSIVE, Setup.ACTIVE)
        return Described(renewed(ours, with_setup(ours, own)), theirs, with_setup(audio, other))

    async def begin(self) -> str:
        """Wait for the handshake."""
        assert self._peer is not None
        peer, described = self._peer
        self._dtls.handshake(peer, described.audio_address, client=self._client)
        return await self._dtls.keyed

    def _read(self, described: SessionDescription) -> DtlsDescription:
        _check_protocol(described, self.protocols)
        if not described.audio.has(RTCP_MUX):
            raise MalformedError("RTP and RTCP have two ports, and DTLS is done on one here (a=rtcp-mux, RFC 5761)")
        peer = DtlsDescription.read(described)
        self._peer = peer, described
        return peer

    def _described(
        self, payloads: Sequence[RtpMap], direction: Direction, setup: Setup, *, mid: str | None
    ) -> SessionDescription:
        ice, port = self._dtls.ice, self._dtls.port
        lines = [
            f"a=fingerprint:{self._dtls.identity.fingerprint.serialize()}",
            f"a=setup:{setup}",
            f"a=ice-ufrag:{ice.name}",
            f"a=ice-pwd:{ice.password}",
            f"a=candidate:1 1 UDP 2130706431 {self._advertised} {port} typ host",
            "a=end-of-candidates",
            f"a={RTCP_MUX}",
            *([f"a=mid:{mid}"] if mid else []),
        ]
        made = _description(self._advertised, port, payloads, direction, DTLS_PROTOCOLS[0], lines, self._random)
        group = (f"a=group:BUNDLE {mid}",) if mid else ()
        return replace(made, lines=(*made.lines, *group, "a=ice-lite"))


def _check_protocol(described: SessionDescription, protocols: Sequence[str]) -> None:
    """Raise MalformedError for media of another protocol, such as media in clear."""
    protocol = described.audio.protocol
    if protocol not in protocols:
        raise MalformedError(f"the media are {protocol[:32]}, and {' or '.join(protocols)} is wanted")


def _description(
    advertised: str,
    port: int,
    payloads: Sequence[RtpMap],
    direction: Direction,
    protocol: str,
    lines: Sequence[str],
    random: Random,
) -> SessionDescription:
    session_id = int.from_bytes(random.token(4), "big")
    made = audio_description(advertised, port, payloads, session_id=session_id, direction=direction)
    told = () if f"a={direction}" in made.only.lines else (f"a={direction}",)  # aiortc does not know the default
    section = replace(made.only, protocol=protocol, lines=(INFORMATION, *made.only.lines, *told, *lines))
    return replace(made, media=(section,))


def side_for(media: str, host: str, advertised: str, identity: DtlsIdentity, random: Random) -> Side:
    """Return the side of a new call, whose leg is not open yet: `media` is "sdes" or "dtls"."""
    if media == "sdes":
        return SdesSide(MediaLeg(host), advertised, random)
    return DtlsSide(DtlsLeg(host, identity, IceLite(random)), advertised, random)
