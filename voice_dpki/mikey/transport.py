"""MACs and encryption of MIKEY's own messages, under a pre-shared or an envelope key.

The PRF of a message determines its algorithms: MIKEY-1 goes with AES-CM-128 and HMAC-SHA-1-160, and
PRF-HMAC-SHA-256 with the 256-bit algorithms of RFC 6043 §6.2, which do not mix with others.
Source: RFC 3830 §4.1.4, §4.2.3, §5.2.
"""

import hmac
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Final

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from voice_dpki.codec.cursor import Cursor
from voice_dpki.errors import MalformedError
from voice_dpki.mikey.failures import Failure, MikeyError
from voice_dpki.mikey.keys import PRE_SHARED, EnvelopeConstant, KeyedPrf, Label
from voice_dpki.mikey.message import Header, Message, parse_payloads, serialize
from voice_dpki.mikey.payloads import Kemac, Payload, Timestamp, Verification
from voice_dpki.mikey.registry import EncrAlg, ErrorNumber, MacAlg, PayloadType, Prf

_SALT_BYTES: Final = 14
"""Length of the salting key (RFC 3830 §4.1.4)."""


@dataclass(frozen=True, slots=True)
class _Suite:
    encr_alg: EncrAlg
    encr_bytes: int
    mac_alg: MacAlg
    mac_bytes: int
    """Length of the authentication key, and of the MAC."""
    hash_name: str


_SUITES = {
    Prf.MIKEY_1: _Suite(EncrAlg.AES_CM_128, 16, MacAlg.HMAC_SHA_1_160, 20, "sha1"),
    Prf.HMAC_SHA_256: _Suite(EncrAlg.AES_CM_256, 32, MacAlg.HMAC_SHA_256_256, 32, "sha256"),
}


@dataclass(frozen=True, repr=False)
class MessageKeys:
    """The keys of one bundle's messages, from a pre-shared or envelope key and the RAND of the exchange."""

    secret: bytes
    prf: Prf
    csb_id: int
    rand: bytes

    @property
    def encr_alg(self) -> EncrAlg:
        """Algorithm of KEMAC's encrypted data."""
        return self._suite.encr_alg

    def sealed(self, header: Header, payloads: tuple[Payload, ...], encr_alg: EncrAlg, encr_data: bytes) -> bytes:
        """Write a message that ends with KEMAC, whose MAC covers all bytes before it."""
        size = self._suite.mac_bytes
        kemac = Kemac(encr_alg, encr_data, self._suite.mac_alg, bytes(size))
        unsealed = serialize(header, (*payloads, kemac))[:-size]
        return unsealed + self._mac(unsealed)

    def verified(self, header: Header, payloads: tuple[Payload, ...], parties: bytes) -> bytes:
        """Write a verification message; V's MAC covers all bytes before it, and `parties` (see `parties_of`)."""
        size = self._suite.mac_bytes
        unsealed = serialize(header, (*payloads, Verification(self._suite.mac_alg, bytes(size))))[:-size]
        return unsealed + self._mac(unsealed + parties)

    def sealed_alone(self, encr_data: bytes) -> Kemac:
        """Make the KEMAC of a mode with an envelope key, whose MAC covers only this payload (§6.2)."""
        kemac = Kemac(self.encr_alg, encr_data, self._suite.mac_alg, b"")
        return replace(kemac, mac=self._mac(_alone(kemac)))

    def check_alone(self, kemac: Kemac) -> None:
        """Check the MAC of a KEMAC that `sealed_alone` makes; raises MikeyError."""
        self._check_algorithm(kemac.mac_alg)
        self._check_mac(_alone(kemac), kemac.mac)

    def check_kemac(self, message: Message) -> Kemac:
        """Check the MAC of a message that ends with KEMAC; returns the payload. Raises MikeyError."""
        kemac = message.one(Kemac)
        self._check(message, kemac.mac_alg, kemac.mac, b"")
        return kemac

    def check_verification(self, message: Message, parties: bytes) -> None:
        """Check the MAC of a verification message; raises MikeyError."""
        verification = message.one(Verification)
        self._check(message, verification.auth_alg, verification.data, parties)

    def crypt(self, data: bytes, timestamp: Timestamp) -> bytes:
        """Encrypt or decrypt key data: AES in counter mode (§4.2.3)."""
        salt = int.from_bytes(self._derive(EnvelopeConstant.SALT, _SALT_BYTES), "big")
        bundle = self.csb_id << 64 | int.from_bytes(timestamp.value, "big")
        vector = (salt ^ bundle).to_bytes(_SALT_BYTES, "big") + bytes(2)
        key = self._derive(EnvelopeConstant.ENCRYPTION, self._suite.encr_bytes)
        return Cipher(algorithms.AES(key), modes.CTR(vector)).encryptor().update(data)

    def opened(self, kemac: Kemac, timestamp: Timestamp, kind: PayloadType) -> tuple[Payload, ...]:
        """Decrypt a KEMAC whose MAC was verified, and return its payloads; the first one is of `kind`.

        Raises MikeyError.
        """
        if kemac.encr_alg != self.encr_alg:
            about = f"encryption {kemac.encr_alg} is not that of the PRF, {self.encr_alg}"
            raise MikeyError(Failure.ENCRYPTION, about)
        cursor = Cursor(self.crypt(kemac.encr_data, timestamp), "MIKEY key data")
        try:
            payloads = parse_payloads(kind, cursor)
            cursor.finish()
        except MalformedError as error:
            raise MikeyError(Failure.MALFORMED, str(error)) from None
        return payloads

    @property
    def _suite(self) -> _Suite:
        return _SUITES[self.prf]

    @cached_property
    def _keyed(self) -> KeyedPrf:
        return KeyedPrf(self.prf, self.secret)

    @cached_property
    def _auth_key(self) -> bytes:
        return self._derive(EnvelopeConstant.AUTHENTICATION, self._suite.mac_bytes)

    def _derive(self, constant: EnvelopeConstant, size: int) -> bytes:
        return Label(PRE_SHARED, self.csb_id, self.rand).derive(self._keyed, constant, size)

    def _mac(self, data: bytes) -> bytes:
        return hmac.digest(self._auth_key, data, self._suite.hash_name)

    def _check(self, message: Message, mac_alg: int, mac: bytes, more: bytes) -> None:
        """Check the MAC at the end of a message, which covers `more` too; the null MAC is refused."""
        self._check_algorithm(mac_alg)
        if not message.octets.endswith(mac) or message.payloads[-1].kind not in (Kemac.kind, Verification.kind):
            raise MikeyError(Failure.PAYLOAD, "the MAC is not at the end of the message")
        self._check_mac(message.octets[: -len(mac)] + more, mac)

    def _check_algorithm(self, mac_alg: int) -> None:
        if mac_alg != self._suite.mac_alg:
            about = f"MAC algorithm {mac_alg} is not that of the PRF, {self._suite.mac_alg}"
            raise MikeyError(Failure.MAC, about, ErrorNumber.INVALID_MAC)

    def _check_mac(self, covered: bytes, mac: bytes) -> None:
        if not hmac.compare_digest(self._mac(covered), mac):
            raise MikeyError(Failure.MAC, "the MAC does not verify under the shared key")


def _alone(kemac: Kemac) -> bytes:
    """Return the bytes that KEMAC's own MAC covers: the payload up to the MAC, with a next payload of zero."""
    return bytes([PayloadType.LAST]) + replace(kemac, mac=b"").serialize()


def parties_of(initiator: bytes, responder: bytes, timestamp: Timestamp) -> bytes:
    """Return the bytes that V or SIGNr covers besides its message: both identities and the timestamp."""
    return initiator + responder + timestamp.value
