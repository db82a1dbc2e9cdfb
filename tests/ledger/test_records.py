"""Records: one encoding, and the status that follows from a record and the time."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from voice_dpki.codec import cbor
from voice_dpki.errors import MalformedError
from voice_dpki.ledger.records import Authority, CertRecord, CertStatus
from voice_dpki.names import CertDigest, Height

DIGEST = CertDigest(bytes([7]) * 32)

RECORD = CertRecord(
    CertStatus.VALID,
    "Operator A",
    1000,
    2000,
    Height(3),
    Height(4),
    1,
    "unspecified",
    bytes(32),
    Authority.OWNER,
    DIGEST,
)
PARTS: list[cbor.Cbor] = [
    "certificate",
    "valid",
    "Operator A",
    1000,
    2000,
    3,
    4,
    1,
    "unspecified",
    bytes(32),
    0,
    DIGEST,
    None,
]


def test_round_trip() -> None:
    assert RECORD.serialize() == cbor.encode(PARTS)
    assert CertRecord.parse(RECORD.serialize()) == RECORD
    assert CertRecord.parse(replace(RECORD, reason=None).serialize()).reason is None


@pytest.mark.parametrize(
    ("at", "value"),
    [
        (0, "member"),
        (0, 1),
        (1, "expired"),
        (1, "dance"),
        (1, 0),
        (2, b"Operator A"),
        (3, -1),
        (3, True),
        (4, "2000"),
        (5, None),
        (7, -1),
        (8, 1),
        (9, bytes(31)),
        (9, "x" * 32),
        (10, 3),
        (10, True),
        (11, bytes(31)),
        (12, 1),
    ],
)
def test_refuses_other_values(at: int, value: Any) -> None:
    parts = [*PARTS]
    parts[at] = value
    with pytest.raises(MalformedError):
        CertRecord.parse(cbor.encode(parts))


@given(st.binary(max_size=80) | st.lists(st.none() | st.integers(0, 9) | st.text(max_size=5)).map(cbor.encode))
def test_any_bytes_parse_or_raise(data: bytes) -> None:
    try:
        record = CertRecord.parse(data)
    except MalformedError:
        return
    assert record.serialize() == data


@pytest.mark.parametrize(
    ("recorded", "now_s", "status"),
    [
        ("valid", 999.9, "not-yet-valid"),
        ("valid", 1000, "valid"),
        ("valid", 2000, "valid"),
        ("valid", 2000.1, "expired"),
        ("suspended", 999, "suspended"),
        ("suspended", 1500, "suspended"),
        ("suspended", 2001, "expired"),
        ("revoked", 999, "revoked"),
        ("revoked", 2001, "revoked"),
    ],
)
def test_status_follows_from_the_time(recorded: str, now_s: float, status: str) -> None:
    assert replace(RECORD, status=CertStatus(recorded)).status_at(now_s) == status
