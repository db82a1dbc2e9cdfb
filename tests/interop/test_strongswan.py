"""Stock strongSwan with the plugin, at both ends: tunnels by the ledger's word alone, and refused with a reason."""

import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from voice_dpki.ledger.records import CertStatus

from .strongswan.agent_double import INTEGRITY_INFO_TO_SEND, TRUSTED, AgentDouble, answer
from .strongswan.charon import device_connection, gateway_connection, wait_until
from .strongswan.site import GATEWAY, WIRE_REFUSAL, Site, make_site, settings
from .strongswan.world import NOTICED_S, Identity, policy

pytestmark = pytest.mark.netns


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    with make_site() as made:
        made.start_agents()
        with made.charons["gateway"].session() as session:
            certificates = list(session.list_certs({"type": "X509"}))
        # Its own, and nobody's whom it trusts.
        assert [certificate.get("has_privkey") for certificate in certificates] == [b"yes"]
        yield made


@pytest.fixture(autouse=True)
def nothing_left(site: Site) -> Iterator[None]:
    """Each test begins without tunnels."""
    yield
    site.clear()


def test_up_by_the_ledgers_word_alone(site: Site) -> None:
    device, gateway = site.charons["device"], site.charons["gateway"]
    recorded = site.recorded()
    with site.attached(recorded):
        assert device.ping(device.inner_address())
    assert f"voice-dpki: '{GATEWAY}' vouched for: vouched-for: " in device.log()
    assert f"voice-dpki: '{recorded.name}' vouched for: vouched-for: " in gateway.log()


def test_not_recorded(site: Site) -> None:
    site.refused(site.identity(), "not-recorded")


def test_revoked_and_live_sas_end(site: Site) -> None:
    device = site.recorded()
    assert site.attach(device)
    site.ledger.change(device, CertStatus.REVOKED)
    wait_until(lambda: not site.charons["gateway"].sas(), "the gateway's SA ends", NOTICED_S)
    wait_until(lambda: not site.charons["device"].sas(), "the device hears of it")
    site.refused(device, "revoked")


def test_live_sas_end_after_the_agent_was_restarted(site: Site) -> None:
    device = site.recorded()
    assert site.attach(device)
    site.start_agents()
    site.ledger.change(device, CertStatus.REVOKED)
    wait_until(lambda: not site.charons["gateway"].sas(), "the gateway's SA ends", NOTICED_S)


def test_suspended_and_resumed(site: Site) -> None:
    device = site.recorded()
    site.ledger.change(device, CertStatus.SUSPENDED)
    site.refused(device, "suspended")
    site.ledger.change(device, CertStatus.VALID)
    with site.attached(device):
        pass


def test_expired(site: Site) -> None:
    end_s = int(time.time()) + 2
    device = site.recorded(not_after_s=end_s)
    wait_until(lambda: time.time() > end_s + 1, "the certificate expires")
    site.refused(device, "expired")


def test_wrong_organisation(site: Site) -> None:
    site.refused(site.recorded(organization="Vendor W"), "organization")


def test_the_device_refuses_a_gateway_that_is_not_recorded(site: Site) -> None:
    other = Identity("segw2.a.example", "Operator A")
    device, gateway = site.charons["device"], site.charons["gateway"]
    since = len(device.log()), len(gateway.log())
    with gateway.also("other", gateway_connection(other.name, [other.certificate]), other.pem):
        assert not site.attach(site.recorded(), other.name)
    assert f"voice-dpki: '{other.name}' refused: not-recorded: " in device.log()[since[0] :]
    assert f"generating INFORMATIONAL request 2 [ {WIRE_REFUSAL} ]" in device.log()[since[0] :]
    gateway.says("parsed INFORMATIONAL request 2 [ N(AUTH_FAILED) ]", since[1])
    wait_until(lambda: not gateway.sas(), "the gateway gives up")


def test_roll_over_with_two_certificates_for_one_identity(site: Site) -> None:
    old = site.recorded()
    new = Identity(old.name, "Vendor V")
    site.ledger.record(new)
    for certificate in (old, new, old):
        with site.attached(certificate):
            pass
    site.ledger.change(old, CertStatus.REVOKED)
    site.refused(old, "revoked")
    with site.attached(new):
        pass


def test_live_sas_end_after_the_ike_sa_was_rekeyed(site: Site) -> None:
    device = site.recorded()
    assert site.attach(device)
    gateway = site.charons["gateway"]
    (before,) = gateway.sas()
    site.charons["device"].rekey()
    wait_until(lambda: [sa["initiator-spi"] for sa in gateway.sas()] != [before["initiator-spi"]], "rekeyed")
    wait_until(lambda: len(gateway.sas()) == 1, "the old SA is gone")
    site.ledger.change(device, CertStatus.REVOKED)
    wait_until(lambda: not gateway.sas(), "the gateway's SA ends", NOTICED_S)


STATEMENT = "[integrity]\npassed = true\n"


@contextmanager
def own_statements(site: Site, signer: Identity, statement: str = STATEMENT) -> Iterator[None]:
    """Have the device's agent make statements of integrity for a while."""
    plain = policy("Operator A", "*.a.example")
    site.start_agent("device", plain + signer.write(site.path / "enb") + statement)
    try:
        yield
    finally:
        site.start_agent("device", plain)


def test_integrity_info_goes_out_and_is_verified(site: Site) -> None:
    device, gateway = site.recorded(), site.charons["gateway"]
    with own_statements(site, device), settings(gateway, integrity_policy="require"), site.attached(device):
        assert "N((40970))" in gateway.log()
    with own_statements(site, device, STATEMENT.replace("true", "false")):
        site.refused(device, "integrity-failed")
    with settings(gateway, integrity_policy="require"):
        site.refused(device, "integrity-missing")


def test_another_number_for_integrity_info(site: Site) -> None:
    device, gateway = site.recorded(), site.charons["gateway"]
    with own_statements(site, device), settings(gateway, integrity_policy="require", integrity_info=45000):
        with settings(site.charons["device"], integrity_info=45000), site.attached(device):
            assert "N((45000))" in gateway.log()
        site.refused(device, "integrity-missing")


def test_no_statement_for_another_certificate_than_the_agents(site: Site) -> None:
    require = settings(site.charons["gateway"], integrity_policy="require")
    with own_statements(site, site.recorded()), require:
        site.refused(site.recorded(), "integrity-missing")


@pytest.mark.parametrize(
    ("content", "code"),
    [(b"", "malformed"), (b"\1" * 4096, "malformed"), (bytes(10) + bytes((0, 0, 64)) + bytes(64), "forged")],
)
def test_integrity_info_that_does_not_hold(site: Site, content: bytes, code: str) -> None:
    if code == "forged":
        content = bytes((1, 0)) + int(time.time()).to_bytes(8, "big") + content[10:]
    stated = answer(True, "stated", "by the double", {INTEGRITY_INFO_TO_SEND: content})
    with AgentDouble(site.path / "double.sock", state=lambda _: stated) as double:
        with settings(site.charons["device"], socket=double.path):
            site.refused(site.recorded(), f"integrity-{code}")


@pytest.mark.parametrize(
    ("octets", "code"),
    [
        (None, "agent-late"),
        (b"", "agent-away"),
        (b"\0\7\1\1", "agent-away"),
        (b"\0\0", "agent-malformed"),
        (answer(True, "Trusted\n", "of a code that no code is"), "agent-malformed"),
        (answer(True, "trusted", "two\nlines"), "agent-malformed"),
        (answer(True, "trusted", "", {}), "agent-malformed"),
        (answer(True, "trusted", "x" * 513), "agent-malformed"),
        (answer(True, "trusted", "x", {20: b""}), "agent-malformed"),
        (answer(False, "as-it-likes", "said the double"), "as-it-likes"),
    ],
)
def test_an_agent_that_does_not_say_yes(site: Site, octets: bytes | None, code: str) -> None:
    gateway = site.charons["gateway"]
    with AgentDouble(site.path / "double.sock", judge=lambda _: octets) as double:
        with settings(gateway, socket=double.path, deadline_ms=300):
            site.refused(site.recorded(), code)
        assert len(double.judged()) == (2 if code == "agent-away" else 1)


def test_an_agent_that_ended_before_it_answered_is_asked_once_more(site: Site) -> None:
    """As one does from which another has taken over."""
    answers = iter([b"", TRUSTED])
    with AgentDouble(site.path / "double.sock", judge=lambda _: next(answers)) as double:
        with settings(site.charons["gateway"], socket=double.path), site.attached(site.recorded()):
            first, second = double.judged()
            assert first == second


def test_a_ca_is_no_way_around_the_ledger(site: Site) -> None:
    device, gateway = site.identity(), site.charons["gateway"]
    authority, device.certificate = issued(device)
    gateway.load_ca(authority)
    site.refused(device, "profile")
    with settings(gateway, enforce="no"), site.attached(device):
        pass
    site.refused(device, "profile")


def test_a_shared_key_is_no_way_around_the_ledger(site: Site) -> None:
    device, (client, gateway) = site.identity(), (site.charons[side] for side in ("device", "gateway"))
    by_key = {"auth": "psk", "id": device.name}
    for charon in (client, gateway):
        with charon.session() as session:
            session.load_shared({"type": "ike", "data": b"known to both", "owners": [device.name, GATEWAY]})
    own = gateway_connection(GATEWAY, [site.gateway.certificate], remote=by_key)
    client.configure(device_connection(device.name, [], GATEWAY, local=by_key), device.pem)
    since = len(gateway.log())
    with gateway.also("by-key", own, site.gateway.pem):
        assert not client.initiate()
        assert f"'{device.name}' refused: not-by-ledger: " in gateway.log()[since:]
        with settings(gateway, enforce="no"):
            assert client.initiate()


def issued(device: Identity) -> tuple[bytes, bytes]:
    """Make a CA, and have it issue a certificate for the device's key; returns both."""
    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.now(UTC)
    issuer = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "A CA")])
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, device.name)])
    made = []
    for name, public_key, ca in (
        (issuer, key.public_key(), True),
        (subject, device.key.private_key.public_key(), False),
    ):
        builder = x509.CertificateBuilder(issuer, name, public_key, x509.random_serial_number())
        builder = builder.not_valid_before(now - timedelta(hours=1)).not_valid_after(now + timedelta(hours=1))
        builder = builder.add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
        builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName(device.name)]), critical=False)
        made.append(builder.sign(key, hashes.SHA256()).public_bytes(Encoding.DER))
    return made[0], made[1]


@pytest.mark.parametrize("path", ["/nowhere/agent.sock", "/" + "x" * 200])
def test_an_agent_that_is_not_there(site: Site, path: str) -> None:
    with settings(site.charons["gateway"], socket=path):
        site.refused(site.recorded(), "agent-away")


def test_what_the_agent_is_told(site: Site) -> None:
    device = site.recorded()
    with AgentDouble(site.path / "double.sock") as double, settings(site.charons["gateway"], socket=double.path):
        with site.attached(device):
            (sa,) = site.charons["gateway"].sas()
            (request,) = double.judged()
    assert (request.side, request.policy, request.unique_id) == (2, 1, int(sa["uniqueid"]))
    assert request.spi_i.hex() == sa["initiator-spi"].decode()
    assert request.spi_r.hex() == sa["responder-spi"].decode()
    assert request.items == {1: b"\2" + device.name.encode(), 2: device.certificate, 5: b"tunnel"}


def test_others_do_not_wait_for_a_verdict_that_is_late(site: Site) -> None:
    slow, quick = site.recorded(), site.recorded()
    client = site.charons["device"]
    for device in (slow, quick):
        connection = device_connection(device.name, [device.certificate], GATEWAY)
        connection["children"] = {device.name: connection["children"]["child"]}
        client.configure(connection, device.pem, device.name)
    with (
        AgentDouble(
            site.path / "double.sock",
            judge=lambda request: None if slow.certificate == request.items[2] else TRUSTED,
        ) as double,
        settings(site.charons["gateway"], socket=double.path, deadline_ms=2000),
        ThreadPoolExecutor() as pool,
    ):
        waiting = pool.submit(client.initiate, slow.name)
        wait_until(double.judged, "the gateway asks")
        assert client.initiate(quick.name)
        assert not waiting.done()
        assert len(site.charons["gateway"].sas()) == 1
        assert not waiting.result()
    client.terminate(quick.name)


def test_reauthentication_asks_again(site: Site) -> None:
    device, gateway = site.recorded(), site.charons["gateway"]
    trusted = f"voice-dpki: '{device.name}' trusted"
    with site.attached(device):
        with site.charons["device"].session() as session:
            session.rekey({"ike": "tunnel", "reauth": "yes"})
        wait_until(lambda: gateway.log().count(trusted) == 2, "the ledger is asked again")
        wait_until(lambda: len(gateway.sas()) == 1, "the old SA is gone")


def test_no_certificate_in_ike_auth(site: Site) -> None:
    device, gateway = site.recorded(), site.charons["gateway"]
    since = len(gateway.log())
    connection = device_connection(device.name, [device.certificate], GATEWAY, send_cert="never")
    site.charons["device"].configure(connection, device.pem)
    assert not site.charons["device"].initiate()
    assert f"'{device.name}' refused: certificate-missing: " in gateway.log()[since:]


def test_agents_that_nobody_answers_when_the_ledger_is_away(site: Site) -> None:
    known, unknown = site.recorded(), site.recorded()
    assert site.attach(known)
    site.ledger.process.signal(signal.SIGSTOP)
    try:
        with settings(site.charons["gateway"], deadline_ms=1000):  # less than the agent takes
            site.refused(unknown, "agent-late")
        site.refused(unknown, "ledger-unreachable")
        wait_until(lambda: not site.attach(known), "what was known is too old")
        assert site.charons["gateway"].sas()  # but who is attached stays
    finally:
        site.ledger.process.signal(signal.SIGCONT)
    wait_until(lambda: site.attach(unknown), "all is well again")
    site.charons["device"].terminate()
