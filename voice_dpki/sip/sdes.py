"""Keys of SRTP in SDP, `a=crypto` (RFC 4568), with the suites of RFC 4568 §6.2 and RFC 7714 §14.2.

    a=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:d0RmdmcmVCspeEc3QGZiNWpVLFJhQX1cfHAwJSoj|2^20

Anyone who reads the SDP has the key, so an offer must go over TLS only. Each side sends under its own key.
"""

import base64
import binascii
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from voice_dpki.errors import MalformedError

CRYPTO: Final = "crypto"
MAX_CRYPTOS: Final = 16
"""Most a=crypto lines of one media section."""


class CryptoSuite(StrEnum):
    """A crypto suite by its name in SDP."""

    AES_CM_128_HMAC_SHA1_80 = "AES_CM_128_HMAC_SHA1_80"
    AES_CM_128_HMAC_SHA1_32 = "AES_CM_128_HMAC_SHA1_32"
    AEAD_AES_128_GCM = "AEAD_AES_128_GCM"
    AEAD_AES_256_GCM = "AEAD_AES_256_GCM"

    @property
    def key_bytes(self) -> int:
        """Length of master key and master salt together."""
        return _KEY_BYTES[self]


_KEY_BYTES: Final = {
    CryptoSuite.AES_CM_128_HMAC_SHA1_80: 16 + 14,
    CryptoSuite.AES_CM_128_HMAC_SHA1_32: 16 + 14,
    CryptoSuite.AEAD_AES_128_GCM: 16 + 12,
    CryptoSuite.AEAD_AES_256_GCM: 32 + 12,
}

_VALUE = re.compile(
    r"(?a)(?P<tag>[0-9]{1,9}) +(?P<suite>[A-Za-z0-9_]{1,64}) +(?P<keys>\S{1,512})(?P<session> .{0,256})?"
)
_INLINE = re.compile(
    r"(?a)inline:(?P<key>[A-Za-z0-9+/]{8,128}={0,2})(?:\|(?P<lifetime>2\^[0-9]{1,2}|[0-9]{1,15}))?"
)
_WINDOW = re.compile(r"(?a)WSH=[0-9]{2,5}")


class NotSupportedError(MalformedError):
    """A crypto attribute that is well formed, but asks for something that is not supported here."""


@dataclass(frozen=True, slots=True, repr=False)
class Crypto:
    """One crypto attribute; `key` is master key and master salt. repr shows none of it."""

    tag: int
    suite: CryptoSuite
    key: bytes

    @classmethod
    def parse(cls, value: str) -> "Crypto":
        """Parse the text after "crypto:"; raises MalformedError.

        An unknown suite, several keys, an MKI and session parameters raise NotSupportedError; some session
        parameters turn encryption off. Ignored are the window size hint, and lifetimes, which bind the sender.
        """
        found = _VALUE.fullmatch(value.strip())
        if found is None:
            raise MalformedError("a crypto attribute is not TAG SUITE KEYS (RFC 4568 §9.1)")
        if found["suite"] not in set(CryptoSuite):
            raise NotSupportedError("the crypto suite is not supported")
        if not all(_WINDOW.fullmatch(parameter) for parameter in (found["session"] or "").split()):
            raise NotSupportedError("a crypto attribute has session parameters (RFC 4568 §6.3)")
        suite = CryptoSuite(found["suite"])
        return cls(int(found["tag"]), suite, _key(found["keys"], suite))

    def serialize(self) -> str:
        """Return the text after "crypto:"."""
        return f"{self.tag} {self.suite} inline:{base64.b64encode(self.key).decode('ascii')}"


def crypto_to_take(values: Sequence[str], suites: Collection[CryptoSuite]) -> Crypto:
    """Return the first of an offer's crypto attributes that can be taken up (§5.1.2); raises MalformedError."""
    if len(values) > MAX_CRYPTOS:
        raise MalformedError(f"a media section has more than {MAX_CRYPTOS} crypto attributes")
    for value in values:
        try:
            crypto = Crypto.parse(value)
        except NotSupportedError:
            continue
        if crypto.suite in suites:
            return crypto
    raise NotSupportedError("the offer has no crypto attribute that can be taken up (RFC 4568 §5.1.2)")


def check_crypto_answer(offered: Sequence[Crypto], values: Sequence[str]) -> tuple[Crypto, Crypto]:
    """Return the offered attribute that an answer took up, and the answer's; raises MalformedError (§5.1.3).

    The answer must have one attribute, with tag and suite of an offered one, and a key other than the offer's.
    """
    if len(values) != 1:
        raise MalformedError(f"the answer has {len(values)} crypto attributes in place of one (RFC 4568 §5.1.2)")
    answered = Crypto.parse(values[0])
    for ours in offered:
        if (ours.tag, ours.suite) == (answered.tag, answered.suite) and ours.key != answered.key:
            return ours, answered
    raise MalformedError("the answer's crypto attribute is none of the offer, or has the offer's key")


def _key(text: str, suite: CryptoSuite) -> bytes:
    found = _INLINE.fullmatch(text)
    if found is None:
        raise NotSupportedError("the keys of a crypto attribute are not one inline key without an MKI")
    written = found["key"].rstrip("=")
    try:
        key = base64.b64decode(written + "=" * (-len(written) % 4), validate=True)
    except binascii.Error:
        raise MalformedError("the key of a crypto attribute is not base64") from None
    if len(key) != suite.key_bytes:
        raise MalformedError(f"the key of {suite} has not {suite.key_bytes} bytes")
    return key
