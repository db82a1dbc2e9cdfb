"""`voice-dpki ledger` about decisions: what a vote changes, whole and as JSON, withdrawals, members' files."""

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ledger_node.command.details import count, outlook
from ledger_node.command.difference import between, describe_member
from ledger_node.command.main import main as ledger_node
from ledger_node.command.member_export import export_member
from ledger_node.command.output import plain
from ledger_node.command.session import CONSOLE
from ledger_node.make.member_file import load_member
from tests.present import present
from voice_dpki.codec import cbor
from voice_dpki.errors import LocalError
from voice_dpki.ledger.members import Member, MemberKind
from voice_dpki.ledger.parameters import Parameters
from voice_dpki.ledger.proposals import Proposal, ProposalState, RemoveMember, SuspendMember, encode_change
from voice_dpki.names import Tn
from voice_dpki.x509.keys import generate_es256
from voice_dpki.x509.tnauthlist import TnRange

from .test_ledger import Terminal, until
from .test_rules import agreed

DAY_S = 86_400


@pytest.fixture
def terminal(
    tmp_path: Path, network_in: Any, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Terminal]:
    """Two operators on a ledger of their own."""
    monkeypatch.setattr(CONSOLE, "_file", None)
    network = network_in(tmp_path, "[parameters]\ndelay_s = 0\n\n")
    network.engine(heartbeat_s=0.1).start()
    yield Terminal(network, capsys)
    network.end()


def asked(terminal: Terminal, *arguments: object, by: str | None = None) -> Any:
    """Run a command with --json; return its result."""
    status, said = terminal(str(arguments[0]), *arguments[1:], "--json", by=by)
    assert status == 0, said
    form = json.loads(said)
    assert (form.keys(), form["command"]) == ({"chain", "command", "result"}, arguments[0])
    return form["result"]


def test_a_members_file_comes_back_and_the_vote_shows_what_changes(terminal: Terminal, tmp_path: Path) -> None:
    file = tmp_path / "b.toml"
    listed = {each["organization"]: each for each in asked(terminal, "members")}
    assert asked(terminal, "members", "Operator B") == listed["Operator B"]
    made = asked(terminal, "members", "Operator B", "--export", file)["files"]
    assert made[0] == str(file)
    assert terminal("members", "Operator B", "--export", file)[0] == 2, "a file is never overwritten"
    assert plain(load_member(file)) == {**listed["Operator B"], "revision": 0, "admitted_height": 0}

    file.write_text(file.read_text().replace("domains = [", 'domains = ["new.example", '))
    identity = asked(terminal, "propose", "change", file, by="Operator A")["proposal"]
    found = asked(terminal, "proposals", identity[:10])
    assert (found["id"], found["come"], found["gone"]) == (identity, ["domain: new.example"], [])
    assert (found["approving"], found["missing"], found["needed"]) == (["Operator A"], ["Operator B"], 1)
    status, said = terminal("proposals", identity[:10])
    assert status == 0
    assert {"not voted: Operator B", "Changes:", "  + domain: new.example"} <= set(said.splitlines())
    assert "1 more of 2 operators must approve until" in said
    assert [each["id"] for each in asked(terminal, "proposals")] == [identity]
    assert asked(terminal, "vote", identity[:10], by="Operator B")["state"] in ("passed", "done")


def test_a_proposer_alone_withdraws_from_version_3_on(terminal: Terminal) -> None:
    identity = asked(terminal, "propose", "suspend", "Operator B", by="Operator A")["proposal"]
    assert "only Operator A can withdraw it" in terminal("withdraw", identity, by="Operator B")[1]
    status, said = terminal("withdraw", identity, by="Operator A")
    assert (status, "follows version 1 of its rules, and this needs version 3" in said) == (2, True), said
    agreed(terminal, 3, "--from", asked(terminal, "rules")["height"] + 50)
    until(lambda: asked(terminal, "rules")["present"] == 3)
    found = asked(terminal, "withdraw", identity, by="Operator A")
    assert (found["state"], found["why"]) == ("failed", "withdrawn")
    assert asked(terminal, "proposals", identity)["outlook"].startswith("It has failed (withdrawn)")


def test_a_call_placement_service_comes_by_a_change_from_version_4_on(terminal: Terminal, tmp_path: Path) -> None:
    file, url = tmp_path / "b.toml", "https://cps.b.example"
    asked(terminal, "members", "Operator B", "--export", file)
    file.write_text(f'cps = "{url}"\n{file.read_text()}')
    status, said = terminal("propose", "change", file, by="Operator A")
    assert (status, "follows version 1 of its rules, and this needs version 4" in said) == (2, True), said
    agreed(terminal, 4, "--from", asked(terminal, "rules")["height"] + 50)
    until(lambda: asked(terminal, "rules")["present"] == 4)
    identity = asked(terminal, "propose", "change", file, by="Operator A")["proposal"]
    assert asked(terminal, "proposals", identity)["come"] == [f"call placement service: {url}"]
    asked(terminal, "vote", identity, by="Operator B")
    until(lambda: asked(terminal, "members", "Operator B")["cps"] == url)
    assert f"call placement service: {url}" in terminal("members", "Operator B")[1]


def test_what_has_no_terminal_is_whole(terminal: Terminal) -> None:
    """In a pipe a table is neither cut nor wrapped, however long the names are."""
    where = ["--url", terminal.url, "--genesis", str(terminal.network.folder / "genesis.json")]
    program = [str(Path(sys.executable).with_name("voice-dpki")), "ledger", "members", *where]
    said = subprocess.run(program, capture_output=True, text=True, check=True, env={"COLUMNS": "20"}).stdout
    members = asked(terminal, "members")
    for member in members:
        (line,) = [line for line in said.splitlines() if member["organization"] in line]
        assert all(domain in line for domain in member["domains"])


def numbers(*ranges: tuple[str, int]) -> Member:
    return Member(
        "Operator B", MemberKind.OPERATOR, ranges=tuple(TnRange(Tn(start), count) for start, count in ranges)
    )


@pytest.mark.parametrize(
    ("before", "after", "gone", "come"),
    [
        ([("12025550100", 100)], [("12025550100", 40), ("12025550140", 60)], [], []),
        ([("12025550100", 100)], [("12025550110", 80)], ["00 to +12025550109 (10)", "90 to +12025550199 (10)"], []),
        ([("12025550100", 10)], [("12025550105", 10)], ["00 to +12025550104 (5)"], ["10 to +12025550114 (5)"]),
        ([("0120", 10)], [("00120", 10)], ["numbers: +0120 to +0129 (10)"], ["numbers: +00120 to +00129 (10)"]),
    ],
)
def test_numbers_are_compared_as_sets(before: Any, after: Any, gone: list[str], come: list[str]) -> None:
    found = between(numbers(*before), numbers(*after))
    for lines, ends in ((found.gone, gone), (found.come, come)):
        assert len(lines) == len(ends)
        assert all(line.endswith(end) for line, end in zip(lines, ends, strict=True)), lines


def test_all_of_a_new_member_comes_and_all_of_an_old_one_goes() -> None:
    key = generate_es256().public_key_der
    member = Member(
        "V [bold]", MemberKind.VENDOR, ("v.example",), (TnRange(Tn("12025550100"), 5),), ("12ab",), (), (key,)
    )
    come = between(None, member).come
    assert set(come) == set(describe_member(member)) - {"revision: 0", "admitted: block 0"}
    assert between(member, None).gone == come
    assert between(member, member).lines() == []


def test_only_present_operators_count() -> None:
    members = [Member(f"Operator {letter}", MemberKind.OPERATOR) for letter in "ABCD"]
    members.append(Member("Vendor V", MemberKind.VENDOR))
    change = encode_change(RemoveMember("Operator D"))
    votes = ("Operator A", "Operator Z"), ("Operator B",)
    proposal = Proposal("Operator A", change, 2 * DAY_S, ProposalState.OPEN, None, *votes, 0, 0)
    counted = count(proposal, members)
    assert (counted.operators, counted.quorum, counted.needed) == (4, 3, 2)
    assert (counted.rejecting, counted.missing) == (("Operator B",), ("Operator C", "Operator D"))
    said = outlook(proposal, RemoveMember("Operator D"), counted, Parameters())
    assert said == (
        "2 more of 4 operators must approve until 1970-01-03 00:00 UTC: then it takes effect 24.0 hours later. "
        "Otherwise it lapses, and nothing changes"
    )
    assert "takes effect at once" in outlook(proposal, SuspendMember("Operator D"), counted, Parameters())


def test_names_that_toml_must_quote_come_back(tmp_path: Path) -> None:
    keys = tuple(generate_es256().public_key_der for _ in range(2))
    member = Member('A "B" \\ \xe9 [x]', MemberKind.VENDOR, endorsing_keys=keys)
    files = export_member(member, tmp_path / "m.toml")
    assert len(files) == 3
    assert load_member(files[0]) == member
    files[0].unlink()
    with pytest.raises(LocalError, match=re.escape(files[1].name)):
        export_member(member, files[0])
    assert not files[0].exists()


def test_the_call_placement_service_is_in_the_file_and_is_told(tmp_path: Path) -> None:
    member = Member("V", MemberKind.VENDOR, cps="https://cps.v.example:8443/x")
    (file,) = export_member(member, tmp_path / "m.toml")
    assert load_member(file) == member
    assert "call placement service: https://cps.v.example:8443/x" in describe_member(member)
    assert present(plain(member))["cps"] == member.cps  # type: ignore[index]
    file.write_text(file.read_text().replace("https", "http"))
    with pytest.raises(LocalError, match="URL of a call placement service is https"):
        load_member(file)


def test_json_holds_what_later_versions_say() -> None:
    member = Member("V", MemberKind.VENDOR, further=(("note", cbor.encode([b"\x01", 2])),))
    assert present(plain(member))["further"] == {"note": ["01", 2]}  # type: ignore[index]


def test_who_proposes_and_who_votes_is_told_of_validators_that_must_run(terminal: Terminal, tmp_path: Path) -> None:
    file = tmp_path / "b.toml"
    assert terminal("members", "Operator B", "--export", file)[0] == 0
    kept = "\n".join(line for line in file.read_text().splitlines() if not line.startswith("validators"))
    file.write_text(kept)
    status, said = terminal("propose", "change", file, by="Operator A")
    assert status == 0, said
    assert "Validators: 1 of 1 validator must run then, 2 of 2 now." in said
    (identity,) = [each["id"] for each in asked(terminal, "proposals")]
    weight = {"before": 2, "after": 1, "new": 0, "needed_before": 2, "needed": 1, "power": 1, "running": 1}
    assert asked(terminal, "proposals", identity)["validators"] == weight
    assert asked(terminal, "vote", identity, by="Operator B")["validators"] == weight


def test_a_change_that_needs_validators_which_sign_nothing_is_not_sent(terminal: Terminal, tmp_path: Path) -> None:
    """As `admit-two-offline-validators` of the shared cases: two keys whose nodes nobody has seen."""
    for name in ("x1", "x2"):
        assert ledger_node(["keys", "new", "validator", "--out", str(tmp_path / f"{name}.pem")]) == 0
    assert ledger_node(["keys", "new", "endorsing", "--out", str(tmp_path / "x-end.pem")]) == 0
    file = tmp_path / "x.toml"
    file.write_text(
        'organization = "Operator X"\nkind = "operator"\ndomains = ["x.example"]\n'
        'ranges = [{ start = "12065550100", count = 100 }]\n'
        'validators = ["x1.pub.pem", "x2.pub.pem"]\nendorsing_keys = ["x-end.pub.pem"]\n'
    )
    terminal.capsys.readouterr()
    known = {each["id"] for each in asked(terminal, "proposals")}
    status, said = terminal("propose", "admit", file, by="Operator A")
    assert status == 2, said
    assert "3 of 4 validators must run then, 2 of 2 now" in said
    assert "have 2 of 4 of the power then" in said
    assert {each["id"] for each in asked(terminal, "proposals")} == known, "nothing was sent"
    assert terminal("propose", "admit", file, "--force", by="Operator A")[0] == 0
    (identity,) = {each["id"] for each in asked(terminal, "proposals")} - known
    status, said = terminal("vote", identity, by="Operator B")
    assert (status, "add --force" in said) == (2, True)
    assert terminal("vote", identity, "--reject", by="Operator B")[0] == 0
