"""The bridge as a program: made, issuing and answering `openssl ocsp`, with a real ledger behind it."""

import base64
import json
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import ocsp
from hypothesis import given, settings
from hypothesis import strategies as st

from segw_agent import main
from segw_agent.attachment.network import Testbed
from segw_agent.attachment.site import DEVICE_NAME, GATEWAY_NAME, OPERATOR, OTHER_DEVICE_NAME, OTHER_VENDOR, VENDOR
from segw_agent.bridge.serial import serial_of
from tests.piped import error_of, piped, result_of
from voice_dpki.ledger.records import CertStatus
from voice_dpki.stage.processes import Program, Running
from voice_dpki.stage.site import Credential

VALIDITY_S = 3
SKEW = timedelta(seconds=300)
Status, Failure = ocsp.OCSPCertStatus, ocsp.OCSPResponseStatus


class Bridge:
    """A bridge CA with its folder, and its responder while it runs."""

    def __init__(self, testbed: Testbed, folder: Path) -> None:
        self.testbed, self.folder = testbed, folder
        self.running: Running | None = None
        self.url = ""
        self.config = self.configure()
        assert self.run("init") == 0

    def configure(self, **changes: Any) -> Path:
        sections = {
            "ocsp_url": "http://127.0.0.1:26690/ocsp",
            "validity_s": VALIDITY_S,
            "ca": {"name": "A CA", "certificate": self.folder / "ca.pem", "key": self.folder / "ca.key"},
            "responder": {"certificate": self.folder / "ocsp.pem", "key": self.folder / "ocsp.key"},
            "listen": {"port": 0},
            "ledger": {
                "genesis": "genesis.json",
                "urls": [f"http://{self.testbed.addresses['ledger-a']}"],
                "timeout_s": 1.0,
            },
            "policy": {"organizations": [VENDOR, OPERATOR], "allow": ["*.vendor.example", GATEWAY_NAME]},
            "trace": {"file": self.folder / "bridge.jsonl"},
        }
        return self.testbed.site.config("bridge", sections | changes)

    def run(self, command: str, *arguments: object) -> int:
        return main.main(["bridge", command, "--config", str(self.config), *map(str, arguments)])

    def issue(self, *credentials: Credential) -> int:
        files = [credential.certificate for credential in credentials]
        return self.run("issue", "--out", self.folder / "issued", *files)

    def issued(self, credential: Credential) -> Path:
        return self.folder / "issued" / f"{credential.certificate.stem}.pem"

    def start(self) -> None:
        self.stop()
        trace = self.folder / "bridge.jsonl"
        arguments = ("bridge", "start", "--config", str(self.config))
        program = Program("bridge", "segw_agent.main", arguments, trace, self.folder / "bridge.log")
        self.running = Running(program)
        self.url = f"http://{self.running.wait_ready().addresses['address']}"

    def stop(self) -> None:
        if self.running is not None:
            self.running.stop()
            self.running = None
            (self.folder / "bridge.jsonl").unlink()

    def ca(self) -> x509.Certificate:
        return x509.load_pem_x509_certificate((self.folder / "ca.pem").read_bytes())

    def request(self, serial: int, algorithm: hashes.HashAlgorithm | None = None) -> bytes:
        algorithm = algorithm or hashes.SHA1()
        by_ca = ocsp.OCSPRequestBuilder().add_certificate(self.ca(), self.ca(), algorithm).build()
        builder = ocsp.OCSPRequestBuilder().add_certificate_by_hash(
            by_ca.issuer_name_hash, by_ca.issuer_key_hash, serial, algorithm
        )
        return builder.build().public_bytes(Encoding.DER)

    def ask(self, credential: Credential) -> ocsp.OCSPResponse:
        return self.post(self.request(serial_of(credential.digest)))

    def post(self, data: bytes) -> ocsp.OCSPResponse:
        with urllib.request.urlopen(f"{self.url}/ocsp", data, timeout=60) as answer:
            assert answer.headers["Content-Type"] == "application/ocsp-response"
            return ocsp.load_der_ocsp_response(answer.read())

    def get(self, target: str) -> bytes:
        with urllib.request.urlopen(f"{self.url}{target}", timeout=60) as answer:
            return bytes(answer.read())

    def openssl(self, *certificates: Path, options: tuple[str, ...] = ()) -> str:
        """Ask with openssl, which verifies the answer by the CA's certificate."""
        ca = str(self.folder / "ca.pem")
        words = [*options, "-issuer", ca, *(word for path in certificates for word in ("-cert", str(path)))]
        words += ["-CAfile", ca, "-url", f"{self.url}/ocsp"]
        done = subprocess.run(["openssl", "ocsp", *words], capture_output=True, text=True, timeout=60)
        return done.stdout + done.stderr


@pytest.fixture(scope="module")
def bridge(testbed: Testbed, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bridge]:
    made = Bridge(testbed, tmp_path_factory.mktemp("bridge"))
    with ExitStack() as stack:
        stack.callback(made.stop)
        made.start()
        yield made


_NUMBER = iter(range(1000))


def device(testbed: Testbed, *, recorded: bool = True, **options: Any) -> Credential:
    number = next(_NUMBER)
    made = testbed.site.credential(f"dev{number}", f"enb{number}.bridge.vendor.example", VENDOR, **options)
    if recorded:
        testbed.record(made)
    return made


@pytest.mark.peer("openssl")
def test_openssl_accepts_answers(bridge: Bridge, testbed: Testbed) -> None:
    credential = device(testbed)
    assert bridge.issue(credential) == 0
    issued = bridge.issued(credential)
    verified = subprocess.run(
        ["openssl", "verify", "-x509_strict", "-CAfile", str(bridge.folder / "ca.pem"), str(issued)],
        capture_output=True,
        text=True,
    )
    assert verified.stdout == f"{issued}: OK\n", verified.stderr
    told = bridge.openssl(issued)
    assert "Response verify OK" in told
    assert f"{issued}: good" in told
    assert "nonce" not in told.lower()  # which openssl would say if it did not come back
    assert f"{issued}: good" in bridge.openssl(issued, options=("-sha256", "-no_nonce"))
    testbed.change(credential, CertStatus.REVOKED, "keyCompromise")
    told = bridge.openssl(issued)
    assert f"{issued}: revoked" in told
    assert "Reason: keyCompromise" in told
    assert "Response verify OK" in told


@pytest.mark.peer("openssl")
def test_two_certificates_at_once_are_refused(bridge: Bridge, testbed: Testbed) -> None:
    first, second = device(testbed), device(testbed)
    assert bridge.issue(first, second) == 0
    assert "malformedrequest" in bridge.openssl(bridge.issued(first), bridge.issued(second))


def test_good_and_for_how_long(bridge: Bridge, testbed: Testbed) -> None:
    began = datetime.now(UTC)
    answer = bridge.ask(device(testbed))
    now = datetime.now(UTC)
    assert answer.certificate_status is Status.GOOD
    assert began - timedelta(seconds=30) <= answer.this_update_utc + SKEW <= now
    assert answer.next_update_utc
    assert now <= answer.next_update_utc + timedelta(seconds=1)
    assert answer.next_update_utc <= now + timedelta(seconds=VALIDITY_S)


def test_suspended_and_resumed(bridge: Bridge, testbed: Testbed) -> None:
    credential = device(testbed)
    began_s = int(time.time())
    testbed.change(credential, CertStatus.SUSPENDED, "certificateHold")
    answer = bridge.ask(credential)
    assert (answer.certificate_status, answer.revocation_reason) == (
        Status.REVOKED,
        x509.ReasonFlags.certificate_hold,
    )
    assert answer.revocation_time_utc
    assert began_s <= answer.revocation_time_utc.timestamp() <= (answer.this_update_utc + SKEW).timestamp()
    testbed.change(credential, CertStatus.VALID, "removeFromCRL")
    assert bridge.ask(credential).certificate_status is Status.GOOD


def test_not_recorded_and_expired(bridge: Bridge, testbed: Testbed) -> None:
    assert bridge.ask(device(testbed, recorded=False)).certificate_status is Status.UNKNOWN
    short = device(testbed, lifetime_s=2)
    deadline_s = time.monotonic() + 60
    while bridge.ask(short).certificate_status is Status.GOOD:
        assert time.monotonic() < deadline_s
        time.sleep(0.1)
    assert bridge.ask(short).certificate_status is Status.UNKNOWN
    almost = serial_of(short.digest) ^ 1  # has the prefix that is asked for, and another last bit
    assert bridge.post(bridge.request(almost)).certificate_status is Status.UNKNOWN


def test_organisations_and_names_that_are_not_admitted(bridge: Bridge, testbed: Testbed) -> None:
    other = testbed.site.credential("other", OTHER_DEVICE_NAME, OTHER_VENDOR)
    second_gateway = testbed.site.credential("segw2", "segw2.a.example", OPERATOR)
    testbed.record(other, second_gateway)
    for credential in (other, second_gateway):
        answer = bridge.ask(credential)
        assert answer.certificate_status is Status.REVOKED
        assert answer.revocation_reason is x509.ReasonFlags.privilege_withdrawn


def test_what_is_not_issued_and_why(bridge: Bridge, testbed: Testbed, capsys: pytest.CaptureFixture[str]) -> None:
    good, revoked, unknown = device(testbed), device(testbed), device(testbed, recorded=False)
    testbed.change(revoked, CertStatus.REVOKED, "superseded")
    other = testbed.site.credential("other2", f"x.{OTHER_DEVICE_NAME}", OTHER_VENDOR)
    denied = testbed.site.credential("segw3", "segw3.a.example", OPERATOR)
    testbed.record(other, denied)
    assert bridge.issue(revoked, unknown, other, denied, good) == 1
    told = capsys.readouterr()
    assert told.out == f"{good.certificate}: issued: {bridge.issued(good)}\n"
    for credential, code in (
        (revoked, "revoked"),
        (unknown, "not-recorded"),
        (other, "organization"),
        (denied, "identity-not-allowed"),
    ):
        assert f"{credential.certificate}: refused: {code}: " in told.err
        assert not bridge.issued(credential).exists()
    assert bridge.run("issue", "--out", bridge.folder / "issued", bridge.folder / "ca.pem") == 1
    assert "refused: " in capsys.readouterr().err


def test_no_certificate_is_written_over_another(
    bridge: Bridge, testbed: Testbed, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    credential = device(testbed)
    assert bridge.issue(credential) == bridge.issue(credential) == 0  # which gives the same again
    own = tmp_path / "own.pem"
    pem = x509.load_der_x509_certificate(credential.der).public_bytes(Encoding.PEM)
    own.write_bytes(pem)
    assert bridge.run("issue", "--out", tmp_path, own) == 2
    assert "there is another certificate already" in capsys.readouterr().err
    assert own.read_bytes() == pem


def test_get(bridge: Bridge, testbed: Testbed) -> None:
    credential = device(testbed)
    data = bridge.request(serial_of(credential.digest), hashes.SHA256())
    text = base64.b64encode(data).decode("ascii")
    for target in (quote(text, safe=""), quote(text, safe="/+="), text.replace("=", "%3D")):
        answer = ocsp.load_der_ocsp_response(bridge.get(f"/ocsp/{target}"))
        assert answer.certificate_status is Status.GOOD
    slashes = base64.b64encode(b"\xff" * 30).decode("ascii")
    assert ocsp.load_der_ocsp_response(bridge.get(f"/ocsp/{slashes}")).response_status is Failure.MALFORMED_REQUEST


def test_another_ca_and_impossible_serials(bridge: Bridge) -> None:
    data = bytearray(bridge.request(5))
    data[-20] ^= 1  # in the hash of the issuer's key
    assert bridge.post(bytes(data)).response_status is Failure.UNAUTHORIZED
    assert bridge.post(bridge.request(1 << 159)).response_status is Failure.UNAUTHORIZED


def test_too_large(bridge: Bridge) -> None:
    with pytest.raises(urllib.error.HTTPError) as refused:
        bridge.post(bytes(4097))
    with refused.value as error:
        assert error.code == 413


@settings(max_examples=50)
@given(st.binary(max_size=300))
def test_any_bytes_are_answered(bridge: Bridge, data: bytes) -> None:
    assert bridge.post(data).response_status is Failure.MALFORMED_REQUEST


def test_one_client_gets_no_more_than_its_share(bridge: Bridge) -> None:
    bridge.config = bridge.configure(limits={"cost_s": 1.0})
    bridge.start()
    try:
        with pytest.raises(urllib.error.HTTPError) as refused:
            [bridge.post(b"x") for _ in range(25)]  # each costs 10, and 200 are the burst
        with refused.value as error:
            assert error.code == 429
    finally:
        bridge.config = bridge.configure()
        bridge.start()


def test_metrics_and_health(bridge: Bridge) -> None:
    bridge.post(b"x")
    assert bridge.get("/healthz") == b'{"status":"ok"}'
    told = bridge.get("/metrics").decode()
    assert 'voice_dpki_segw_ocsp_answers_total{outcome="malformed-request"}' in told
    assert "voice_dpki_segw_ocsp_responder_not_after 1." in told


def test_the_ledger_is_away(bridge: Bridge, testbed: Testbed) -> None:
    credential = device(testbed)
    testbed.freeze("ledger-a")
    try:
        assert bridge.ask(credential).response_status is Failure.TRY_LATER
    finally:
        testbed.thaw("ledger-a")
    assert bridge.ask(credential).certificate_status is Status.GOOD


def test_the_ledger_stands_still(testbed: Testbed, bridge: Bridge) -> None:
    credential = device(testbed)
    bridge.config = bridge.configure(
        ledger={
            "genesis": "genesis.json",
            "urls": [f"http://{testbed.addresses['ledger-a']}"],
            "max_age_s": 1.0,
        }
    )
    bridge.start()
    testbed.freeze("engine")  # no new block comes, and ledger-a answers from the last one
    try:
        deadline_s = time.monotonic() + 60
        while bridge.ask(credential).response_status is not Failure.TRY_LATER:
            assert time.monotonic() < deadline_s
            time.sleep(0.1)
    finally:
        testbed.thaw("engine")
        bridge.config = bridge.configure()
        bridge.start()


def test_the_responders_key_is_renewed(bridge: Bridge, testbed: Testbed) -> None:
    credential, before = device(testbed), (bridge.folder / "ocsp.pem").read_bytes()
    assert bridge.run("renew", "--responder-days", 30) == 0
    assert (bridge.folder / "ocsp.pem").read_bytes() != before
    bridge.start()
    assert bridge.ask(credential).certificate_status is Status.GOOD
    assert (bridge.folder / "ocsp.key").stat().st_mode & 0o777 == 0o600


def test_starting_needs_no_ca_key(bridge: Bridge) -> None:
    key = bridge.folder / "ca.key"
    kept = key.rename(bridge.folder / "elsewhere.key")
    try:
        bridge.start()
    finally:
        kept.rename(key)


def test_scripts_are_told_in_json(
    bridge: Bridge, testbed: Testbed, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good, unknown = device(testbed), device(testbed, recorded=False)
    capsys.readouterr()
    assert bridge.run("issue", "--json", "--out", tmp_path, good.certificate, unknown.certificate) == 1
    issued, refused = json.loads(capsys.readouterr().out)["result"]
    target = tmp_path / f"{good.certificate.stem}.pem"
    assert issued == {"file": str(good.certificate), "outcome": "issued", "issued": str(target)}
    assert (refused["file"], refused["outcome"]) == (str(unknown.certificate), "refused")
    command = ("bridge", "init", "--config", bridge.config)
    assert "there is a CA already" in error_of(main.main, *command)
    files = {name: tmp_path / name for name in ("ca.pem", "ca.key", "ocsp.pem", "ocsp.key")}
    bridge.configure(
        ca={"name": "Another CA", "certificate": files["ca.pem"], "key": files["ca.key"]},
        responder={"certificate": files["ocsp.pem"], "key": files["ocsp.key"]},
    )
    told = result_of(main.main, *command)
    bridge.configure()
    assert told == {
        "certificate": str(files["ca.pem"]),
        "key": str(files["ca.key"]),
        "responder_certificate": str(files["ocsp.pem"]),
        "responder_key": str(files["ocsp.key"]),
    }
    assert all(path.exists() for path in files.values())
    renewed = piped("segw-agent", "bridge", "renew", "--config", bridge.config)
    assert renewed.stdout == "the responder has a new key and certificate: restart it\n"


def test_what_is_refused_before_a_socket_is_bound(
    bridge: Bridge, testbed: Testbed, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert bridge.run("init") == 2
    assert "there is a CA already" in capsys.readouterr().err
    pair = {"certificate": bridge.folder / "ocsp.pem", "key": bridge.folder / "ca.key"}
    alien = {"certificate": testbed.site.folder / "nothing.pem", "key": bridge.folder / "ca.key"}
    for changes, words in (
        ({"responder": pair}, "not the key of the certificate"),
        ({"responder": alien}, "cannot read"),
        ({"ledger": {"genesis": "genesis.json"}}, "needs an inquiry node"),
        ({"ocsp_url": "https://x"}, "ocsp_url"),
        ({"validity_s": 0.5}, "validity_s"),
    ):
        path = bridge.configure(**changes)
        assert main.main(["bridge", "start", "--config", str(path)]) == 2
        assert words in capsys.readouterr().err
    bridge.configure()


def test_the_example_is_valid() -> None:
    import tomllib

    import msgspec

    from segw_agent.bridge.config import EXAMPLE, BridgeConfig

    assert msgspec.convert(tomllib.loads(EXAMPLE), BridgeConfig).policy.allow[0] == f"*.{DEVICE_NAME[5:]}"
