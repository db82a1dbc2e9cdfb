"""Attestation by the operator's rules: over the real HTTP server, and as `authn-server explain` tells it."""

import io
import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from authn_server.config import EXAMPLE, load_setup
from authn_server.main import main
from authn_server.rules import EXAMPLE as RULES
from tests.one_operator import Service
from voice_dpki.effects import SystemClock
from voice_dpki.errors import LocalError
from voice_dpki.stir.identity import IdentityHeader
from voice_dpki.stir.passport import Passport

from .conftest import Site

MakeRequest = Callable[..., dict[str, Any]]
PAGE = Path(__file__).parents[2] / "docs/stir-policy.md"
PATH = "/stir/v1/signing"
CONFIG = EXAMPLE.replace("# rules", "rules") + '\n[trace]\nfile = "authn-a.jsonl"\n'
TOKENS = "proxy t0ken-of-the-proxy\npbx t0ken-of-the-pbx\nt0ken-without-a-name\n"
PBX = {"Authorization": "Bearer t0ken-of-the-pbx"}
INVITE = """\
INVITE sip:+442079460001@b.example SIP/2.0
Via: SIP/2.0/UDP 192.0.2.1;branch=z9hG4bK1
From: <sip:+493023125001@a.example>;tag=1
To: <sip:+442079460001@b.example>
Call-ID: 1@a.example
CSeq: 1 INVITE
Contact: <sip:+493023125001;tgrp=transit-1;trunk-context=a.example@192.0.2.1>
Max-Forwards: 70
Content-Length: 0
{more}
"""


def with_rules(site: Site) -> Site:
    site.write(CONFIG)
    (site.folder / "attestation.toml").write_text(RULES)
    (site.folder / "proxy.tokens").write_text(TOKENS)
    return site


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    site = with_rules(Site(tmp_path_factory.mktemp("authn")))
    service = Service("authn_server.main", site.config, site.folder / "authn-a.jsonl")
    yield service
    assert service.stop() == 0


@pytest.fixture
def client(server: Service) -> Iterator[httpx.Client]:
    headers = {"Authorization": "Bearer t0ken-of-the-proxy"}
    with httpx.Client(base_url=server.url, headers=headers, trust_env=False) as client:
        yield client


def attest_in(identity: str) -> str:
    claims = json.loads(Passport.parse(IdentityHeader.parse(identity).token).payload_untrusted)
    return str(claims["attest"])


def attested(answer: httpx.Response) -> str:
    assert answer.status_code == 200, answer.text
    return attest_in(answer.json()["signingResponse"]["identityHeader"])


@pytest.mark.parametrize(
    ("changes", "headers", "attest"),
    [
        ({"attest": "C", "user": "+493023125001"}, {}, "A"),
        ({"user": "alice"}, {}, "B"),
        ({"user": "company-7", "orig": {"tn": "493023125101"}}, {}, "A"),
        ({"user": "company-7"}, {}, "B"),
        ({"trunk": "transit-2"}, {}, "C"),
        ({"trunk": "transit-2", "ppt": "shaken"}, {}, "C"),
        ({"attest": "A"}, PBX, "B"),
        ({"attest": "C"}, PBX, "C"),
    ],
)
def test_the_rules_decide(
    client: httpx.Client, signing_request: MakeRequest, changes: Any, headers: Any, attest: str
) -> None:
    assert attested(client.post(PATH, json=signing_request(**changes), headers=headers)) == attest


def test_what_no_rule_matches_gets_no_signature(client: httpx.Client, signing_request: MakeRequest) -> None:
    for headers in ({}, {"Authorization": "Bearer t0ken-without-a-name"}):
        answer = client.post(PATH, json=signing_request(), headers=headers)
        assert answer.status_code == 403
        error = answer.json()["requestError"]["policyException"]
        assert (error["messageId"], error["variables"]) == (
            "POL4034",
            ["no rule of this server's operator covers it"],
        )
    answer = client.post(PATH, json=signing_request(ppt="shaken", trunk="transit-1", orig={"tn": "499001"}))
    assert (answer.status_code, list(answer.json())) == (403, ["error"])
    assert "no premium numbers from other networks" in answer.json()["error"]


def test_a_rule_gives_no_authority_over_numbers(client: httpx.Client, signing_request: MakeRequest) -> None:
    answer = client.post(PATH, json=signing_request(trunk="transit-1", orig={"tn": "442079460001"}))
    assert answer.json()["requestError"]["policyException"]["messageId"] == "POL4030"


@pytest.mark.parametrize(
    ("more", "attest"),
    [("", "C"), ("P-Asserted-Identity: <sip:+493023125001@a.example>\n", "A")],
)
def test_an_invite_tells_user_and_trunk(client: httpx.Client, more: str, attest: str) -> None:
    text = INVITE.format(more=f"Attestation-Info: A\n{more}")
    answer = client.post(f"{PATH}/sip", content=text.strip() + "\n\n", headers={"Content-Type": "message/sip"})
    assert answer.status_code == 200, answer.text
    (identity,) = [line for line in answer.text.splitlines() if line.startswith("Identity: ")]
    assert attest_in(identity.removeprefix("Identity: ")) == attest


def test_each_decision_is_counted(client: httpx.Client, signing_request: MakeRequest) -> None:
    def counted(attest: str, rule: str) -> float:
        name = f'voice_dpki_attestations_total{{attest="{attest}",rule="{rule}"}} '
        lines = client.get("/metrics").text.splitlines()
        return sum(float(line.removeprefix(name)) for line in lines if line.startswith(name))

    before = counted("C", "from other networks"), counted("refused", "")
    client.post(PATH, json=signing_request(trunk="transit-2"))
    client.post(PATH, json=signing_request(trunk="transit-3"))
    assert (counted("C", "from other networks"), counted("refused", "")) == (before[0] + 1, before[1] + 1)


def explained(capsys: pytest.CaptureFixture[str], site: Site, *arguments: str) -> tuple[int, list[str]]:
    status = main(["explain", "--config", str(site.config), *arguments])
    return status, capsys.readouterr().out.splitlines()


def test_explain_tells_the_rule_and_why_not_those_before(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    with_rules(site)
    call = ("--from", "+493023125001", "--to", "442079460001")
    assert explained(capsys, site, "--peer", "proxy", "--user", "alice", *call) == (
        0,
        [
            "rule 'own subscribers': does not match by owns_number",
            "rule 'company with several numbers': does not match by users",
            "rule 'other users we know': decides: B",
            "signed with attestation B",
        ],
    )
    status, lines = explained(capsys, site, "--peer", "proxy", *call)
    assert (status, lines[-1]) == (1, "no signature: no rule of this server's operator covers it")
    status, lines = explained(capsys, site, "--trunk", "transit-1", "--from", "4420", "--to", "4930")
    assert (status, lines[-2]) == (1, "rule 'from other networks': decides: C")
    assert "may sign for" in lines[-1]
    site.write()
    assert explained(capsys, site, "--attest", "B", *call) == (
        0,
        ["signed with attestation B, as it is asked for: there are no rules"],
    )


def test_explain_reads_an_invite(
    site: Site, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with_rules(site)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(INVITE.format(more="").encode())))
    status, lines = explained(capsys, site)
    assert (status, lines[-1]) == (0, "signed with attestation C")
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"x" * 70_000)))
    assert main(["explain", "--config", str(site.config)]) == 2
    assert "more than 65536 bytes" in capsys.readouterr().err
    assert main(["explain", "--config", str(site.config), "--from", "4930"]) == 2
    assert "both --from and --to" in capsys.readouterr().err


def test_check_config_tells_of_the_rules(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    with_rules(site)
    assert main(["check-config", "--config", str(site.config)]) == 0
    assert "by 6 rules of attestation.toml" in capsys.readouterr().out
    (site.folder / "proxy.tokens").write_text("proxy t0ken\n")
    assert main(["check-config", "--config", str(site.config)]) == 2
    assert "attestation.toml: rule 'a PBX that knows best but never A': peers: " in capsys.readouterr().err


@pytest.mark.parametrize("line", ["a b c", "na,me t0ken", f"{'n' * 65} t0ken"])
def test_a_line_of_tokens_is_a_token_perhaps_with_a_name(site: Site, line: str) -> None:
    (site.folder / "proxy.tokens").write_text(f"good t0ken\n{line}\n")
    with pytest.raises(LocalError, match=r"proxy\.tokens: secret 2: ") as refused:
        load_setup(site.config, SystemClock())
    assert "t0ken" not in str(refused.value).replace("proxy.tokens", "")


def test_the_example_of_the_page(site: Site) -> None:
    with_rules(site)
    blocks = re.findall(r"^```(\w*)\n(.*?)^```$", PAGE.read_text(), re.DOTALL | re.MULTILINE)
    rules, commands = (next(text for kind, text in blocks if kind == wanted) for wanted in ("toml", "sh"))
    told = blocks[blocks.index(("sh", commands)) + 1][1]
    (site.folder / "attestation.toml").write_text(rules)
    environment = {"PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin"}
    done = [
        subprocess.run(
            ["sh", "-ec", command], cwd=site.folder, env=environment, capture_output=True, text=True, timeout=60
        )
        for command in commands.splitlines()
    ]
    assert "\n".join(each.stdout for each in done) == told, done
