"""tshark, an independent decoder, reads both messages: raw on MIKEY's UDP port, and in the SDP of a call."""

import struct
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.mikey.test_pke import Line as EncryptedTo
from tests.mikey.test_rsa_r import Line as Reverse
from tests.mikey.test_shared import Line as Shared
from tests.mikey.test_update import agreed
from voice_dpki.mikey.certified import Party
from voice_dpki.mikey.failures import Failure, MikeyError
from voice_dpki.mikey.policy import SrtpProfile
from voice_dpki.mikey.registry import Prf
from voice_dpki.mikey.sdp import key_mgmt_value

pytestmark = pytest.mark.peer("tshark")

MIKEY_PORT, SIP_PORT = 2269, 5060
LINKTYPE_RAW_IPV4 = 228


def pcap(packets: list[tuple[int, bytes]]) -> bytes:
    """A capture of UDP datagrams from and to the given port, without checksums."""
    frames = []
    for port, payload in packets:
        udp = struct.pack("!HHHH", port, port, 8 + len(payload), 0) + payload
        ip = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 20 + len(udp), 1, 0, 64, 17, 0, b"\x7f\0\0\1", b"\x7f\0\0\2")
        frames.append(struct.pack("<IIII", 0, 0, len(ip + udp), len(ip + udp)) + ip + udp)
    return struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65_535, LINKTYPE_RAW_IPV4) + b"".join(frames)


def decode(tmp_path: Path, *packets: tuple[int, bytes]) -> str:
    capture = tmp_path / "mikey.pcap"
    capture.write_bytes(pcap(list(packets)))
    command = ["tshark", "-r", str(capture), "-V", "-o", "ip.check_checksum:FALSE"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    return done.stdout


def exchange(call: Any) -> tuple[bytes, bytes]:
    offer = call.offer().message
    return offer, call.accept(offer).message


def sip(start: str, message: bytes) -> bytes:
    body = (
        "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\n"
        f"a=key-mgmt:{key_mgmt_value(message)}\r\nm=audio 40000 RTP/SAVP 0\r\n"
    )
    return (
        f"{start}\r\nVia: SIP/2.0/UDP 127.0.0.1;branch=z9hG4bK1\r\nFrom: <sip:a@a.example>;tag=1\r\n"
        "To: <sip:b@b.example>\r\nCall-ID: 1@a.example\r\nCSeq: 1 INVITE\r\nMax-Forwards: 70\r\n"
        f"Content-Type: application/sdp\r\nContent-Length: {len(body)}\r\n\r\n{body}"
    ).encode()


@pytest.mark.parametrize("profile", SrtpProfile)
def test_raw_messages(new_call: Any, tmp_path: Path, profile: SrtpProfile) -> None:
    text = decode(tmp_path, *((MIKEY_PORT, message) for message in exchange(new_call(profile=profile))))
    assert "alformed" not in text
    for line in (
        "Data Type: D-H init (4)",
        "Data Type: D-H resp (5)",
        "#CS: 2",
        "DH-Group: OAKLEY 5 (0)",
        "ID: sip:+493023125001@a.example",
        "ID: sip:+442079460123@b.example",
        "Signature type: RSA/PSS (1)",
        "uniformResourceIdentifier: sip:+442079460123@b.example",
    ):
        assert line in text, line


def test_messages_in_sip(call: Any, tmp_path: Path) -> None:
    offer, answer = exchange(call)
    packets = [
        (SIP_PORT, sip("INVITE sip:b@b.example SIP/2.0", offer)),
        (SIP_PORT, sip("SIP/2.0 200 OK", answer)),
    ]
    text = decode(tmp_path, *packets)
    assert "alformed" not in text
    assert "Data Type: D-H init (4)" in text
    assert "Data Type: D-H resp (5)" in text


def test_messages_that_encrypt_to_a_certificate(parties: tuple[Party, Party], tmp_path: Path) -> None:
    """tshark stops in silence at CHASH, which comes before PKE; so PKE's last payloads are seen in RSA-R."""
    pke, reverse = EncryptedTo(*parties), Reverse(*parties)
    offers = pke.offer(prf=Prf.MIKEY_1), reverse.offer(prf=Prf.MIKEY_1)
    messages = [offers[0].message, pke.accept(offers[0].message).message]
    messages += [offers[1].message, reverse.accept(offers[1].message).message]
    text = decode(tmp_path, *((MIKEY_PORT, message) for message in messages))
    assert "alformed" not in text
    for line in (
        "Data Type: Public key (2)",
        "Next Payload: Envelope Data (PKE) (2)",
        "Data Type: PK ver msg (3)",
        "Data Type: RSA-R I_MSG (9)",
        "Data Type: RSA-R R_MSG (10)",
        "Encr alg: AES-CM-128 (1)",
        "C: Cache for CSB (2)",
    ):
        assert line in text, line


def test_messages_under_shared_keys_their_updates_and_errors(
    call: Any, parties: tuple[Party, Party], tmp_path: Path
) -> None:
    error = call.responder.error_message(call.offer().message, MikeyError(Failure.POLICY, "none of ours"))
    messages = [error]
    for mode in ("psk", "dhhmac"):
        line = Shared()
        offer = line.offer(mode, prf=Prf.MIKEY_1)
        messages += [offer.message, line.accept(offer.message).message]
        updated = agreed(mode, parties, Prf.MIKEY_1)
        update = updated.offer()
        messages += [update.message, updated.accept(update.message).message]
    text = decode(tmp_path, *((MIKEY_PORT, message) for message in messages))
    assert "alformed" not in text
    for line_, times in (
        ("Data Type: Error (6)", 1),
        ("Data Type: Pre-shared (0)", 2),
        ("Data Type: PSK ver msg (1)", 2),
        ("Data Type: DHHMAC init (7)", 2),
        ("Data Type: DHHMAC resp (8)", 2),
    ):
        assert text.count(line_) == times, line_
    assert text.count("RAND len: 16") == 2, "those of the two first offers"
