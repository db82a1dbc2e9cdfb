"""`ledger-node keys`: what it makes fits where it is used, and nothing that exists is overwritten."""

from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from ledger_node.abci.cometbft import CometbftSection, node_id
from ledger_node.command.config import read_node_key, read_validator_key
from ledger_node.command.main import main
from ledger_node.make.keys import describe, read_public
from ledger_node.make.member_file import load_member
from tests.piped import error_of, piped, result_of
from voice_dpki.errors import LocalError
from voice_dpki.ledger.signatures import key_id_of
from voice_dpki.shell.credentials import read_certificate, read_ed25519, read_signer
from voice_dpki.x509.keys import spki

MEMBER = """\
organization = "Operator A"
kind = "operator"
domains = ["a.example"]
ranges = [{ start = "493023125000", count = 1000 }]
spcs = ["1234"]
validators = ["keys/validator.pub.pem"]
endorsing_keys = ["keys/endorsing.pub.pem"]
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return the folder of an operator that has made its keys."""
    for kind in ("validator", "node", "endorsing"):
        assert main(["keys", "new", kind, "--out", str(tmp_path / "keys" / f"{kind}.pem")]) == 0
    (tmp_path / "operator.toml").write_text(MEMBER)
    return tmp_path


def test_each_kind_is_read_where_it_is_used(folder: Path) -> None:
    keys = folder / "keys"
    member = load_member(folder / "operator.toml")
    validator = read_validator_key(keys / "validator.pem").public_key()
    assert member.validators == (validator.public_bytes_raw(),)
    assert member.endorsing_keys == (read_signer(keys / "endorsing.pem").public_key_der,)
    section = CometbftSection(home="home", node_key="keys/node.pem")
    assert read_node_key(folder / "node.toml", section).public_key() == read_public(keys / "node.pub.pem")
    assert not (folder / "home").exists()
    for private in ("validator.pem", "node.pem", "endorsing.pem"):
        assert (keys / private).stat().st_mode & 0o777 == 0o600, private
    assert keys.stat().st_mode & 0o077 == 0


def test_no_key_is_overwritten(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = {path: path.read_bytes() for path in (folder / "keys").iterdir()}
    (folder / "keys" / "node.pem").rename(folder / "node.pem")
    assert main(["keys", "new", "node", "--out", str(folder / "keys" / "node.pem")]) == 2
    assert "cannot make this file: File exists" in capsys.readouterr().err
    (folder / "node.pem").rename(folder / "keys" / "node.pem")
    assert {path: path.read_bytes() for path in (folder / "keys").iterdir()} == before


def test_a_lost_public_key_comes_from_the_private_one(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    for kind in ("validator", "node", "endorsing"):
        private, public = (folder / "keys" / f"{kind}{end}" for end in (".pem", ".pub.pem"))
        for source in (private, public):
            assert main(["keys", "public", str(source)]) == 0
            assert capsys.readouterr().out == public.read_text()
        assert main(["keys", "public", str(private), "--out", str(public)]) == 2, "it is there"
        wanted = public.read_bytes()
        public.unlink()
        assert main(["keys", "public", str(private), "--out", str(public)]) == 0
        assert public.read_bytes() == wanted
        capsys.readouterr()


def test_show_tells_the_names_that_others_know(folder: Path) -> None:
    node = read_ed25519(folder / "keys" / "node.pem", "node key")
    for name, whose in (("node.pem", "private key"), ("node.pub.pem", "public key")):
        assert describe(folder / "keys" / name).lines == [
            f"{folder / 'keys' / name}: {whose}, Ed25519: for a validator or a node",
            f"  validator address  {node_id(node).upper()}",
            f"  node id            {node_id(node)}",
        ]
    endorsing = read_public(folder / "keys" / "endorsing.pub.pem")
    assert not isinstance(endorsing, Ed25519PublicKey)
    key_id = key_id_of(spki(endorsing)).hex()
    assert describe(folder / "keys" / "endorsing.pem").lines[1:] == [f"  key id             {key_id}"]
    with pytest.raises(LocalError, match="neither a key nor a certificate"):
        describe(folder / "operator.toml")
    with pytest.raises(LocalError, match="cannot read this key or certificate"):
        describe(folder / "nothing")


def test_show_tells_scripts_in_json(folder: Path) -> None:
    keys = folder / "keys"
    node = node_id(read_ed25519(keys / "node.pem", "node key"))
    member = str(folder / "operator.toml")
    signer = ["keys", "signer", "--member", member, "--common-name", "sti.a.example", "--out", str(keys / "sti")]
    assert main(signer) == 0
    profile = read_certificate(keys / "sti.der")
    public, endorsing, certificate = result_of(
        main, "keys", "show", keys / "node.pub.pem", keys / "endorsing.pem", keys / "sti.der"
    )
    assert public == {
        "file": str(keys / "node.pub.pem"),
        "holds": "public key",
        "algorithm": "Ed25519",
        "validator_address": node.upper(),
        "node_id": node,
    }
    assert (endorsing["holds"], endorsing["algorithm"]) == ("private key", "P-256")
    assert certificate["digest"] == profile.digest.hex()
    assert (certificate["spcs"], certificate["tns"]) == (["1234"], [])
    assert certificate["ranges"] == [{"start": "493023125000", "count": 1000}]
    assert (certificate["not_before_s"], certificate["not_after_s"]) == (profile.not_before_s, profile.not_after_s)
    assert "neither a key nor" in error_of(main, "keys", "show", keys / "node.pem", folder / "operator.toml")


def test_show_is_whole_in_a_pipe(folder: Path) -> None:
    path = folder / "keys" / "node.pub.pem"
    assert piped("ledger-node", "keys", "show", path).stdout.splitlines() == describe(path).lines


def test_a_signer_has_the_members_numbers(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["keys", "signer", "--member", str(folder / "operator.toml"), "--common-name", "sti.a.example"]
    assert main([*arguments, "--out", str(folder / "signers" / "sti")]) == 0
    profile = read_certificate(folder / "signers" / "sti.der")
    assert profile.public_key_der == read_signer(folder / "signers" / "sti.pem").public_key_der
    assert profile.organization == "Operator A"
    capsys.readouterr()
    assert main(["keys", "show", str(folder / "signers" / "sti.der")]) == 0
    shown = capsys.readouterr().out.splitlines()
    assert shown[1] == f"  H(CERT)            {profile.digest.hex()}"
    assert shown[-1] == "  numbers and codes  1234, +493023125000 (1000)"
    assert main([*arguments, "--out", str(folder / "signers" / "sti")]) == 2, "it is there"
    (folder / "operator.toml").write_text(MEMBER.replace('spcs = ["1234"]', "").replace("ranges", "# ranges"))
    assert main([*arguments, "--out", str(folder / "other")]) == 2
    assert "no numbers and no codes" in capsys.readouterr().err


ROTATED = """\
organization = "Operator A"
kind = "operator"
domains = ["a.example"]
ranges = [{ start = "493023125000", count = 1000 }]
validators = ["a-val.pub"]
endorsing_keys = ["a-end.pub"]
"""


def test_a_members_file_takes_public_keys_under_any_name_and_no_other_kind(folder: Path) -> None:
    (folder / "member.toml").write_text(ROTATED)
    for kind, name in (("validator", "a-val.pub"), ("endorsing", "a-end.pub")):
        assert main(["keys", "public", str(folder / "keys" / f"{kind}.pem"), "--out", str(folder / name)]) == 0
    assert load_member(folder / "member.toml").validators == load_member(folder / "operator.toml").validators
    for old, new, why in (
        ("a-val.pub", "a-end.pub", "a validator's key must be Ed25519"),
        ("a-end.pub", "a-val.pub", "an endorsing key must be ECDSA on P-256"),
        ("a-val.pub", "nothing", "cannot read this key file"),
        ("a-val.pub", "member.toml", "not a public or unencrypted private key in PEM form"),
    ):
        (folder / "member.toml").write_text(ROTATED.replace(f'["{old}"]', f'["{new}"]'))
        with pytest.raises(LocalError, match=why):
            load_member(folder / "member.toml")
