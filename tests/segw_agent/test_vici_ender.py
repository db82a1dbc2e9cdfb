"""Ending SAs over VICI: many commands in flight, and never an SA of another charon that has the same number."""

import asyncio
import socket
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from segw_agent import vici_control, vici_ender
from segw_agent.live_log import LiveSa
from segw_agent.policy import Side
from segw_agent.vici_control import MAX_TOGETHER, ViciControl
from segw_agent.vici_ender import IN_FLIGHT, LIST_ALL
from voice_dpki.errors import LocalError
from voice_dpki.ikev2.events import SaName
from voice_dpki.names import CertDigest

vici = pytest.importorskip("vici")
Packet, Message = vici.protocol.Packet, vici.protocol.Message


def live(number: int) -> LiveSa:
    name = SaName(number.to_bytes(8, "big"), b"\1" * 8)
    return LiveSa(name, number, Side.GATEWAY, f"enb{number}", CertDigest(bytes(32)), "V", 2**31, 0.0, (), (), None)


class PlayedCharon:
    """Speaks VICI for charon, on a connection after the other.

    It reads as many commands as it may be given before it answers the first of them, so whoever waits for each
    answer waits for ever.
    """

    def __init__(self, path: Path, *sas: LiveSa) -> None:
        self.numbers = {sa.unique_id: sa.name for sa in sas}
        self.listed: list[str] = []
        """The numbers that were asked for, and "all"."""
        self.ended: list[int] = []
        self.refused = set[int]()
        self.hold = 1
        """Commands to read before the first is answered."""
        self.most = 0
        self._waiting: deque[int] = deque()
        self._server = socket.create_server(str(path), family=socket.AF_UNIX)
        self._open: list[socket.socket] = []
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def restart(self, *sas: LiveSa) -> None:
        """Close all connections, and have these SAs."""
        self._drop()
        self.numbers = {sa.unique_id: sa.name for sa in sas}

    def stop(self) -> None:
        self._server.shutdown(socket.SHUT_RDWR)
        self._drop()
        self._thread.join(60)
        assert not self._thread.is_alive()
        self._server.close()

    def _drop(self) -> None:
        for connection in self._open:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._server.accept()
            except OSError:
                return
            self._open.append(connection)
            self._waiting.clear()
            with connection, suppress(OSError):
                transport = vici.protocol.Transport(connection)
                while True:
                    self._take(transport, transport.receive())

    def _take(self, transport: Any, octets: bytes) -> None:
        kind, size = octets[0], octets[1]
        name, rest = octets[2 : 2 + size].decode(), octets[2 + size :]
        if kind in (Packet.EVENT_REGISTER, Packet.EVENT_UNREGISTER):
            transport.send(bytes([Packet.EVENT_CONFIRM]))
            return
        asked = Message.deserialize(vici.protocol.FiniteStream(rest)) if rest else {}
        if name == "list-sas":
            self._list(transport, int(asked.get("ike-id", 0)))
        elif name == "terminate":
            assert (asked["force"], asked["timeout"]) == (b"yes", b"-1")
            self._waiting.append(int(asked["ike-id"]))
            self.most = max(self.most, len(self._waiting))
            if len(self._waiting) >= self.hold:
                self.hold = 1
                while self._waiting:
                    self._end(transport, self._waiting.popleft())

    def _list(self, transport: Any, wanted: int) -> None:
        self.listed.append(str(wanted) if wanted else "all")
        event = bytes([Packet.EVENT, len("list-sa")]) + b"list-sa"
        for number, name in self.numbers.items():
            if wanted in (0, number):
                sa = {"uniqueid": number, "state": "ESTABLISHED"}
                sa |= {"initiator-spi": name.spi_i.hex(), "responder-spi": name.spi_r.hex()}
                transport.send(event + Message.serialize({"tunnel": sa}))
        transport.send(bytes([Packet.CMD_RESPONSE]) + Message.serialize({}))

    def _end(self, transport: Any, number: int) -> None:
        answer = {"success": "yes", "matches": "1"}
        if number in self.refused:
            answer = {"success": "no", "matches": "1", "errmsg": "not now"}
        elif self.numbers.pop(number, None) is None:
            answer = {"success": "no", "matches": "0", "errmsg": "no matching SAs to terminate found"}
        else:
            self.ended.append(number)
        transport.send(bytes([Packet.CMD_RESPONSE]) + Message.serialize(answer))


@pytest.fixture
def playing(tmp_path: Path) -> Iterator[tuple[PlayedCharon, ViciControl]]:
    charon = PlayedCharon(tmp_path / "vici", *map(live, range(1, 1001)))
    control = ViciControl(tmp_path / "vici")
    yield charon, control
    control.close()
    charon.stop()


async def ended(control: ViciControl, *sas: LiveSa) -> list[Any]:
    async with asyncio.timeout(60):
        return await asyncio.gather(*(control.end(sa, "revoked") for sa in sas), return_exceptions=True)


async def test_many_are_ended_with_one_list_and_many_commands_in_flight(
    playing: tuple[PlayedCharon, ViciControl], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vici_control, "ANSWER_S", 60.0)
    charon, control = playing
    charon.hold = IN_FLIGHT
    sas = [live(number) for number in range(1, 3 * MAX_TOGETHER)]
    assert await ended(control, *sas) == [True] * len(sas)
    assert charon.ended == [sa.unique_id for sa in sas]
    assert charon.listed == ["all"]
    assert charon.most == IN_FLIGHT


async def test_few_are_listed_by_number_and_the_name_decides(playing: tuple[PlayedCharon, ViciControl]) -> None:
    """The agent's number may be out of date, and charon's another SA by now."""
    charon, control = playing
    assert await ended(control, live(1)) == [True]
    assert charon.listed == ["1"]
    assert await ended(control, replace(live(2), unique_id=77)) == [True]
    assert charon.listed == ["1", "77", "all"]
    assert charon.ended == [1, 2]
    assert (
        await ended(control, *(replace(live(5000 + each), unique_id=9) for each in range(LIST_ALL)))
        == [False] * LIST_ALL
    )
    assert charon.ended == [1, 2]


async def test_all_are_not_listed_again_and_again_for_those_that_charon_has_not(
    playing: tuple[PlayedCharon, ViciControl], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Devices that were vouched for and went away before AUTH: the agent forgets them only after a while."""
    monkeypatch.setattr(vici_ender, "LIST_PAUSE_S", 3600.0)
    charon, control = playing
    missing = [live(number) for number in range(5000, 5000 + 3 * MAX_TOGETHER)]
    assert await ended(control, *missing, live(1)) == [False] * len(missing) + [True]
    assert await ended(control, *missing, live(2)) == [False] * len(missing) + [True]
    assert charon.listed == ["all"]
    charon.numbers[7000] = live(7000).name
    assert await ended(control, live(7000)) == [True]
    assert charon.listed == ["all", "7000"]


async def test_after_a_pause_all_are_listed_again(
    playing: tuple[PlayedCharon, ViciControl], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vici_ender, "LIST_PAUSE_S", 0.0)
    charon, control = playing
    missing = [live(number) for number in range(5000, 5000 + LIST_ALL)]
    assert await ended(control, *missing) == [False] * LIST_ALL
    charon.numbers |= {sa.unique_id: sa.name for sa in missing}
    async with asyncio.timeout(60):
        while await ended(control, *missing) != [True] * LIST_ALL:
            await asyncio.sleep(0.01)


async def test_numbers_of_a_charon_that_was_started_again_end_nothing(
    playing: tuple[PlayedCharon, ViciControl],
) -> None:
    charon, control = playing
    assert await ended(control, *map(live, range(1, 10))) == [True] * 9
    others = [replace(live(5000 + number), unique_id=number) for number in range(10, 20)]
    charon.restart(*others, live(20))
    assert await ended(control, *map(live, range(10, 21))) == [False] * 10 + [True]
    assert charon.ended == [*range(1, 10), 20]


async def test_one_that_charon_refuses_to_end_holds_up_no_other(
    playing: tuple[PlayedCharon, ViciControl],
) -> None:
    charon, control = playing
    assert await ended(control, *map(live, range(1, 10))) == [True] * 9
    charon.refused = {15}
    del charon.numbers[12]
    found = await ended(control, *map(live, range(10, 60)))
    assert found[2] is False
    assert isinstance(found[5], LocalError)
    assert "charon refuses: not now" in str(found[5])
    assert [each for each in found if each is not True] == [found[2], found[5]]


async def test_what_charon_did_before_it_went_is_known(
    playing: tuple[PlayedCharon, ViciControl], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vici_control, "ANSWER_S", 0.2)
    charon, control = playing
    charon.hold = 10**6
    found = await ended(control, *map(live, range(1, 10)))
    assert all(isinstance(each, LocalError) and "charon does not answer" in str(each) for each in found)
    charon.hold = 1
    assert await ended(control, *map(live, range(1, 10))) == [True] * 9


async def test_who_does_not_wait_any_more_is_not_told(playing: tuple[PlayedCharon, ViciControl]) -> None:
    charon, control = playing
    leaving = asyncio.create_task(control.end(live(1), "revoked"))
    await asyncio.sleep(0)
    leaving.cancel()
    assert await ended(control, live(2)) == [True]
    assert charon.ended == [1, 2]
