"""Calls through real Kamailios in the configuration of docs/kamailio, with SIPp at both ends."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from .kamailio.operators import ASKS, CALLER, Operators, fields

pytestmark = [pytest.mark.peer("kamailio"), pytest.mark.peer("sipp")]

PASSED = f"<sip:{CALLER};verstat=TN-Validation-Passed@a.example;user=phone>"
NOT_VALIDATED = f"<sip:{CALLER};verstat=No-TN-Validation@a.example;user=phone>"
NOT_TOLD = f"<sip:{CALLER}@a.example;user=phone>"
ASSERTED = f"<sip:{CALLER};verstat=TN-Validation-Passed@a.example;user=phone>"
STRICT = {"##!define MUST_SIGN": "#!define MUST_SIGN", "##!define MUST_VERIFY": "#!define MUST_VERIFY"}
RULES = '[[rules]]\nname = "forged"\ncodes = [436]\nact = "reject"\n'
FORGED = "Identity: eyJhIjoxfQ.eyJhIjoxfQ.c2ln;info=<https://x.example/c.der>;alg=ES256;ppt=shaken"


@pytest.fixture(scope="module", params=ASKS)
def operators(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Operators]:
    operators = Operators(tmp_path_factory.mktemp("kamailio"), asks=request.param)
    yield operators
    operators.stop()


def test_a_signed_call(operators: Operators) -> None:
    call = operators.call()
    assert call.headers("P-Asserted-Identity") == [PASSED]
    assert call.headers("Identity") == []
    assert len(call.headers("Date")) == 1


@pytest.mark.parametrize(
    "asserted",
    [
        (f"P-Asserted-Identity: {ASSERTED}",),
        (f"p-asserted-identity : {ASSERTED}", f"P-Asserted-Identity: <tel:{CALLER};verstat=TN-Validation-Passed>"),
        (f"P-Preferred-Identity: {ASSERTED}", f"Remote-Party-ID: {ASSERTED}"),
    ],
    ids=["plain", "twice", "others"],
)
def test_nobody_else_tells_who_calls(operators: Operators, asserted: tuple[str, ...]) -> None:
    call = operators.call(*asserted, source="foreign")
    assert call.headers("P-Asserted-Identity") == [NOT_VALIDATED]
    assert call.invite is not None
    assert call.invite.lower().count("verstat") == 1
    assert "remote-party-id" not in call.invite.lower()


@pytest.mark.parametrize(
    "from_",
    [
        f"From: <sip:{CALLER};verstat=TN-Validation-Passed@a.example;user=phone>;tag=[call_number]",
        f"f: <sip:{CALLER};VerStat=TN-Validation-Passed@a.example;user=phone>;tag=[call_number]",
        f"From: <tel:{CALLER};verstat=TN-Validation-Passed>;tag=[call_number]",
        f"From: <sip:{CALLER}@a.example;user=phone;verstat=TN-Validation-Passed>;tag=[call_number]",
        f"From: <sip:{CALLER}@a.example;user=phone>;verstat=TN-Validation-Passed;tag=[call_number]",
    ],
    ids=["user", "case", "tel", "uri", "field"],
)
def test_no_verstat_in_from(operators: Operators, from_: str) -> None:
    call = operators.call(from_=from_, source="foreign")
    assert call.invite is not None
    assert call.invite.lower().count("verstat=") == 1
    assert all("TN-Validation-Passed" not in line for line in call.invite.splitlines())


@pytest.mark.parametrize("name", ["Identity", "identity", "y"])
def test_subscribers_sign_nothing(operators: Operators, name: str) -> None:
    forged = f"{name}: eyJhIjoxfQ.eyJhIjoxfQ.c2ln;info=<https://x.example/c.der>;alg=ES256;ppt=shaken"
    call = operators.call(forged, "Attestation-Info: C")
    assert call.headers("P-Asserted-Identity") == [PASSED]
    assert call.headers("Attestation-Info") == []
    assert "c2ln" not in (call.invite or "")


def test_a_signed_call_with_another_caller(operators: Operators) -> None:
    asserted = f"P-Asserted-Identity: <sip:{CALLER};verstat=No-TN-Validation@a.example;user=phone>"
    call = operators.call(asserted, from_='From: "Anonymous" <sip:anonymous@anonymous.invalid>;tag=[call_number]')
    (told,) = call.headers("P-Asserted-Identity")
    assert f"{CALLER};verstat=TN-Validation-Passed@" in told


def test_a_number_that_is_not_the_operators(operators: Operators) -> None:
    before = operators.a.statistics()["stir_unsigned"]
    call = operators.call(from_="From: <sip:+33123456789@a.example;user=phone>;tag=[call_number]")
    assert call.headers("P-Asserted-Identity") == [
        "<sip:+33123456789;verstat=No-TN-Validation@a.example;user=phone>"
    ]
    assert operators.a.statistics()["stir_unsigned"] == before + 1
    log = operators.a.log.read_text()
    assert re.search(r"call [-0-9a-f]+ goes unsigned: (answer 404: .*cause=403|refused: 403)", log)
    assert "33123456789" not in log


def test_a_tag_in_to_is_no_dialog(operators: Operators) -> None:
    route = f"Route: <sip:{operators.hosts['proxy-b']};lr>"
    call = operators.call(route, source="foreign", to_tag=";tag=1", status=481)
    assert call.invite is None


def test_a_route_does_not_lead_past_the_server(operators: Operators) -> None:
    routes = [f"Route: <sip:{operators.hosts['proxy-b']};lr>", f"Route: <sip:{operators.hosts['callee']};lr>"]
    call = operators.call(*routes, f"P-Asserted-Identity: {ASSERTED}", source="foreign")
    assert call.headers("P-Asserted-Identity") == [NOT_VALIDATED]
    assert call.headers("Route") == []


def test_strangers_are_refused(operators: Operators) -> None:
    assert operators.call(source="stranger", status=403).invite is None


def test_a_datagram_is_not_of_the_own_side_where_others_can_send_it(operators: Operators) -> None:
    refused = operators.call(to="proxy-a", status=403)
    assert refused.invite is None
    assert refused.answer.startswith("SIP/2.0 403 Use TCP")
    assert operators.call(to="proxy-a", transport="t1").headers("P-Asserted-Identity") == [PASSED]


@pytest.mark.parametrize(
    "asserted",
    [
        (f"P-Asserted-Identity:\r\n {ASSERTED}",),
        (
            f"P-ASSERTED-IDENTITY\t:{ASSERTED}",
            f"P-Asserted-Identity: {ASSERTED}, <tel:{CALLER};verstat=TN-Validation-Passed>",
        ),
        ("Identity:\r\n a.b.c;info=<https://a.example>", "y: a.b.c;info=<https://a.example>"),
    ],
    ids=["folded", "list", "identity"],
)
def test_however_it_is_written(operators: Operators, asserted: tuple[str, ...]) -> None:
    invite = operators.send_foreign(*asserted)
    assert fields(invite, "P-Asserted-Identity") == [NOT_VALIDATED]
    assert invite.lower().count("verstat") == 1
    assert "a.b.c" not in invite


def test_an_identity_is_good_for_one_call(operators: Operators) -> None:
    identity = f"Identity: {operators.servers.signed()}"
    assert operators.call(identity, source="foreign").headers("P-Asserted-Identity") == [PASSED]
    (told,) = operators.call(identity, source="foreign").headers("P-Asserted-Identity")
    assert "verstat=TN-Validation-Failed" in told


def test_an_answer_asserts_nothing(operators: Operators) -> None:
    heard = operators.call().answer
    assert fields(heard, "Contact")
    assert "verstat" not in heard.lower()


def test_a_busy_callee(operators: Operators) -> None:
    assert operators.call(callee="+442079460486", status=486).headers("P-Asserted-Identity") == [PASSED]


def test_a_from_that_is_none(operators: Operators) -> None:
    spaced = f"From: <sip:{CALLER};verstat = TN-Validation-Passed@a.example>;tag=[call_number]"
    assert operators.call(from_=spaced, source="foreign", status=400).invite is None


@pytest.mark.parametrize("asks", ASKS)
def test_servers_that_are_down(tmp_path: Path, asks: str) -> None:
    operators = Operators(tmp_path, asks=asks)
    try:
        operators.servers.stop("authn")
        assert operators.call().headers("P-Asserted-Identity") == [NOT_VALIDATED]
        operators.servers.stop("verify")
        call = operators.call(FORGED, f"P-Asserted-Identity: {ASSERTED}", source="foreign")
        assert call.headers("P-Asserted-Identity") == [NOT_VALIDATED]
        assert operators.a.statistics()["stir_unsigned"] == 1
        assert operators.b.statistics()["stir_unverified"] == 1
        assert re.search(r"call [-0-9a-f]+ goes unverified: (answer 408|no answer of)", operators.b.log.read_text())
    finally:
        operators.stop()


@pytest.mark.long
@pytest.mark.parametrize("asks", ASKS)
def test_servers_that_are_down_where_calls_must_be_signed(tmp_path: Path, asks: str) -> None:
    operators = Operators(tmp_path, asks=asks, local_a=STRICT, local_b=STRICT)
    try:
        assert operators.call().headers("P-Asserted-Identity") == [PASSED]
        operators.servers.stop("authn")
        assert operators.call(status=503).invite is None
        operators.servers.stop("verify")
        assert operators.call(FORGED, source="foreign", status=503).invite is None
        assert operators.call(callee="112").headers("P-Asserted-Identity") == [NOT_VALIDATED]
    finally:
        operators.stop()


@pytest.mark.long
@pytest.mark.parametrize("asks", ASKS)
def test_one_server_of_two_is_enough(tmp_path: Path, asks: str) -> None:
    operators = Operators(tmp_path, asks=asks, authn=("authn", "authn-2"), verify=("verify", "verify-2"))
    try:
        running = operators.servers.running
        with running["authn"].paused(), running["verify-2"].paused():
            for _ in range(4):
                assert operators.call().headers("P-Asserted-Identity") == [PASSED]
    finally:
        operators.stop()


def test_a_server_is_asked_again_before_it_is_given_up(tmp_path: Path) -> None:
    """A datagram may be lost. The times are so long that a busy machine keeps to them."""
    times = {"STIR_TIMEOUT_MS 500": "STIR_TIMEOUT_MS 60000", "STIR_AGAIN_MS 150": "STIR_AGAIN_MS 3000"}
    operators = Operators(tmp_path, local_a=times, local_b=times, loses=True)
    try:
        assert operators.call().headers("P-Asserted-Identity") == [PASSED]
        for losing in operators.losing.values():
            ((lost_s, again_s, *_),) = losing.sent_s.values()
            assert again_s - lost_s > 1.5, "Kamailio's own time is half a second"
    finally:
        operators.stop()


@pytest.mark.long
@pytest.mark.parametrize("asks", ASKS)
def test_a_call_that_is_given_up_while_a_server_is_asked(tmp_path: Path, asks: str) -> None:
    operators = Operators(tmp_path, asks=asks, local_a={"STIR_TIMEOUT_MS 500": "STIR_TIMEOUT_MS 2000"})
    try:
        with operators.servers.running["authn"].paused():
            assert operators.call(status=487).invite is None
        assert operators.call().headers("P-Asserted-Identity") == [PASSED]
    finally:
        operators.stop()


@pytest.mark.long
@pytest.mark.parametrize("asks", ASKS)
def test_what_the_rules_reject(tmp_path: Path, asks: str) -> None:
    operators = Operators(tmp_path, asks=asks, rules=RULES)
    try:
        assert operators.call().headers("P-Asserted-Identity") == [PASSED]
        refused = operators.call(FORGED, source="foreign", status=436)
        assert refused.invite is None
        (reason,) = fields(refused.answer, "Reason")
        assert re.match("STIR ?;cause=436", reason)
        assert operators.b.statistics()["stir_rejected"] == 1
    finally:
        operators.stop()


@pytest.mark.long
@pytest.mark.parametrize("asks", ASKS)
def test_a_call_without_an_identity_is_judged_by_the_rules(tmp_path: Path, asks: str) -> None:
    operators = Operators(tmp_path, asks=asks, rules=RULES.replace("436", "428"))
    try:
        refused = operators.call(source="foreign", status=428)
        assert refused.invite is None
        assert operators.b.statistics()["stir_rejected"] == 1
        assert operators.call().headers("P-Asserted-Identity") == [PASSED]
    finally:
        operators.stop()


@pytest.mark.long
@pytest.mark.parametrize("asks", ASKS)
@pytest.mark.parametrize("act", ["withhold", "pass"])
def test_what_the_rules_let_through(tmp_path: Path, act: str, asks: str) -> None:
    operators = Operators(tmp_path, asks=asks, rules=RULES.replace("reject", act))
    try:
        call = operators.call(FORGED, f"P-Asserted-Identity: {ASSERTED}", source="foreign")
        hidden = act == "withhold"
        assert call.headers("Privacy") == (["id"] if hidden else [])
        assert call.headers("P-Asserted-Identity") == [NOT_VALIDATED if hidden else NOT_TOLD]
    finally:
        operators.stop()


@pytest.mark.long
@pytest.mark.parametrize("trunk", ["foreign", "proxy-a"])
def test_rules_for_verdicts_know_the_trunk(tmp_path: Path, trunk: str) -> None:
    operators = Operators(tmp_path, asks="HTTP", rules=RULES.replace("codes", f'trunks = ["{trunk}"]\ncodes'))
    try:
        call = operators.call(FORGED, source="foreign", status=436 if trunk == "foreign" else 200)
        assert (call.invite is None) == (trunk == "foreign")
    finally:
        operators.stop()


@pytest.mark.long
@pytest.mark.parametrize("asks", ASKS)
@pytest.mark.parametrize("trunk", ["caller", "another"])
def test_rules_for_attestations_know_the_trunk(tmp_path: Path, trunk: str, asks: str) -> None:
    rules = f'[[rules]]\nname = "trunk"\ntrunks = ["{trunk}"]\nattest = "A"\n'
    operators = Operators(tmp_path, asks=asks, attestation=rules)
    try:
        call = operators.call(contact="sip:caller;tgrp=another;trunk-context=x@127.0.0.1")
        assert call.headers("P-Asserted-Identity") == [PASSED if trunk == "caller" else NOT_VALIDATED]
        assert "tgrp=another" in call.headers("Contact")[0]
    finally:
        operators.stop()


@pytest.mark.long
@pytest.mark.parametrize("asks", [each for each in ASKS if each != "HTTP"])
def test_a_server_that_stood_still_is_asked_again(tmp_path: Path, asks: str) -> None:
    operators = Operators(tmp_path, asks=asks)
    try:
        with operators.servers.running["authn"].paused():
            assert operators.call().headers("P-Asserted-Identity") == [NOT_VALIDATED]
        assert operators.call().headers("P-Asserted-Identity") == [PASSED]
    finally:
        operators.stop()


@pytest.mark.long
@pytest.mark.parametrize("asks", ASKS)
def test_tls_with_certificates_of_both_ends(tmp_path: Path, asks: str) -> None:
    operators = Operators(tmp_path, asks=asks, tls=True)
    try:
        assert operators.call().headers("P-Asserted-Identity") == [PASSED]
        text = (operators.a.folder / "local.cfg").read_text()
        assert (text.count('"https://'), text.count("transport=tls")) == (4, 3)
    finally:
        operators.stop()


@pytest.mark.long
@pytest.mark.parametrize("asks", ["SIP", "HTTP"])
def test_tls_with_another_server(tmp_path: Path, asks: str) -> None:
    other = {"/etc/kamailio/servers.pem": str(tmp_path / "proxy.pem")}
    operators = Operators(tmp_path, asks=asks, tls=True, local_a=other)
    try:
        assert operators.call().headers("P-Asserted-Identity") == [NOT_VALIDATED]
        assert operators.a.statistics()["stir_unsigned"] == 1
    finally:
        operators.stop()
