from pathlib import Path

import pytest

from authn_server.rules import EXAMPLE, load_rules
from voice_dpki.errors import LocalError
from voice_dpki.stir.attestation import Outcome

RULE = '[[rules]]\nname = "one"\nattest = "A"\n'


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "rules.toml"


def test_the_example(file: Path) -> None:
    file.write_text(EXAMPLE)
    rules = load_rules(file, frozenset({"proxy", "pbx"}))
    assert [rule.attest or rule.at_most for rule in rules] == ["A", "A", "B", Outcome.REFUSE, "C", "B"]
    assert rules[0].orig[0].last == "493023125999"
    assert rules[3].trunks == {"transit-1", "transit-2"}


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("", r"rules\.toml: rules: there must be"),
        ("rules = 1", "rules: there must be"),
        ("rules = [1]", "rule 1: "),
        ("[[rules", "not TOML"),
        ('[[rules]]\nattest = "A"\n', "rule 1: .*name"),
        (RULE + "colour = 1\n", "rule 'one': .*colour"),
        (RULE + 'orig = ["4930", "x"]\n', r"rule 'one': orig\[2\]: it is no number"),
        (RULE + 'dest = ["4939-4930"]\n', r"rule 'one': dest\[1\]: the ends of a range"),
        (RULE + "peers = []\n", "rule 'one': peers: "),
        (RULE + 'peers = "proxy"\n', "rule 'one': peers: "),
        (RULE + 'asked = ["D"]\n', "rule 'one': asked"),
        (RULE + 'at_most = "B"\n', "rule 'one': attest: a rule has either"),
        ('[[rules]]\nname = "one"\n', "rule 'one': attest: a rule has either"),
        ('[[rules]]\nname = "one"\nattest = "D"\n', "rule 'one': attest: "),
        (RULE + RULE, "rule 'one': another rule before has this name"),
        ("x = 1\n" + RULE, "unknown field `x`"),
        (RULE.replace("one", "one\\nline"), "rule .*name: "),
    ],
)
def test_errors_name_rule_and_member(file: Path, text: str, match: str) -> None:
    file.write_text(text)
    with pytest.raises(LocalError, match=match):
        load_rules(file, frozenset())


def test_peers_are_names_of_tokens(file: Path) -> None:
    file.write_text(RULE + 'peers = ["proxy", "pbx"]\n')
    assert load_rules(file, frozenset({"proxy", "pbx"}))[0].peers == {"proxy", "pbx"}
    with pytest.raises(LocalError, match="rule 'one': peers: no token has the name 'pbx'"):
        load_rules(file, frozenset({"proxy"}))
