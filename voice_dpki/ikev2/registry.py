"""Numbers of IKEv2 that this project uses or names (RFC 7296 §3, RFC 7383, RFC 7427, and IANA's registries)."""

from enum import IntEnum

MAJOR_VERSION = 2


class ExchangeType(IntEnum):
    """Exchange types (RFC 7296 §3.1)."""

    IKE_SA_INIT = 34
    IKE_AUTH = 35
    CREATE_CHILD_SA = 36
    INFORMATIONAL = 37


class PayloadType(IntEnum):
    """Payload types (RFC 7296 §3.2; SKF: RFC 7383 §2.5)."""

    NONE = 0
    SA = 33
    KE = 34
    IDI = 35
    IDR = 36
    CERT = 37
    CERTREQ = 38
    AUTH = 39
    NONCE = 40
    NOTIFY = 41
    DELETE = 42
    VENDOR_ID = 43
    TSI = 44
    TSR = 45
    SK = 46
    CP = 47
    EAP = 48
    SKF = 53


class Protocol(IntEnum):
    """Security protocol identifiers (RFC 7296 §3.3.1)."""

    NONE = 0
    IKE = 1
    AH = 2
    ESP = 3


class TransformType(IntEnum):
    """Transform types (RFC 7296 §3.3.2)."""

    ENCR = 1
    PRF = 2
    INTEG = 3
    KE = 4
    ESN = 5


class Encr(IntEnum):
    """Encryption algorithms (RFC 7296 §3.3.2, RFC 4106)."""

    AES_CBC = 12
    AES_GCM_16 = 20


class Prf(IntEnum):
    """Pseudorandom functions (RFC 4868)."""

    HMAC_SHA2_256 = 5


class Integ(IntEnum):
    """Integrity algorithms (RFC 4868)."""

    NONE = 0
    HMAC_SHA2_256_128 = 12


class Group(IntEnum):
    """Key exchange methods (RFC 5903)."""

    ECP_256 = 19
    ECP_384 = 20


class Esn(IntEnum):
    """Extended sequence numbers (RFC 7296 §3.3.2)."""

    NO = 0
    YES = 1


KEY_LENGTH_ATTRIBUTE = 14
"""The one transform attribute (RFC 7296 §3.3.5)."""


class IdType(IntEnum):
    """Identification types (RFC 7296 §3.5)."""

    IPV4_ADDR = 1
    FQDN = 2
    RFC822_ADDR = 3
    IPV6_ADDR = 5
    DER_ASN1_DN = 9
    DER_ASN1_GN = 10
    KEY_ID = 11


class CertEncoding(IntEnum):
    """Certificate encodings (RFC 7296 §3.6)."""

    X509_SIGNATURE = 4


class AuthMethod(IntEnum):
    """Authentication methods (RFC 7296 §3.8, RFC 4754, RFC 7427)."""

    RSA = 1
    SHARED_KEY = 2
    ECDSA_P256 = 9
    NULL = 13
    DIGITAL_SIGNATURE = 14


class HashAlgorithm(IntEnum):
    """Hash algorithms of N(SIGNATURE_HASH_ALGORITHMS) (RFC 7427 §7)."""

    SHA2_256 = 2


class NotifyType(IntEnum):
    """Notify message types (RFC 7296 §3.10.1, RFC 7383 §2.3, RFC 7427 §4)."""

    UNSUPPORTED_CRITICAL_PAYLOAD = 1
    INVALID_IKE_SPI = 4
    INVALID_MAJOR_VERSION = 5
    INVALID_SYNTAX = 7
    INVALID_MESSAGE_ID = 9
    INVALID_SPI = 11
    NO_PROPOSAL_CHOSEN = 14
    INVALID_KE_PAYLOAD = 17
    AUTHENTICATION_FAILED = 24
    SINGLE_PAIR_REQUIRED = 34
    NO_ADDITIONAL_SAS = 35
    INTERNAL_ADDRESS_FAILURE = 36
    FAILED_CP_REQUIRED = 37
    TS_UNACCEPTABLE = 38
    INVALID_SELECTORS = 39
    TEMPORARY_FAILURE = 43
    CHILD_SA_NOT_FOUND = 44
    INITIAL_CONTACT = 16384
    NAT_DETECTION_SOURCE_IP = 16388
    NAT_DETECTION_DESTINATION_IP = 16389
    COOKIE = 16390
    REKEY_SA = 16393
    FRAGMENTATION_SUPPORTED = 16430
    SIGNATURE_HASH_ALGORITHMS = 16431


FIRST_STATUS = 16384
"""First status notify type: types below are errors, and unknown status types are ignored (§3.10.1)."""

FIRST_PRIVATE_STATUS = 40960
"""First status type for private use; vendors have taken 40961-40969 and some others, so the defaults avoid them."""

INTEGRITY_INFO = 40970
"""Default number of N(INTEGRITY_INFO); see docs/integrity-info.md."""

LEDGER_ANSWER = 40971
"""Default number of the notify in which a gateway staples the ledger's answer about its certificate."""


class CfgType(IntEnum):
    """Configuration payload types (RFC 7296 §3.15)."""

    REQUEST = 1
    REPLY = 2
    SET = 3
    ACK = 4


class CfgAttribute(IntEnum):
    """Configuration attributes (RFC 7296 §3.15.1)."""

    INTERNAL_IP4_ADDRESS = 1
    INTERNAL_IP4_NETMASK = 2
    INTERNAL_IP4_DNS = 3


class TsType(IntEnum):
    """Traffic selector types (RFC 7296 §3.13.1)."""

    IPV4_ADDR_RANGE = 7
    IPV6_ADDR_RANGE = 8


def name_of(kind: type[IntEnum], number: int) -> str:
    """Return a readable name of a number: its constant's name, or the number itself if `kind` lacks it."""
    try:
        return kind(number).name
    except ValueError:
        return str(number)
