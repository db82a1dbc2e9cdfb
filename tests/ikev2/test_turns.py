"""What each end does with a first request, an answer or a verdict that is out of turn, and how it counts that."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from tests.certificates import with_usage
from voice_dpki.ikev2.events import Address, Closed, Datagram, Failed, Path, Trusted, Untrusted
from voice_dpki.ikev2.failures import Failure
from voice_dpki.ikev2.identity import fqdn
from voice_dpki.ikev2.message import Header, Message, serialize
from voice_dpki.ikev2.payloads import Delete, Notify, Unknown
from voice_dpki.ikev2.registry import ExchangeType, Group, NotifyType, Protocol
from voice_dpki.ikev2.responder import Limits, ResponderSa
from voice_dpki.ikev2.sa import Party
from voice_dpki.ikev2.states import State
from voice_dpki.x509.keys import LocalSigner

from .conftest import DEVICE, DEVICE_AT, GATEWAY, GATEWAY_AT, NOW_S, Wire, new_device, party

NewWire = Callable[..., Wire]
INBOUND = Path(GATEWAY_AT, DEVICE_AT)
"""How the gateway sees what a device sends."""


def first_request(wire: Wire) -> Datagram:
    wire.device.start(wire.now_s)
    (request,) = wire.device.take_datagrams()
    return request


def first_answer(wire: Wire) -> Datagram:
    wire.deliver(first_request(wire))
    (answer,) = wire.gateway.take_datagrams()
    return answer


def notify_answer(wire: Wire, notify: Notify) -> None:
    """Let an answer to IKE_SA_INIT with one notify reach the device."""
    header = Header(wire.device.name.spi_i, bytes(8), ExchangeType.IKE_SA_INIT, 0, False, True)
    wire.device.receive(Message.parse(serialize(header, (notify,))), wire.device.path, wire.now_s)


def half_open(wire: Wire) -> ResponderSa:
    """Let the gateway have one half-open SA, whose device waits for nothing."""
    wire.deliver(first_answer(wire))
    wire.device.take_datagrams()
    wire.device._requests.answered()
    wire.device._requests.next_id = 1
    (sa,) = wire.gateway._inits.values()
    return sa


# --- the first exchange -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "change",
    [
        {"is_response": False},
        {"from_initiator": True},
        {"exchange": 35},
        {"exchange": 37},
        {"message_id": 1},
        {"major": 1},
        {"major": 3},
        {"spi_i": bytes(8)},
        {"spi_i": b"\xff" * 8},
        {"remote": Address("127.0.0.9", 500)},
        {"remote": Address(GATEWAY_AT.host, 501)},
    ],
)
def test_what_does_not_answer_the_first_request(wire: Wire, change: dict[str, Any]) -> None:
    """RFC 7296 §3.1, §2.11. It is the gateway's own answer but for one thing."""
    message = Message.parse(first_answer(wire).data)
    path = wire.device.path
    if "remote" in change:
        path = Path(path.local, change["remote"])
    else:
        message = replace(message, header=replace(message.header, **change))
    device = wire.device
    device.receive(message, path, wire.now_s)
    assert (device.state, device.dropped, device._refused) == (State.INIT, 1, None)
    assert (device._requests.waiting_for, device.take_datagrams()) == (0, [])


def test_a_demand_for_another_group_comes_twice(wire: Wire) -> None:
    """The second one is a duplicate of the first, and refuses nothing."""
    first_request(wire)
    demand = Notify(NotifyType.INVALID_KE_PAYLOAD, b"\0\x14")
    notify_answer(wire, demand)
    (again,) = wire.device.take_datagrams()
    assert "KE" in again.payloads
    assert (wire.device._group, wire.device.dropped) == (Group.ECP_384, 0)
    notify_answer(wire, demand)
    assert (wire.device.take_datagrams(), wire.device.dropped, wire.device._refused) == ([], 1, None)


@pytest.mark.parametrize("data", [b"\0\x13", b"\0\x15", b"\0\x12", b"\0\0", b"", b"\x14\0", b"\xff\xff"])
def test_a_group_that_was_not_offered_or_is_in_use(wire: Wire, data: bytes) -> None:
    """RFC 7296 §1.2, §3.10.1: two octets, of another group among those that were offered."""
    first_request(wire)
    notify_answer(wire, Notify(NotifyType.INVALID_KE_PAYLOAD, data))
    refused = wire.device._refused
    assert refused is not None
    assert refused.failure is Failure.KE_GROUP
    assert wire.device.take_datagrams() == []


def test_demands_without_end_are_refused(wire: Wire) -> None:
    first_request(wire)
    for number in range(3):
        notify_answer(wire, Notify(NotifyType.COOKIE, b"%d" % number))
        assert len(wire.device.take_datagrams()) == 1
    notify_answer(wire, Notify(NotifyType.COOKIE, b"3"))
    assert wire.device.take_datagrams() == []
    assert wire.device._refused is not None
    assert wire.device._refused.failure is Failure.BUSY


@pytest.mark.parametrize(
    "change",
    [
        {"major": 1},
        {"major": 0},
        {"spi_r": b"\0" * 7 + b"\1"},
        {"from_initiator": False},
        {"spi_i": bytes(8)},
        {"is_response": True},
        {"message_id": 1},
        {"exchange": 37},
        {"exchange": 35},
    ],
)
def test_what_is_no_first_request(wire: Wire, change: dict[str, Any]) -> None:
    message = Message.parse(first_request(wire).data)
    header = replace(message.header, **change)
    wire.gateway.receive(serialize(header, message.payloads), INBOUND, wire.now_s)
    assert (len(wire.gateway), wire.gateway.dropped, wire.gateway.take_datagrams()) == (0, 1, [])


def test_bytes_that_are_no_message_are_counted(wire: Wire) -> None:
    wire.gateway.receive(b"", INBOUND, wire.now_s)
    wire.gateway.receive(b"x" * 28, INBOUND, wire.now_s)
    assert wire.gateway.dropped == 2


def test_a_first_request_that_comes_again_is_known_by_its_octets(wire: Wire) -> None:
    request = first_request(wire)
    wire.deliver(request)
    (first,) = wire.gateway.take_datagrams()
    wire.deliver(replace(request, data=bytes(bytearray(request.data))))
    (again,) = wire.gateway.take_datagrams()
    assert (again.data, again.repeated, len(wire.gateway)) == (first.data, True, 1)
    # Another request under the same SPI from the same place is none of this SA.
    other = request.data[:-1] + bytes((request.data[-1] ^ 1,))
    wire.deliver(replace(request, data=other))
    assert (wire.gateway.take_datagrams(), wire.gateway.dropped, len(wire.gateway)) == ([], 1, 1)


@pytest.mark.parametrize("limits", [Limits(half_open=1), Limits(total=1), Limits(half_open_per_address=1)])
def test_a_gateway_that_is_full_counts_whom_it_leaves_out(
    new_wire: NewWire, keys: dict[str, LocalSigner], limits: Limits
) -> None:
    wire = new_wire(limits=limits)
    first_answer(wire)
    wire.device = new_device(party(DEVICE, keys["device"]), seed="second")
    wire.deliver(first_request(wire))
    assert (len(wire.gateway), wire.gateway.dropped, wire.gateway.take_datagrams()) == (1, 1, [])


def test_cookies_are_demanded_of_all_that_come_after(new_wire: NewWire, keys: dict[str, LocalSigner]) -> None:
    wire = new_wire(limits=Limits(cookie_from=1))
    asked = []
    for number in range(4):
        wire.device = new_device(party(DEVICE, keys["device"]), seed=f"device {number}")
        answer = first_answer(wire)
        asked.append(answer.payloads == ("N(COOKIE)",))
        if asked[-1]:
            wire.deliver(answer)
            (again,) = wire.device.take_datagrams()
            wire.deliver(again)
            wire.gateway.take_datagrams()
        assert wire.gateway.half_open == number + 1
    assert asked == [False, True, True, True]


# --- IKE_AUTH -----------------------------------------------------------------------------------------------------


def bent_gateway(what: str, keys: dict[str, LocalSigner]) -> Party:
    """A gateway whose IKE_AUTH no device accepts."""
    own = party(GATEWAY, keys["gateway"])
    if what == "signature":
        object.__setattr__(own, "signer", keys["other"])
    elif what == "identity":
        object.__setattr__(own, "identification", fqdn("other.example"))
    else:
        object.__setattr__(own, "certificate", with_usage(own.certificate, keys["gateway"], "key_agreement"))
    return own


@pytest.mark.parametrize("failure", [Failure.SIGNATURE, Failure.IDENTITY, Failure.CERTIFICATE])
def test_a_device_tells_the_gateway_that_it_refuses_it(
    wire: Wire, keys: dict[str, LocalSigner], failure: Failure
) -> None:
    """RFC 7296 §2.21.2: for the Responder the SA stands already."""
    wire.gateway.party = bent_gateway(failure.value, keys)
    wire.start()
    (failed,) = wire.happened("device", Failed)
    assert failed.error.failure is failure
    assert [each.payloads for each in wire.seen[4:]] == [("N(AUTHENTICATION_FAILED)",), ()]
    assert wire.exchanges()[4:] == ["INFORMATIONAL request", "INFORMATIONAL response"]
    assert [each.reason for each in wire.happened("gateway", Closed)] == ["the peer refused our certificate"]
    assert wire.device.state is State.CLOSED


def test_a_device_that_is_refused_says_no_more(wire: Wire) -> None:
    wire.verdict = lambda _claim: Untrusted("revoked", "5.4 certificate", "the certificate was revoked")
    wire.start()
    assert len(wire.seen) == 4
    assert wire.device.state is State.CLOSED
    assert wire.happened("device", Failed)[0].error.failure is Failure.PEER_REFUSED


@pytest.mark.parametrize(("end", "step"), [("device", "8 SeGW certificate"), ("gateway", "5.4 certificate")])
def test_a_verdict_that_does_not_come(wire: Wire, end: str, step: str) -> None:
    judged_by = GATEWAY if end == "device" else DEVICE
    wire.verdict = lambda claim: None if claim.identity == judged_by else Trusted()
    wire.start()
    waiting = wire.device if end == "device" else next(iter(wire.gateway._inits.values()))
    assert waiting._judging_until_s == NOW_S + 10
    wire.wait(9.9)
    assert not wire.happened(end, Failed)
    wire.wait(0.1)
    (failed,) = wire.happened(end, Failed)
    assert (failed.error.code, failed.error.step) == ("no-verdict", step)


@pytest.mark.parametrize("state", [state for state in State if state is not State.JUDGING])
@pytest.mark.parametrize("verdict", [Trusted(), Untrusted("revoked", "5.4 certificate", "it was revoked")])
def test_a_verdict_that_nobody_waits_for(wire: Wire, state: State, verdict: Any) -> None:
    wire.start()
    (gateways,) = wire.gateway.sas()
    for sa in (wire.device, gateways):
        sa.state = state
        sa.judge(verdict, wire.now_s)
        assert (sa.state, sa.take_datagrams(), sa.take_events()) == (state, [], [])


def test_a_critical_payload_in_ike_auth_ends_the_attempt(wire: Wire) -> None:
    """RFC 7296 §2.5, §2.21.2: nothing stands yet that could survive it."""
    half_open(wire)
    wire.device._ask(ExchangeType.IKE_AUTH, (Unknown(200, b"what", True),), NOW_S)
    for each in wire.device.take_datagrams():
        wire.deliver(each)
    (answer,) = wire.gateway.take_datagrams()
    assert answer.payloads == ("N(UNSUPPORTED_CRITICAL_PAYLOAD)",)
    (failed,) = wire.gateway.take_events()
    assert isinstance(failed, Failed)
    assert failed.error.failure is Failure.CRITICAL_PAYLOAD
    assert wire.gateway.half_open == 0


def test_a_gateway_that_asks_before_it_is_judged(wire: Wire) -> None:
    """It is authentic, but of nobody that is known yet (RFC 7296 §1.2)."""
    sa = half_open(wire)
    sa._ask(ExchangeType.INFORMATIONAL, (Delete(Protocol.IKE),), NOW_S)
    for each in sa.take_datagrams():
        wire.deliver(each)
    (answer,) = wire.device.take_datagrams()
    assert (answer.exchange, answer.payloads) == ("INFORMATIONAL", ("N(INVALID_SYNTAX)",))
    assert wire.device.state is State.AUTH
