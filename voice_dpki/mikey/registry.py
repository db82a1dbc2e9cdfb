"""Numbers of MIKEY's registries, as far as this project uses them (RFC 3830 §6; RFC 6043 §6; RFC 7714 §15)."""

from enum import IntEnum

VERSION = 1
"""The only version of MIKEY (RFC 3830 §6.1)."""

SRTP = 0
"""Protocol type of an SRTP policy (RFC 3830 §6.10)."""


class DataType(IntEnum):
    """Message types (RFC 3830 §6.1, Table 6.1.a; RFC 4650 §4.1; RFC 4738 §3.9.1)."""

    PSK_INIT = 0
    PSK_RESP = 1
    PKE_INIT = 2
    PKE_RESP = 3
    DH_INIT = 4
    DH_RESP = 5
    ERROR = 6
    DHHMAC_INIT = 7
    DHHMAC_RESP = 8
    RSA_R_INIT = 9
    RSA_R_RESP = 10

    @property
    def about(self) -> str:
        """The message with its article, for sentences: "a DH-SIGN offer"."""
        return _ABOUT[self]


_ABOUT = {
    DataType.PSK_INIT: "a pre-shared key offer",
    DataType.PSK_RESP: "a pre-shared key answer",
    DataType.PKE_INIT: "a public-key encryption offer",
    DataType.PKE_RESP: "a public-key encryption answer",
    DataType.DH_INIT: "a DH-SIGN offer",
    DataType.DH_RESP: "a DH-SIGN answer",
    DataType.ERROR: "an error message",
    DataType.DHHMAC_INIT: "a DHHMAC offer",
    DataType.DHHMAC_RESP: "a DHHMAC answer",
    DataType.RSA_R_INIT: "an RSA-R offer",
    DataType.RSA_R_RESP: "an RSA-R answer",
}


class PayloadType(IntEnum):
    """Payload types (RFC 3830 §6.1, Table 6.1.b)."""

    LAST = 0
    KEMAC = 1
    PKE = 2
    DH = 3
    SIGN = 4
    T = 5
    ID = 6
    CERT = 7
    CHASH = 8
    V = 9
    SP = 10
    RAND = 11
    ERR = 12
    KEY_DATA = 20
    GENERAL_EXTENSION = 21


class Prf(IntEnum):
    """Pseudo-random functions (RFC 3830 §4.1.2; RFC 6043 §6.1)."""

    MIKEY_1 = 0
    HMAC_SHA_256 = 1


class MapType(IntEnum):
    """Types of the crypto session map (RFC 3830 §6.1; RFC 4563 §4)."""

    SRTP_ID = 0
    EMPTY = 1


class TimestampType(IntEnum):
    """Kinds of timestamp (RFC 3830 §6.6)."""

    NTP_UTC = 0
    NTP = 1
    COUNTER = 2


class IdType(IntEnum):
    """Kinds of identity (RFC 3830 §6.7, Table 6.7.a)."""

    NAI = 0
    URI = 1


class CertType(IntEnum):
    """Kinds of certificate (RFC 3830 §6.7, Table 6.7.b)."""

    X509V3 = 0
    X509V3_URL = 1
    X509V3_SIGN = 2
    X509V3_ENCR = 3


class DhGroup(IntEnum):
    """Diffie-Hellman groups (RFC 3830 §6.4), and those of the modern mode in the range for private use (§10)."""

    OAKLEY_5 = 0
    OAKLEY_1 = 1
    OAKLEY_2 = 2
    X25519 = 241
    X25519MLKEM768_OFFER = 242
    X25519MLKEM768_ANSWER = 243


class SignatureType(IntEnum):
    """Signature algorithms (RFC 3830 §6.5), and that of the modern mode: 4 bits leave no range for private use."""

    RSA_PKCS1 = 0
    RSA_PSS = 1
    ECDSA_P256_SHA256 = 15


class EncrAlg(IntEnum):
    """Encryption of key data (RFC 3830 §6.2; RFC 6043 §6.2)."""

    NULL = 0
    AES_CM_128 = 1
    AES_KW_128 = 2
    AES_CM_256 = 3


class MacAlg(IntEnum):
    """MACs over messages (RFC 3830 §6.2; RFC 6043 §6.2)."""

    NULL = 0
    HMAC_SHA_1_160 = 1
    HMAC_SHA_256_256 = 2


class HashFunc(IntEnum):
    """Hashes of certificates (RFC 3830 §6.8; RFC 6043 §6.6)."""

    SHA_1 = 0
    MD5 = 1
    SHA_256 = 2


class Cache(IntEnum):
    """Whether an envelope key is kept after the exchange, and for which use (RFC 3830 §6.3)."""

    NO_CACHE = 0
    CACHE = 1
    CACHE_FOR_CSB = 2


class KeyType(IntEnum):
    """Key types in a Key data sub-payload (RFC 3830 §6.13, Table 6.13.a)."""

    TGK = 0
    TGK_SALT = 1
    TEK = 2
    TEK_SALT = 3


class ValidityType(IntEnum):
    """Kinds of key validity data (RFC 3830 §6.13, Table 6.13.b)."""

    NULL = 0
    SPI = 1
    INTERVAL = 2


class ExtensionType(IntEnum):
    """General extensions (RFC 3830 §6.15; RFC 4442, 4563; RFC 4738 §3.9.3)."""

    VENDOR_ID = 0
    SDP_IDS = 1
    TESLA_I_KEY = 2
    KEY_ID = 3
    CSB_ID = 4


class SrtpParameter(IntEnum):
    """Parameters of an SRTP policy (RFC 3830 §6.10.1; RFC 7714 §15)."""

    ENCRYPTION_ALGORITHM = 0
    ENCRYPTION_KEY_LENGTH = 1
    AUTHENTICATION_ALGORITHM = 2
    AUTHENTICATION_KEY_LENGTH = 3
    SALT_LENGTH = 4
    PRF = 5
    KEY_DERIVATION_RATE = 6
    SRTP_ENCRYPTION = 7
    SRTCP_ENCRYPTION = 8
    FEC_ORDER = 9
    SRTP_AUTHENTICATION = 10
    TAG_LENGTH = 11
    PREFIX_LENGTH = 12
    AEAD_TAG_LENGTH = 20


class ErrorNumber(IntEnum):
    """Error numbers in an Error payload (RFC 3830 §6.12; RFC 6043 §6.9)."""

    AUTH_FAILURE = 0
    INVALID_TS = 1
    INVALID_PRF = 2
    INVALID_MAC = 3
    INVALID_EA = 4
    INVALID_HA = 5
    INVALID_DH = 6
    INVALID_ID = 7
    INVALID_CERT = 8
    INVALID_SP = 9
    INVALID_SPPAR = 10
    INVALID_DT = 11
    UNSPECIFIED = 12
    UNSUPPORTED_MESSAGE = 13

    @property
    def about(self) -> str:
        """A description of the error, for people."""
        return _ERRORS[self]


_ERRORS = {
    ErrorNumber.AUTH_FAILURE: "authentication failed",
    ErrorNumber.INVALID_TS: "the time is not accepted",
    ErrorNumber.INVALID_PRF: "the PRF is not supported",
    ErrorNumber.INVALID_MAC: "the MAC algorithm is not supported",
    ErrorNumber.INVALID_EA: "the encryption is not supported",
    ErrorNumber.INVALID_HA: "the hash is not supported",
    ErrorNumber.INVALID_DH: "the Diffie-Hellman group is not supported",
    ErrorNumber.INVALID_ID: "the ID is not accepted",
    ErrorNumber.INVALID_CERT: "the certificate is not accepted",
    ErrorNumber.INVALID_SP: "the security protocol is not supported",
    ErrorNumber.INVALID_SPPAR: "the policy is not supported",
    ErrorNumber.INVALID_DT: "the mode is not supported",
    ErrorNumber.UNSPECIFIED: "no reason is given",
    ErrorNumber.UNSUPPORTED_MESSAGE: "the message is not supported",
}
