"""Whole exchanges between our own ends: set-up, refusals, cookies, groups, fragments, loss, deletion."""

from collections.abc import Callable
from dataclasses import replace
from ipaddress import IPv4Address
from typing import Any

import pytest

from tests.certificates import with_usage
from voice_dpki.errors import LocalError, MalformedError
from voice_dpki.ikev2 import proposals
from voice_dpki.ikev2.events import (
    Address,
    CertificateToJudge,
    Closed,
    Datagram,
    Established,
    Failed,
    Path,
    Trusted,
    Untrusted,
)
from voice_dpki.ikev2.failures import Failure
from voice_dpki.ikev2.identity import fqdn, subject_identity
from voice_dpki.ikev2.message import Message, serialize
from voice_dpki.ikev2.payloads import Delete, Notify
from voice_dpki.ikev2.proposals import ESP_SUITES, IKE_SUITES, EspSuite, IkeSuite
from voice_dpki.ikev2.registry import ExchangeType, Group, NotifyType, Protocol
from voice_dpki.ikev2.responder import Limits
from voice_dpki.ikev2.sa import Party
from voice_dpki.ikev2.states import State
from voice_dpki.x509.keys import LocalSigner

from .conftest import (
    DEVICE,
    GATEWAY,
    NOW_S,
    Wire,
    certificate_for,
    new_device,
    party,
)

NewWire = Callable[..., Wire]


def test_set_up(wire: Wire) -> None:
    wire.start()
    (ours,), (theirs,) = wire.happened("device", Established), wire.happened("gateway", Established)
    assert (ours.identity, theirs.identity) == (GATEWAY, DEVICE)
    assert ours.sa == theirs.sa
    assert ours.child.address == theirs.child.address == IPv4Address("10.9.0.1")
    assert ours.child == theirs.child
    assert ours.child.keys == theirs.child.keys
    assert wire.exchanges() == [
        "IKE_SA_INIT request",
        "IKE_SA_INIT response",
        "IKE_AUTH request",
        "IKE_AUTH response",
    ]
    assert wire.seen[2].payloads == ("IDi", "CERT", "CERTREQ", "AUTH", "CP", "SA", "TSi", "TSr")
    assert wire.seen[3].payloads == ("IDr", "CERT", "AUTH", "CP", "SA", "TSi", "TSr")


def test_same_random_gives_same_bytes(new_wire: NewWire) -> None:
    first, second = new_wire(rsa=False), new_wire(rsa=False)
    assert [each.data for each in first.start().seen[:2]] == [each.data for each in second.start().seen[:2]]


@pytest.mark.parametrize("suite", IKE_SUITES, ids=lambda suite: suite.name)
@pytest.mark.parametrize("rsa", [False, True])
def test_every_suite(new_wire: NewWire, suite: IkeSuite, rsa: bool) -> None:
    wire = new_wire(rsa=rsa, device={"ike_suites": (suite,), "esp_suites": ESP_SUITES[2:3]}).start()
    (event,) = wire.happened("device", Established)
    assert event.suite == suite
    assert event.child.suite == ESP_SUITES[2]


def test_subject_as_identity(new_wire: NewWire, keys: dict[str, LocalSigner]) -> None:
    der = certificate_for(keys["device"], DEVICE)
    wire = new_wire(device_party=Party(der, subject_identity(der), keys["device"])).start()
    assert wire.happened("gateway", Established)[0].identity == f"CN={DEVICE},O=Vendor"


# --- refusals -----------------------------------------------------------------------------------------------------


def test_gateway_refuses(wire: Wire) -> None:
    no = Untrusted("revoked", "5.4 certificate", "the certificate was revoked")
    wire.verdict = lambda _claim: no
    wire.start()
    assert wire.happened("gateway", Failed)[0].error.code == "revoked"
    assert str(wire.happened("gateway", Failed)[0].error) == "step 5.4 certificate: the certificate was revoked"
    assert wire.happened("device", Failed)[0].error.code == "peer-authentication-failed"
    assert wire.seen[-1].payloads == ("N(AUTHENTICATION_FAILED)",)
    assert wire.gateway.half_open == 0


def test_device_refuses(wire: Wire) -> None:
    no = Untrusted("not-recorded", "8 SeGW certificate", "the certificate is not recorded")
    wire.verdict = lambda claim: no if claim.identity == GATEWAY else Trusted()
    wire.start()
    assert wire.happened("device", Failed)[0].error.code == "not-recorded"
    assert [type(event) for event in wire.events["device"]] == [CertificateToJudge, Failed]
    assert wire.happened("gateway", Closed)[0].reason == "the peer refused our certificate"
    assert wire.device.state is State.CLOSED
    assert not list(wire.gateway.sas())


def test_no_verdict_in_time(wire: Wire) -> None:
    wire.verdict = lambda _claim: None
    wire.start().wait(30)
    assert wire.happened("gateway", Failed)[0].error.code == "no-verdict"


def test_stapled_answer_reaches_the_device(wire: Wire) -> None:
    wire.verdict = lambda claim: Trusted(b'{"proof": 1}') if claim.identity == DEVICE else Trusted()
    wire.start()
    assert wire.happened("device", CertificateToJudge)[0].ledger_answer == b'{"proof": 1}'


def test_integrity_info_reaches_the_gateway(new_wire: NewWire) -> None:
    wire = new_wire(state_integrity=lambda sa: b"info " + sa.spi_r).start()
    (claim,) = wire.happened("gateway", CertificateToJudge)
    assert claim.integrity_info == b"info " + claim.sa.spi_r
    assert "N(INTEGRITY_INFO)" in wire.seen[2].payloads


@pytest.mark.parametrize(
    ("identification", "failure"),
    [(fqdn("enb2.vendor.example"), Failure.IDENTITY), (fqdn("*.vendor.example"), Failure.IDENTITY)],
)
def test_identity_not_the_certificates(
    new_wire: NewWire, keys: dict[str, LocalSigner], identification: Any, failure: Failure
) -> None:
    honest = party(DEVICE, keys["device"])
    wire = new_wire()
    object.__setattr__(honest, "identification", identification)
    wire.device = new_device(honest)
    wire.start()
    assert wire.happened("gateway", Failed)[0].error.failure is failure
    assert not wire.happened("gateway", CertificateToJudge)


def test_certificate_of_somebody_else(new_wire: NewWire, keys: dict[str, LocalSigner]) -> None:
    thief = party(DEVICE, keys["device"])
    object.__setattr__(thief, "signer", keys["other"])
    wire = new_wire()
    wire.device = new_device(thief)
    wire.start()
    assert wire.happened("gateway", Failed)[0].error.failure is Failure.SIGNATURE


def test_certificate_that_is_not_for_signing(new_wire: NewWire, keys: dict[str, LocalSigner]) -> None:
    device = party(DEVICE, keys["device"])
    for usage, admitted in (("key_agreement", False), ("digital_signature", True)):
        certificate = with_usage(device.certificate, keys["device"], usage)
        wire = new_wire(device_party=Party(certificate, fqdn(DEVICE), keys["device"])).start()
        assert bool(wire.happened("gateway", CertificateToJudge)) == admitted
        assert [each.error.failure for each in wire.happened("gateway", Failed)] == (
            [] if admitted else [Failure.CERTIFICATE]
        )


def test_a_name_with_a_wildcard_is_no_identity(new_wire: NewWire, keys: dict[str, LocalSigner]) -> None:
    """A certificate may list one; who claims to be it could be anybody below the domain."""
    certificate = certificate_for(keys["device"], "*.vendor.example")
    thief = party(DEVICE, keys["device"])
    object.__setattr__(thief, "certificate", certificate)
    object.__setattr__(thief, "identification", fqdn("*.vendor.example"))
    wire = new_wire(device_party=thief).start()
    assert wire.happened("gateway", Failed)[0].error.failure is Failure.IDENTITY


def test_own_certificate_must_fit(keys: dict[str, LocalSigner]) -> None:
    der = certificate_for(keys["device"], DEVICE)
    with pytest.raises(LocalError, match="not for the signing key"):
        Party(der, fqdn(DEVICE), keys["other"])
    with pytest.raises(LocalError, match="identity"):
        Party(der, fqdn(GATEWAY), keys["device"])


# --- IKE_SA_INIT --------------------------------------------------------------------------------------------------


def test_other_group_is_wanted(new_wire: NewWire) -> None:
    p384 = tuple(suite for suite in IKE_SUITES if suite.group is Group.ECP_384)
    wire = new_wire(gateway={"ike_suites": p384}).start()
    assert wire.seen[1].payloads == ("N(INVALID_KE_PAYLOAD)",)
    assert wire.happened("device", Established)[0].suite.group is Group.ECP_384


def test_nothing_in_common(new_wire: NewWire) -> None:
    wire = new_wire(device={"ike_suites": IKE_SUITES[:1]}, gateway={"ike_suites": IKE_SUITES[1:2]}).start().wait(2)
    assert wire.happened("device", Failed)[0].error.code == "peer-no-proposal-chosen"
    assert len(wire.gateway) == 0


def test_cookie_under_load(new_wire: NewWire) -> None:
    wire = new_wire(limits=Limits(cookie_from=0)).start()
    assert wire.seen[1].payloads == ("N(COOKIE)",)
    assert wire.seen[2].payloads[0] == "N(COOKIE)"
    assert wire.happened("device", Established)


def test_cookie_and_other_group(new_wire: NewWire) -> None:
    p384 = tuple(suite for suite in IKE_SUITES if suite.group is Group.ECP_384)
    wire = new_wire(limits=Limits(cookie_from=0), gateway={"ike_suites": p384}).start()
    assert wire.happened("device", Established)


def test_cookie_and_group_that_come_twice(new_wire: NewWire) -> None:
    p384 = tuple(suite for suite in IKE_SUITES if suite.group is Group.ECP_384)
    wire = new_wire(limits=Limits(cookie_from=0), gateway={"ike_suites": p384})
    wire.path = lambda datagram: [datagram, datagram, datagram]
    assert wire.start().happened("device", Established)


def test_group_that_was_not_offered(new_wire: NewWire) -> None:
    p384 = tuple(suite for suite in IKE_SUITES if suite.group is Group.ECP_384)
    wire = new_wire(device={"ike_suites": IKE_SUITES[:1]}, gateway={"ike_suites": (p384[0], IKE_SUITES[1])})
    wire.path = lambda datagram: [_wanting(datagram, 20)] if datagram.is_response else [datagram]
    assert wire.start().wait(2).happened("device", Failed)[0].error.failure is Failure.KE_GROUP


def _wanting(datagram: Datagram, group: int) -> Datagram:
    header = Message.parse(datagram.data).header
    notify = Notify(NotifyType.INVALID_KE_PAYLOAD, group.to_bytes(2, "big"))
    return replace(datagram, data=serialize(header, (notify,)))


def test_other_major_version(wire: Wire) -> None:
    wire.device.start(wire.now_s)
    (datagram,) = wire.device.take_datagrams()
    for version, answers in ((0x30, 1), (0x10, 0)):
        wire.deliver(replace(datagram, data=datagram.data[:17] + bytes((version,)) + datagram.data[18:]))
        sent = wire.gateway.take_datagrams()
        assert [each.payloads for each in sent] == [("N(INVALID_MAJOR_VERSION)",)] * answers


def test_flood_is_bounded(new_wire: NewWire, keys: dict[str, LocalSigner]) -> None:
    wire = new_wire(limits=Limits(cookie_from=1000, half_open=5))
    for number in range(20):
        device = new_device(party(DEVICE, keys["device"]), seed=f"flood {number}")
        device.start(NOW_S)
        for datagram in device.take_datagrams():
            wire.deliver(datagram)
    assert wire.gateway.half_open == len(wire.gateway) == 5
    wire.gateway.take_datagrams()
    wire.wait(60)
    assert len(wire.gateway) == 0
    assert wire.start().happened("device", Established)


def test_one_address_cannot_take_all_places(new_wire: NewWire, keys: dict[str, LocalSigner]) -> None:
    """A flood with valid cookies, which only an address that receives them can send."""
    wire = new_wire(limits=Limits(cookie_from=0, half_open=20, half_open_per_address=5))
    flooder = Address("127.0.0.66", 500)
    for number in range(40):
        device = new_device(party(DEVICE, keys["device"]), seed=f"flood {number}")
        device.start(NOW_S)
        for _ in range(2):
            for each in device.take_datagrams():
                wire.deliver(replace(each, path=Path(flooder, each.path.remote)))
            for each in wire.gateway.take_datagrams():
                if each.payloads == ("N(COOKIE)",):
                    device.receive(Message.parse(each.data), Path(device.path.local, device.path.remote), NOW_S)
    assert wire.gateway.half_open == 5
    assert wire.start().happened("device", Established)
    assert wire.gateway.half_open == 5
    wire.wait(60)
    assert (wire.gateway.half_open, wire.gateway._half_open_at) == (0, {})


def test_sas_are_bounded(new_wire: NewWire, keys: dict[str, LocalSigner]) -> None:
    wire = new_wire(limits=Limits(total=2))
    for number in range(3):
        wire.device = new_device(party(DEVICE, keys["device"]), seed=f"device {number}")
        wire.start()
        assert len(wire.gateway) == min(number + 1, 2)
    assert not wire.seen[-1].is_response, "the third device got no answer at all"
    wire.gateway.delete(next(iter(wire.gateway.sas())).name, "to make room", wire.now_s)
    wire.run().wait(60)
    wire.device = new_device(party(DEVICE, keys["device"]), seed="device 4")
    assert wire.start().happened("device", Established)


def test_endless_demands_end(wire: Wire) -> None:
    numbers = iter(range(100))

    def demand(datagram: Datagram) -> list[Datagram]:
        if not datagram.is_response and datagram.exchange == "IKE_SA_INIT":
            wire.gateway._answer_clear(
                Message.parse(datagram.data).header,
                Notify(NotifyType.COOKIE, b"again %d" % next(numbers)),
                Path(datagram.path.remote, datagram.path.local),
            )
            return []
        return [datagram]

    wire.path = demand
    wire.start().wait(2)
    assert wire.happened("device", Failed)[0].error.failure is Failure.BUSY


def test_init_repeated_gets_the_same_answer(wire: Wire) -> None:
    wire.path = lambda datagram: [datagram, datagram]
    wire.start()
    assert wire.happened("device", Established)
    assert len(wire.gateway) == 1


# --- loss, fragments, NAT -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("lost", range(4))
def test_each_message_lost_once(wire: Wire, lost: int) -> None:
    count = iter(range(100))
    wire.path = lambda datagram: [] if next(count) == lost else [datagram]
    wire.start().wait(5)
    assert len(wire.happened("device", Established)) == len(wire.happened("gateway", Established)) == 1
    assert any(datagram.repeated for datagram in wire.seen)


SMALL = {"fragment_bytes": 400}


@pytest.mark.parametrize("lost", range(8))
def test_each_fragment_lost_once(new_wire: NewWire, lost: int) -> None:
    wire, count = new_wire(device=SMALL, gateway=SMALL), iter(range(100))
    wire.path = lambda datagram: [] if next(count) == lost else [datagram]
    wire.start().wait(7)
    assert any(datagram.fragment[1] > 1 for datagram in wire.seen)
    assert max(len(datagram.data) for datagram in wire.seen if datagram.exchange == "IKE_AUTH") <= 400
    assert len(wire.happened("device", Established)) == len(wire.happened("gateway", Established)) == 1


def test_fragments_the_other_way_round(new_wire: NewWire) -> None:
    wire, late = new_wire(device=SMALL, gateway=SMALL), list[Datagram]()

    def path(datagram: Datagram) -> list[Datagram]:
        late.append(datagram)
        if len(late) < datagram.fragment[1]:
            return []
        out, late[:] = late[::-1], []
        return out

    wire.path = path
    assert wire.start().happened("device", Established)


def test_no_fragments_for_who_takes_none(new_wire: NewWire) -> None:
    wire = new_wire(device={"fragment_bytes": None}, gateway={"fragment_bytes": 400}).start()
    assert all(datagram.fragment == (1, 1) for datagram in wire.seen)
    assert wire.happened("device", Established)


def test_peer_that_never_answers(wire: Wire) -> None:
    wire.path = lambda _datagram: []
    wire.start().wait(30)
    assert [datagram.repeated for datagram in wire.seen] == [False, True, True]
    assert wire.happened("device", Failed)[0].error.failure is Failure.TIMEOUT


def test_nat_moves_to_the_marked_port(new_wire: NewWire) -> None:
    marked = Path(Address("127.0.0.2", 4500), Address("127.0.0.3", 4500), marked=True)
    wire = new_wire(marked_path=marked)
    outside = Address("127.0.0.9", 10_500)

    def translate(datagram: Datagram) -> list[Datagram]:
        if datagram.is_response or datagram.path.marked:
            return [datagram]
        return [replace(datagram, path=Path(outside, datagram.path.remote))]

    def path(datagram: Datagram) -> list[Datagram]:
        translated = translate(datagram)
        if datagram.is_response and not datagram.path.marked:  # back in through the NAT
            return [replace(datagram, path=Path(datagram.path.local, wire.device.path.local))]
        return translated

    wire.path = path
    wire.start()
    assert wire.happened("device", Established)
    assert all(datagram.path.marked for datagram in wire.seen[2:])


def test_no_nat_no_move(new_wire: NewWire) -> None:
    marked = Path(Address("127.0.0.2", 4500), Address("127.0.0.3", 4500), marked=True)
    wire = new_wire(marked_path=marked).start()
    assert not any(datagram.path.marked for datagram in wire.seen)


# --- child SA -----------------------------------------------------------------------------------------------------


def test_pool_exhausted_leaves_no_child(new_wire: NewWire) -> None:
    wire = new_wire(pool="10.9.0.0/32").start()
    assert wire.happened("gateway", Established)[0].child is None
    (event,) = wire.happened("device", Established)
    assert event.child is None
    assert event.child_error == "the peer answers INTERNAL_ADDRESS_FAILURE"


def test_no_common_cipher_for_the_child(new_wire: NewWire) -> None:
    wire = new_wire(device={"esp_suites": ESP_SUITES[:1]}, gateway={"esp_suites": ESP_SUITES[1:]}).start()
    assert wire.happened("device", Established)[0].child_error == "the peer answers NO_PROPOSAL_CHOSEN"


def test_address_comes_back(wire: Wire, keys: dict[str, LocalSigner]) -> None:
    wire.start()
    first = wire.device
    wire.device = new_device(party(DEVICE, keys["device"]), seed="again")
    wire.start()
    assert {event.child.address for event in wire.happened("gateway", Established)} == {IPv4Address("10.9.0.1")}
    wire.device.delete("done", wire.now_s)
    wire.run()
    wire.device = first
    first.delete("done", wire.now_s)
    wire.run()
    assert not wire.gateway.pool._used


def test_child_is_deleted_by_itself(wire: Wire) -> None:
    wire.start()
    child = wire.happened("device", Established)[0].child
    wire.device._ask(ExchangeType.INFORMATIONAL, (Delete(Protocol.ESP, (child.spi_i,)),), wire.now_s)
    wire.run()
    assert wire.seen[-1].payloads == ("D",)
    assert list(wire.gateway.sas())


# --- afterwards ---------------------------------------------------------------------------------------------------


def test_device_deletes(wire: Wire) -> None:
    wire.start()
    wire.device.delete("switched off", wire.now_s)
    wire.run()
    assert wire.happened("device", Closed)[0].reason == "switched off"
    assert wire.happened("gateway", Closed)[0].reason == "deleted by the peer"
    wire.wait(20)
    assert len(wire.gateway) == 0


def test_gateway_deletes(wire: Wire) -> None:
    name = wire.start().happened("gateway", Established)[0].sa
    wire.gateway.delete(name, "revoked", wire.now_s)
    wire.run()
    assert wire.happened("gateway", Closed)[0].reason == "revoked"
    assert wire.happened("device", Closed)[0].reason == "deleted by the peer"


def test_both_delete_at_once(wire: Wire) -> None:
    name = wire.start().happened("gateway", Established)[0].sa
    wire.gateway.delete(name, "one", wire.now_s)
    wire.device.delete("other", wire.now_s)
    wire.run()
    assert wire.happened("gateway", Closed)[0].reason == "one"
    assert wire.happened("device", Closed)[0].reason == "other"


def test_old_sas_that_the_peer_has_lost_are_forgotten(wire: Wire, keys: dict[str, LocalSigner]) -> None:
    wire.start()
    old = wire.device
    wire.device = new_device(party(DEVICE, keys["device"]), seed="again")
    name = wire.start().happened("gateway", Established)[1].sa
    assert wire.gateway.forget_others(name, "lost", wire.now_s) == 1
    assert wire.gateway.take_datagrams() == []
    assert [sa.name for sa in wire.gateway.sas()] == [name]
    wire.run()
    assert wire.happened("gateway", Closed)[0].reason == "lost"
    assert (old.state, wire.device.state) == (State.ESTABLISHED, State.ESTABLISHED)


@pytest.mark.parametrize("alone", [True, False])
def test_a_device_says_that_it_has_no_other_sa(new_wire: NewWire, alone: bool) -> None:
    """RFC 7296 §2.4. The SA is told about it; whether others are deleted then, its owner decides."""
    wire = new_wire(initial_contact=alone).start()
    assert ("N(INITIAL_CONTACT)" in wire.seen[2].payloads) is alone
    assert wire.happened("gateway", Established)[0].initial_contact is alone


def test_probe_finds_a_dead_peer(new_wire: NewWire) -> None:
    wire = new_wire(gateway={"probe_s": 20.0}).start()
    wire.wait(50)
    assert wire.exchanges()[-4:] == ["INFORMATIONAL request", "INFORMATIONAL response"] * 2
    wire.path = lambda _datagram: []
    wire.wait(60)
    assert wire.happened("gateway", Closed)[0].reason == "the peer does not answer"


def test_further_children_are_refused(wire: Wire) -> None:
    wire.start()
    suites = (EspSuite(proposals.GCM_128),)
    payloads = (proposals.offer(suites, Protocol.ESP, b"\1\2\3\4"),)
    wire.device._ask(ExchangeType.CREATE_CHILD_SA, payloads, wire.now_s)
    wire.run()
    assert wire.seen[-1].payloads == ("N(NO_ADDITIONAL_SAS)",)


# --- hostile bytes ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("at", range(4))
def test_no_changed_bit_passes(new_wire: NewWire, at: int) -> None:
    """Whatever bit of whatever message is changed: either nothing comes of it, or both ends do not both stand."""
    honest = new_wire().start().seen[at].data
    for bit in range(0, 8 * len(honest), 37):
        wire, count = new_wire(), iter(range(100))

        def bend(datagram: Datagram, bit: int = bit, count: Any = count) -> list[Datagram]:
            if next(count) != at:
                return [datagram]
            data = bytearray(datagram.data)
            data[bit // 8 % len(data)] ^= 1 << bit % 8
            return [replace(datagram, data=bytes(data))]

        wire.path = lambda datagram: [each for each in bend(datagram) if _parses(each)]
        wire.start()
        stood = len(wire.happened("device", Established)) + len(wire.happened("gateway", Established))
        assert not wire.happened("device", Established), bit
        # The gateway's own messages are for the device to check, which then refuses.
        assert stood == 0 or at in (1, 3), bit


def _parses(datagram: Datagram) -> bool:
    try:
        Message.parse(datagram.data)
    except MalformedError:
        return False
    return True


def test_messages_out_of_turn_are_dropped(wire: Wire) -> None:
    wire.start()
    for datagram in wire.seen[:]:
        wire.deliver(datagram)
    wire.run()
    assert len(wire.happened("gateway", Established)) == len(wire.happened("device", Established)) == 1
    assert wire.gateway.half_open == 1  # the old IKE_SA_INIT cannot be told from a new one


def test_an_old_answer_answers_no_new_request(wire: Wire) -> None:
    wire.start().wait(2)
    wire.device.probe(wire.now_s)
    wire.run()
    old = wire.seen[-1]
    assert old.is_response
    wire.path = lambda datagram: [] if datagram.exchange == "INFORMATIONAL" else [datagram]
    wire.device.probe(wire.now_s)
    wire.run()
    wire.deliver(old)
    assert wire.device.dropped == 1
    wire.wait(60)
    assert wire.happened("device", Closed), "nobody answered the second request"


def test_message_ids_count_from_zero_for_each_end(wire: Wire) -> None:
    """RFC 7296 §2.2: IKE_SA_INIT has 0, IKE_AUTH 1, and each end counts its own requests from there."""
    wire.start().wait(2)
    for _ in range(2):
        wire.device.probe(wire.now_s)
        wire.run()
    wire.gateway.delete(next(iter(wire.gateway.sas())).name, "over", wire.now_s)
    wire.run()
    headers = [Message.parse(each.data).header for each in wire.seen]
    found = [(each.from_initiator, each.is_response, each.message_id) for each in headers]
    own = [(True, False, number) for number in (0, 1, 2, 3)]
    expected = [pair for request in own for pair in (request, (False, True, request[2]))]
    assert found == [*expected, (False, False, 0), (True, True, 0)]


def test_reflected_message_is_dropped(wire: Wire) -> None:
    wire.start()
    request = wire.seen[2]
    wire.device.receive(Message.parse(request.data), Path(request.path.local, request.path.remote), wire.now_s)
    assert wire.device.dropped == 1
