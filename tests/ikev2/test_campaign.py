"""Fuzzing for a time: the parser, and both ends with a peer that holds the keys and says anything at any moment."""

import random
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from typing import Any

import pytest

from tests.campaign import bent, campaign, rounds
from voice_dpki.errors import MalformedError
from voice_dpki.ikev2.events import Datagram, Path, Trusted, Untrusted
from voice_dpki.ikev2.integrity import IntegrityInfo
from voice_dpki.ikev2.message import Header, Message, first_kind, parse_payloads, serialize_payloads
from voice_dpki.ikev2.payloads import PAYLOADS, Payload
from voice_dpki.ikev2.protect import _seal_one
from voice_dpki.ikev2.registry import PayloadType
from voice_dpki.ikev2.rekey import Lifetimes
from voice_dpki.ikev2.responder import Limits
from voice_dpki.ikev2.standing import MAX_CHILDREN, StandingSa

from .conftest import DEVICE_AT, GATEWAY_AT, CountingRandom, Wire

NewWire = Callable[..., Wire]
STEPS = 40
EXCHANGES = (34, 35, 36, 37)


@pytest.fixture
def spoken(new_wire: NewWire, monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, bytes]]:
    """What the ends say to each other over the life of an SA, decrypted: type of the first payload, and content."""
    contents: list[tuple[int, bytes]] = []

    def listen(message: Any, *arguments: Any, **options: Any) -> tuple[Any, ...]:
        payloads = parse_payloads(*(message, *arguments), **options)
        contents.append((first_kind(payloads), serialize_payloads(payloads)))
        return payloads

    monkeypatch.setattr("voice_dpki.ikev2.protect.parse_payloads", listen)
    wire = new_wire(state_integrity=lambda sa: b"integrity", device={"probe_s": 5.0})
    wire.start().wait(6)
    for end in (wire.device, next(iter(wire.gateway.sas()))):
        end.rekey_child(next(iter(end.children)), wire.now_s)
        wire.run().wait(1)
    wire.device.rekey(wire.now_s)
    wire.run()
    wire.device.current.delete("done", wire.now_s)
    wire.run()
    contents += [(first_kind(message.payloads), message.octets[28:]) for message in _clear(wire)]
    monkeypatch.undo()
    return contents


def _clear(wire: Wire) -> list[Message]:
    return [Message.parse(each.data) for each in wire.seen if each.exchange == "IKE_SA_INIT"]


@campaign
@pytest.mark.timeout(3600)
def test_parser(request: pytest.FixtureRequest, spoken: list[tuple[int, bytes]], new_wire: NewWire) -> None:
    datagrams = [each.data for each in new_wire().start().seen]
    contents = [content for _, content in spoken]
    for chance in rounds(request):
        for _ in range(100):
            try:
                message = Message.parse(bent(chance, chance.choice(datagrams), contents))
                assert Message.parse(message.octets) == message
            except MalformedError:
                pass
            first, content = chance.choice(spoken)
            first = chance.choice((first, first, first, *PAYLOADS))
            try:
                payloads = parse_payloads(first, bent(chance, content, contents))
                _reread(_reread(payloads))
            except MalformedError:
                pass
            with suppress(MalformedError):
                IntegrityInfo.parse(bent(chance, chance.choice(contents)))


def _reread(payloads: tuple[Payload, ...]) -> tuple[Payload, ...]:
    """What is written must parse, and from then on stay; only unknown attributes of transforms are not kept."""
    again = parse_payloads(first_kind(payloads), serialize_payloads(payloads))
    assert serialize_payloads(again) == serialize_payloads(payloads)
    return again


class _Fuzzer:
    """One pair of ends, and what may happen to it."""

    def __init__(self, chance: random.Random, new_wire: NewWire, spoken: list[tuple[int, bytes]]) -> None:
        self.chance, self.spoken = chance, spoken
        self.contents = [content for _, content in spoken]
        lives = Lifetimes(ike_s=chance.choice((None, 50)), child_s=chance.choice((None, 20)))
        options = {
            "lifetimes": lives,
            "probe_s": chance.choice((None, 10)),
            "fragment_bytes": chance.choice((None, 400)),
        }
        self.wire = new_wire(device=options, gateway=options, limits=Limits(cookie_from=3, half_open=5, total=8))
        self.wire.device._random = CountingRandom(str(chance.random()))
        self.wire.verdict = self._verdict
        self.wire.path = self._path

    def run(self) -> None:
        self.wire.start()
        deeds = (self._says, self._says, self._says, self._wants, self._waits, self._throws)
        for _ in range(STEPS):
            self.chance.choice(deeds)()
            self.wire.run()
            assert len(self.wire.gateway) <= 2 * self.wire.gateway.limits.total
            assert all(len(sa.children) <= MAX_CHILDREN + 1 for sa in self._sas())

    def _verdict(self, _claim: object) -> Any:
        return self.chance.choice((*[Trusted()] * 6, Trusted(b"{}"), Untrusted("revoked", "5.4", "revoked"), None))

    def _path(self, datagram: Datagram) -> list[Datagram]:
        match self.chance.randrange(30):
            case 0:
                return []
            case 1:
                return [datagram, datagram]
            case 2:
                data = bent(self.chance, datagram.data, [each.data for each in self.wire.seen[-5:]])
                return [replace(datagram, data=data)] if _parses(data) else []
        return [datagram]

    def _sas(self) -> list[StandingSa]:
        return [*self.wire.devices(), *(kept.sa for kept in self.wire.gateway._sas.values())]

    def _says(self) -> None:
        """A peer says something that it signs for: what is right in form and wrong in place, or bent."""
        at = self.chance.choice([sa for sa in self._sas() if sa.keys is not None] or [None])
        if at is None or at.keys is None:
            return
        first, content = self.chance.choice(self.spoken)
        if self.chance.random() < 0.3:
            content = bent(self.chance, content, self.contents)
        waiting, expected = at._requests.waiting_for, at._responses.expected
        is_response = waiting is not None and self.chance.random() < 0.5
        number = waiting if is_response and waiting is not None else expected
        header = Header(*at.name, self.chance.choice(EXCHANGES), number, not at.is_initiator, is_response)
        cipher = at.keys.cipher(CountingRandom("peer"), of_initiator=not at.is_initiator)
        octets = _seal_one(header, PayloadType.SK, first, b"", content, cipher)
        of_device = at in self.wire.devices()
        target = Path(GATEWAY_AT, DEVICE_AT) if of_device else Path(DEVICE_AT, GATEWAY_AT)
        self.wire.deliver(Datagram(target, octets, "", False, ()))

    def _wants(self) -> None:
        """An end does something of its own."""
        sa, now_s = self.chance.choice(self._sas()), self.wire.now_s
        match self.chance.randrange(5):
            case 0 | 1:
                sa.rekey(now_s)
            case 2 | 3 if sa.children:
                sa.rekey_child(self.chance.choice(list(sa.children)), now_s)
            case 4 if self.chance.random() < 0.2:
                sa.delete("enough", now_s)
            case _:
                sa.probe(now_s)
        for kept in list(self.wire.gateway._sas.values()):
            self.wire.gateway._collect(kept, now_s)

    def _waits(self) -> None:
        self.wire.wait(self.chance.choice((0.5, 3, 12, 40)))

    def _throws(self) -> None:
        """Somebody without the keys sends something."""
        octets = bent(self.chance, self.chance.choice(self.wire.seen).data)
        self.wire.gateway.receive(octets, Path(GATEWAY_AT, DEVICE_AT), self.wire.now_s)


def _parses(octets: bytes) -> bool:
    try:
        Message.parse(octets)
    except MalformedError:
        return False
    return True


@campaign
@pytest.mark.timeout(3600)
def test_both_ends(request: pytest.FixtureRequest, spoken: list[tuple[int, bytes]], new_wire: NewWire) -> None:
    for chance in rounds(request):
        _Fuzzer(chance, new_wire, spoken).run()
