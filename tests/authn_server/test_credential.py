from pathlib import Path

import pytest

from authn_server.config import EXAMPLE, load_setup
from authn_server.main import main
from voice_dpki.effects import SystemClock
from voice_dpki.names import Tn
from voice_dpki.x509.claimconstraints import ClaimConstraints, constraints_in
from voice_dpki.x509.profile import read_profile


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


COMMAND = ["make-credential", "--organization", "Operator A", "--common-name", "sti.a.example"]


def test_what_it_makes_can_sign(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*COMMAND, "--range", "493023125000:1000", "--spc", "709J"]) == 0
    assert (folder / "authn.pem").stat().st_mode & 0o777 == 0o600
    (folder / "proxy.tokens").write_text("x\n")
    (folder / "authn.toml").write_text(EXAMPLE)
    credential = load_setup(folder / "authn.toml", SystemClock()).credential.value
    assert credential.authorises(Tn("493023125999"))
    told = capsys.readouterr().out
    assert credential.profile.digest.hex() in told
    assert 'voice-dpki ledger submit --genesis genesis.json --organization "Operator A" --key KEY authn.der' in told


def test_a_certificate_can_say_what_is_signed_with_it(folder: Path) -> None:
    limits = ["--must-include", "attest", "--permit", "attest=A", "--permit", "attest=B", "--must-exclude", "rcd"]
    assert main([*COMMAND, "--range", "493023125000:1000", *limits]) == 0
    profile = read_profile((folder / "authn.der").read_bytes())
    expected = ClaimConstraints(("attest",), (("attest", ("A", "B")),), ("rcd",))
    assert constraints_in(profile.claim_constraints) == expected


def test_a_key_is_never_overwritten(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "authn.pem").write_text("mine")
    assert main([*COMMAND, "--range", "493023125000:1000"]) == 2
    assert "authn.pem" in capsys.readouterr().err
    assert (folder / "authn.pem").read_text() == "mine"


@pytest.mark.parametrize(
    "more",
    [
        [],
        ["--range", "493023125000"],
        ["--range", "493023125000:ten"],
        ["--range", "x:10"],
        ["--range", "99:10"],
        ["--spc", ""],
        ["--spc", "709J", "--organization", "x" * 65],
        ["--spc", "709J", "--permit", "attest"],
        ["--spc", "709J", "--permit", "=A"],
        ["--spc", "709J", "--must-exclude", "iat"],
        ["--spc", "709J", "--must-include", "n\u00e4m"],
    ],
)
def test_what_makes_no_certificate_is_said(
    folder: Path, capsys: pytest.CaptureFixture[str], more: list[str]
) -> None:
    assert main([*COMMAND, *more]) == 2
    assert "no such certificate can be made" in capsys.readouterr().err
    assert not list(folder.iterdir())
