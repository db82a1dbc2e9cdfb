"""strongSwan's charon on the other side: stock, with our certificate loaded into it, as it has to have."""

import asyncio
import pathlib
import socket
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import replace
from typing import Any

import pytest

from segw_agent.attachment.events import IkeEvent
from segw_agent.attachment.network import Testbed
from segw_agent.attachment.site import DEVICE_NAME, GATEWAY_NAME, OPERATOR, VENDOR
from segw_agent.live_log import LiveSa
from segw_agent.policy import Side
from segw_agent.vici_control import ViciControl, _connect
from tests.present import present
from voice_dpki.effects import SystemRandom
from voice_dpki.errors import LocalError
from voice_dpki.ikev2.events import Address, Path, SaName
from voice_dpki.ikev2.identity import fqdn
from voice_dpki.ikev2.initiator import Initiator
from voice_dpki.ikev2.message import Message
from voice_dpki.ikev2.sa import Party, Settings
from voice_dpki.ledger.records import CertStatus
from voice_dpki.names import CertDigest
from voice_dpki.stage.events import NoteEvent, ResultEvent
from voice_dpki.x509.keys import from_pem

from .conftest import Charon, wait_until

pytestmark = [pytest.mark.peer("swanctl"), pytest.mark.netns]

StartCharon = Callable[..., Charon]


def started(tmp_path: pathlib.Path, host: str, which: str) -> Testbed:
    testbed = Testbed(tmp_path / "logs", hosts={which: host})
    if testbed.addresses["gateway"].port != 500:
        testbed.stop()
        pytest.skip("port 500 is not ours")
    testbed.start_ledger()
    return testbed


def device_attaches(testbed: Testbed, charon: Charon, device: Any, **options: Any) -> Mapping[str, Any]:
    """Run the Python device against charon, and return its result."""
    changes = {"gateway": {"host": charon.host}, **options}
    running = testbed.start_device(device, asks=True, **changes)
    running.wait_end(30)
    return next(event.data for event in running.trace.events if isinstance(event, ResultEvent))


def leave_half_open(charon: Charon, credential: Any) -> None:
    """Send IKE_SA_INIT and nothing more, so that charon demands a cookie of the next."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind((charon.peer, 0))
        path = Path(Address(*sock.getsockname()), Address(charon.host, 500))
        party = Party(credential.der, fqdn(credential.name), from_pem(credential.key.read_bytes()))
        initiator = Initiator(party, Settings(), SystemRandom(), path)
        initiator.start(time.time())
        for _ in range(2):  # the first one may be of another group than charon wants
            for datagram in initiator.take_datagrams():
                if datagram.exchange == "IKE_SA_INIT":
                    sock.sendto(datagram.data, tuple(path.remote))
                    initiator.receive(Message.parse(sock.recv(4096)), path, time.time())


@pytest.mark.parametrize(
    ("rsa", "ike", "esp", "options"),
    [
        (False, "aes128gcm16-prfsha256-ecp256", "aes128gcm16", ""),
        (True, "aes256-sha256-ecp256", "aes256-sha256", ""),
        (True, "aes128gcm16-prfsha256-ecp256", "aes128gcm16", "rsa_pss = yes\n fragment_size = 600"),
        (False, "aes256gcm16-prfsha256-ecp384", "aes256gcm16", "cookie_threshold = 1"),
    ],
    ids=["ecdsa-gcm", "rsa-cbc", "rsa-pss-fragments", "other-group-cookie"],
)
def test_python_device_to_strongswan_gateway(
    charon: StartCharon, tmp_path: pathlib.Path, rsa: bool, ike: str, esp: str, options: str
) -> None:
    gateway = charon(options)
    with started(tmp_path, gateway.peer, "device") as testbed:
        segw = testbed.site.credential("segw", GATEWAY_NAME, OPERATOR, rsa=rsa)
        enb = testbed.site.credential("enb1", DEVICE_NAME, VENDOR, rsa=rsa)
        testbed.record(segw, enb)
        gateway.load(segw, enb)
        gateway.vici(lambda session: session.load_pool({"pool": {"addrs": "10.9.0.0/24"}}))
        gateway.connect(segw, proposals=[ike], esp=esp, pools=["pool"], child={"local_ts": ["10.8.0.0/16"]})
        if "cookie" in options:
            leave_half_open(gateway, segw)
        result = device_attaches(testbed, gateway, enb)
        assert result["attached"], (result, gateway.log.read_text()[-3000:])
        assert result["address"] == "10.9.0.1"
        wait_until(lambda: not gateway.sas(), "the device has deleted its SA")
        if "fragment" in options:
            assert "splitting IKE message" in gateway.log.read_text()
        if "cookie" in options:
            sent = [event for event in testbed.events() if isinstance(event, IkeEvent)]
            assert any("N(COOKIE)" in event.payloads for event in sent)

        testbed.change(segw, CertStatus.REVOKED, "keyCompromise")
        result = device_attaches(testbed, gateway, enb)
        assert not result["attached"]
        assert (result["code"], result["step"]) == ("revoked", "8 SeGW certificate")
        wait_until(lambda: not gateway.sas(), "the gateway was told")


@pytest.mark.parametrize(
    ("rsa", "ike", "esp"),
    [
        (False, "aes128gcm16-prfsha256-ecp256", "aes128gcm16"),
        (True, "aes256-sha256-ecp256", "aes256-sha256"),
        (False, "aes256-sha256-ecp384", "aes128gcm16"),
    ],
)
def test_strongswan_device_to_python_gateway(
    charon: StartCharon, tmp_path: pathlib.Path, rsa: bool, ike: str, esp: str
) -> None:
    device = charon("fragment_size = 700")
    with started(tmp_path, device.peer, "gateway") as testbed:
        segw = testbed.site.credential("segw", GATEWAY_NAME, OPERATOR, rsa=rsa)
        enb = testbed.site.credential("enb1", DEVICE_NAME, VENDOR, rsa=rsa)
        testbed.record(segw, enb)
        testbed.start_gateway(segw, integrity="check-if-present")
        device.load(enb, segw)
        device.connect(
            enb,
            proposals=[ike],
            esp=esp,
            remote_addrs=[device.peer],
            vips=["0.0.0.0"],
            child={"remote_ts": ["10.8.0.0/16"]},
        )
        assert device.initiate(), device.log.read_text()[-3000:]
        (sa,) = device.sas()
        assert sa["local-vips"] == [b"10.9.0.1"]
        assert len(sa["child-sas"]) == 1

        testbed.change(enb, CertStatus.REVOKED, "keyCompromise")
        wait_until(lambda: not device.sas(), "the live SA has ended")
        assert not device.initiate()
        assert "AUTH_FAILED" in device.log.read_text()
        texts = [event.text for event in testbed.events() if isinstance(event, NoteEvent)]
        assert "5.4 certificate: the certificate was revoked on the ledger" in texts


async def test_vici_ends_what_it_is_told(charon: StartCharon, tmp_path: pathlib.Path) -> None:
    device = charon()
    with await asyncio.to_thread(started, tmp_path, device.peer, "gateway") as testbed:
        await asyncio.to_thread(attach_strongswan, testbed, device)
        control = ViciControl(device.socket)
        (name,) = present(await control.standing())
        live = LiveSa(name, 1, Side.DEVICE, GATEWAY_NAME, CertDigest(bytes(32)), OPERATOR, 2**31, 0.0, (), (), None)
        stranger = SaName(bytes(8), bytes(8))
        for other in (replace(live, name=stranger, unique_id=77), replace(live, name=stranger)):
            assert not await control.end(other, "revoked")
        heard = Heard()
        following = asyncio.create_task(control.follow(heard))
        await control.listening()
        assert await control.end(replace(live, unique_id=77), "revoked")
        assert await control.standing() == frozenset()
        kept = present(control._ender).connection
        kept.shutdown(socket.SHUT_RDWR)  # as charon does that is started again
        assert not await control.end(live, "revoked")
        fresh = present(control._ender).connection
        assert fresh is not kept
        assert not await control.end(live, "revoked")
        assert present(control._ender).connection is fresh
        await asyncio.to_thread(wait_until, lambda: heard.gone == [name], "the SA's end is heard of")
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)
        control.close()
        assert fresh.fileno() == -1


def test_room_in_charons_backlog_is_waited_for(tmp_path: pathlib.Path) -> None:
    """An SA that is to be ended must not stand until the next attempt, because many others end, too."""
    path = tmp_path / "vici"
    with socket.socket(socket.AF_UNIX) as server, ExitStack() as opened:
        server.bind(str(path))
        server.listen(0)
        for _ in range(2):
            full = opened.enter_context(socket.socket(socket.AF_UNIX))
            full.settimeout(60)
            with suppress(BlockingIOError):
                full.connect(str(path))
        with pytest.raises(BlockingIOError):
            _connect(full, path, timeout_s=0.05)
        with ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(_connect, full, path, timeout_s=60)
            opened.enter_context(server.accept()[0])
            waiting.result(60)


class Heard:
    def __init__(self) -> None:
        self.gone: list[SaName] = []

    def established(self, name: SaName) -> None:
        raise AssertionError

    def remove(self, name: SaName) -> None:
        self.gone.append(name)

    def renamed(self, unique_id: int, new: SaName, new_id: int) -> None:
        raise AssertionError

    def reconcile(self, standing: object) -> None:
        pass


def attach_strongswan(testbed: Testbed, device: Charon) -> None:
    segw = testbed.site.credential("segw", GATEWAY_NAME, OPERATOR)
    enb = testbed.site.credential("enb1", DEVICE_NAME, VENDOR)
    testbed.record(segw, enb)
    testbed.start_gateway(segw, integrity="check-if-present")
    device.load(enb, segw)
    device.connect(enb, remote_addrs=[device.peer], vips=["0.0.0.0"], child={"remote_ts": ["10.8.0.0/16"]})
    assert device.initiate(), device.log.read_text()[-3000:]


async def test_no_charon_to_tell(tmp_path: pathlib.Path) -> None:
    with pytest.raises(LocalError, match="charon does not answer"):
        await ViciControl(tmp_path / "nothing").standing()


def confirm_events_and_go(server: socket.socket) -> None:
    """Play a charon that confirms two registrations of events, and is gone when its SAs are listed."""
    with server, server.accept()[0] as heard:
        for _ in range(2):
            heard.recv(int.from_bytes(heard.recv(4, socket.MSG_WAITALL), "big"), socket.MSG_WAITALL)
            heard.sendall(b"\0\0\0\1\5")
        server.accept()[0].close()


async def test_charon_that_goes_while_its_events_are_heard(
    tmp_path: pathlib.Path, caplog: pytest.LogCaptureFixture
) -> None:
    """What is left to undo on its connection fails, too, and is no error beside the log."""
    server = socket.socket(socket.AF_UNIX)
    server.bind(str(tmp_path / "vici"))
    server.listen()
    playing = asyncio.create_task(asyncio.to_thread(confirm_events_and_go, server))
    control = ViciControl(tmp_path / "vici")
    following = asyncio.create_task(control.follow(Heard()))
    async with asyncio.timeout(60):
        await control.listening()
        await playing
    following.cancel()
    await asyncio.gather(following, return_exceptions=True)
    assert caplog.text.count("charon cannot be listened to") == 1


def test_strongswan_device_that_nobody_recorded(charon: StartCharon, tmp_path: pathlib.Path) -> None:
    device = charon()
    with started(tmp_path, device.peer, "gateway") as testbed:
        segw = testbed.site.credential("segw", GATEWAY_NAME, OPERATOR)
        enb = testbed.site.credential("enb1", DEVICE_NAME, VENDOR)
        testbed.record(segw)
        testbed.start_gateway(segw, integrity="check-if-present")
        device.load(enb, segw)
        device.connect(enb, remote_addrs=[device.peer], vips=["0.0.0.0"], child={"remote_ts": ["10.8.0.0/16"]})
        assert not device.initiate()
        assert "AUTH_FAILED" in device.log.read_text()
