"""The program `cps-server`: its configuration, and its answers with a real ledger node that goes away."""

import asyncio
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.guides import steps_of
from tests.one_operator import OneOperator, Service, until
from tests.piped import piped, result_of
from verify_server.cps_config import EXAMPLE, load_setup
from verify_server.cps_main import main
from voice_dpki.effects import SystemClock, SystemRandom
from voice_dpki.errors import LocalError
from voice_dpki.names import Tn
from voice_dpki.shell.tls import ClientTls, client_context, make_certificate
from voice_dpki.stir.access import AccessAction, Place, sign_access
from voice_dpki.stir.call import SigningRequest
from voice_dpki.stir.cps import passports_body, path_of
from voice_dpki.stir.passport import Destinations
from voice_dpki.stir.sign import sign_call
from voice_dpki.wire.cps_client import CpsClient, CpsError, Kept
from voice_dpki.x509.keys import to_pem
from voice_dpki.x509.recorded import CertStatus

from .conftest import Caller, Site

PAGE = Path(__file__).parents[2] / "docs/stir-oob.md"
PLACE = Place(Tn("493023125001"), Tn("493023125002"), "Operator A")
HOST = "cps.b.example"
HOOKS = "tests.verify_server.cps_hooks"
CHECKS = """\
[checks]
positive_data_acceptance.enabled = false
ignored_auth.enabled = false                # the hook signs each request, those without a token as well
missing_required_header.enabled = false
negative_data_rejection.expected-statuses = ["400", "401", "403", "404", "405", "411", "413", "415", "429"]
"""


def write(site: Site, text: str) -> Path:
    path = site.folder / "cps.toml"
    path.write_text(text)
    return path


def test_check_config_tells_what_it_would_do(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check-config", "--config", str(write(site, EXAMPLE))]) == 0
    said = capsys.readouterr().out
    assert "for calls to Operator B" in said
    assert "each call for 60 s at most" in said


def test_check_config_tells_scripts_in_json(site: Site) -> None:
    told = result_of(main, "check-config", "--config", write(site, EXAMPLE))
    assert (told["organizations"], told["max_lifetime_s"]) == (["Operator B"], 60)
    lines = piped("cps-server", "check-config", "--config", write(site, EXAMPLE)).stdout.splitlines()
    assert "  witnesses    none: another history would not be noticed" in lines


def test_the_page_shows_a_configuration_and_what_is_said_of_it(
    site: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    text = re.findall(r"^```toml\n(.*?)^```$", PAGE.read_text(), re.DOTALL | re.MULTILINE)[0]
    (step,) = steps_of("stir-oob.md")
    program, *arguments = step.command.split()
    assert (program, arguments[-1]) == ("cps-server", "cps.toml")
    assert main([*arguments[:-1], str(write(site, text))]) == 0
    assert capsys.readouterr().out.splitlines() == [each.replace("voice-dpki-1", "test") for each in step.shown]


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (("genesis.json", "missing.json"), "missing.json: cannot read"),
        (('["cps.b.example"]', "[]"), "audiences"),
        (('["Operator B"]', "[]"), "organizations"),
        (("max_lifetime_s = 60", "max_lifetime_s = 61"), "max_lifetime_s"),
        (("freshness_s = 60", "freshness_s = 0"), "freshness_s"),
        (("max_bytes = 67108864", "max_bytes = 1"), "max_bytes"),
        (('127.0.0.1"\nport', '0.0.0.0"\nport'), "others could read who calls whom"),
        (("max_age_s = 30", "more = 1"), "more"),
    ],
)
def test_errors_say_what_to_mend(site: Site, change: tuple[str, str], match: str) -> None:
    assert change[0] in EXAMPLE
    with pytest.raises(LocalError, match=match):
        load_setup(write(site, EXAMPLE.replace(*change)))


class Running:
    """A ledger of Operator A's, and a service for calls to its numbers."""

    def __init__(self, folder: Path, more: str = "") -> None:
        self.folder, self.ledger = folder, OneOperator(folder)
        text = EXAMPLE.replace("http://127.0.0.1:26680", self.ledger.url).replace("port = 8093", "port = 0")
        text = text.replace("Operator B", "Operator A").replace("max_age_s = 30", "max_age_s = 3")
        text = (
            text.replace("genesis.json", "net/genesis.json").replace(
                '["cps.b.example"]', '["cps.b.example", "127.0.0.1"]'
            )
            + f'\n[trace]\nfile = "cps-a.jsonl"\n{more}'
        )
        (folder / "cps.toml").write_text(text)
        self.service = Service("verify_server.cps_main", folder / "cps.toml", folder / "cps-a.jsonl")
        self.http = httpx.Client(base_url=self.service.url, trust_env=False, timeout=60)
        self.caller = Caller()
        self.der = self.caller.der()
        self.ledger.submit(self.der)
        self.credential = self.caller.credential(self.der)

    def ask(self, action: AccessAction, *tokens: str) -> httpx.Response:
        options = {"passports": tokens, "lifetime_s": 15}
        access = sign_access(self.credential, action, PLACE, HOST, time.time(), SystemRandom(), **options)  # type: ignore[arg-type]
        headers = {"Authorization": f"Bearer {access}"}
        if action is AccessAction.RETRIEVE:
            return self.http.get(path_of(PLACE), headers=headers)
        return self.http.post(path_of(PLACE), content=passports_body(tokens), headers=headers)

    def passport(self) -> str:
        now_s, origid = time.time(), "5f4e3b1c-7d2a-4b8e-9c1d-2e3f4a5b6c7d"
        request = SigningRequest("A", PLACE.orig, Destinations((PLACE.dest,)), int(now_s), origid)
        return sign_call(request, self.credential, now_s).token

    def until(self, action: AccessAction, status: int, *tokens: str) -> httpx.Response:
        def answer() -> httpx.Response | None:
            answer = self.ask(action, *tokens)
            return answer if answer.status_code == status else None

        found = until(answer)
        assert found is not None
        return found


@pytest.fixture
def program(tmp_path: Path) -> Iterator[Running]:
    running = Running(tmp_path)
    yield running
    running.http.close()
    assert running.service.stop() == 0
    running.ledger.stop()


def test_the_program_with_a_ledger(program: Running) -> None:
    token = program.passport()
    program.until(AccessAction.PUBLISH, 201, token)  # the members are read soon after the start
    assert program.ask(AccessAction.RETRIEVE).json() == {"passports": [token]}
    program.ledger.change(program.der, CertStatus.SUSPENDED, "certificateHold")
    refused = program.until(AccessAction.RETRIEVE, 401)
    assert refused.json()["title"] == "certificate"
    assert "suspended" in refused.json()["detail"]
    program.ledger.change(program.der, CertStatus.VALID, "removeFromCRL")
    program.until(AccessAction.RETRIEVE, 200)
    program.ledger.node.kill()
    assert program.until(AccessAction.RETRIEVE, 503).json()["title"] == "ledger"


TLS = '[tls]\ncertificate = "server.pem"\nkey = "server-key.pem"\nclients = ["partner.pem"]\n'


class Partner:
    """An operator's client that shows the TLS certificate `own` and lists the one of `server`."""

    def __init__(self, program: Running, own: str, server: str) -> None:
        section = ClientTls(certificate=f"{own}.pem", key=f"{own}-key.pem", servers=(f"{server}.pem",))
        self._program, self._tls = program, client_context(program.folder / "partner.toml", section)

    async def keep(self, token: str) -> tuple[str, ...]:
        """Publish a PASSporT, and retrieve what is kept; raises CpsError."""
        url = f"https://{self._program.service.url.removeprefix('http://')}"
        client = CpsClient(url, timeout_s=60, clock=SystemClock(), random=SystemRandom(), tls=self._tls)
        try:
            await client.publish(self._program.credential, PLACE, Kept((token,), 15))
            return await client.retrieve(self._program.credential, PLACE)
        finally:
            await client.aclose()


@pytest.fixture
def over_tls(tmp_path: Path) -> Iterator[Running]:
    for name in ("server", "partner", "stranger"):
        make_certificate(tmp_path, name, "Operator A", 30)
    running = Running(tmp_path, TLS)
    yield running
    running.http.close()
    assert running.service.stop() == 0
    running.ledger.stop()


def test_partners_are_told_from_strangers_by_tls(over_tls: Running) -> None:
    """A partner and the service each list the other's certificate; nobody else learns or says anything."""
    token = over_tls.passport()
    for own, server in (("stranger", "server"), ("partner", "stranger")):
        with pytest.raises(CpsError) as refused:
            asyncio.run(Partner(over_tls, own, server).keep(token))
        assert refused.value.outcome == "unreachable"
    with pytest.raises(httpx.TransportError):
        over_tls.ask(AccessAction.RETRIEVE)  # in clear
    partner = Partner(over_tls, "partner", "server")

    def kept() -> tuple[str, ...]:
        try:
            return asyncio.run(partner.keep(token))
        except CpsError as error:
            if error.outcome != "refused":
                raise
            return ()  # the members are read soon after the start

    assert until(kept) == (token,)


@pytest.mark.parametrize("examples", [20, pytest.param(1000, marks=pytest.mark.long)])
def test_answers_are_as_documented(program: Running, tmp_path: Path, examples: int) -> None:
    """schemathesis makes requests from the document, each with an access token of its own."""
    program.until(AccessAction.PUBLISH, 201, program.passport())
    (tmp_path / "sti.der").write_bytes(program.der)
    (tmp_path / "sti.pem").write_bytes(to_pem(program.caller.signer))
    (tmp_path / "schemathesis.toml").write_text(CHECKS)
    root = Path(__file__).parents[2]
    environment = {**os.environ, "SCHEMATHESIS_HOOKS": HOOKS, "PYTHONPATH": str(root), "CPS_FOLDER": str(tmp_path)}
    options = [f"--max-examples={examples}", "--continue-on-failure", "--no-color", "--generation-database=none"]
    command = [str(Path(sys.executable).with_name("schemathesis")), "run", *options]
    command.append(f"{program.service.url}/openapi.json")
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
