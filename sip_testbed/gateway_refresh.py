"""The last descriptions of both sides of one leg of a gateway's call, and checks of further ones. No I/O.

A session timer (RFC 4028) has one side repeat its description. A hold (RFC 3264 §8.4) changes its direction, or its
address. Changes of keys and codecs are in `gateway_keys` and `gateway_codecs`.
"""

from dataclasses import dataclass, replace
from typing import NamedTuple

from voice_dpki.errors import MalformedError
from voice_dpki.sip.dtls_sdp import DTLS_PROTOCOLS, DtlsDescription, Setup
from voice_dpki.sip.offer_answer import check_answer, check_next_offer
from voice_dpki.sip.sdes import CRYPTO, MAX_CRYPTOS, Crypto, NotSupportedError
from voice_dpki.sip.sdp import Direction, SessionDescription, same_encoding
from voice_dpki.wire.media_peer import HOLD_ADDRESSES

_DIRECTIONS = frozenset(f"a={direction}" for direction in Direction)


class CryptoPair(NamedTuple):
    """The key under which we send, and the one under which the other side sends."""

    ours: Crypto
    theirs: Crypto


@dataclass(frozen=True, slots=True)
class Described:
    """The last descriptions of both sides of one leg, and what was agreed by them."""

    ours: SessionDescription
    """Our description, reduced to what was agreed, so that it can serve as an answer, too."""
    theirs: SessionDescription
    """The other side's description, as received."""
    agreed: SessionDescription
    """The other side's section in use, with only the agreed key and DTLS role."""

    @property
    def is_held(self) -> bool:
        """Whether media do not go both ways, so that one side may be silent for long."""
        address, _ = self.agreed.audio_address
        return address in HOLD_ADDRESSES or self.agreed.audio_direction != Direction.SENDRECV

    def is_repeated_by(self, offer: bytes) -> bool:
        """Tell whether an offer repeats the other side's last description, apart from its o= line.

        An empty offer, which asks for ours, changes nothing either. Raises MalformedError.
        """
        return not offer or _compared(SessionDescription.parse(offer)) == _compared(self.theirs)

    @property
    def crypto(self) -> CryptoPair:
        """The keys of SDES that hold; raises MalformedError if there are none."""
        ours, theirs = (
            [each for each in cryptos(sdp) if isinstance(each, Crypto)] for sdp in (self.ours, self.agreed)
        )
        if not ours or not theirs:
            raise MalformedError("the call has no keys of SDES")
        return CryptoPair(ours[0], theirs[0])

    def repeated(self, answer: bytes) -> SessionDescription:
        """Read an answer to `ours` that changes nothing; raises MalformedError for other addresses or directions.

        `gateway_keys` checks the keys.
        """
        read = SessionDescription.parse(answer)
        check_answer(self.ours, read)
        if _what_counts(read) != _what_counts(self.agreed):
            raise MalformedError("the answer to a refresh changes addresses, directions or DTLS of the media")
        return read

    def next(self, ours: SessionDescription, direction: Direction) -> SessionDescription:
        """Return our next description: `ours` with a direction, under a version that follows the last one's."""
        last = next(line for line in self.ours.lines if line.startswith("o="))
        told = _directed(ours, direction).map_lines(lambda line: last if line.startswith("o=") else line)
        return renewed(self.ours, told)

    def offered(self, offer: bytes) -> tuple[SessionDescription, int]:
        """Read an offer of a change, and return it with the index of the section in use.

        Raises MalformedError for further media, another protocol, another DTLS association, or a codec with another
        payload type than it had.
        """
        read = SessionDescription.parse(offer)
        check_next_offer(self.theirs, read)
        if len(read.media) != len(self.ours.media):
            raise MalformedError("the offer has further media, which the gateway does not pass on")
        at = section_in_use(self.ours)
        self._check_kept(settled(read.narrowed(at), self.agreed))
        return read, at

    def answered(self, ours: SessionDescription, answer: bytes) -> SessionDescription:
        """Read the answer to our offer of a change `ours`; raises MalformedError as `offered` does."""
        read = SessionDescription.parse(answer)
        check_answer(ours, read)
        self._check_kept(read.narrowed(section_in_use(ours)))
        return read

    def _check_kept(self, audio: SessionDescription) -> None:
        protocol, _, _, dtls = _what_counts(audio)
        protocol_before, _, _, dtls_before = _what_counts(self.agreed)
        if (protocol, dtls) != (protocol_before, dtls_before):
            raise MalformedError("the change is to another protocol, or to another DTLS association or ICE")
        for old in self.agreed.audio.rtpmaps:
            new = [each.payload_type for each in audio.audio.rtpmaps if same_encoding(each.encoding, old.encoding)]
            if new and old.payload_type not in new:
                raise MalformedError("the change gives another payload type to a codec (RFC 3264 §8.3.2)")


def section_in_use(described: SessionDescription) -> int:
    """Return the index of the one section of ours that is not refused."""
    return next(at for at, section in enumerate(described.media) if section.port)


def _compared(described: SessionDescription) -> SessionDescription:
    return described.map_lines(lambda line: None if line.startswith("o=") else line)


def _directed(described: SessionDescription, direction: Direction) -> SessionDescription:
    """Return a description of ours with a direction, explicit even where it is the default: aiortc needs it."""
    bare = described.map_lines(lambda line: None if line in _DIRECTIONS else line)
    lines = (f"a={direction}",)
    return replace(
        bare, media=tuple(replace(each, lines=(*each.lines, *lines)) if each.port else each for each in bare.media)
    )


def settled(audio: SessionDescription, before: SessionDescription) -> SessionDescription:
    """Return a section; if it offers actpass, with the DTLS role that its side has had."""
    if audio.audio.protocol not in DTLS_PROTOCOLS or DtlsDescription.read(audio).setup is not Setup.ACTPASS:
        return audio
    return with_setup(audio, DtlsDescription.read(before).setup)


def with_setup(described: SessionDescription, setup: Setup) -> SessionDescription:
    """Return a description with another DTLS role."""
    return described.map_lines(lambda line: f"a=setup:{setup}" if line.startswith("a=setup:") else line)


def reoffered(ours: SessionDescription) -> tuple[SessionDescription, SessionDescription]:
    """Return a further offer of `ours`, and the form that holds once it is answered; with DTLS they differ.

    An offer leaves the DTLS role open, though the association goes on (RFC 8842 §5.5). Linphone answers any other
    offer without role and fingerprint.
    """
    own = ours.narrowed(section_in_use(ours)).audio.attributes("setup")
    if not own:
        return ours, ours
    offer = renewed(ours, with_setup(ours, Setup.ACTPASS))
    return offer, renewed(offer, with_setup(offer, Setup(own[0])))


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


def numbered(described: SessionDescription, tag: int | None) -> SessionDescription:
    """Return a description with its one key of SDES, if it has one, under another tag."""
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
    """Return protocol, direction, addresses unless ICE finds those, and DTLS; raises MalformedError."""
    audio = described.audio
    dtls = DtlsDescription.read(described) if audio.protocol in DTLS_PROTOCOLS else None
    addresses = () if dtls and dtls.ice else (described.audio_address, described.audio_control_address)
    return audio.protocol, described.audio_direction, addresses, dtls


def cryptos(described: SessionDescription) -> tuple[Crypto | str, ...]:
    """Return the keys of SDES; unsupported ones as text."""
    found: list[Crypto | str] = []
    for value in described.audio.attributes(CRYPTO)[: MAX_CRYPTOS + 1]:
        try:
            found.append(Crypto.parse(value))
        except NotSupportedError:
            found.append(value)
    return tuple(found)
