"""The numbers of MIKEY as its standards give them: with a wrong one both ends are ours, and agree."""

from enum import IntEnum

import pytest

from voice_dpki.mikey import registry
from voice_dpki.mikey.failures import MikeyError
from voice_dpki.mikey.payloads import SecurityPolicy
from voice_dpki.mikey.policy import SrtpProfile, profile_of

NUMBERS = {
    "DataType": (  # RFC 3830 §6.1, RFC 4650 §4.1, RFC 4738 §3.9.1
        "PSK_INIT PSK_RESP PKE_INIT PKE_RESP DH_INIT DH_RESP ERROR DHHMAC_INIT DHHMAC_RESP RSA_R_INIT RSA_R_RESP"
    ),
    "Prf": "MIKEY_1 HMAC_SHA_256",  # RFC 3830 §6.1, RFC 6043 §6.1
    "MapType": "SRTP_ID EMPTY",  # RFC 3830 §6.1, RFC 4563 §4
    "TimestampType": "NTP_UTC NTP COUNTER",  # RFC 3830 §6.6
    "IdType": "NAI URI",  # RFC 3830 §6.7
    "CertType": "X509V3 X509V3_URL X509V3_SIGN X509V3_ENCR",  # RFC 3830 §6.7
    "EncrAlg": "NULL AES_CM_128 AES_KW_128 AES_CM_256",  # RFC 3830 §6.2, RFC 6043 §6.2
    "MacAlg": "NULL HMAC_SHA_1_160 HMAC_SHA_256_256",  # RFC 3830 §6.2, RFC 6043 §6.2
    "HashFunc": "SHA_1 MD5 SHA_256",  # RFC 3830 §6.8, RFC 6043 §6.6
    "Cache": "NO_CACHE CACHE CACHE_FOR_CSB",  # RFC 3830 §6.3
    "KeyType": "TGK TGK_SALT TEK TEK_SALT",  # RFC 3830 §6.13
    "ValidityType": "NULL SPI INTERVAL",  # RFC 3830 §6.13
    "ExtensionType": "VENDOR_ID SDP_IDS TESLA_I_KEY KEY_ID CSB_ID",  # RFC 3830 §6.15, RFC 4738 §3.9.3
    "ErrorNumber": (  # RFC 3830 §6.12
        "AUTH_FAILURE INVALID_TS INVALID_PRF INVALID_MAC INVALID_EA INVALID_HA INVALID_DH INVALID_ID INVALID_CERT "
        "INVALID_SP INVALID_SPPAR INVALID_DT UNSPECIFIED UNSUPPORTED_MESSAGE"
    ),
}
"""By class: the names of the numbers from 0 on."""

WITH_GAPS = {
    "PayloadType": (  # RFC 3830 §6.1
        "LAST KEMAC PKE DH SIGN T ID CERT CHASH V SP RAND ERR",
        {"KEY_DATA": 20, "GENERAL_EXTENSION": 21},
    ),
    "DhGroup": (  # RFC 3830 §6.4; from 241 on for private use (§10): docs/mikey-modern.md
        "OAKLEY_5 OAKLEY_1 OAKLEY_2",
        {"X25519": 241, "X25519MLKEM768_OFFER": 242, "X25519MLKEM768_ANSWER": 243},
    ),
    "SignatureType": (  # RFC 3830 §6.5; docs/mikey-modern.md
        "RSA_PKCS1 RSA_PSS",
        {"ECDSA_P256_SHA256": 15},
    ),
    "SrtpParameter": (  # RFC 3830 §6.10.1
        "ENCRYPTION_ALGORITHM ENCRYPTION_KEY_LENGTH AUTHENTICATION_ALGORITHM AUTHENTICATION_KEY_LENGTH SALT_LENGTH "
        "PRF KEY_DERIVATION_RATE SRTP_ENCRYPTION SRTCP_ENCRYPTION FEC_ORDER SRTP_AUTHENTICATION TAG_LENGTH "
        "PREFIX_LENGTH",
        {"AEAD_TAG_LENGTH": 20},  # RFC 7714 §15
    ),
}
"""The same, and the numbers that do not follow on."""


def numbers_of(kind: type[IntEnum]) -> dict[str, int]:
    return {name: int(member) for name, member in kind.__members__.items()}


@pytest.mark.parametrize("name", [*NUMBERS, *WITH_GAPS])
def test_numbers_are_those_of_the_standards(name: str) -> None:
    names, further = WITH_GAPS.get(name) or (NUMBERS[name], {})
    assert (
        numbers_of(getattr(registry, name)) == {each: number for number, each in enumerate(names.split())} | further
    )


def test_every_class_of_the_registry_is_compared() -> None:
    classes = {name for name, value in vars(registry).items() if isinstance(value, type) and value is not IntEnum}
    assert classes == NUMBERS.keys() | WITH_GAPS.keys()
    assert (registry.VERSION, registry.SRTP) == (1, 0)


SRTP_DEFAULTS = {0: 1, 1: 16, 2: 1, 3: 20, 4: 14, 5: 0, 6: 0, 7: 1, 8: 1, 9: 0, 10: 1, 11: 10, 12: 0}
"""RFC 3711 §8.2, with MIKEY's numbers of algorithms and parameters, sizes in bytes."""


@pytest.mark.parametrize(("parameter", "value"), SRTP_DEFAULTS.items())
def test_a_policy_may_say_each_default_and_nothing_else(parameter: int, value: int) -> None:
    said = SecurityPolicy(0, 0, ((parameter, bytes([value])),))
    assert profile_of(said) is SrtpProfile.AES_CM_128_HMAC_SHA1_80
    for other in (value + 1, max(value - 1, 0) or 2):
        with pytest.raises(MikeyError, match="is none of"):
            profile_of(SecurityPolicy(0, 0, ((parameter, bytes([other])),)))
