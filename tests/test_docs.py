"""What README and docs say of the programs is what the programs say of themselves."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from sip_testbed.scenarios import SCENARIOS

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]
DECISIONS = ROOT / "docs/adr"


def test_the_readme_lists_every_attack_with_its_step() -> None:
    rows = re.findall(r"^\| `([a-z-]+)` \| (.+?) \| (.+?) \|$", README, re.MULTILINE)
    told = {name: step for name, step, _ in rows if name in SCENARIOS}
    assert told == {name: s.expected.refused_by for name, s in SCENARIOS.items() if s.attack}


@pytest.mark.parametrize(
    "program",
    ["authn-server", "verify-server", "cps-server", "ledger-node", "segw-agent", "sip-testbed", "voice-dpki"],
)
def test_every_program_of_the_readme_explains_itself(program: str) -> None:
    assert f"`{program}`" in README
    path = Path(sys.executable).parent / program
    done = subprocess.run([path, "--help"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0
    assert program in done.stdout


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md"])
def test_make_targets_that_a_page_names_exist(name: str) -> None:
    makefile = (ROOT / "Makefile").read_text()
    named = set(re.findall(r"(?:^|`)make ([a-z-]+)", (ROOT / name).read_text(), re.MULTILINE))
    assert named, "the page names some"
    for target in named:
        assert f"\n{target}:" in makefile, target


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md", "docs/architecture.md"])
def test_files_that_a_page_names_exist(name: str) -> None:
    named = re.findall(r"(?<![\w./-])(?:tests|docs|bench|\.ci)/[\w/.-]*\w", (ROOT / name).read_text())
    for path in named:
        assert "STANDARD" in path or (ROOT / path).exists(), path


def test_new_configuration_keys_of_the_changelog_exist() -> None:
    unreleased = (ROOT / "CHANGELOG.md").read_text().split("\n## ")[1]
    table = unreleased.partition("| Program | Keys |")[2].partition("\n\n")[0]
    rows = re.findall(r"^\| `([a-z-]+).*? \| (.+) \|$", table, re.MULTILINE)
    assert rows
    for program, told in rows:
        package = ROOT / program.replace("-", "_")
        files = [*package.rglob("*.py"), *(ROOT / "voice_dpki/shell").glob("*.py")]
        source = "".join(file.read_text() for file in files)
        for key in re.findall(r"`\[?(?:\w+\.)?(\w+)\]?`", told):
            assert re.search(rf"^    {key}: ", source, re.MULTILINE), f"{program} has no {key}"


def test_variables_that_contributing_names_are_read() -> None:
    named = set(re.findall(r"\b([A-Z]+_[A-Z]+)=", (ROOT / "CONTRIBUTING.md").read_text()))
    tests = "".join(path.read_text() for path in (ROOT / "tests").rglob("*.py"))
    makefile = (ROOT / "Makefile").read_text()
    assert {"FUZZ_S", "SOAK_S"} <= named
    for name in named:
        assert f'environ.get("{name}"' in tests or f"$({name})" in makefile, name


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


def test_what_shows_the_claims_about_trust_exists() -> None:
    page = (ROOT / "docs/trust.md").read_text()
    tests = re.findall(r"`(tests/[\w/]+\.py)(?:::(test_\w+))?`", page)
    assert len(tests) > 15
    for path, name in tests:
        assert f"def {name}" in (ROOT / path).read_text(), f"{path} has no {name}"
    tables = page.partition("## What can be withheld")[0]
    named = {name for name in re.findall(r"`([a-z]+(?:-[a-z]+)+)`", tables) if name != "max_age_s"}
    attacks = {name for name, scenario in SCENARIOS.items() if scenario.attack}
    assert named == attacks, "each scenario shows a claim"


def _decided(page: Path) -> tuple[str, str, str]:
    """Return a decision's number, title and date, as the page itself gives them."""
    text = page.read_text()
    heading = re.match(r"# (\d+)\. (.+)\n", text)
    date = re.search(r"^Decided (\d{4}-\d\d-\d\d)\b", text, re.MULTILINE)
    assert heading, f"{page.name} lacks a numbered title"
    assert date, f"{page.name} does not say when it was decided"
    return heading[1], heading[2], date[1]


def test_the_index_of_decisions_lists_each_with_its_own_title_and_date() -> None:
    index = (DECISIONS / "README.md").read_text()
    rows = re.findall(r"^\| (\d+) \| \[(.+?)\]\(([^)]+)\) \| ([\d-]+) \| .+ \|$", index, re.MULTILINE)
    pages = sorted(DECISIONS.glob("[0-9]*.md"))
    assert rows == [(number, title, page.name, date) for page in pages for number, title, date in [_decided(page)]]
    assert [page.name[:4] for page in pages] == [f"{number:04}" for number in range(1, len(pages) + 1)]


def test_the_status_of_a_decision_leads_to_later_ones_only() -> None:
    index = (DECISIONS / "README.md").read_text()
    for number, status in re.findall(r"^\| (\d+) \|.*\| ([^|]+) \|$", index, re.MULTILINE):
        later = re.findall(r"\[(\d+)\]\((\d{4})-[^)]+\)", status)
        one = r"\[\d+\]\([^)]+\)"
        assert re.fullmatch(rf"accepted(, completed by {one}( and {one})*)?|superseded by {one}", status), status
        assert all(int(other) == int(target) > int(number) for other, target in later), status
