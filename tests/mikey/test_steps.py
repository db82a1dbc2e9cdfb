"""Steps by themselves: how often each payload may stand in a message."""

from dataclasses import replace
from itertools import product
from typing import Any

import pytest

from voice_dpki.mikey import modern, pke, rsa_r, update
from voice_dpki.mikey.failures import Failure, MikeyError
from voice_dpki.mikey.message import Header, Message, SrtpId
from voice_dpki.mikey.payloads import (
    Certificate,
    CertificateHash,
    DhValue,
    EnvelopeKey,
    Error,
    GeneralExtension,
    Identity,
    Kemac,
    Payload,
    Rand,
    SecurityPolicy,
    Signature,
    Timestamp,
    Verification,
)
from voice_dpki.mikey.registry import DataType
from voice_dpki.mikey.shared import _DHHMAC_INIT, _PSK_INIT, DHHMAC_RESP, PSK_RESP
from voice_dpki.mikey.steps import (
    I_MESSAGE,
    R_MESSAGE,
    Counts,
    check_answer_header,
    check_offer_header,
    check_payloads,
    check_rand,
)

ONE: dict[type[Payload], Payload] = {
    Timestamp: Timestamp(0, bytes(8)),
    Rand: Rand(bytes(16)),
    Identity: Identity(1, b"sip:a@a.example"),
    Certificate: Certificate(2, b"certificate"),
    SecurityPolicy: SecurityPolicy(0, 0, ()),
    DhValue: DhValue(0, bytes(192)),
    GeneralExtension: GeneralExtension(1, b"mikey"),
    Signature: Signature(1, bytes(256)),
    Error: Error(0),
    Kemac: Kemac(0, b"", 1, bytes(20)),
    Verification: Verification(1, bytes(20)),
    CertificateHash: CertificateHash(0, bytes(20)),
    EnvelopeKey: EnvelopeKey(0, bytes(256)),
}

# RFC 3830 §3.3: HDR, T, RAND, [IDi|CERTi], [IDr], {SP}, DHi, SIGNi and HDR, T, [IDr|CERTr], IDi, DHr, DHi, SIGNr;
# this project demands the optional ones, and an offer's list of protocols (RFC 4567 §4.1.4).
OFFER: Counts = {Timestamp: (1, 1), Rand: (1, 1), Identity: (2, 2), Certificate: (1, 1), SecurityPolicy: (1, 1)}
OFFER |= {DhValue: (1, 1), GeneralExtension: (1, 8), Signature: (1, 1), Error: (0, 0)}
ANSWER: Counts = {Timestamp: (1, 1), Rand: (0, 0), Identity: (2, 2), Certificate: (1, 1), SecurityPolicy: (0, 0)}
ANSWER |= {DhValue: (2, 2), GeneralExtension: (0, 8), Signature: (1, 1), Error: (0, 0)}

# RFC 3830 §3.1: HDR, T, RAND, [IDi], [IDr], {SP}, KEMAC and HDR, T, [IDr], V; here with IDr, as above.
PSK: Counts = {Timestamp: (1, 1), Rand: (1, 1), Identity: (2, 2), SecurityPolicy: (1, 1), GeneralExtension: (1, 8)}
PSK |= {Kemac: (1, 1)}
PSK_ANSWER: Counts = {Timestamp: (1, 1), Identity: (1, 1), GeneralExtension: (0, 8), Verification: (1, 1)}
# RFC 4650 §3.1: HDR, T, RAND, [IDi], IDr, {SP}, DHi, KEMAC and HDR, T, [IDr], IDi, DHr, DHi, KEMAC.
DHHMAC: Counts = {**PSK, DhValue: (1, 1)}
DHHMAC_ANSWER: Counts = {
    Timestamp: (1, 1),
    Identity: (2, 2),
    DhValue: (2, 2),
    GeneralExtension: (0, 8),
    Kemac: (1, 1),
}
# RFC 3830 §3.2: HDR, T, RAND, [IDi|CERTi], [IDr], {SP}, KEMAC, [CHASH], PKE, SIGNi; the answer is that of PSK.
PKE: Counts = {**OFFER, DhValue: (0, 0), Kemac: (1, 1), CertificateHash: (1, 1), EnvelopeKey: (1, 1)}
# RFC 4738 §3.4, §3.6: HDR, T, [RAND], [IDi|CERTi], [IDr], {SP}, SIGNi and HDR, [GenExt(CSB-ID)], T, [RAND],
# [IDr|CERTr], [SP], KEMAC, PKE, SIGNr.
RSA_R: Counts = {**OFFER, DhValue: (0, 0), Rand: (0, 1), Identity: (1, 2)}
RSA_R_ANSWER: Counts = {**ANSWER, Rand: (0, 1), Identity: (1, 1), SecurityPolicy: (1, 1), DhValue: (0, 0)}
RSA_R_ANSWER |= {Kemac: (1, 1), EnvelopeKey: (1, 1)}
# RFC 3830 §4.5: neither RAND nor SP; the answers are those of PSK and DHHMAC.
PSK_UPDATE: Counts = {kind: often for kind, often in PSK.items() if kind not in (Rand, SecurityPolicy)}
DHHMAC_UPDATE: Counts = {**PSK_UPDATE, DhValue: (1, 1)}
# This project's own mode (docs/spec): a hash instead of the certificate, and extensions for its mark and protocols.
MODERN: Counts = {**OFFER, Certificate: (0, 0), CertificateHash: (1, 1), GeneralExtension: (2, 8)}
MODERN_ANSWER: Counts = {Timestamp: (1, 1), Identity: (1, 1), CertificateHash: (1, 1), DhValue: (1, 1)}
MODERN_ANSWER |= {GeneralExtension: (1, 8), Signature: (1, 1)}
MESSAGES: dict[str, tuple[Counts, Counts]] = {
    "offer": (I_MESSAGE, OFFER),
    "answer": (R_MESSAGE, ANSWER),
    "psk": (_PSK_INIT, PSK),
    "psk answer": (PSK_RESP, PSK_ANSWER),
    "dhhmac": (_DHHMAC_INIT, DHHMAC),
    "dhhmac answer": (DHHMAC_RESP, DHHMAC_ANSWER),
    "psk update": (update._PSK_INIT, PSK_UPDATE),
    "dhhmac update": (update._DHHMAC_INIT, DHHMAC_UPDATE),
    "pke": (pke.I_MESSAGE, PKE),
    "rsa-r": (rsa_r.I_MESSAGE, RSA_R),
    "rsa-r answer": (rsa_r.R_MESSAGE, RSA_R_ANSWER),
    "modern": (modern.I_MESSAGE, MODERN),
    "modern answer": (modern.R_MESSAGE, MODERN_ANSWER),
}


def check(counts: Counts, allowed: Counts, kind: type[Payload], number: int) -> None:
    """Check a message that has `number` payloads of `kind`, and of the others as few as it may."""
    numbers = {each: least for each, (least, _) in allowed.items()} | {kind: number}
    payloads = tuple(ONE[each] for each, several in numbers.items() for _ in range(several))
    header = Header(DataType.DH_INIT, 1, 0, (), respond=True)
    check_payloads(Message(header, payloads, b""), counts)


@pytest.mark.parametrize(("mode", "kind"), [*product(MESSAGES, ONE)])
def test_each_payload_stands_as_often_as_its_mode_allows(mode: str, kind: type[Payload]) -> None:
    counts, allowed = MESSAGES[mode]
    least, most = allowed.get(kind, (0, 0))
    check(counts, allowed, kind, least)
    check(counts, allowed, kind, most)
    for number in {least - 1, most + 1} - {-1}:
        with pytest.raises(MikeyError) as caught:
            check(counts, allowed, kind, number)
        assert caught.value.failure is Failure.PAYLOAD


SENT = Header(DataType.DH_INIT, 0x7000_0000, 1, (SrtpId(1, 500), SrtpId(1, 0)), respond=True)
ANSWERED = Header(DataType.DH_RESP, 0x7000_0000, 1, (SrtpId(1, 500), SrtpId(1, 600)))


def failure_of(check: Any, *given: Any) -> Failure:
    with pytest.raises(MikeyError) as caught:
        check(*given)
    return caught.value.failure


@pytest.mark.parametrize(
    ("changes", "failure"),
    [
        *(({"csb_id": each}, Failure.CSB_ID) for each in (0, 0x6FFF_FFFF, 0x7000_0001, 0xFFFF_FFFF)),
        *(({"prf": each}, Failure.PRF) for each in (0, 2)),
        *(({"data_type": each}, Failure.DATA_TYPE) for each in (DataType.DH_INIT, DataType.ERROR)),
        *(
            ({"sessions": each}, Failure.CRYPTO_SESSIONS)
            for each in (
                (),
                (SrtpId(1, 500),),
                (SrtpId(1, 500), SrtpId(1, 600), SrtpId(1, 700)),
                (SrtpId(1, 499), SrtpId(1, 600)),
                (SrtpId(1, 501), SrtpId(1, 600)),
                (SrtpId(0, 500), SrtpId(1, 600)),
                (SrtpId(2, 500), SrtpId(1, 600)),
                (SrtpId(1, 500), SrtpId(0, 600)),
                (SrtpId(1, 500), SrtpId(2, 600)),
                (SrtpId(1, 500, 1), SrtpId(1, 600)),
                (SrtpId(1, 500), SrtpId(1, 600, 1)),
                (SrtpId(1, 500), SrtpId(1, 0)),
                (SrtpId(1, 500), SrtpId(1, 500)),
            )
        ),
    ],
)
def test_an_answer_repeats_the_header_and_fills_in_one_ssrc(changes: dict[str, Any], failure: Failure) -> None:
    """RFC 3830 §6.1, §6.1.1: whatever differs is refused, whether it is less or more than what was sent."""
    check_answer_header(SENT, ANSWERED, DataType.DH_RESP)
    assert failure_of(check_answer_header, SENT, replace(ANSWERED, **changes), DataType.DH_RESP) is failure


@pytest.mark.parametrize("ssrc", [1, 499, 501, 0xFFFF_FFFF])
def test_the_responder_s_ssrc_may_be_any_but_ours(ssrc: int) -> None:
    check_answer_header(SENT, replace(ANSWERED, sessions=(SrtpId(1, 500), SrtpId(1, ssrc))), DataType.DH_RESP)


@pytest.mark.parametrize(
    ("changes", "failure"),
    [
        *(({"data_type": each}, Failure.DATA_TYPE) for each in (DataType.PKE_RESP, DataType.DH_RESP)),
        *(({"prf": each}, Failure.PRF) for each in (2, 255)),
        ({"map_type": 1}, Failure.CRYPTO_SESSIONS),
        *(
            ({"sessions": each}, Failure.CRYPTO_SESSIONS)
            for each in (
                (),
                (SrtpId(1, 500),),
                (SrtpId(1, 500), SrtpId(1, 0), SrtpId(1, 0)),
                (SrtpId(1, 0), SrtpId(1, 0)),
                (SrtpId(1, 500), SrtpId(1, 1)),
                (SrtpId(1, 500, 1), SrtpId(1, 0)),
                (SrtpId(1, 500), SrtpId(1, 0, 1)),
            )
        ),
    ],
)
def test_an_offer_has_two_crypto_sessions_and_one_ssrc(changes: dict[str, Any], failure: Failure) -> None:
    check_offer_header(SENT)
    assert failure_of(check_offer_header, replace(SENT, **changes)) is failure


@pytest.mark.parametrize("size", [0, 15, 16, 17, 255])
def test_rand_has_128_bits_or_more(size: int) -> None:
    """RFC 3830 §4.1.1."""
    message = Message(SENT, (Rand(bytes(size)),), b"")
    if size < 16:
        assert failure_of(check_rand, message) is Failure.RAND
    else:
        check_rand(message)
