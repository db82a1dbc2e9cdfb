"""The list of mutants that behave as the code does is about the code as it is."""

import tomllib
from collections import Counter
from pathlib import Path

from tests.scratch import ROOT

LISTED = tomllib.loads((Path(__file__).parent / "mutants" / "equivalent.toml").read_text())["mutant"]


def test_what_a_listed_mutant_removes_is_in_its_file() -> None:
    gone = []
    for mutant in LISTED:
        lines = (ROOT / mutant["path"]).read_text().splitlines()
        removed = [line[1:] for line in mutant["difference"].splitlines() if line.startswith("-")]
        assert removed, mutant
        if not any(lines[at : at + len(removed)] == removed for at in range(len(lines))):
            gone.append((mutant["path"], removed))
    assert gone == []


def test_each_is_listed_once_with_its_reason() -> None:
    counted = Counter((mutant["path"], mutant["difference"].strip("\n")) for mutant in LISTED)
    assert [mutant for mutant, count in counted.items() if count > 1] == []
    assert all(mutant["why"].endswith(".") for mutant in LISTED)
