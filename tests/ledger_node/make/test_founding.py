"""Founding a ledger together: the guide's commands, and what must not pass for an offer or a signature."""

import base64
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest

from ledger_node.command import config as configuration
from ledger_node.command.main import main
from ledger_node.make.founding import build, check_signed, fingerprint, sign
from ledger_node.make.keys import PrivateKeys
from ledger_node.make.member_file import load_member
from ledger_node.make.offer import Terms, make_offer, read_offer
from tests.founders import Founders
from tests.present import present
from voice_dpki.errors import LocalError
from voice_dpki.ledger.genesis import load_genesis
from voice_dpki.shell.config import load_config

NEUTRAL = base64.b64encode(bytes.fromhex("302a300506032b6570032100") + b"\1" + bytes(31)).decode("ascii")


@pytest.fixture(scope="module")
def founders(tmp_path_factory: pytest.TempPathFactory) -> Founders:
    """Return three operators that have followed the guide as far as the start of their nodes."""
    founders = Founders(tmp_path_factory.mktemp("founders"))
    founders.found()
    return founders


@pytest.fixture
def a(founders: Founders) -> Path:
    """Return the folder of Operator A, which tests leave as it is."""
    return founders.readers[0].folder


def terms_in(folder: Path) -> Terms:
    return load_config(folder / "terms.toml", Terms)


def test_by_the_guide_all_have_the_same_genesis_and_no_key_of_another(founders: Founders) -> None:
    folders = [reader.folder for reader in founders.readers]
    (data,) = {(folder / "genesis.json").read_bytes() for folder in folders}
    genesis = load_genesis(data)
    assert [member.organization for member in genesis.members] == ["Operator A", "Operator B", "Operator C"]
    assert genesis.parameters.delay_s == 86_400
    for folder, member in zip(folders, genesis.members, strict=True):
        assert load_member(folder / "operator.toml") == member
        assert check_signed(data, folder / "signatures") == ("Operator A", "Operator B", "Operator C")
        private = [file for file in folder.rglob("*") if file.is_file() and b"PRIVATE" in file.read_bytes()]
        assert sorted(file.name for file in private) == ["endorsing.pem", "node.pem", "validator.pem"]
    assert fingerprint(data).count(" ") == 7


def test_the_order_of_the_offers_does_not_matter(a: Path) -> None:
    offers = [a / "offers" / f"{letter}.toml" for letter in "abc"]
    data = build(terms_in(a), offers)
    assert {build(terms_in(a), order) for order in (offers[::-1], [*offers[1:], offers[0]])} == {data}
    assert data == (a / "genesis.json").read_bytes()


CHANGES: list[tuple[Callable[[str], str], str]] = [
    (lambda text: text.replace('"442079460000"', '"442079470000"'), "does not verify"),
    (lambda text: text.replace("Operator B", "Operator X"), "does not verify"),
    (lambda text: text.replace('["b.example"]', '["b.example", "c.example"]'), "does not verify"),
    (lambda text: text.replace("127.0.31.2", "127.0.31.9"), "does not verify"),
    (lambda text: text.replace('proof = "', 'proof = "AAAA', 1), "does not verify"),
    (lambda text: text.replace('proof = "', 'proof = "?', 1), "b.toml: "),
    (lambda text: text.replace('terms = "', 'terms = "00', 1), "terms"),
    (lambda text: text.replace("MCowBQYDK2VwAyEA", "MCowBQYDK2VwAyEB", 1), "b.toml: "),
    (lambda text: text + "more = 1\n", "more"),
    (lambda text: text[: len(text) // 2], "b.toml: "),
]


@pytest.mark.parametrize("at", range(len(CHANGES)))
def test_an_offer_that_somebody_changed_is_refused(a: Path, tmp_path: Path, at: int) -> None:
    change, why = CHANGES[at]
    text = (a / "offers" / "b.toml").read_text()
    assert change(text) != text
    (tmp_path / "b.toml").write_text(change(text))
    with pytest.raises(LocalError, match=why):
        read_offer(tmp_path / "b.toml", terms_in(a))


@pytest.mark.parametrize("kind", ["validators", "endorsing_keys", "nodes"])
def test_every_key_must_have_signed_the_offer(a: Path, tmp_path: Path, kind: str) -> None:
    """Each has a proof of its kind that another operator's key made."""
    own, other = (_keys_in(a / "offers" / f"{letter}.toml", kind) for letter in "ba")
    proof = re.compile(r'proof = "[^"]+"')
    exchanged = proof.sub(proof.findall(other)[0], own, count=1)
    text = (a / "offers" / "b.toml").read_text()
    (tmp_path / "b.toml").write_text(text.replace(own, exchanged))
    assert exchanged != own
    with pytest.raises(LocalError, match="does not verify"):
        read_offer(tmp_path / "b.toml", terms_in(a))


def _keys_in(path: Path, kind: str) -> str:
    """Return an offer's text about the keys of a kind."""
    return path.read_text().split(f"[[{kind}]]\n")[1].split("\n\n")[0]


def test_another_operators_key_cannot_be_offered(founders: Founders, a: Path, tmp_path: Path) -> None:
    """Operator B puts A's validator key into its own offer, with the proof that A made for its own."""
    theirs = _keys_in(a / "offers" / "a.toml", "validators")
    head, _, tail = (a / "offers" / "b.toml").read_text().partition("[[validators]]\n")
    (tmp_path / "b.toml").write_text(f"{head}[[validators]]\n{theirs}\n\n{tail.partition(chr(10) * 2)[2]}")
    with pytest.raises(LocalError, match="does not verify"):
        read_offer(tmp_path / "b.toml", terms_in(a))


def test_a_key_under_which_anybody_can_sign_cannot_be_offered(a: Path, tmp_path: Path) -> None:
    """Under the neutral element R = s B is a signature of anything: here s = 0, and R the neutral element, too."""
    head, _, tail = (a / "offers" / "b.toml").read_text().partition("[[validators]]\n")
    pem = f"-----BEGIN PUBLIC KEY-----\\n{NEUTRAL}\\n-----END PUBLIC KEY-----\\n"
    proof = base64.b64encode(b"\1" + bytes(63)).decode("ascii")
    forged = f'public = "{pem}"\nproof = "{proof}"'
    (tmp_path / "b.toml").write_text(f"{head}[[validators]]\n{forged}\n\n{tail.partition(chr(10) * 2)[2]}")
    with pytest.raises(LocalError, match="not an Ed25519 public key"):
        read_offer(tmp_path / "b.toml", terms_in(a))


def test_an_offer_counts_for_the_terms_that_its_operator_read(a: Path, tmp_path: Path) -> None:
    text = (a / "terms.toml").read_text()
    (tmp_path / "same.toml").write_text(f"# a comment\n{text}")
    read_offer(a / "offers" / "b.toml", load_config(tmp_path / "same.toml", Terms))
    for old, new in (("86400", "5"), ("voice-1", "voice-2"), ("00:00Z", "00:01Z"), ("delay_s", "voting_s")):
        assert old in text
        (tmp_path / "other.toml").write_text(text.replace(old, new))
        with pytest.raises(LocalError, match="other terms"):
            build(load_config(tmp_path / "other.toml", Terms), [a / "offers" / "b.toml"])


@pytest.mark.parametrize(
    ("old", "new"),
    [("delay_s", "delay"), ("86400", "-1"), ("T00:00:00Z", "soon"), ("voice-1", "a b"), ("voice-1", "")],
)
def test_terms_that_no_ledger_can_have_are_refused(a: Path, tmp_path: Path, old: str, new: str) -> None:
    (tmp_path / "terms.toml").write_text((a / "terms.toml").read_text().replace(old, new))
    with pytest.raises(LocalError, match=r"terms\.toml: "):
        terms_in(tmp_path)


def test_what_two_offers_share_founds_nothing(a: Path, tmp_path: Path) -> None:
    (tmp_path / "again.toml").write_bytes((a / "offers" / "b.toml").read_bytes())
    with pytest.raises(LocalError, match="same key"):
        build(terms_in(a), [a / "offers" / "b.toml", tmp_path / "again.toml"])
    with pytest.raises(LocalError, match="cannot read"):
        build(terms_in(a), [a / "offers" / "nobody.toml"])


def test_an_operator_signs_only_what_it_said_itself(founders: Founders, tmp_path: Path) -> None:
    folder = founders.readers[1].folder
    data, member = (folder / "genesis.json").read_bytes(), load_member(folder / "operator.toml")
    keys = PrivateKeys(folder / "keys")
    assert sign(data, member, keys)
    for old, new in (
        (b"442079460000", b"442079470000"),
        (b"b.example", b"x.example"),
        (b"Operator B", b"Operator X"),
    ):
        with pytest.raises(LocalError, match="do not sign it"):
            sign(data.replace(old, new), member, keys)
    with pytest.raises(LocalError, match="private key of endorsing is not here"):
        sign(data, member, PrivateKeys(founders.readers[0].folder / "keys"))
    with pytest.raises(LocalError, match="no private keys here"):
        PrivateKeys(tmp_path)


def test_a_genesis_that_one_operator_has_not_signed_starts_no_node(founders: Founders, tmp_path: Path) -> None:
    folder = founders.readers[0].folder
    data = (folder / "genesis.json").read_bytes()
    texts = {letter: (folder / "signatures" / f"{letter}.toml").read_text() for letter in "abc"}

    def refusal(genesis: bytes = data, **changed: str) -> str:
        for letter, text in {**texts, **changed}.items():
            (tmp_path / f"{letter}.toml").write_text(text)
        with pytest.raises(LocalError) as refused:
            check_signed(genesis, tmp_path)
        return str(refused.value)

    for letter, text in texts.items():
        (tmp_path / f"{letter}.toml").write_text(text)
    assert len(check_signed(data, tmp_path)) == 3
    assert "signed another genesis" in refusal(data.replace(b"a.example", b"x.example"))
    assert "signed another genesis" in refusal(data + b"\n")
    assert "not signed by Operator C" in refusal(c=texts["b"])
    assert "no key of Operator C" in refusal(c=texts["b"].replace("Operator B", "Operator C"))
    assert "no member" in refusal(c=texts["c"].replace("Operator C", "Operator X"))
    forged = texts["c"].partition("signature = ")[0] + "signature = " + texts["b"].partition("signature = ")[2]
    assert "does not verify" in refusal(c=forged)


def test_the_node_itself_refuses_to_start(founders: Founders, capsys: pytest.CaptureFixture[str]) -> None:
    folder = founders.readers[2].folder
    (folder / "signatures" / "b.toml").rename(folder / "b.toml")
    try:
        assert main(["start", "--config", str(folder / "operator-c.toml")]) == 2
    finally:
        (folder / "b.toml").rename(folder / "signatures" / "b.toml")
    assert "the genesis is not signed by Operator B" in capsys.readouterr().err


def test_a_genesis_time_that_clients_do_not_trust_any_more_is_advised_against(
    a: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    day = (datetime.now(UTC) - timedelta(days=8)).strftime("%Y-%m-%d")
    text = re.sub(r'genesis_time = "[^T]+', f'genesis_time = "{day}', (a / "terms.toml").read_text())
    (tmp_path / "terms.toml").write_text(text)
    terms, member, keys = terms_in(tmp_path), load_member(a / "operator.toml"), PrivateKeys(a / "keys")
    (tmp_path / "a.toml").write_bytes(make_offer(terms, member, [], keys))
    names = {name: str(tmp_path / name) for name in ("terms.toml", "genesis.json", "a.toml")}
    out = ("--out", names["genesis.json"])
    assert main(["genesis", "build", "--terms", names["terms.toml"], *out, names["a.toml"]]) == 0
    assert "The genesis time is long past" in capsys.readouterr().out


def test_a_packaged_node_keeps_its_data_elsewhere_and_needs_no_endorsing_key(
    founders: Founders, a: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    keys = tmp_path / "keys"
    keys.mkdir()
    for name in ("validator.pem", "node.pem", "node.pub.pem"):
        (keys / name).write_bytes((a / "keys" / name).read_bytes())
    offers = [str(a / "offers" / f"{letter}.toml") for letter in "abc"]
    command = ["genesis", "configure", "--terms", str(a / "terms.toml"), "--member", str(a / "operator.toml")]
    command += ["--keys", str(keys), "--node", f"{keys / 'node.pub.pem'}@{httpx.URL(founders.urls[0]).host}"]
    assert main([*command, "--out", "config.toml", *offers]) == 2
    assert main([*command, "--out", "config.toml", "--state", "state", "--no-submission", *offers]) == 0
    config = configuration.load(tmp_path / "config.toml")
    assert config.submission is None
    assert not (tmp_path / "tokens").exists()
    home = present(config.cometbft).home
    assert (config.node.data_dir, home) == (str(tmp_path / "state" / "data"), str(tmp_path / "state" / "cometbft"))
