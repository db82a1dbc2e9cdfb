"""The state that each side keeps of an agreed crypto session bundle, so that it can be updated (RFC 3830 §4.5)."""

from dataclasses import dataclass
from enum import Enum

from voice_dpki.mikey.message import Header, Message, SrtpId
from voice_dpki.mikey.payloads import Identity, Timestamp
from voice_dpki.mikey.policy import SrtpProfile
from voice_dpki.mikey.transport import MessageKeys


class UpdatedBy(Enum):
    """The mode of a bundle's updates."""

    PSK = "psk"
    """A TGK is transported, under the pre-shared key, or under the envelope key of PKE and RSA-R."""
    DHHMAC = "dhhmac"
    """Both sides send new Diffie-Hellman values, under the pre-shared key."""


@dataclass(frozen=True, slots=True, repr=False)
class Bundle:
    """A bundle after its newest exchange, the same on both sides. Not shown by repr."""

    mode: UpdatedBy
    keys: MessageKeys
    """With the CSB ID, and with the RAND of the first exchange, which holds for all updates."""
    profile: SrtpProfile
    idi: Identity
    idr: Identity
    sessions: tuple[SrtpId, ...]
    timestamp: Timestamp


def bundle_of(mode: UpdatedBy, keys: MessageKeys, profile: SrtpProfile, offer: Message, answer: Header) -> Bundle:
    """Return the bundle that an exchange has agreed on: an offer with both IDs, and its answer."""
    idi, idr = offer.all(Identity)
    return Bundle(mode, keys, profile, idi, idr, answer.sessions, offer.one(Timestamp))
