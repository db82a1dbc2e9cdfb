"""One message of every kind that a party of ours sends, each with the reading by the one whom it is for."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from tests.mikey.conftest import CALLEE, CALLER, NOW_S, Call
from tests.mikey.modern_calls import ModernCall, party
from tests.mikey.test_pke import Line as EncryptedTo
from tests.mikey.test_rsa_r import Line as Reverse
from tests.mikey.test_shared import Line as Shared
from tests.mikey.test_update import MODES as UPDATED
from tests.mikey.test_update import agreed
from voice_dpki.mikey.agreement import Strength
from voice_dpki.mikey.certified import Party
from voice_dpki.mikey.failures import Failure, MikeyError
from voice_dpki.mikey.message import Message
from voice_dpki.mikey.payloads import Payload, Rand
from voice_dpki.mikey.policy import SrtpProfile
from voice_dpki.mikey.refusal import error_message, read_error
from voice_dpki.mikey.registry import Prf
from voice_dpki.x509.keys import generate_es256
from voice_dpki.x509.profile import digest_of


@dataclass
class Kind:
    """A message of a kind, and how its receiver reads it; `read` raises MikeyError if it refuses."""

    name: str
    octets: bytes
    read: Callable[[bytes], object]

    @property
    def is_error(self) -> bool:
        """Whether nothing protects the message (RFC 3830 §5.1.2)."""
        return self.name.startswith("error")


def every_message(parties: tuple[Party, Party]) -> list[Kind]:
    """All kinds: each mode's offer and answer by each PRF, its updates, and the errors that answer its offers."""
    first = [
        *_standard(parties),
        *_two_lines(),
        *_certificates_by_url(parties),
        *_rand_of_the_callee(parties),
        *_modern(),
    ]
    return [*first, *_updates(parties), *_errors(first)]


def _standard(parties: tuple[Party, Party]) -> Iterator[Kind]:
    for prf in Prf:
        signed = Call(*parties, prf=prf)
        offer: Any = signed.offer()
        yield from _both(f"dh-sign {prf.name}", offer, signed.accept, partial(signed.read_answer, offer))
        for mode in ("psk", "dhhmac"):
            shared = Shared()
            offer = shared.offer(mode, prf=prf)
            yield from _both(f"{mode} {prf.name}", offer, shared.accept, offer.confirm)
        pke = EncryptedTo(*parties)
        offer = pke.offer(prf=prf)
        yield from _both(f"pke {prf.name}", offer, pke.accept, offer.confirm)
        reverse = Reverse(*parties)
        offer = reverse.offer(prf=prf)
        yield from _both(f"rsa-r {prf.name}", offer, reverse.accept, partial(reverse.confirm, offer))


def _both(
    name: str, offer: Any, accept: Callable[[bytes], Any], confirm: Callable[[bytes], object]
) -> Iterator[Kind]:
    yield Kind(f"{name} offer", offer.message, accept)
    yield Kind(f"{name} answer", accept(offer.message).message, confirm)


def _two_lines() -> Iterator[Kind]:
    for mode in ("psk", "dhhmac"):
        shared = Shared()
        offer = shared.offer(mode, lines=2)
        yield from _both(f"{mode} for two lines", offer, partial(shared.accept, lines=2), offer.confirm)


def _certificates_by_url(parties: tuple[Party, Party]) -> Iterator[Kind]:
    named = [
        replace(each, certificate_url=f"https://certs.example/{digest_of(each.certificate).hex()}")
        for each in parties
    ]
    reverse = Reverse(*named)
    offer = reverse.offer()
    return _both("rsa-r by URL", offer, reverse.accept, partial(reverse.confirm, offer))


def _rand_of_the_callee(parties: tuple[Party, Party]) -> Iterator[Kind]:
    def without(payloads: list[Payload]) -> None:
        payloads[:] = [each for each in payloads if not isinstance(each, Rand)]

    reverse = Reverse(*parties)
    offer = reverse.offer()
    octets = reverse.resigned(offer, without)
    bare = replace(offer, message=octets, sent=Message.parse(octets))
    return _both("rsa-r without RAND", bare, reverse.accept, partial(reverse.confirm, bare))


def _modern() -> Iterator[Kind]:
    caller, callee = party(generate_es256(), CALLER), party(generate_es256(), CALLEE)
    for strength in Strength:
        modern, other = (ModernCall(caller, callee, strength=strength) for _ in range(2))
        offer = modern.offer()
        offered, answered = _both(strength.name.lower(), offer, modern.accept, partial(modern.read_answer, offer))
        # Signatures do not count in the memory of replays: one who has accepted the offer would not look at others.
        yield from (replace(offered, read=other.accept), answered)


def _updates(parties: tuple[Party, Party]) -> Iterator[Kind]:
    for prf in Prf:
        for mode in UPDATED:
            call = agreed(mode, parties, prf)
            offer = call.offer(NOW_S + 1)
            yield from _both(f"update of {mode} {prf.name}", offer, call.accept, offer.confirm)


def _errors(offers: list[Kind]) -> Iterator[Kind]:
    refusal = MikeyError(Failure.POLICY, "none of ours")
    for kind in offers:
        if kind.name.endswith("offer"):
            told = error_message(kind.octets, refusal, tuple(SrtpProfile))
            assert told is not None
            yield Kind(f"error that answers {kind.name}", told, partial(read_error, sent=kind.octets))
