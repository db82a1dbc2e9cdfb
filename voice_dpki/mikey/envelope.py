"""Keys in an envelope, for the modes that encrypt to a certificate: PKE (RFC 3830 §3.2) and RSA-R (RFC 4738).

    PKE   = E(the recipient's public key, envelope key)
    KEMAC = E(encryption key, ID of the sender ‖ TGK) ‖ MAC

Encryption and authentication key are derived from the envelope key (§4.1.4). The MAC covers KEMAC alone (§6.2); the
signature covers the message. The sender's ID is encrypted along with the TGK, and must be the one in clear: nobody
can copy a KEMAC from another sender's message into his own.

Nothing in a message says how the envelope key is encrypted (§6.3). Here its PRF does: PRF-HMAC-SHA-256 goes with
OAEP and SHA-256, and MIKEY-1 with PKCS #1 v1.5, which is mandatory (§4.2.5).
"""

from typing import Final

from voice_dpki.effects import Decrypter
from voice_dpki.errors import LocalError, PeerError
from voice_dpki.mikey.certified import Party
from voice_dpki.mikey.failures import Failure, MikeyError
from voice_dpki.mikey.payloads import EnvelopeKey, Identity, Kemac, KeyData, Timestamp
from voice_dpki.mikey.registry import Cache, KeyType, PayloadType, Prf
from voice_dpki.mikey.shared import MIN_KEY_BYTES
from voice_dpki.mikey.transport import MessageKeys
from voice_dpki.x509.encipherment import RSA1_5, RSA_OAEP_256, encrypt_to
from voice_dpki.x509.profile import CertificateProfile

ENVELOPE_KEY_BYTES: Final = 32
"""Length of an envelope key that we send."""

MAX_ENVELOPE_KEY_BYTES: Final = 64
"""Longest envelope key that is accepted; the shortest has MIN_KEY_BYTES."""

SCHEMES: Final = {Prf.MIKEY_1: RSA1_5, Prf.HMAC_SHA_256: RSA_OAEP_256}
"""How the envelope key is encrypted, by the message's PRF."""


def check_decrypter(party: Party, decrypter: Decrypter) -> None:
    """Check that our certificate is for the key that opens envelopes; raises LocalError."""
    if party.signer.public_key_der != decrypter.public_key_der:
        raise LocalError("our own certificate is not for the key that decrypts")


def wrap(secret: bytes, prf: Prf, recipient: CertificateProfile) -> EnvelopeKey:
    """Encrypt an envelope key to the recipient's certificate, to be kept for updates of its bundle."""
    return EnvelopeKey(Cache.CACHE_FOR_CSB, encrypt_to(recipient.public_key_der, SCHEMES[prf], secret))


def is_kept(envelope: EnvelopeKey) -> bool:
    """Tell whether the sender allows that the envelope key is kept, for updates of its bundle (§6.3)."""
    return envelope.cache in (Cache.CACHE, Cache.CACHE_FOR_CSB)


def unwrap(envelope: EnvelopeKey, prf: Prf, decrypter: Decrypter, decoy: bytes) -> bytes:
    """Decrypt an envelope key; returns the random `decoy` in place of one that cannot be decrypted.

    The MAC of KEMAC then does not verify. So the sender of a bad envelope learns nothing about its padding
    (RFC 3218 §2.3.2). Raises MikeyError for an unknown cache indicator.
    """
    if envelope.cache not in set(Cache):
        raise MikeyError(Failure.PAYLOAD, f"the cache indicator {envelope.cache} is unknown (RFC 3830 §6.3)")
    try:
        secret = decrypter.decrypt(SCHEMES[prf], envelope.data)
    except PeerError:
        return decoy
    return secret if MIN_KEY_BYTES <= len(secret) <= MAX_ENVELOPE_KEY_BYTES else decoy


def seal(keys: MessageKeys, sender: Identity, tgk: bytes, timestamp: Timestamp) -> Kemac:
    """Write the KEMAC that carries a TGK and its sender's identity."""
    clear = bytes([PayloadType.KEY_DATA]) + sender.serialize()
    clear += bytes([PayloadType.LAST]) + KeyData(KeyType.TGK, tgk).serialize()
    return keys.sealed_alone(keys.crypt(clear, timestamp))


def unseal(kemac: Kemac, keys: MessageKeys, sender: Identity, timestamp: Timestamp) -> bytes:
    """Verify and decrypt a KEMAC; returns the one TGK in it.

    Raises MikeyError, also if the encrypted identity is not that of the `sender` (§3.2).
    """
    keys.check_alone(kemac)
    match keys.opened(kemac, timestamp, PayloadType.ID):
        case (Identity() as inner, KeyData(KeyType.TGK, tgk, _, None)) if len(tgk) >= MIN_KEY_BYTES:
            if inner != sender:
                raise MikeyError(Failure.IDENTITY, "the encrypted identity is not that of the sender")
            return tgk
    raise MikeyError(Failure.PAYLOAD, f"the key data are not an ID and one TGK of {MIN_KEY_BYTES} bytes or more")
