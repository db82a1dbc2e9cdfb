"""New keys within a call through the gateway: by MIKEY towards the domain, by SDES towards a telephone.

New keys concern one side only: the other side is not told. A DTLS association keeps its keys for the whole call;
another one would have another fingerprint, or other ICE credentials, and is refused.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Protocol, TypeAlias

from sip_testbed.gateway_refresh import Described, cryptos, numbered, only, section_in_use, settled
from sip_testbed.keying import KeyAgreement, accept_again
from sip_testbed.media_policy import keys_of
from voice_dpki.effects import Random
from voice_dpki.errors import MalformedError
from voice_dpki.media.any_source import AnySourceSrtp
from voice_dpki.media.srtp import Protection, Srtp
from voice_dpki.mikey.keys import SrtpKeys
from voice_dpki.mikey.sdp import key_mgmt_value
from voice_dpki.sip.keyed import keyed_with
from voice_dpki.sip.sdes import CRYPTO, Crypto, CryptoSuite, check_crypto_answer, crypto_to_take
from voice_dpki.sip.sdp import KEY_MGMT, SessionDescription


@dataclass(frozen=True, slots=True)
class NewKeys:
    """Keys that a change has brought to one side."""

    protection: Protection
    suite: str
    sends: bool = True
    """Whether we send under them; if not, only the packets that we receive are under new keys."""
    ssrc: int | None = None
    """The SSRC that our packets must have; None for any that was not used under these keys."""
    keep: Callable[[], None] = lambda: None
    """Keeps what further keys need of these, once the answer with them is sent."""


@dataclass(frozen=True, slots=True)
class Negotiated:
    """What is agreed after an offer or an answer of one side, and its new keys; None if it has none."""

    described: Described
    keys: NewKeys | None


Proposer: TypeAlias = Callable[[SessionDescription], SessionDescription]
"""Returns an offer of ours with new keys."""


class SideKeys(Protocol):
    """How one side of a call gets new keys. All methods raise MalformedError, MikeyError or Refusal."""

    bound_to_ssrc: bool
    """Whether each key of ours is for one SSRC."""

    async def accept(self, described: Described, whole: SessionDescription, at: int) -> Negotiated:
        """Take up the keys of an offer, whose section at index `at` is the one in use.

        `described` is what held before; in the result, `ours` fits the offer.
        """
        ...

    async def proposer(self) -> Proposer | None:
        """Return a function that gives each try of our next offer new keys, for a stream of another clock rate.

        Returns None where keys are not bound to an SSRC, and so stay.
        """
        ...

    async def confirm(
        self, described: Described, ours: SessionDescription, answer: SessionDescription
    ) -> Negotiated:
        """Take the answer to our offer `ours`, which may have been proposed with new keys."""
        ...

    def forget(self) -> None:
        """Forget the proposed keys, once they are confirmed or refused."""
        ...


class SdesKeys:
    """Keys in the session description: any description in a call may bring a new key (RFC 4568 §7.1.4)."""

    bound_to_ssrc = False

    def __init__(self, random: Random) -> None:
        self._random = random

    async def accept(self, described: Described, whole: SessionDescription, at: int) -> Negotiated:
        """Keep the call's key if the offer has it, under its new tag (§5.1.2); else take its first supported one.

        A new key of the telephone is answered with a new one of ours.
        """
        audio, own = whole.narrowed(at), described.crypto
        kept = _found(audio, own.theirs)
        if kept is not None:
            return Negotiated(Described(numbered(described.ours, kept.tag), whole, only(audio, kept)), None)
        theirs = crypto_to_take(audio.audio.attributes(CRYPTO), frozenset(CryptoSuite))
        ours = Crypto(theirs.tag, theirs.suite, self._random.token(theirs.suite.key_bytes))
        protection = AnySourceSrtp(ours.suite, send=ours.key, receive=theirs.key)
        told = _with(described.ours, CRYPTO, ours.serialize())
        return Negotiated(Described(told, whole, only(audio, theirs)), NewKeys(protection, ours.suite))

    async def proposer(self) -> None:
        """Return None: our key stays, as it is not bound to an SSRC."""

    async def confirm(
        self, described: Described, ours: SessionDescription, answer: SessionDescription
    ) -> Negotiated:
        """Take the answer's key, which may be a new one. Our key and our stream go on."""
        before = described.crypto
        own = Crypto.parse(ours.audio.attributes(CRYPTO)[0])
        _, theirs = check_crypto_answer([own], answer.audio.attributes(CRYPTO))
        taken = Described(ours, answer, answer.narrowed(section_in_use(ours)))
        if theirs.key == before.theirs.key:
            return Negotiated(taken, None)
        protection = AnySourceSrtp(own.suite, send=own.key, receive=theirs.key)
        return Negotiated(taken, NewKeys(protection, own.suite, sends=False))

    def forget(self) -> None:
        """Do nothing."""


class DtlsKeys:
    """Keys of the DTLS association, which goes on (RFC 5763 §6.6, RFC 8842 §5.3)."""

    bound_to_ssrc = False

    async def accept(self, described: Described, whole: SessionDescription, at: int) -> Negotiated:
        """Keep the association; a side that offers actpass keeps its DTLS role."""
        return Negotiated(Described(described.ours, whole, settled(whole.narrowed(at), described.agreed)), None)

    async def proposer(self) -> None:
        """Return None: the keys stay, as they are not bound to an SSRC."""

    async def confirm(
        self, described: Described, ours: SessionDescription, answer: SessionDescription
    ) -> Negotiated:
        """Keep the association."""
        return Negotiated(Described(ours, answer, answer.narrowed(section_in_use(ours))), None)

    def forget(self) -> None:
        """Do nothing."""


class MikeyKeys:
    """Keys of MIKEY, each bound to an SSRC, so that new ones begin new streams (RFC 4567 §4.1.2)."""

    bound_to_ssrc = True

    def __init__(self, keying: KeyAgreement[Any], peer_uri: str) -> None:
        self._keying = keying
        self._peer_uri = peer_uri
        self._proposed: Any = None

    async def accept(self, described: Described, whole: SessionDescription, at: int) -> Negotiated:
        """Answer an offer of new keys, or an update of the call's bundle; a repeated offer changes no keys."""
        audio = whole.narrowed(at)
        values = audio.audio_key_mgmt
        if values == described.agreed.audio_key_mgmt:
            return Negotiated(Described(described.ours, whole, audio), None)
        if not values:
            raise MalformedError("the offer has no key management any more: media in clear are refused")
        answer = await accept_again(self._keying, values, self._peer_uri, len(keyed_with(whole, at)))
        ours = _with(described.ours, KEY_MGMT, key_mgmt_value(answer.message))
        keys = _mikey(keys_of(answer.keys, whole, at))
        keep = partial(self._keying.updating.answered, answer.bundle)
        return Negotiated(Described(ours, whole, audio), replace(keys, keep=keep))

    async def proposer(self) -> Proposer:
        """Return a function that makes a message for each try: the same one would pass for a replay."""
        await self._keying.meet(self._peer_uri)
        return self._propose

    def _propose(self, ours: SessionDescription) -> SessionDescription:
        self.forget()
        self._proposed = self._keying.offer(self._peer_uri)
        return _with(ours, KEY_MGMT, key_mgmt_value(self._proposed.message))

    async def confirm(
        self, described: Described, ours: SessionDescription, answer: SessionDescription
    ) -> Negotiated:
        """Verify the answer to new keys; without new keys it must repeat the earlier key management."""
        at = section_in_use(ours)
        taken = Described(ours, answer, answer.narrowed(at))
        values = taken.agreed.audio_key_mgmt
        if self._proposed is None:
            if values != described.agreed.audio_key_mgmt:
                raise MalformedError("the answer has other key management, and no new keys were offered")
            return Negotiated(taken, None)
        keys = await self._keying.confirm(self._proposed, values)
        return Negotiated(taken, _mikey(keys_of(keys, ours, at)))

    def forget(self) -> None:
        """Forget the bundle of what was proposed."""
        if self._proposed is not None:
            self._keying.end(self._proposed)
            self._proposed = None


def _mikey(keys: SrtpKeys) -> NewKeys:
    return NewKeys(Srtp(keys), str(keys.profile), ssrc=keys.send.ssrc)


def _found(audio: SessionDescription, key: Crypto) -> Crypto | None:
    """Return a key as a description has it, under any tag; None if it does not have it."""
    read = (each for each in cryptos(audio) if isinstance(each, Crypto))
    return next((each for each in read if replace(each, tag=key.tag) == key), None)


def _with(described: SessionDescription, name: str, value: str) -> SessionDescription:
    """Return a description of ours with another value of its one attribute of this name."""
    prefix = f"a={name}:"
    return described.map_lines(lambda line: prefix + value if line.startswith(prefix) else line)
