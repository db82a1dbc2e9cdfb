"""Each kind of message with each byte changed: refused with a documented error; what tshark makes of each kind."""

import re
from itertools import pairwise
from pathlib import Path

import pytest

from tests.mikey.every_message import Kind, every_message
from tests.mikey.test_tshark import MIKEY_PORT, decode
from voice_dpki.mikey.certified import Party
from voice_dpki.mikey.failures import Failure, MikeyError
from voice_dpki.mikey.message import Message
from voice_dpki.mikey.payloads import Certificate, CertificateHash, DhValue, Kemac, Payload, Signature, Verification
from voice_dpki.mikey.refusal import Hint
from voice_dpki.mikey.registry import CertType, DhGroup, MacAlg

CHANGES = (0x01, 0x5A, 0x80, 0xFF)
"""By turns, from byte to byte."""

GROUPS = ("dh-sign", "psk", "dhhmac", "pke", "rsa-r", "modern", "hybrid", "update")
"""How the names of all kinds begin, except for errors."""


@pytest.fixture(scope="module")
def kinds(parties: tuple[Party, Party]) -> list[Kind]:
    return every_message(parties)


def changed(octets: bytes) -> list[bytes]:
    """The message with each of its bytes changed, one at a time."""
    return [
        octets[:at] + bytes([octets[at] ^ CHANGES[at % len(CHANGES)]]) + octets[at + 1 :]
        for at in range(len(octets))
    ]


def result(kind: Kind, octets: bytes) -> object:
    """What the receiver of a message has of it: the reason, if it is refused."""
    try:
        return kind.read(octets)
    except MikeyError as error:
        return error.failure


def test_every_kind_is_in_a_group(kinds: list[Kind]) -> None:
    assert len([kind for kind in kinds if not kind.is_error]) == 2 * (5 * 2 + 2 + 2 + 2 + 4 * 2)
    assert all(kind.is_error or kind.name.startswith(GROUPS) for kind in kinds)


@pytest.mark.parametrize("group", GROUPS)
def test_a_changed_byte_is_refused(kinds: list[Kind], group: str) -> None:
    for kind in (each for each in kinds if each.name.startswith(group)):
        results = [result(kind, octets) for octets in changed(kind.octets)]
        assert Failure.REPLAY not in results, f"{kind.name}: refused for another reason than its bytes"
        taken = [at for at, each in enumerate(results) if not isinstance(each, Failure)]
        assert not taken, f"{kind.name}: accepted with other bytes there"
        if not kind.name.endswith("offer"):
            assert not isinstance(result(kind, kind.octets), Failure), f"{kind.name}: refused as it was sent"


def test_a_changed_byte_of_an_error_is_refused_or_still_a_hint(kinds: list[Kind]) -> None:
    """Nothing protects it, so it may tell something else; never of another bundle, nor of another time."""
    for kind in kinds:
        if kind.is_error:
            assert kind.octets[1] == 6
            read = [result(kind, octets) for octets in changed(kind.octets)]
            for at in (0, 1, *range(4, 8), *range(12, 20)):
                assert not isinstance(read[at], Hint), f"{kind.name}: byte {at}"
            assert any(isinstance(each, Hint) for each in read), "its numbers are no secret"


def unknown(payload: Payload) -> bool:
    """Tell whether tshark 4.0 does not know a payload's length: it stops there, in silence."""
    match payload:
        case CertificateHash():
            return True
        case Kemac(mac_alg=algorithm) | Verification(auth_alg=algorithm):
            return algorithm == MacAlg.HMAC_SHA_256_256
        case DhValue(group=group):
            return group > DhGroup.OAKLEY_2
    return False


def by_url(kind: Kind) -> bool:
    """Tell whether a message has a certificate's URL, which tshark 4.0 reads as DER, and finds malformed."""
    certificates = Message.parse(kind.octets).all(Certificate)
    return any(each.cert_type == CertType.X509V3_URL for each in certificates)


def chain(octets: bytes) -> tuple[list[int], int]:
    """The types of next payloads in order, and how many of them any tshark reads."""
    payloads = Message.parse(octets).payloads
    kinds = [int(payload.kind) for payload in payloads] + ([] if isinstance(payloads[-1], Signature) else [0])
    return kinds, next((at + 1 for at, each in enumerate(payloads) if unknown(each)), len(kinds))


@pytest.mark.peer("tshark")
def test_tshark_dissects_every_kind(kinds: list[Kind], tmp_path: Path) -> None:
    """It finds the payloads that are there, in their order, and nothing malformed."""
    kinds = [kind for kind in kinds if not by_url(kind)]
    assert len(kinds) > 60
    text = decode(tmp_path, *((MIKEY_PORT, kind.octets) for kind in kinds))
    starts = [found.start() for found in re.finditer(r"^Frame \d+:", text, re.MULTILINE)] + [len(text)]
    frames = [text[start:end] for start, end in pairwise(starts)]
    for kind, frame in zip(kinds, frames, strict=True):
        assert "alformed" not in frame, kind.name
        seen = [int(number) for number in re.findall(r"Next Payload: .*\((\d+)\)", frame)]
        whole, known = chain(kind.octets)
        assert seen == whole[: len(seen)], kind.name
        assert len(seen) >= known, kind.name
        assert f"({Message.parse(kind.octets).header.data_type})" in frame, kind.name
