"""docs/hsm.md, command by command: a call is signed by keys in a token, verified, and refused while it is gone."""

import fcntl
import json
import os
import re
import select
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from authn_server.config import EXAMPLE, load_setup
from authn_server.main import main
from authn_server.readiness import KeyProbe
from authn_server.service import AuthnService
from authn_server.standing import Unfollowed
from authn_server.switching import Switch
from tests.guides import DOCS, Reader, steps_of
from tests.one_operator import OneOperator, Service, until
from tests.soft_hsm import MODULE, SoftHsm
from verify_server.config import EXAMPLE as VERIFY_EXAMPLE
from voice_dpki.effects import SystemClock
from voice_dpki.errors import LocalError
from voice_dpki.shell.credentials import read_signer
from voice_dpki.shell.ending import EXIT_HARMFUL_AGAIN
from voice_dpki.shell.entry import EXIT_INTERRUPTED
from voice_dpki.shell.reload import Live
from voice_dpki.shell.signing import LEFT_BEHIND
from voice_dpki.shell.token_key import TokenKey
from voice_dpki.shell.token_uri import key_place
from voice_dpki.shell.trace import Tracer
from voice_dpki.stir.faults import RequestError
from voice_dpki.stir.identity import IdentityHeader
from voice_dpki.stir.passport import Passport
from voice_dpki.x509.keys import KeyElsewhere, KeyUnavailableError, verify_signature

from .conftest import TOKEN, Site

pytestmark = [pytest.mark.peer("softhsm2-util"), pytest.mark.peer("pkcs11-tool")]

PAGE = "hsm.md"
MakeRequest = Callable[..., dict[str, Any]]


class Domain:
    """Operator A's ledger and servers, whose keys are in a token that docs/hsm.md has made."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.hsm = folder, SoftHsm(folder)
        self.hsm.prepare()
        self.ledger = OneOperator(folder, heartbeat_s=0.2)
        for name in ("keys", "private"):
            (folder / name).mkdir()
        shutil.copy(folder / "net/keys/endorsing-operator-a.pem", folder / "keys/endorsing.pem")
        public = read_signer(folder / "keys/endorsing.pem").private_key.public_key()
        (folder / "keys/endorsing.pub.pem").write_bytes(
            public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        )
        shutil.copy(folder / "net/genesis.json", folder)
        words = {"http://127.0.0.1:26680": self.ledger.url, "/etc/voice-dpki": str(folder)}
        self.reader = Reader(folder, words, dict(self.hsm.variables))
        self.services: list[Service] = []

    def follow_the_page(self) -> dict[str, str]:
        """Do what the page says; return what each command said."""
        (line,) = re.findall(r"^```toml\n(.*?)^```$", (DOCS / PAGE).read_text(), re.DOTALL | re.MULTILINE)
        site = Site(self.folder)
        (self.folder / "proxy.tokens").write_text(f"{TOKEN}\n")
        follow = f'\n[ledger]\nurl = "{self.ledger.url}"\ngenesis = "genesis.json"\n[trace]\nfile = "authn.jsonl"\n'
        text = re.sub(r"^key = .*$", lambda _: self.reader.own(line.strip()), EXAMPLE, count=1, flags=re.MULTILINE)
        site.config.write_text(text.replace("port = 8091", "port = 0") + follow)
        return {step.command: self.reader.follow(step) for step in steps_of(PAGE)}

    def start(self) -> tuple[httpx.Client, httpx.Client]:
        """Start both servers; return a client of each."""
        verify = VERIFY_EXAMPLE.replace("http://127.0.0.1:26680", self.ledger.url).replace(
            "port = 8092", "port = 0"
        )
        (self.folder / "verify.toml").write_text(f'{verify}[trace]\nfile = "verify.jsonl"\n')
        for name in ("authn", "verify"):
            config, trace = self.folder / f"{name}.toml", self.folder / f"{name}.jsonl"
            self.services.append(Service(f"{name}_server.main", config, trace))
        headers = {"Authorization": f"Bearer {TOKEN}"}
        authn, verifier = (
            httpx.Client(base_url=each.url, headers=headers, trust_env=False) for each in self.services
        )
        return authn, verifier

    def stop(self) -> None:
        assert [each.stop() for each in self.services] == [0] * len(self.services)
        assert self.ledger.stop() == 0


@pytest.fixture
def domain(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Domain]:
    domain = Domain(tmp_path)
    for name, value in domain.hsm.variables.items():
        monkeypatch.setenv(name, value)
    yield domain
    domain.stop()


def _metric(client: httpx.Client, name: str) -> float:
    text = client.get("/metrics").text
    return next(float(line.split()[1]) for line in text.splitlines() if line.startswith(f"{name} "))


def test_no_command_of_the_page_has_a_pin_for_ps_to_show() -> None:
    pin = re.compile(r"--(?:so-|new-)?pin[= ]([\w:]+)")
    given = [word for step in steps_of(PAGE) for word in pin.findall(step.command)]
    assert set(given) == {"env:PIN", "env:SO_PIN"}


@pytest.mark.long
def test_a_call_passes_with_keys_in_a_token(domain: Domain, signing_request: MakeRequest) -> None:
    said = domain.follow_the_page()
    told = {command.split()[0] + " " + command.split()[1]: text for command, text in said.items()}
    by_token, by_file = (text for command, text in said.items() if "ledger submit" in command)
    assert ("1 recorded" in by_token, "1 were on the ledger already" in by_file) == (True, True)
    assert "this server can sign for Operator A" in told["authn-server check-config"]
    assert "keys/endorsing-2.pub.pem: public key, ECDSA on P-256" in told["ledger-node keys"]
    assert "the CA that gateways and devices must trust" in told["segw-agent bridge"]
    assert not list(domain.folder.glob("authn.pem*"))
    authn, verifier = domain.start()
    with authn, verifier:
        _passes(authn, verifier, signing_request)
        _goes_and_comes_back(domain, authn, signing_request)
        _passes(authn, verifier, signing_request)


def _passes(authn: httpx.Client, verifier: httpx.Client, signing_request: MakeRequest) -> None:
    answer = authn.post("/stir/v1/signing", json=signing_request())
    identity = answer.json()["signingResponse"]["identity"]
    request = {"from": {"tn": "493023125001"}, "to": {"tn": ["442079460001"]}, "time": int(time.time())}
    asked = {"verificationRequest": {**request, "identity": identity}}
    verified = verifier.post("/stir/v1/verification", json=asked).json()["verificationResponse"]
    assert (verified["verstat"], verified["signer"]) == ("TN-Validation-Passed", "Operator A")
    assert authn.get("/healthz").status_code == 200


def _goes_and_comes_back(domain: Domain, authn: httpx.Client, signing_request: MakeRequest) -> None:
    domain.hsm.take_away()
    refused = authn.post("/stir/v1/signing", json=signing_request())
    assert (refused.status_code, "POL5031" in refused.text) == (503, True)
    health = authn.get("/healthz")
    assert (health.status_code, "a key in a token cannot be used" in health.json()["reason"]) == (503, True)
    ready = authn.get("/readyz")
    assert (ready.status_code, ready.json()["checks"]["key"]["state"]) == (503, "failed")
    pin = domain.hsm.pin_file.read_text().strip()
    for told in (refused.text, health.text, ready.text):
        assert [word for word in (pin, "calls", "'sti'", str(domain.folder)) if word in told] == []
    assert _metric(authn, "voice_dpki_token_keys_usable") == 0
    domain.hsm.bring_back()
    until(lambda: authn.get("/healthz").status_code == 200)  # without a call: the token is asked for the key
    assert _metric(authn, "voice_dpki_token_keys_usable") == 1


async def test_the_service_signs_in_threads_and_says_when_it_cannot(
    hsm: SoftHsm, tmp_path: Path, signing_request: MakeRequest
) -> None:
    site = Site(tmp_path).write(signer=read_signer(key_place(hsm.uri("sti"))))
    site.config.write_text(site.config.read_text().replace("authn.pem", hsm.uri("sti")))
    setup = load_setup(site.config, SystemClock())
    switch = Switch(setup.credential, Unfollowed())
    service = AuthnService(switch, 60.0, SystemClock(), Tracer(None, "a"), bypass=Live("a-token"))

    async def sign() -> bytes:
        answer = service.sign(json.dumps(signing_request()).encode())
        assert not isinstance(answer, bytes)  # nobody waits for the token in the event loop
        return await answer

    identity = json.loads(await sign())["signingResponse"]["identity"]
    passport = Passport.parse(IdentityHeader.parse(identity).token)
    profile = setup.credential.value.profile
    verify_signature(profile.public_key_der, "ES256", passport.signing_input, passport.signature)
    assert service.health().ok
    hsm.take_away()
    with pytest.raises(RequestError) as refused:
        await sign()
    assert (refused.value.message_id, refused.value.status, refused.value.bypass) == ("POL5031", 503, "a-token")
    health = service.health()
    assert (health.ok, health.facts["reason"]) == (
        False,
        "a key in a token cannot be used: the token's module does not work",
    )


async def test_a_pin_that_cannot_be_read_is_refused_without_its_place(
    hsm: SoftHsm, tmp_path: Path, signing_request: MakeRequest
) -> None:
    """As on a disk that fails while the token is restarted."""
    site = Site(tmp_path).write(signer=read_signer(key_place(hsm.uri("sti"))))
    site.config.write_text(site.config.read_text().replace("authn.pem", hsm.uri("sti")))
    switch = Switch(load_setup(site.config, SystemClock()).credential, Unfollowed())
    service = AuthnService(switch, 60.0, SystemClock(), Tracer(None, "a"))
    hsm.pin_file.unlink()
    hsm.end_module()
    answer = service.sign(json.dumps(signing_request()).encode())
    assert not isinstance(answer, bytes)
    with pytest.raises(RequestError) as refused:
        await answer
    assert refused.value.message_id == "POL5031"
    assert "the PIN cannot be read" in refused.value.sentence
    assert str(tmp_path) not in refused.value.body().decode()


def test_readiness_asks_no_token_in_the_event_loop(
    hsm: SoftHsm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    signer = read_signer(key_place(hsm.uri("sti")))
    site = Site(tmp_path).write(signer=signer)
    site.config.write_text(site.config.read_text().replace("authn.pem", hsm.uri("sti")))
    switch = Switch(load_setup(site.config, SystemClock()).credential, Unfollowed())
    probe, asked = KeyProbe(switch, SystemClock()), list[object]()
    monkeypatch.setattr(TokenKey, "sign", lambda *data: asked.append(data))
    assert probe.check().state == "ok"
    hsm.take_away()
    assert isinstance(signer.private_key, KeyElsewhere)
    with pytest.raises(KeyUnavailableError):
        signer.private_key.probe()  # as a thread does
    assert (probe.check().state, asked) == ("failed", [])


class Spied:
    """SoftHSM2 behind OpenSC's pkcs11-spy, which writes each call to a pipe: while nobody reads, calls hang."""

    def __init__(self, hsm: SoftHsm, folder: Path) -> None:
        (self._spy,) = Path("/usr/lib").glob("*/pkcs11-spy.so")
        self._hsm, self._pipe = hsm, folder / "spied"
        os.mkfifo(self._pipe)
        self._reading = os.open(self._pipe, os.O_RDWR | os.O_NONBLOCK)
        fcntl.fcntl(self._reading, fcntl.F_SETPIPE_SZ, 4096)
        self._hangs = threading.Event()
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    @property
    def variables(self) -> dict[str, str]:
        return {"PKCS11SPY": str(MODULE), "PKCS11SPY_OUTPUT": str(self._pipe)}

    @property
    def uri(self) -> str:
        return self._hsm.uri("sti").replace(str(MODULE), str(self._spy))

    def hang(self) -> None:
        """Have no call come back from now on."""
        self._hangs.set()
        self._reader.join()
        with suppress(BlockingIOError):
            while True:
                os.write(self._reading, bytes(4096))

    def close(self) -> None:
        self._hangs.set()
        self._reader.join()
        os.close(self._reading)

    def _read(self) -> None:
        while not self._hangs.is_set():
            if select.select([self._reading], [], [], 0.01)[0]:
                os.read(self._reading, 1 << 16)


@pytest.fixture
def spied(hsm: SoftHsm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Spied]:
    with closing(Spied(hsm, tmp_path)) as spied:
        for name, value in spied.variables.items():
            monkeypatch.setenv(name, value)
        yield spied


def test_a_server_ends_while_its_token_hangs_and_says_so(
    hsm: SoftHsm, spied: Spied, tmp_path: Path, signing_request: MakeRequest
) -> None:
    site = Site(tmp_path).write(signer=read_signer(key_place(hsm.uri("sti"))))
    text = site.config.read_text().replace("authn.pem", spied.uri)
    site.config.write_text(f'{text}\n[hsm]\ntimeout_s = 0.2\n[trace]\nfile = "authn.jsonl"\n')
    server = Service("authn_server.main", site.config, tmp_path / "authn.jsonl")
    try:
        with httpx.Client(
            base_url=server.url, headers={"Authorization": f"Bearer {TOKEN}"}, trust_env=False
        ) as client:
            assert client.post("/stir/v1/signing", json=signing_request()).status_code == 200
            spied.hang()
            assert client.post("/stir/v1/signing", json=signing_request()).status_code == 503
    finally:
        status = server.stop()
    assert (status, LEFT_BEHIND in server.log_path.read_text()) == (0, True)


def test_a_reload_is_refused_while_the_token_hangs_and_the_service_goes_on(
    hsm: SoftHsm, spied: Spied, tmp_path: Path
) -> None:
    site = Site(tmp_path).write(signer=read_signer(key_place(hsm.uri("sti"))))
    text = site.config.read_text().replace("authn.pem", spied.uri) + '\n[trace]\nfile = "authn.jsonl"\n'
    site.config.write_text(text)
    server = Service("authn_server.main", site.config, tmp_path / "authn.jsonl")
    try:
        spied.hang()
        copied = hsm.pin_file.with_name("copied.pin")
        copied.write_bytes(hsm.pin_file.read_bytes())
        copied.chmod(0o600)
        assert str(hsm.pin_file) in text  # another URI is another key
        site.config.write_text(text.replace(str(hsm.pin_file), str(copied)))
        server.hang_up("configuration refused, the one before stays")
        assert httpx.get(f"{server.url}/healthz", trust_env=False).status_code in (200, 503)
    finally:
        status = server.stop()
    assert (status, "the token does not answer: within 3 s" in server.log_path.read_text()) == (0, True)


COMMAND = """
import sys
from voice_dpki.shell.credentials import read_signer
from voice_dpki.shell.ending import guarded
from voice_dpki.shell.interrupts import interruptible
from voice_dpki.shell.token_uri import key_place

def work():
    signer = read_signer(key_place(sys.argv[1]))
    print("signing", flush=True)
    while True:
        signer.sign(b"data")

with interruptible():
    sys.exit(guarded(work))
"""


def _is_writing(pid: int) -> bool:
    """Tell whether a thread of a process waits for room in a pipe."""
    for file in Path(f"/proc/{pid}/task").glob("*/wchan"):
        with suppress(OSError):  # the thread has ended since it was listed
            if "pipe_write" in file.read_text():
                return True
    return False


def test_a_command_is_interrupted_while_its_token_hangs(spied: Spied) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", COMMAND, spied.uri], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as command:
        try:
            assert command.stdout is not None
            assert command.stdout.readline() == "signing\n"
            spied.hang()
            until(lambda: _is_writing(command.pid))
            command.terminate()
            _, said = command.communicate(timeout=60)
        finally:
            command.kill()
    assert (command.returncode, "interrupted" in said) == (EXIT_INTERRUPTED, True)


def test_keys_in_tokens_are_not_rotated_by_the_command(
    hsm: SoftHsm, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    site = Site(tmp_path).write(EXAMPLE.replace("authn.pem", hsm.uri("sti")))
    assert main(["rotate", "--config", str(site.config), "--token", str(tmp_path / "proxy.tokens")]) == 2
    assert "key 'sti' of token 'calls' is replaced by hand: docs/hsm.md" in capsys.readouterr().err


def test_a_refused_pin_has_an_exit_status_after_which_no_unit_starts_again(
    hsm: SoftHsm, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A full disk ends with 2, and must not keep a service down."""
    site = Site(tmp_path).write(EXAMPLE.replace("authn.pem", hsm.uri("sti")))
    hsm.write_pin("0816")  # tokens of other tests, which have the same name, have refused others
    assert main(["check-config", "--config", str(site.config)]) == EXIT_HARMFUL_AGAIN
    assert "refuses the PIN" in capsys.readouterr().err
    (drop_in,) = (DOCS.parent / "packaging/debian/units/voice-dpki-.service.d").glob("*.conf")
    assert f"\nRestartPreventExitStatus={EXIT_HARMFUL_AGAIN}\n" in drop_in.read_text()


def test_the_certificate_must_be_that_of_the_tokens_key(hsm: SoftHsm, tmp_path: Path) -> None:
    site = Site(tmp_path).write(EXAMPLE.replace("authn.pem", hsm.uri("sti")))
    with pytest.raises(LocalError, match="the private key is not the certificate's"):
        load_setup(site.config, SystemClock())
