"""What is done with a call by the operator's rules: over HTTP, in the file, and as `explain` tells it."""

import json
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio

from verify_server.config import EXAMPLE, load_setup
from verify_server.export import ExportConfig
from verify_server.invites import InviteVerifier
from verify_server.main import main
from verify_server.rules import EXAMPLE as RULES
from verify_server.rules import load_handling
from verify_server.service import VerifyService
from voice_dpki.effects import SystemClock
from voice_dpki.errors import LocalError
from voice_dpki.shell.config import Listen
from voice_dpki.shell.http import serve
from voice_dpki.shell.reload import Live
from voice_dpki.shell.stir_service import StirRoute
from voice_dpki.shell.trace import Tracer
from voice_dpki.stir.examine import Policy
from voice_dpki.stir.replay import ReplayCache

from .conftest import Caller, Site, in_3gpp_form, verification
from .test_service import INVITE, PATH, ToldResolver

PAGE = Path(__file__).parents[2] / "docs/stir-policy.md"
TOKENS = "proxy t0ken-of-the-proxy\npbx t0ken-of-the-pbx\n"
PBX = {"Authorization": "Bearer t0ken-of-the-pbx"}
RULE = '[[rules]]\nname = "one"\nact = "tag"\n'


def with_rules(site: Site, rules: str = RULES) -> Site:
    site.write(EXAMPLE.replace("# rules", "rules"))
    (site.folder / "verdicts.toml").write_text(rules)
    (site.folder / "proxy.tokens").write_text(TOKENS)
    return site


def forged() -> str:
    """An Identity under a certificate that the ledger does not know."""
    stranger = Caller()
    return stranger.identity(stranger.der())


class Server:
    """A verification server with the example's rules, over a real socket; the ledger knows nobody but `der`."""

    def __init__(self, client: httpx.AsyncClient, caller: Caller, der: bytes) -> None:
        self.client, self.caller, self.der = client, caller, der

    async def action(self, request: dict[str, Any], headers: dict[str, str] | None = None) -> dict[str, Any]:
        answer = await self.client.post(PATH, json=request, headers=headers)
        assert answer.status_code == 200
        action: dict[str, Any] = answer.json()["verificationResponse"]["action"]
        return action


@pytest_asyncio.fixture
async def server(site: Site, caller: Caller) -> AsyncIterator[Server]:
    setup, resolver = load_setup(with_rules(site).config), ToldResolver()
    der = caller.der()
    resolver.tell(caller.credential(der).profile.digest, der)
    tracer = Tracer(None, "verify-b")
    config = setup.config
    service = VerifyService(
        resolver, config.policy(), config.replay_cache(0), SystemClock(), tracer, setup.handling
    )
    app = StirRoute("verification", PATH, Live(setup.tokens.value), service.verify).app()
    async with serve(app, Listen(port=0)) as port:
        headers = {"Authorization": "Bearer t0ken-of-the-proxy"}
        url = f"http://127.0.0.1:{port}"
        async with httpx.AsyncClient(base_url=url, headers=headers, trust_env=False) as client:
            yield Server(client, caller, der)


async def test_a_proven_caller_is_tagged_as_the_peer_spells_it(server: Server) -> None:
    request = verification(server.caller.identity(server.der))
    assert await server.action(request) == {"act": "tag", "verstat": "TN-Validation-Passed"}
    unsigned = verification("e30.e30.c2ln")
    assert await server.action(unsigned, PBX) == {"act": "tag", "verstat": "TN-Validation-Unknown"}
    assert (await server.action(unsigned))["verstat"] == "No-TN-Validation"


@pytest.mark.parametrize("form", [verification, in_3gpp_form])
async def test_a_forged_call_is_rejected_with_its_reason(server: Server, form: Any) -> None:
    identity = forged()
    action = await server.action(form(identity))
    signature = identity.partition(";")[0].rpartition(".")[2]
    assert action == {
        "act": "reject",
        "rule": "forged",
        "status": 437,
        "text": "Unsupported Credential",
        "reasons": [f'STIR ;cause=437 ;text="Unsupported Credential" ;ppi="..{signature}"'],
    }


async def test_the_answer_to_a_call_is_no_call_to_be_treated(server: Server) -> None:
    answer = await server.client.post(PATH, json=verification(forged(), answer=True))
    verdict = answer.json()["verificationResponse"]
    assert (verdict["step"], verdict.get("action")) == ("E13 ppt", None)


@pytest.mark.parametrize("form", [verification, in_3gpp_form])
async def test_an_emergency_call_goes_on(server: Server, form: Any) -> None:
    to = {"tn": ["+112"]} if form is verification else {"tn": "112"}
    action = await server.action(form("e30.e30.c2ln", orig="442079460001", to=to))
    assert action == {
        "act": "tag",
        "rule": "our own numbers from elsewhere",
        "verstat": "No-TN-Validation",
        "insteadOf": "withhold",
        "emergency": True,
    }


async def test_the_trunk_of_the_request_counts(server: Server) -> None:
    request = verification("e30.e30.c2ln", orig="442079460001")
    assert (await server.action(request))["act"] == "withhold"
    assert (
        await server.action({"verificationRequest": {**request["verificationRequest"], "trunk": "operator-c"}})
    )["rule"] == "an operator that has just begun"


CALLERLESS = """\
[[rules]]
name = "nobody"
caller = false
act = "reject"
status = 403

[[rules]]
name = "somebody"
act = "pass"
"""


async def test_a_call_without_a_caller_passes_the_rules_too(site: Site) -> None:
    def anonymous(text: str) -> str:
        return re.sub(r"^From: <.*>", "From: <sip:anonymous@anonymous.invalid>", text, flags=re.MULTILINE)

    setup = load_setup(with_rules(site, CALLERLESS).config)
    export = ExportConfig(file="calls.jsonl").open(site.config)
    service = VerifyService(
        ToldResolver(), Policy(), ReplayCache(9, 9), SystemClock(), Tracer(None, "b"), setup.handling, [export]
    )
    verifier = InviteVerifier(service, SystemClock())
    refused = await verifier.verify_text(anonymous(INVITE).encode())
    assert refused.startswith(b"SIP/2.0 403 Stale Date\r\n")
    assert (await verifier.verify_text(INVITE.encode())).startswith(b"INVITE ")
    export.close()
    rows = map(json.loads, (site.folder / "calls.jsonl").read_text().splitlines())
    assert [(row["rule"], row["code"]) for row in rows] == [("nobody", "438"), ("somebody", "428")]


BYPASSES = """\
[[rules]]
name = "could not sign"
bypasses = ["operator-c"]
act = "tag"

[[rules]]
name = "must be signed"
codes = [428]
act = "reject"
"""


@pytest.mark.parametrize(
    ("more", "rejected"),
    [
        ("P-Identity-Bypass: t0ken-of-c\r\n", False),
        ("", True),
        ("P-Identity-Bypass: another\r\n", True),
        ("P-Identity-Bypass: \r\n", True),
        ("P-Identity-Bypass: t0ken-of-c\r\nP-Identity-Bypass: t0ken-of-c\r\n", True),
    ],
)
async def test_an_operator_that_could_not_sign_is_known_by_its_token(site: Site, more: str, rejected: bool) -> None:
    with_rules(site, BYPASSES).config.write_text(site.config.read_text().replace("# bypass", "bypass"))
    (site.folder / "bypass.tokens").write_text("operator-c t0ken-of-c\noperator-d t0ken-of-d\n")
    setup = load_setup(site.config)
    service = VerifyService(
        ToldResolver(), Policy(), ReplayCache(9, 9), SystemClock(), Tracer(None, "b"), setup.handling
    )
    verifier = InviteVerifier(service, SystemClock(), bypass=setup.bypasses)
    answer = await verifier.verify_text(INVITE.replace("Call-ID:", f"{more}Call-ID:").encode())
    assert answer.startswith(b"SIP/2.0 428 " if rejected else b"INVITE ")


def test_tokens_of_operators_have_names_that_rules_use(site: Site) -> None:
    with_rules(site, BYPASSES)
    with pytest.raises(LocalError, match="rule 'could not sign': bypasses: no token has the name 'operator-c'"):
        load_setup(site.config)
    site.config.write_text(site.config.read_text().replace("# bypass", "bypass"))
    (site.folder / "bypass.tokens").write_text("t0ken-of-c\n")
    with pytest.raises(LocalError, match="secret 1: a line is NAME TOKEN"):
        load_setup(site.config)


async def test_treatments_are_counted(server: Server) -> None:
    async def counted() -> float:
        name = 'voice_dpki_treatments_total{act="reject",rule="forged"} '
        lines = (await server.client.get("/metrics")).text.splitlines()
        return sum(float(line.removeprefix(name)) for line in lines if line.startswith(name))

    before = await counted()
    await server.action(verification(forged()))
    assert await counted() == before + 1


@pytest.mark.parametrize(
    ("text", "match"),
    [
        (RULE + "status = 403\n", "rule 'one': status: only a rule that rejects"),
        (RULE.replace("tag", "reject") + "status = 486\n", "rule 'one': status"),
        (RULE.replace("tag", "drop"), "rule 'one': act"),
        (RULE + "codes = [404]\n", "rule 'one': codes"),
        (RULE + 'verstats = ["passed"]\n', "rule 'one': verstats"),
        (RULE + 'orig = ["x"]\n', r"rule 'one': orig\[1\]: it is no number"),
        (RULE + 'peers = ["stranger"]\n', "rule 'one': peers: no token has the name 'stranger'"),
        ('emergency = ["x"]\n' + RULE, r"emergency\[1\]: it is no number"),
        ("[verstat.stranger]\n" + RULE, "verstat: no token has the name 'stranger'"),
        ('[verstat.proxy]\nNo-TN-Validation = "a b"\n' + RULE, "verstat"),
        ('ppi = "half"\n' + RULE, "ppi: "),
        (RULE + RULE, "rule 'one': another rule before has this name"),
    ],
)
def test_errors_name_rule_and_member(tmp_path: Path, text: str, match: str) -> None:
    (tmp_path / "verdicts.toml").write_text(text)
    with pytest.raises(LocalError, match=match):
        load_handling(tmp_path / "verdicts.toml", frozenset({"proxy"}))


def test_explain(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    with_rules(site)
    call = ["explain", "--config", str(site.config), "--from", "493023125001", "--to", "442079460001"]
    assert main([*call, "--verstat", "TN-Validation-Failed", "--code", "437"]) == 1
    assert capsys.readouterr().out.splitlines() == [
        "rule 'forged': decides: reject",
        "the call: reject with 437 Unsupported Credential",
    ]
    assert main([*call, "--trunk", "operator-a", "--code", "428"]) == 0
    assert capsys.readouterr().out.splitlines()[-2:] == [
        "rule 'must be signed by now': decides: reject",
        "the call: tag, verstat=No-TN-Validation, and not reject: the rules only watch",
    ]
    assert main(["explain", "--config", str(site.config), "--to", "442079460001", "--code", "438"]) == 0
    assert capsys.readouterr().out.splitlines()[-2:] == [
        "rule 'our own numbers from elsewhere': does not match by orig",
        "the call: tag, verstat=No-TN-Validation",
    ]
    with (site.folder / "verdicts.toml").open("a") as file:
        file.write('\n[[rules]]\nname = "a lost Identity"\nout_of_band = true\nact = "pass"\n')
    for options, line in (
        ([], "rule 'a lost Identity': does not match by out_of_band"),
        (["--out-of-band"], "rule 'a lost Identity': decides: pass"),
    ):
        assert main([*call, "--verstat", "TN-Validation-Passed", *options]) == 0
        assert line in capsys.readouterr().out.splitlines()
    assert main([*call[:-1], "x"]) == 2
    assert "the call cannot be used" in capsys.readouterr().err


def test_check_config_tells_of_the_rules(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    with_rules(site)
    assert main(["check-config", "--config", str(site.config)]) == 0
    assert "by 4 rules of verdicts.toml; a call that none matches is tagged" in capsys.readouterr().out
    with_rules(site, "monitor = true\n" + RULE)
    assert main(["check-config", "--config", str(site.config)]) == 0
    assert "by 1 rules of verdicts.toml, which only watch" in capsys.readouterr().out


def test_the_example_of_the_page(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    part = PAGE.read_text().partition("## Verdicts")[2].partition("## Export")[0]
    blocks = re.findall(r"^```(\w*)\n(.*?)^```$", part, re.DOTALL | re.MULTILINE)
    (rules,) = (text for kind, text in blocks if kind == "toml")
    (commands,) = (text for kind, text in blocks if kind == "sh")
    with_rules(site, rules)
    for line in commands.splitlines():
        main([str(site.config) if word == "verify.toml" else word for word in line.split()[1:]])
    assert capsys.readouterr().out == blocks[-1][1]
