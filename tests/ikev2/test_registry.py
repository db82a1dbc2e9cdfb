"""The numbers of IKEv2 as its standards give them: with a wrong one both ends are ours, and agree."""

from enum import IntEnum

import pytest

from voice_dpki.ikev2 import registry

NUMBERS = {
    "ExchangeType": "IKE_SA_INIT 34, IKE_AUTH 35, CREATE_CHILD_SA 36, INFORMATIONAL 37",  # RFC 7296 §3.1
    "PayloadType": (  # RFC 7296 §3.2, RFC 7383 §2.5
        "NONE 0, SA 33, KE 34, IDI 35, IDR 36, CERT 37, CERTREQ 38, AUTH 39, NONCE 40, NOTIFY 41, DELETE 42, "
        "VENDOR_ID 43, TSI 44, TSR 45, SK 46, CP 47, EAP 48, SKF 53"
    ),
    "Protocol": "NONE 0, IKE 1, AH 2, ESP 3",  # RFC 7296 §3.3.1
    "TransformType": "ENCR 1, PRF 2, INTEG 3, KE 4, ESN 5",  # RFC 7296 §3.3.2
    "Encr": "AES_CBC 12, AES_GCM_16 20",  # RFC 7296 §3.3.2, RFC 4106 §8
    "Prf": "HMAC_SHA2_256 5",  # RFC 4868 §4
    "Integ": "NONE 0, HMAC_SHA2_256_128 12",  # RFC 7296 §3.3.2, RFC 4868 §4
    "Group": "ECP_256 19, ECP_384 20",  # RFC 5903 §6
    "Esn": "NO 0, YES 1",  # RFC 7296 §3.3.2
    "IdType": (  # RFC 7296 §3.5
        "IPV4_ADDR 1, FQDN 2, RFC822_ADDR 3, IPV6_ADDR 5, DER_ASN1_DN 9, DER_ASN1_GN 10, KEY_ID 11"
    ),
    "CertEncoding": "X509_SIGNATURE 4",  # RFC 7296 §3.6
    "AuthMethod": (  # RFC 7296 §3.8, RFC 4754 §7, RFC 7619 §5, RFC 7427 §7
        "RSA 1, SHARED_KEY 2, ECDSA_P256 9, NULL 13, DIGITAL_SIGNATURE 14"
    ),
    "HashAlgorithm": "SHA2_256 2",  # RFC 7427 §7
    "NotifyType": (  # RFC 7296 §3.10.1, RFC 7383 §2.3, RFC 7427 §7
        "UNSUPPORTED_CRITICAL_PAYLOAD 1, INVALID_IKE_SPI 4, INVALID_MAJOR_VERSION 5, INVALID_SYNTAX 7, "
        "INVALID_MESSAGE_ID 9, INVALID_SPI 11, NO_PROPOSAL_CHOSEN 14, INVALID_KE_PAYLOAD 17, "
        "AUTHENTICATION_FAILED 24, SINGLE_PAIR_REQUIRED 34, NO_ADDITIONAL_SAS 35, INTERNAL_ADDRESS_FAILURE 36, "
        "FAILED_CP_REQUIRED 37, TS_UNACCEPTABLE 38, INVALID_SELECTORS 39, TEMPORARY_FAILURE 43, "
        "CHILD_SA_NOT_FOUND 44, INITIAL_CONTACT 16384, NAT_DETECTION_SOURCE_IP 16388, "
        "NAT_DETECTION_DESTINATION_IP 16389, COOKIE 16390, REKEY_SA 16393, FRAGMENTATION_SUPPORTED 16430, "
        "SIGNATURE_HASH_ALGORITHMS 16431"
    ),
    "CfgType": "REQUEST 1, REPLY 2, SET 3, ACK 4",  # RFC 7296 §3.15
    "CfgAttribute": "INTERNAL_IP4_ADDRESS 1, INTERNAL_IP4_NETMASK 2, INTERNAL_IP4_DNS 3",  # RFC 7296 §3.15.1
    "TsType": "IPV4_ADDR_RANGE 7, IPV6_ADDR_RANGE 8",  # RFC 7296 §3.13.1
}
"""By class: its names, each with its number."""


@pytest.mark.parametrize("name", NUMBERS)
def test_numbers_are_those_of_the_standards(name: str) -> None:
    members = getattr(registry, name).__members__.items()
    assert ", ".join(f"{member} {int(number)}" for member, number in members) == NUMBERS[name]


def test_every_class_of_the_registry_is_compared() -> None:
    classes = {name for name, value in vars(registry).items() if isinstance(value, type) and value is not IntEnum}
    assert classes == NUMBERS.keys()


def test_other_numbers_are_those_of_the_standards() -> None:
    # RFC 7296 §2.5, §3.3.5 and §3.10.1, where status types begin and where those for private use do.
    assert (registry.MAJOR_VERSION, registry.KEY_LENGTH_ATTRIBUTE) == (2, 14)
    assert (registry.FIRST_STATUS, registry.FIRST_PRIVATE_STATUS) == (16384, 40960)
    # docs/integrity-info.md and docs/spec.
    assert (registry.INTEGRITY_INFO, registry.LEDGER_ANSWER) == (40970, 40971)
