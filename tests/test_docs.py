"""What README and docs say of the programs is what the programs say of themselves."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from sip_testbed.scenarios import SCENARIOS

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def test_the_readme_lists_every_attack_with_its_step() -> None:
    rows = re.findall(r"^\| `([a-z-]+)` \| (.+?) \| (.+?) \|$", README, re.MULTILINE)
    told = {name: step for name, step, _ in rows if name in SCENARIOS}
    assert told == {name: s.expected.refused_by for name, s in SCENARIOS.items() if s.attack}


@pytest.mark.parametrize(
    "program", ["authn-server", "verify-server", "ledger-node", "segw-agent", "sip-testbed", "voice-dpki"]
)
def test_every_program_of_the_readme_explains_itself(program: str) -> None:
    assert f"`{program}`" in README
    path = Path(sys.executable).parent / program
    done = subprocess.run([path, "--help"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0
    assert program in done.stdout


def test_make_targets_of_the_readme_exist() -> None:
    makefile = (ROOT / "Makefile").read_text()
    for target in set(re.findall(r"\bmake ([a-z]+)\b", README)) - {"and"}:
        assert f"\n{target}:" in makefile, target


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_between_pages_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text()):
        assert (page.parent / target).exists(), target


def test_the_goals_of_all_attacks_are_told() -> None:
    page = (ROOT / "docs/scenarios.md").read_text()
    rows = re.findall(r"^\| `([a-z-]+)` \| (.+?) \| (.+?) \|$", page, re.MULTILINE)
    assert [(name, goal) for name, goal, _ in rows] == [
        (name, scenario.attack.goal) for name, scenario in SCENARIOS.items() if scenario.attack
    ]
