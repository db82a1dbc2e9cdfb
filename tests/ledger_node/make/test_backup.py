"""Backup while a node runs, and restoring it: by the commands of the guide, and what `restore` refuses."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from ledger_node.make import backup as backups
from ledger_node.make.backup import MARGIN, SIGNED_FILE, Voted, ask_heights, guard_validator, resume_validator
from tests.guides import plain, steps_of
from voice_dpki.errors import LocalError
from voice_dpki.x509.profile import digest_of


def commands() -> list[tuple[list[str], str]]:
    """Return each command of the guide, as words, with the lines that it shows, but for a halted ledger."""
    steps = [step for step in steps_of("backup.md") if not re.search("votes|--last-block", step.command)]
    return [(step.command.removeprefix("ledger-node ").split(), "\n".join(step.shown)) for step in steps]


class Site:
    """An engine and a node that follows it, in the folder in which the guide's commands run."""

    def __init__(self, network: Any) -> None:
        self.network = network
        self.engine = network.engine(heartbeat_s=600).start()
        self.follower = network.follower("follower", self.engine.url).start()
        self.make_validator(network, self.engine)

    @staticmethod
    def make_validator(network: Any, engine: Any) -> None:
        """Write the configuration of a validator on CometBFT, which never runs."""
        section = '[cometbft]\nhome = "cometbft-validator"\n'
        text = re.sub(r"\[engine\](\n[^\[].*)*\n", section, engine.config.read_text())
        (network.folder / "validator.toml").write_text(text)

    def record(self) -> bytes:
        der = self.network.certificate()
        raw = self.network.submission_of(der)
        answer = self.engine.http.post("/ledger/v1/transactions", content=raw)
        assert answer.status_code == 200, answer.text
        self.follower.reaches(answer.json()["height"] + 1)
        return bytes(der)

    def words(self, words: list[str]) -> list[str]:
        """Return a command of the guide with this site's folder and ports."""
        urls = {"http://127.0.0.1:26680": self.engine.url, "http://127.0.0.1:26681": self.follower.url}
        return [urls.get(word, word).replace("net/", f"{self.network.folder}/") for word in words]


def lose(node: Any) -> None:
    """Damage a node's store, see what it advises, and move the store away as it says."""
    node.kill()
    file = node.data / "ledger.mdb"
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    said = node.fails()
    assert "the store is damaged" in said
    assert "Move this folder away, then: a node that follows starts on an empty one, or on a backup" in said
    assert "an engine needs the newest backup of a node that follows it" in said
    node.data.rename(node.data.with_name(f"{node.data.name}-damaged"))


async def test_the_guides_commands_do_what_it_says(
    network: Any, ledger_node: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    backup, follower, start, engine, validator = commands()
    assert start == (["start", "--config", "net/follower.toml"], "")
    site = Site(network)
    first = site.record()

    def run(command: tuple[list[str], str]) -> None:
        done = ledger_node(*site.words(command[0]))
        assert plain(done.stdout + done.stderr) == plain(command[1])

    run(backup)
    second = site.record()
    lose(site.follower)
    run(follower)
    site.follower.start()
    site.follower.reaches(site.engine.info()["height"])
    for der in (first, second):
        async with network.client(site.follower) as client:
            assert (await client.resolve(digest_of(der), with_certificate=False)).record is not None
    run(validator)
    lose(site.engine)
    run(engine)
    assert not (site.engine.data / "ledger.mdb").exists()
    newest = ["backup", "--config", str(site.follower.config), "--out", "newest"]
    assert ledger_node(*newest).returncode == 0
    peer = ("--peer", site.follower.url)
    assert ledger_node("restore", "--config", site.engine.config, "--from", "newest", *peer).returncode == 0
    site.engine.start()
    third = site.record()
    async with network.client(site.follower) as client:
        assert (await client.resolve(digest_of(third), with_certificate=False)).record is not None


def test_restore_says_what_is_missing(network: Any, ledger_node: Any, tmp_path: Path) -> None:
    engine = network.engine().start()
    follower = network.follower("follower", engine.url)
    out = tmp_path / "backup"
    assert "there is no store here" in ledger_node("backup", "--config", follower.config, "--out", out).stderr
    assert ledger_node("backup", "--config", engine.config, "--out", out).returncode == 0

    def refusal(*words: object) -> str:
        done = ledger_node("restore", *words)
        assert done.returncode == 2
        return str(done.stderr)

    assert "name other nodes with --peer" in refusal("--config", engine.config, "--from", out)
    peer = ("--peer", engine.url)
    assert "store here already" in refusal("--config", engine.config, "--from", out, *peer)
    assert "no backup here" in refusal("--config", follower.config, "--from", tmp_path / "nothing")
    assert "name the backup with --from" in refusal("--config", follower.config)
    assert "does not tell its height" in refusal("--config", engine.config, "--peer", "http://127.0.0.1:1")
    (out / "ledger.mdb").write_bytes((out / "ledger.mdb").read_bytes()[:-5000])
    assert "damaged" in refusal("--config", follower.config, "--from", out)
    assert not (follower.data / "ledger.mdb").exists()


def test_a_guard_is_never_lowered(tmp_path: Path) -> None:
    assert guard_validator(tmp_path, [7, 40, 3]) == 40 + MARGIN
    state = json.loads((tmp_path / SIGNED_FILE).read_bytes())
    assert state == {"height": str(40 + MARGIN), "round": 0, "step": 0}
    assert (tmp_path / SIGNED_FILE).stat().st_mode & 0o777 == 0o600
    assert guard_validator(tmp_path, [30]) == 40 + MARGIN
    assert guard_validator(tmp_path, [41]) == 41 + MARGIN
    (tmp_path / SIGNED_FILE).write_bytes(b"{}")
    with pytest.raises(LocalError, match="cannot be read"):
        guard_validator(tmp_path, [41])


def test_a_halted_ledgers_validator_votes_where_nobody_has_its_vote(tmp_path: Path) -> None:
    file = tmp_path / SIGNED_FILE
    guard_validator(tmp_path, [7])
    for voted, place in ((None, ("7", 2**31 - 1, 3)), (Voted(0, 2), ("8", 0, 2)), (Voted(4, 3), ("8", 4, 3))):
        resume_validator(tmp_path, 7, [7, 6], voted)
        state = json.loads(file.read_bytes())
        assert (state["height"], state["round"], state["step"]) == place
    with pytest.raises(LocalError, match="another node has block 8: the ledger does not stand still at block 7"):
        resume_validator(tmp_path, 7, [7, 8], None)
    for height, round_, step, refused in (("8", 0, 1, True), ("8", 0, 2, False), ("7", 9, 3, False)):
        signed = {"height": height, "round": round_, "step": step, "signature": "c2lnbmVk", "signbytes": "00"}
        file.write_text(json.dumps(signed))
        if not refused:
            resume_validator(tmp_path, 7, [7], Voted(0, 2))
            continue
        with pytest.raises(LocalError, match="the validator has signed at block 8 here: leave it"):
            resume_validator(tmp_path, 7, [7], None)
        assert json.loads(file.read_bytes()) == signed


@pytest.mark.parametrize("words", [["--voted", "0/prevote"], ["--voted", "0"], ["--last-block", "0"]])
def test_half_of_what_a_halted_ledger_needs_is_refused(network: Any, words: list[str], ledger_node: Any) -> None:
    engine = network.engine().start()
    Site.make_validator(network, engine)
    config = network.folder / "validator.toml"
    assert ledger_node("restore", "--config", config, "--peer", engine.url, *words).returncode == 2


@pytest.mark.parametrize(
    ("said", "why"),
    [
        ({"chain_id": "other", "height": 4}, "another ledger"),
        ({"height": 10**18}, "no ledger has"),
        ({"height": -1}, "no ledger has"),
        ({"height": "four"}, "does not tell"),
    ],
)
def test_a_node_that_cannot_be_believed_is_not_counted(
    network: Any, monkeypatch: pytest.MonkeyPatch, said: dict[str, object], why: str
) -> None:
    form = {"name": "", "role": "", "chain_id": network.genesis.chain_id, "app_hash": "", "time": None}
    body = json.dumps({**form, "age_s": None, **said}).encode()
    monkeypatch.setattr(backups, "fetch_body", lambda *_, **__: body)
    with pytest.raises(LocalError, match=why):
        ask_heights(["http://127.0.0.1:1"], network.genesis)
