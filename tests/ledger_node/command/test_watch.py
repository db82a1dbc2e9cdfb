"""`voice-dpki ledger watch` against a running node: what it tells of a URI's certificates, and how it ends."""

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from ledger_node.command.session import CONSOLE
from tests.ledger_node.command.test_ledger import Terminal
from voice_dpki.names import Tn
from voice_dpki.x509.keys import generate_es256, to_pem
from voice_dpki.x509.profile import digest_of
from voice_dpki.x509.tnauthlist import TnAuthList, TnRange

PROGRAM = Path(sys.executable).with_name("voice-dpki")
DEADLINE_S = 60.0


@pytest.fixture
def terminal(voting: Any, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Terminal:
    monkeypatch.setattr(CONSOLE, "width", 200)
    monkeypatch.setattr(CONSOLE, "_file", None)
    return Terminal(voting, capsys)


_TENS = count(493023125001, 10)


@pytest.fixture
def number() -> Tn:
    """A number among ten that no other test names."""
    return Tn(str(next(_TENS)))


def recorded(terminal: Terminal, folder: Path, **options: Any) -> Path:
    """Have a certificate recorded; return its file."""
    der = terminal.network.certificate(**options)
    file = folder / f"{digest_of(der).hex()[:12]}.der"
    file.write_bytes(der)
    assert terminal("submit", file, by="Operator A")[0] == 0
    return file


def uri_of(number: Tn) -> str:
    return f"sip:+{number}@a.example"


def test_whoever_looks_once_sees_what_is_not_known(terminal: Terminal, tmp_path: Path, number: Tn) -> None:
    uri = uri_of(number)
    status, said = terminal("watch", uri, "--once")
    assert (status, f"known from the start: nothing is recorded for {uri}" in said) == (0, True)
    own = recorded(terminal, tmp_path, uris=[uri])
    recorded(terminal, tmp_path, uris=[uri_of(Tn(str(int(number) + 1)))])  # another subscriber's
    assert terminal("watch", uri, "--once", "--known", own)[0] == 0
    tel = recorded(terminal, tmp_path, uris=[f"tel:+{number}"])
    block = TnAuthList(ranges=(TnRange(Tn(number[:-1] + "0"), 10),))
    signer = recorded(terminal, tmp_path, tn_auth_list=block)
    status, said = terminal("watch", uri, "--once", "--known", own)
    assert status == 1
    told = {line.split("H(CERT) ")[1][:64]: line for line in said.splitlines() if "NOT KNOWN" in line}
    assert set(told) == {digest_of(file.read_bytes()).hex() for file in (tel, signer)}
    assert "names the URI, valid, recorded for Operator A in block" in told[digest_of(tel.read_bytes()).hex()]
    assert "may sign for its number, valid" in told[digest_of(signer.read_bytes()).hex()]


def test_a_renewal_is_told_as_that(terminal: Terminal, tmp_path: Path, number: Tn) -> None:
    key, uri = generate_es256(), uri_of(number)
    old = recorded(terminal, tmp_path, key=key, uris=[uri], common_name=f"owner {number}")
    new, owner = tmp_path / "new.der", tmp_path / "owner.pem"
    new.write_bytes(terminal.network.certificate(uris=[uri], common_name=f"owner {number}"))
    owner.write_bytes(to_pem(key))
    assert terminal("renew", old, new, "--owner-key", owner, by="Operator A")[0] == 0
    status, said = terminal("watch", uri, "--once", "--known", old, "--json")
    assert status == 1
    told = json.loads(said)["result"]
    assert (told["uri"], told["is_known"], len(told["certificates"])) == (uri, False, 1)
    (each,) = told["certificates"]
    assert (each["digest"], each["names_uri"], each["status"]) == (digest_of(new.read_bytes()).hex(), True, "valid")
    assert each["record"]["replaces"] == digest_of(old.read_bytes()).hex()


@pytest.mark.parametrize("uri", ["nobody", "http://a.example", "sip:", "sip:a b@a.example"])
def test_what_is_no_uri_of_a_party_is_refused(terminal: Terminal, uri: str) -> None:
    status, said = terminal("watch", uri, "--once")
    assert (status, "not a sip, sips or tel URI" in said) == (2, True)


@pytest.fixture
def watching(terminal: Terminal) -> Iterator[Any]:
    """Start the command as a process, and wait until it has shown what is there."""
    with ExitStack() as ended:

        def start(*arguments: object) -> subprocess.Popen[str]:
            where = ["--url", terminal.url, "--genesis", terminal.network.folder / "genesis.json"]
            command = [str(PROGRAM), "ledger", "watch", *map(str, [*where, *arguments])]
            process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
            ended.enter_context(process)
            ended.callback(process.kill)
            assert "known from the start" in line_of(process)
            return process

        yield start


def line_of(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline()


def test_the_owner_hears_of_a_second_certificate_at_once(
    terminal: Terminal, tmp_path: Path, number: Tn, watching: Any
) -> None:
    uri = uri_of(number)
    process = watching(uri)
    second = recorded(terminal, tmp_path, uris=[uri])
    said, _ = process.communicate(timeout=DEADLINE_S)
    assert f"NOT KNOWN: H(CERT) {digest_of(second.read_bytes()).hex()} names the URI, valid" in said
    assert process.returncode == 1


@pytest.mark.parametrize("told", [0, 2])
def test_whoever_stays_hears_of_each_until_it_is_stopped(
    terminal: Terminal, tmp_path: Path, number: Tn, watching: Any, told: int
) -> None:
    uri = uri_of(number)
    process = watching(uri, "--stay")
    for _ in range(told):
        second = recorded(terminal, tmp_path, uris=[uri])
        assert f"NOT KNOWN: H(CERT) {digest_of(second.read_bytes()).hex()}" in line_of(process)
    process.terminate()
    assert process.wait(DEADLINE_S) == (1 if told else 0)


def test_silence_is_told_once_and_what_was_recorded_meanwhile_afterwards(
    network: Any, tmp_path: Path, number: Tn, token: str
) -> None:
    """The follower that is asked is away while a second certificate is recorded."""
    engine = network.engine(heartbeat_s=0.2).start()
    follower = network.follower("asked", engine.url).start()
    follower.reaches(1)
    where = ["--url", follower.url, "--genesis", str(network.folder / "genesis.json")]
    command = [str(PROGRAM), "ledger", "watch", *where, uri_of(number)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        try:
            assert "known from the start" in line_of(process)
            follower.kill()
            assert "nothing is heard of the ledger: the ledger node does not answer" in line_of(process)
            der = network.certificate(uris=[uri_of(number)])
            headers = {"authorization": f"Bearer {token}"}
            answer = engine.http.post("/ledger/v1/submissions", content=der, headers=headers)
            assert answer.status_code == 201, answer.text
            follower.start()
            assert f"NOT KNOWN: H(CERT) {digest_of(der).hex()}" in line_of(process)
            assert process.wait(DEADLINE_S) == 1
        finally:
            process.kill()
