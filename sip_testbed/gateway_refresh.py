"""What both sides of one leg of a gateway's call have said, and which further descriptions fit it. No I/O.

A session timer (RFC 4028) has one side repeat its description. A hold (RFC 3264 §8.4) changes its direction, or its
address. The keys are those that the call began with.
"""

from dataclasses import dataclass, replace

from voice_dpki.errors import MalformedError
from voice_dpki.sip.dtls_sdp import DTLS_PROTOCOLS, DtlsDescription, Setup
from voice_dpki.sip.offer_answer import check_answer, check_next_offer
from voice_dpki.sip.sdes import CRYPTO, MAX_CRYPTOS, Crypto, NotSupportedError
from voice_dpki.sip.sdp import Direction, SessionDescription, same_encoding
from voice_dpki.wire.media_peer import HOLD_ADDRESSES

_DIRECTIONS = frozenset(f"a={direction}" for direction in Direction)


@dataclass(frozen=True, slots=True)
class Described:
    """What both sides of one leg have said last, and what of it holds now that the call is up."""

    ours: SessionDescription
    """Our description, with nothing but what was agreed: it answers, too."""
    theirs: SessionDescription
    """The other side's, as it came."""
    agreed: SessionDescription
    """The other side's one section, with the key and the side of the handshake that were agreed alone."""

    @property
    def is_held(self) -> bool:
        """Whether media do not go both ways, so that one side may be silent for long."""
        address, _ = self.agreed.audio_address
        return address in HOLD_ADDRESSES or self.agreed.audio_direction != Direction.SENDRECV

    def is_repeated_by(self, offer: bytes) -> bool:
        """Tell whether an offer says what the other side has said before, but for the number of the version.

        An empty one, which asks for our offer, changes nothing either. Raises MalformedError.
        """
        return not offer or _compared(SessionDescription.parse(offer)) == _compared(self.theirs)

    def check_answer(self, answer: bytes) -> None:
        """Raise MalformedError for an answer to `ours` with other keys or addresses than were agreed."""
        read = SessionDescription.parse(answer)
        check_answer(self.ours, read)
        if _what_counts(read) != _what_counts(self.agreed):
            raise MalformedError("the answer to a refresh changes keys, addresses or directions of the media")

    def next(self, ours: SessionDescription, direction: Direction) -> SessionDescription:
        """Return our next description: `ours` with a direction, under a version that follows the last one's."""
        last = next(line for line in self.ours.lines if line.startswith("o="))
        told = _directed(ours, direction).map_lines(lambda line: last if line.startswith("o=") else line)
        return renewed(self.ours, told)

    def offered(self, offer: bytes) -> "Described":
        """Return what holds once we answer an offer that changes nothing but directions and addresses.

        `ours` then fits the offer, but for its direction. A side of DTLS that leaves the choice open keeps its
        association, and with it its side of the handshake (RFC 5763 §6.6, RFC 8842 §5.3): its fingerprint and its
        ICE are those from before. Raises MalformedError for an offer that changes anything else.
        """
        read = SessionDescription.parse(offer)
        check_next_offer(self.theirs, read)
        if len(read.media) != len(self.ours.media):
            raise MalformedError("the offer has further media, which the gateway does not pass on")
        at = next(at for at, section in enumerate(self.ours.media) if section.port)
        crypto, agreed = self._with_tag(read.narrowed(at))
        tag = None if crypto is None else crypto.tag
        _check_same(agreed, _numbered(self.agreed, tag))
        return Described(_numbered(self.ours, tag), read, agreed)

    def _with_tag(self, audio: SessionDescription) -> tuple[Crypto | None, SessionDescription]:
        """Return the key of SDES that was agreed as an offer has it, and the offer with that key alone.

        An offer numbers its keys anew, and the answer names the one by its number (RFC 4568 §5.1.2).
        """
        keys = [crypto for crypto in _cryptos(self.agreed) if isinstance(crypto, Crypto)]
        if not keys:
            return None, _settled(audio, self.agreed)
        for crypto in _cryptos(audio):
            if isinstance(crypto, Crypto) and replace(crypto, tag=keys[0].tag) == keys[0]:
                return crypto, only(audio, crypto)
        raise MalformedError("the offer does not have the key of the call, and no other is agreed on in a call")

    def answered(self, ours: SessionDescription, answer: bytes) -> "Described":
        """Return what holds once `ours`, which has another direction than before, was answered.

        Raises MalformedError for an answer that changes anything but directions and addresses.
        """
        read = SessionDescription.parse(answer)
        check_answer(ours, read)
        at = next(at for at, section in enumerate(ours.media) if section.port)
        agreed = read.narrowed(at)
        _check_same(agreed, self.agreed)
        return Described(ours, read, agreed)


def _check_same(audio: SessionDescription, before: SessionDescription) -> None:
    """Raise MalformedError if a section has other keys, or other payload types for what was agreed."""
    protocol, _, _, keys = _what_counts(audio)
    protocol_before, _, _, keys_before = _what_counts(before)
    if (protocol, keys) != (protocol_before, keys_before):
        raise MalformedError("the change has other keys than the call began with")
    for old in before.audio.rtpmaps:
        new = [each.payload_type for each in audio.audio.rtpmaps if same_encoding(each.encoding, old.encoding)]
        if new and old.payload_type not in new:
            raise MalformedError("the change gives another payload type to a codec")
    if not any(
        same_encoding(old.encoding, new.encoding) for old in before.audio.rtpmaps for new in audio.audio.rtpmaps
    ):
        raise MalformedError("the change is to another codec, which the gateway does not pass on")


def _compared(described: SessionDescription) -> SessionDescription:
    return described.map_lines(lambda line: None if line.startswith("o=") else line)


def _directed(described: SessionDescription, direction: Direction) -> SessionDescription:
    """Return a description of ours with a direction, in words also where it is the default: aiortc needs it."""
    bare = described.map_lines(lambda line: None if line in _DIRECTIONS else line)
    lines = (f"a={direction}",)
    return replace(
        bare, media=tuple(replace(each, lines=(*each.lines, *lines)) if each.port else each for each in bare.media)
    )


def _settled(audio: SessionDescription, before: SessionDescription) -> SessionDescription:
    """Return a section whose side leaves the handshake's choice open with the side that it has."""
    if audio.audio.protocol not in DTLS_PROTOCOLS or DtlsDescription.read(audio).setup is not Setup.ACTPASS:
        return audio
    return with_setup(audio, DtlsDescription.read(before).setup)


def with_setup(described: SessionDescription, setup: Setup) -> SessionDescription:
    """Return a description with another side of the DTLS handshake."""
    return described.map_lines(lambda line: f"a=setup:{setup}" if line.startswith("a=setup:") else line)


def only(described: SessionDescription, crypto: Crypto) -> SessionDescription:
    """Return a description without crypto attributes of other keys."""
    prefix = f"a={CRYPTO}:"

    def keep(line: str) -> str | None:
        return line if not line.startswith(prefix) or _is(line[len(prefix) :], crypto) else None

    return described.map_lines(keep)


def _is(value: str, crypto: Crypto) -> bool:
    try:
        return Crypto.parse(value) == crypto
    except MalformedError:
        return False


def _numbered(described: SessionDescription, tag: int | None) -> SessionDescription:
    """Return a description with its one key of SDES, if it has one, under another number."""
    prefix = f"a={CRYPTO}:"

    def number(line: str) -> str:
        if tag is None or not line.startswith(prefix):
            return line
        return prefix + replace(Crypto.parse(line[len(prefix) :]), tag=tag).serialize()

    return described.map_lines(number)


def renewed(before: SessionDescription, now: SessionDescription) -> SessionDescription:
    """Return our description `now`, under the next version if it is not that of `before` (RFC 3264 §8)."""

    def count(line: str) -> str:
        if not line.startswith("o="):
            return line
        user, session, version, rest = line.split(" ", 3)
        return f"{user} {session} {int(version) + 1} {rest}"

    return now if now == before else now.map_lines(count)


def _what_counts(described: SessionDescription) -> tuple[object, ...]:
    """Return protocol, direction, addresses unless ICE finds those, and keys; raises MalformedError."""
    audio = described.audio
    dtls = DtlsDescription.read(described) if audio.protocol in DTLS_PROTOCOLS else None
    addresses = () if dtls and dtls.ice else (described.audio_address, described.audio_control_address)
    keys = (described.audio_key_mgmt, _cryptos(described), dtls)
    return audio.protocol, described.audio_direction, addresses, keys


def _cryptos(described: SessionDescription) -> tuple[Crypto | str, ...]:
    """Return the keys of SDES; those that are not supported, as text."""
    found: list[Crypto | str] = []
    for value in described.audio.attributes(CRYPTO)[: MAX_CRYPTOS + 1]:
        try:
            found.append(Crypto.parse(value))
        except NotSupportedError:
            found.append(value)
    return tuple(found)
