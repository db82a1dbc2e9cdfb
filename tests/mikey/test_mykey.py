"""PSK and DHHMAC in exchanges with the crate mykey, an independent implementation, built where cargo is.

It reads no General extensions, and derives another authentication key; so messages are made here by the parts that
a party of ours makes them of. Every run has recorded exchanges (tests/vectors/mikey/PROVENANCE.md).
"""

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.mikey.conftest import CALLEE, CALLER, NOW_S
from tests.mikey.test_shared import PROFILE, LongKeys, refused
from voice_dpki.codec.ntp import ntp_time
from voice_dpki.effects import SystemRandom
from voice_dpki.mikey import dh
from voice_dpki.mikey.failures import Failure
from voice_dpki.mikey.keys import KeyedPrf, Label, StreamKey
from voice_dpki.mikey.message import Header, Message, SrtpId
from voice_dpki.mikey.payloads import DhValue, Identity, KeyData, Payload, Rand, Timestamp
from voice_dpki.mikey.policy import policy_for
from voice_dpki.mikey.registry import DataType, DhGroup, EncrAlg, KeyType, Prf
from voice_dpki.mikey.replay import timestamp_at
from voice_dpki.mikey.shared import open_tgk
from voice_dpki.mikey.steps import identity_of
from voice_dpki.mikey.transport import parties_of

SOURCE = Path(__file__).with_name("mykey_peer")
BUILT = Path(__file__).parents[2] / "build" / "mykey"
"""Kept, so that only the first run builds all."""

BUILD_S, CSB_ID, SSRC = 1500, 0x11223344, 0x55667788
SESSIONS = (SrtpId(0, SSRC), SrtpId(0, 0))
RANDOM = SystemRandom()

SIZES = [16, 24, 31, 32, 33, 64]
"""Lengths of pre-shared keys, and of TGKs of ours."""

pytestmark = pytest.mark.long


class Mykey:
    """The running program of tests/mikey/mykey_peer."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self._process = process

    def ask(self, *words: object) -> list[str]:
        """Send octets as hexadecimal and numbers as they are; return the words of the answer."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        told = " ".join(each.hex() if isinstance(each, bytes) else str(each) for each in words)
        self._process.stdin.write(f"{told}\n")
        self._process.stdin.flush()
        return self._process.stdout.readline().split()


@pytest.fixture(scope="module")
def mykey(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mykey]:
    cargo = shutil.which("cargo", path=f"{os.environ.get('PATH', os.defpath)}:{Path.home()}/.cargo/bin")
    if cargo is None:
        pytest.skip("cargo is missing; install it: apt-get install cargo")
    folder = shutil.copytree(SOURCE, tmp_path_factory.mktemp("mykey") / "peer")
    for options in (["--offline"], []):  # crates that were fetched before need no network
        command = [cargo, "build", "--quiet", "--target-dir", str(BUILT), *options]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=BUILD_S, check=False)
        if done.returncode == 0:
            break
    else:
        pytest.skip(f"mykey cannot be built here: {done.stderr.strip()[-300:]}")
    program = BUILT / "debug" / "mykey-peer"
    with subprocess.Popen([program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        yield Mykey(process)


def keys_of(message: Message, psk: bytes, rand: bytes | None = None) -> LongKeys:
    """What a shared key gives for a message's own MAC and encryption; an answer has the RAND of its offer."""
    return LongKeys(psk, Prf.MIKEY_1, message.header.csb_id, rand or message.one(Rand).rand)


def srtp_of(tgk: bytes, offer: Message) -> str:
    """Master key and salt of crypto session 0."""
    label = Label(0, offer.header.csb_id, offer.one(Rand).rand)
    key = StreamKey.from_tgk(KeyedPrf(Prf.MIKEY_1, tgk), label, PROFILE, 0)
    return (key.tek + key.salt).hex()


def offered(kind: DataType, psk: bytes, *payloads: Payload) -> tuple[LongKeys, Header, tuple[Payload, ...]]:
    """The beginning of an offer of ours: keys, header, and what comes before KEMAC."""
    header = Header(kind, CSB_ID, Prf.MIKEY_1, SESSIONS, respond=True)
    rand = RANDOM.token(16)
    begin = (
        timestamp_at(ntp_time(NOW_S)),
        Rand(rand),
        identity_of(CALLER),
        identity_of(CALLEE),
        policy_for(PROFILE),
    )
    return LongKeys(psk, Prf.MIKEY_1, CSB_ID, rand), header, (*begin, *payloads)


def psk_offer(psk: bytes, tgk: bytes) -> bytes:
    keys, header, payloads = offered(DataType.PSK_INIT, psk)
    timestamp = payloads[0]
    assert isinstance(timestamp, Timestamp)
    data = keys.crypt(b"\0" + KeyData(KeyType.TGK, tgk).serialize(), timestamp)
    return keys.sealed(header, payloads, keys.encr_alg, data)


def idi_of(offer: Message) -> bytes:
    """The Initiator's name, which V covers; mykey sends none."""
    return next((each.data for each in offer.all(Identity)), b"")


@pytest.mark.parametrize("size", SIZES)
def test_mykey_takes_the_key_that_we_transport(mykey: Mykey, size: int) -> None:
    for psk, tgk in ((RANDOM.token(size), RANDOM.token(32)), (RANDOM.token(32), RANDOM.token(size))):
        octets = psk_offer(psk, tgk)
        offer = Message.parse(octets)
        answer, theirs, keys = mykey.ask("psk-answer", octets, psk)
        assert (theirs, keys) == (tgk.hex(), srtp_of(tgk, offer))
        verification = Message.parse(bytes.fromhex(answer))
        parties = parties_of(idi_of(offer), b"", offer.one(Timestamp))
        keys_of(verification, psk, offer.one(Rand).rand).check_verification(verification, parties)


@pytest.mark.parametrize("size", SIZES)
def test_we_take_the_key_that_mykey_transports(mykey: Mykey, size: int) -> None:
    psk = RANDOM.token(size)
    octets, tgk, keys = mykey.ask("psk-offer", CSB_ID, SSRC, psk)
    offer = Message.parse(bytes.fromhex(octets))
    ours = keys_of(offer, psk)
    assert open_tgk(ours.check_kemac(offer), ours, offer.one(Timestamp)).hex() == tgk
    assert srtp_of(bytes.fromhex(tgk), offer) == keys
    header = Header(DataType.PSK_RESP, CSB_ID, Prf.MIKEY_1, offer.header.sessions)
    parties = parties_of(b"", b"", offer.one(Timestamp))
    answer = ours.verified(header, (offer.one(Timestamp),), parties)
    assert mykey.ask("psk-confirm", offer.octets, answer, psk) == ["ok"]
    assert mykey.ask("psk-confirm", offer.octets, answer, psk[::-1])[0] == "refused"


@pytest.mark.parametrize("size", SIZES)
def test_both_agree_by_dhhmac_whoever_offers(mykey: Mykey, size: int) -> None:
    psk = RANDOM.token(size)
    pair = dh.new_pair(RANDOM)
    ours = DhValue(DhGroup.OAKLEY_5, pair.public_value)
    keys, header, payloads = offered(DataType.DHHMAC_INIT, psk, ours)
    offer = Message.parse(keys.sealed(header, payloads, EncrAlg.NULL, b""))
    octets, told = mykey.ask("dhhmac-answer", offer.octets, psk)
    answer = Message.parse(bytes.fromhex(octets))
    keys.check_kemac(answer)
    assert srtp_of(dh.shared_value(pair.secret, answer.one(DhValue).value), offer) == told

    offer = Message.parse(bytes.fromhex(mykey.ask("dhhmac-offer", CSB_ID, SSRC, psk)[0]))
    keys = keys_of(offer, psk)
    keys.check_kemac(offer)
    header = Header(DataType.DHHMAC_RESP, CSB_ID, Prf.MIKEY_1, offer.header.sessions)
    sealed = keys.sealed(header, (offer.one(Timestamp), ours), EncrAlg.NULL, b"")
    assert mykey.ask("dhhmac-confirm", sealed) == [
        srtp_of(dh.shared_value(pair.secret, offer.one(DhValue).value), offer)
    ]


def test_a_changed_byte_is_refused_by_both(mykey: Mykey) -> None:
    psk = RANDOM.token(32)
    octets = psk_offer(psk, RANDOM.token(32))
    theirs = bytes.fromhex(mykey.ask("psk-offer", CSB_ID, SSRC, psk)[0])
    for at in range(len(octets)):
        changed = octets[:at] + bytes([octets[at] ^ 0x5A]) + octets[at + 1 :]
        assert mykey.ask("psk-answer", changed, psk)[0] == "refused", f"byte {at}"
    for at in range(len(theirs) - 20, len(theirs)):
        offer = Message.parse(theirs[:at] + bytes([theirs[at] ^ 0x5A]) + theirs[at + 1 :])
        assert refused(lambda offer=offer: keys_of(offer, psk).check_kemac(offer)) is Failure.MAC  # type: ignore[misc]
