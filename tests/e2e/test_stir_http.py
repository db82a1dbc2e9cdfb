"""Both forms of the HTTP interface through the real servers, which two operators' ledger nodes stand behind."""

import json
import re
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from sip_testbed.network import Testbed
from voice_dpki.stir.forms import SIGNING_PATH, VERIFICATION_PATH

PAGE = Path(__file__).parents[2] / "docs/stir-http.md"
CALLER, CALLEE = "493023125001", "442079460001"
UUID = "5f4e3b1c-7d2a-4b8e-9c1d-2e3f4a5b6c7d"


class Servers:
    """The authentication server of one operator and the verification server of the other."""

    def __init__(self, testbed: Testbed) -> None:
        self.variables = {
            "AUTHN": f"http://{testbed.addresses['authn-a']}",
            "VERIFY": f"http://{testbed.addresses['verify-b']}",
            "SIGN_TOKEN": (testbed.folder / "sign-a.token").read_text().split()[0],
            "VERIFY_TOKEN": (testbed.folder / "verify-b.token").read_text().split()[0],
        }

    def sign(self, **changes: object) -> httpx.Response:
        request: dict[str, object] = {"attest": "A", "orig": {"tn": CALLER}, "dest": {"tn": [CALLEE]}}
        request |= {"iat": int(time.time()), "origid": UUID, **changes}
        return self._post("AUTHN", SIGNING_PATH, "SIGN_TOKEN", {"signingRequest": request})

    def verify(self, **members: object) -> httpx.Response:
        request = {"from": {"tn": CALLER}, "time": int(time.time()), **members}
        return self._post("VERIFY", VERIFICATION_PATH, "VERIFY_TOKEN", {"verificationRequest": request})

    def _post(self, server: str, path: str, token: str, body: dict[str, Any]) -> httpx.Response:
        headers = {"Authorization": f"Bearer {self.variables[token]}"}
        return httpx.post(self.variables[server] + path, json=body, headers=headers, trust_env=False)


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    with Testbed(tmp_path_factory.mktemp("logs")) as testbed:
        testbed.start()
        testbed.record_all()
        yield Servers(testbed)


def test_what_one_form_signs_both_verify(servers: Servers) -> None:
    for changes in ({}, {"ppt": "shaken"}):
        identities = [servers.sign(**changes).json()["signingResponse"]["identityHeader"] for _ in range(2)]
        atis = servers.verify(to={"tn": [CALLEE]}, identity=identities[0]).json()["verificationResponse"]
        assert (atis["verstat"], atis["signer"]) == ("TN-Validation-Passed", "Operator A")
        ms = servers.verify(to={"tn": CALLEE}, identityHeader=identities[1]).json()["verificationResponse"]
        assert ms["verstatValue"] == "TN-Validation-Passed"
        (row,) = ms["verifyResults"]
        assert row["verifyResult"]["validClaims"]["orig"] == {"tn": CALLER}


def test_a_replay_in_the_other_form_is_a_replay(servers: Servers) -> None:
    identity = servers.sign(ppt="shaken").json()["signingResponse"]["identityHeader"]
    atis = servers.verify(to={"tn": [CALLEE]}, identity=identity, callId="c1").json()["verificationResponse"]
    assert atis["verstat"] == "TN-Validation-Passed"
    again = servers.verify(to={"tn": CALLEE}, identityHeader=identity, callId="c1").json()
    assert again["verificationResponse"]["verstatValue"] == "TN-Validation-Passed"
    ms = servers.verify(to={"tn": CALLEE}, identityHeader=identity, callId="c2").json()["verificationResponse"]
    assert ms["verstatValue"] == "TN-Validation-Failed"
    assert ms["verifyResults"][0]["verifyResult"]["step"] == "E21 replay"


def test_refusals_have_the_form_of_the_request(servers: Servers) -> None:
    foreign = servers.sign(ppt="shaken", orig={"tn": CALLEE})
    assert (foreign.status_code, list(foreign.json())) == (403, ["error"])
    message = servers.sign(ppt="msg", msg={"dig": "sha256-x"})
    assert (message.status_code, list(message.json())) == (400, ["error"])
    assert "not msg" in message.json()["error"]
    assert list(servers.sign(orig={"tn": CALLEE}).json()) == ["requestError"]


@pytest.mark.peer("curl")
@pytest.mark.peer("jq")
def test_the_commands_of_the_page_work(servers: Servers) -> None:
    shown = re.findall(r"```sh\n(identity=.*?)```\n\n```json\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert len(shown) == 2
    for command, expected in shown:
        environment = {"PATH": "/usr/bin:/bin", **servers.variables}
        done = subprocess.run(["sh", "-ec", command], env=environment, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
        assert alike(json.loads(done.stdout), json.loads(expected)), done.stdout


@pytest.mark.peer("curl")
def test_the_commands_for_an_invite_work(servers: Servers, tmp_path: Path) -> None:
    command = re.findall(r"```sh\n(.*?)```", PAGE.read_text(), re.DOTALL)[-1]
    (told,) = re.findall(r"```text\n(.*?)```", PAGE.read_text(), re.DOTALL)
    environment = {"PATH": "/usr/bin:/bin", **servers.variables}
    done = subprocess.run(
        ["sh", "-ec", command], env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stdout) == (0, told), done.stderr


def alike(one: Any, other: Any) -> bool:
    """Compare, but for times and for what the page shows as "..."."""
    if isinstance(other, dict):
        return list(one) == list(other) and all(alike(one[name], other[name]) for name in other)
    if isinstance(other, list):
        return len(one) == len(other) and all(map(alike, one, other))
    return other == "..." or isinstance(other, int) or bool(one == other)
