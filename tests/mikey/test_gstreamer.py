"""GStreamer, an independent implementation: messages under a pre-shared key with the NULL algorithms, both ways.

It knows no others; what it sends, it sends in clear, and it is read here but never accepted.
"""

import json
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.mikey.conftest import CALLER
from tests.mikey.test_shared import Line, refused
from voice_dpki.codec.cursor import Cursor
from voice_dpki.mikey.failures import Failure, MikeyError
from voice_dpki.mikey.message import Header, Message, SrtpId, parse_payloads, serialize
from voice_dpki.mikey.payloads import Kemac, KeyData, Rand, SecurityPolicy, Timestamp
from voice_dpki.mikey.policy import SrtpProfile, policy_for, profile_of
from voice_dpki.mikey.registry import DataType, EncrAlg, KeyType, MacAlg, PayloadType, Prf, TimestampType

pytestmark = pytest.mark.peer("libgstsdp-1.0.so.0")

PEER = Path(__file__).with_name("gstreamer_peer.py")
TIME_LIMIT_S = 60
CSB_ID = 0xA1B2C3D4
SESSIONS = (SrtpId(0, 0x01020304), SrtpId(0, 0x05060708, 9))
SIZES = (16, 24, 30, 31, 32, 33, 64)
"""Lengths of keys."""

CIPHERS = {
    SrtpProfile.AES_CM_128_HMAC_SHA1_80: ("aes-128-icm", 1),
    SrtpProfile.AEAD_AES_128_GCM: ("aes-128-gcm", 6),
}
"""By profile: GStreamer's name of the cipher, and the number of RFC 3830 §6.10.1 or RFC 7714 §15."""


def gstreamer(folder: Path, *told: Mapping[str, object]) -> list[dict[str, Any]]:
    """Have GStreamer make or read messages; it looks for no plugins, and keeps nothing."""
    done = subprocess.run(
        [sys.executable, str(PEER)],
        input="".join(json.dumps(each) + "\n" for each in told),
        env={"GST_PLUGIN_SYSTEM_PATH": "", "GST_REGISTRY": str(folder / "registry")},
        capture_output=True,
        text=True,
        timeout=TIME_LIMIT_S,
        check=True,
    )
    return [json.loads(line) for line in done.stdout.splitlines()]


def made(folder: Path, key: bytes, cipher: str, sessions: tuple[SrtpId, ...] = SESSIONS) -> bytes:
    """A message that GStreamer makes for a key and a cipher."""
    ciphers = [f"{protocol}-cipher={cipher}, {protocol}-auth=hmac-sha1-80" for protocol in ("srtp", "srtcp")]
    caps = f"application/x-srtp, srtp-key=(buffer){key.hex()}, {', '.join(ciphers)}"
    mapped = [[each.policy_no, each.ssrc, each.roc] for each in sessions]
    (answer,) = gstreamer(folder, {"caps": caps, "csb_id": CSB_ID, "sessions": mapped})
    return bytes.fromhex(answer["octets"])


@pytest.mark.parametrize("profile", SrtpProfile)
def test_a_message_of_gstreamer_is_read_to_the_octet(tmp_path: Path, profile: SrtpProfile) -> None:
    cipher, number = CIPHERS[profile]
    key = bytes(range(profile.key_bytes + profile.salt_bytes))
    message = Message.parse(made(tmp_path, key, cipher))
    assert message.header == Header(DataType.PSK_INIT, CSB_ID, Prf.MIKEY_1, SESSIONS, respond=True)
    assert [type(each) for each in message.payloads] == [Timestamp, Rand, SecurityPolicy, Kemac]
    assert message.one(Timestamp).ts_type == TimestampType.NTP_UTC
    assert len(message.one(Rand).rand) == 16
    policy = message.one(SecurityPolicy)
    assert dict(policy.parameters) | {0: bytes([number]), 1: b"\x10"} == dict(policy.parameters)
    with pytest.raises(MikeyError):
        profile_of(policy)  # the key of HMAC has 10 bytes in it, and the tag of GCM no length
    kemac = message.one(Kemac)
    assert (kemac.encr_alg, kemac.mac_alg, kemac.mac) == (EncrAlg.NULL, MacAlg.NULL, b"")
    assert parse_payloads(PayloadType.KEY_DATA, Cursor(kemac.encr_data, "key data")) == (KeyData(KeyType.TEK, key),)
    assert serialize(message.header, message.payloads) == message.octets


def test_a_message_of_gstreamer_is_never_accepted(tmp_path: Path) -> None:
    """It authenticates nobody, and its key can be read."""
    octets = made(tmp_path, bytes(30), "aes-128-icm", (SrtpId(0, 5), SrtpId(0, 0)))
    assert refused(lambda: Line().accept(octets)) is Failure.PAYLOAD
    for at in range(len(octets)):
        with pytest.raises(MikeyError):
            Line().accept(octets[:at] + bytes([octets[at] ^ 1]) + octets[at + 1 :], initiator_uri=CALLER)


def ours(profile: SrtpProfile, kind: KeyType, key: bytes) -> bytes:
    payloads = (
        Timestamp(TimestampType.NTP_UTC, bytes(range(8))),
        Rand(bytes(range(16))),
        policy_for(profile),
        Kemac(EncrAlg.NULL, b"\0" + KeyData(kind, key).serialize(), MacAlg.NULL, b""),
    )
    return serialize(Header(DataType.PSK_INIT, CSB_ID, Prf.MIKEY_1, SESSIONS, respond=True), payloads)


@pytest.mark.parametrize("profile", SrtpProfile)
def test_gstreamer_reads_ours_to_the_octet(tmp_path: Path, profile: SrtpProfile) -> None:
    keys = [(kind, bytes(range(size))) for kind in (KeyType.TGK, KeyType.TEK) for size in SIZES]
    messages = [ours(profile, *each) for each in keys]
    answers = gstreamer(tmp_path, *({"octets": octets.hex()} for octets in messages))
    cipher = CIPHERS[profile][0]
    for (_, key), octets, told in zip(keys, messages, answers, strict=True):
        assert told["octets"] == octets.hex()
        said = dict(re.findall(r"([a-z-]+)=\([a-z]+\)([0-9a-z-]+)", told["caps"]))
        assert said["srtp-key"] == key.hex()
        assert (said["srtp-cipher"], said["srtcp-cipher"]) == (cipher, cipher)
