"""The configuration of docs/kamailio with the Kamailio 6.0 of Debian 13, on a machine of its own."""

import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.debians import bare_machine

from .kamailio.operators import CALLER, Operators, Program, fields

pytestmark = [
    pytest.mark.long,
    pytest.mark.netns,
    pytest.mark.peer("debootstrap"),
    pytest.mark.peer("kamailio"),  # for kamcmd
    pytest.mark.peer("sipp"),
]

ASKS = ("SIP", "HTTP", "HTTP_ASYNC")
PACKAGES = "kamailio kamailio-extra-modules kamailio-utils-modules kamailio-tls-modules"
PASSED = f"<sip:{CALLER};verstat=TN-Validation-Passed@a.example;user=phone>"
NOT_VALIDATED = f"<sip:{CALLER};verstat=No-TN-Validation@a.example;user=phone>"
RULES = '[[rules]]\nname = "unsigned"\ncodes = [428]\nact = "reject"\n'


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that the machine shares; Kamailio's control socket must have a short path."""
    return tmp_path_factory.mktemp("k13")


@pytest.fixture(scope="module")
def trixie(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Program]:
    """Starts Kamailio on a machine with Debian 13."""
    with bare_machine("trixie", tmp_path_factory.mktemp("trixie"), folder) as made:
        installed = made.run(f"apt-get update -qq && apt-get install --yes --no-install-recommends -qq {PACKAGES}")
        assert installed.returncode == 0, installed.stdout + installed.stderr
        assert "version: kamailio 6." in made.run("kamailio -v").stdout
        yield lambda arguments: made.command(shlex.join(["exec", "kamailio", *arguments]))


@pytest.mark.parametrize("asks", ASKS)
def test_calls_are_signed_and_verified(trixie: Program, folder: Path, asks: str) -> None:
    (folder / asks).mkdir()
    operators = Operators(folder / asks, asks=asks, program=trixie)
    try:
        assert operators.call().headers("P-Asserted-Identity") == [PASSED]
        forged = operators.call(f"P-Asserted-Identity: {PASSED}", source="foreign")
        assert forged.headers("P-Asserted-Identity") == [NOT_VALIDATED]
        operators.servers.stop("authn")
        assert operators.call().headers("P-Asserted-Identity") == [NOT_VALIDATED]
        assert operators.a.statistics()["stir_unsigned"] == 1
    finally:
        operators.stop()


@pytest.mark.parametrize("asks", ASKS)
def test_over_tls_with_rules(trixie: Program, folder: Path, asks: str) -> None:
    (folder / f"{asks}-tls").mkdir()
    operators = Operators(folder / f"{asks}-tls", asks=asks, tls=True, rules=RULES, program=trixie)
    try:
        assert operators.call().headers("P-Asserted-Identity") == [PASSED]
        refused = operators.call(source="foreign", status=428)
        assert refused.invite is None
        assert "cause=428" in fields(refused.answer, "Reason")[0]
    finally:
        operators.stop()
