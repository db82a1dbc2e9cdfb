"""The times, sizes and names that IKEv2's ends keep to, each by its own number, and what is told of them."""

from collections.abc import Callable

import pytest

from voice_dpki.ikev2.crypto import IkeKeys
from voice_dpki.ikev2.events import Closed, Established, Failed, Rekeyed
from voice_dpki.ikev2.failures import Failure, IkeError
from voice_dpki.ikev2.message import describe
from voice_dpki.ikev2.payloads import PAYLOADS, Encrypted, EncryptedFragment, Notify, Payload, Unknown
from voice_dpki.ikev2.registry import NotifyType
from voice_dpki.ikev2.rekey import IkeOffer, NewIke, answer_ike
from voice_dpki.ikev2.responder import Limits
from voice_dpki.ikev2.sa import IkeSa, Settings
from voice_dpki.ikev2.standing import _Rival
from voice_dpki.ikev2.states import State

from .conftest import DEVICE, GATEWAY, NOW_S, CountingRandom, Wire
from .test_rekey import at, in_step, settle
from .test_turns import first_answer
from .test_wire import OCTETS

NewWire = Callable[..., Wire]

TOLD = {
    Failure.MALFORMED: 7,
    Failure.VERSION: 5,
    Failure.CRITICAL_PAYLOAD: 1,
    Failure.PAYLOADS: 7,
    Failure.PROPOSAL: 14,
    Failure.KE_GROUP: 17,
    Failure.KE_VALUE: 7,
    Failure.FRAGMENT: 7,
    Failure.CHILD: 38,
}
"""Which notify a peer gets (RFC 7296 §3.10.1); for every other failure AUTHENTICATION_FAILED, 24."""


@pytest.mark.parametrize("failure", Failure)
def test_what_a_peer_is_told(failure: Failure) -> None:
    error = IkeError(failure, "why")
    assert error.notify == TOLD.get(failure, 24)
    assert (error.code, error.step, error.data, str(error)) == (failure.value, "", b"", "why")
    other = IkeError(failure, "why", step="4 IDi", code="own", data=b"\1")
    assert (other.code, other.step, other.data, str(other)) == ("own", "4 IDi", b"\1", "step 4 IDi: why")


def test_limits_unless_told_otherwise() -> None:
    limits = Limits()
    assert (limits.cookie_from, limits.half_open, limits.half_open_per_address) == (100, 1000, 250)
    assert limits.total == 100_000
    settings = Settings()
    assert settings.fragment_bytes == 1280 - 20 - 8, "RFC 7383 §2.5.1"
    assert (settings.probe_s, settings.lifetimes.ike_s, settings.lifetimes.child_s) == (None, None, None)
    assert settings.names() == {40970: "INTEGRITY_INFO", 40971: "LEDGER_ANSWER"}


def test_how_long_an_sa_may_be_half_open(wire: Wire) -> None:
    first_answer(wire)
    assert wire.gateway.timer_s() == NOW_S + 30
    wire.gateway.handle_timer(NOW_S + 29.9)
    assert wire.gateway.half_open == 1
    wire.gateway.handle_timer(NOW_S + 30)
    assert wire.gateway.half_open == 0
    (failed,) = wire.gateway.take_events()
    assert isinstance(failed, Failed)
    assert failed.error.failure is Failure.TIMEOUT


@pytest.mark.parametrize(("age_s", "told"), [(0.9, "N(TEMPORARY_FAILURE)"), (1.0, "SA")])
def test_how_old_an_sa_is_that_the_peer_may_rekey(wire: Wire, age_s: float, told: str) -> None:
    wire.start().wait(age_s)
    wire.device.rekey(wire.now_s)
    wire.run()
    answer = next(each for each in wire.seen if each.exchange == "CREATE_CHILD_SA" and each.is_response)
    assert answer.payloads[0] == told


def test_how_long_a_replaced_sa_waits(wire: Wire) -> None:
    """Its peer has to delete it, and does not."""
    wire.start().wait(2)
    old = wire.device
    at(wire, "gateway").rekey(wire.now_s)
    wire.path = lambda datagram: [datagram] if datagram.exchange == "CREATE_CHILD_SA" else []
    settle(wire)
    assert old.state is State.REPLACED
    assert old.timer_s() == wire.now_s + 30
    old.handle_timer(wire.now_s + 29.9)
    assert old.take_datagrams() == []
    old.handle_timer(wire.now_s + 30)
    assert [each.payloads for each in old.take_datagrams()] == [("D",)]


@pytest.mark.parametrize("end", ["device", "gateway"])
def test_a_rekeyed_sa_is_the_same_peers(new_wire: NewWire, end: str) -> None:
    probing = {"probe_s": 20.0}
    wire = new_wire(device=probing, gateway=probing).start().wait(10)
    before = at(wire, end)
    at(wire, "device").rekey(wire.now_s)
    settle(wire)
    sa = at(wire, end)
    assert (sa.peer_identity, sa._certificate) == (before.peer_identity, before._certificate)
    assert IkeSa.timer_s(sa) == wire.now_s + 20, "it was heard just now"
    sa.delete("over", wire.now_s)
    settle(wire)
    (closed,) = wire.happened(end, Closed)
    assert (closed.identity, closed.sa) == (GATEWAY if end == "device" else DEVICE, sa.name)


@pytest.mark.parametrize("ours", [None, 400])
@pytest.mark.parametrize("theirs", [None, 400])
def test_fragments_are_announced_by_who_takes_them(new_wire: NewWire, ours: int | None, theirs: int | None) -> None:
    """RFC 7383 §2.3: a Responder announces them only to an Initiator that has."""
    wire = new_wire(device={"fragment_bytes": theirs}, gateway={"fragment_bytes": ours}).start()
    announced = ["N(FRAGMENTATION_SUPPORTED)" in each.payloads for each in wire.seen[:2]]
    assert announced == [theirs is not None, ours is not None and theirs is not None]
    assert any(each.fragment[1] > 1 for each in wire.seen) is all(announced)


def test_a_rival_that_is_closed_already_replaces_nothing(wire: Wire) -> None:
    """The peer's own rekeying has failed meanwhile, though its nonces would have won (RFC 7296 §2.8.1)."""
    wire.start().wait(2)
    device = at(wire, "device")
    closed = device._made(_new_ike(wire), created=False, now_s=wire.now_s)
    closed.forget("over")
    device.rekey(wire.now_s)
    device._ike_rival = _Rival(closed, b"\xff" * 33)
    wire.run()
    assert device.current is not closed
    assert len(wire.happened("device", Rekeyed)) == 1
    in_step(wire)


def _new_ike(wire: Wire) -> NewIke:
    keys = at(wire, "device")._keys
    offer = IkeOffer.make(keys.suite, CountingRandom("rival"))
    return answer_ike(offer.payloads(), (keys.suite,), CountingRandom("rival's answer"), keys)[0]


def test_a_rival_child_sa_that_is_gone_replaces_nothing(wire: Wire) -> None:
    wire.start().wait(2)
    device = at(wire, "device")
    (held,) = device.children.values()
    device.rekey_child(held.inbound, wire.now_s)
    gone = device._hold(held.child, created=False, now_s=wire.now_s)
    gone.lowest = b"\xff" * 33
    del device.children[gone.inbound]
    device._child_rival = gone
    wire.run()
    assert held.inbound not in device.children
    in_step(wire)


NAMES = "SA KE IDi IDr CERT CERTREQ AUTH Nonce N(REKEY_SA) D V TSi TSr CP"


def test_payloads_are_named_as_in_the_rfc() -> None:
    """RFC 7296 §1.2."""
    payloads: dict[int, Payload] = {kind: payload for kind, payload, _ in OCTETS.values()}
    assert set(payloads) == set(PAYLOADS)
    assert " ".join(describe(list(payloads.values()))) == NAMES
    others = (
        Encrypted(0, b""), EncryptedFragment(0, 1, 1, b""), Unknown(48, b""), Unknown(200, b""),
        Notify(NotifyType.REKEY_SA), Notify(40970), Notify(9),
    )  # fmt: skip
    assert describe(others, {40970: "OWN"}) == (
        "SK", "SKF", "EAP", "200", "N(REKEY_SA)", "N(OWN)", "N(INVALID_MESSAGE_ID)"
    )  # fmt: skip


def test_no_key_is_shown(wire: Wire) -> None:
    (event,) = wire.start().happened("device", Established)
    keys = wire.device.keys
    assert isinstance(keys, IkeKeys)
    shown = repr(event) + repr(keys) + repr(wire.device.children) + repr(Unknown(200, b"secret"))
    for secret in (keys.sk_d, keys.sk_ei, event.child.keys.initiator[0], b"secret"):
        assert repr(secret)[2:-1] not in shown
