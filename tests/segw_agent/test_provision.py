"""Provisioning in bulk: files, bounds, recorded for real, gone on with after a break, refusals with reasons."""

import json
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import pkcs12

from segw_agent.attachment.network import Testbed
from segw_agent.attachment.site import VENDOR
from segw_agent.provision import command, read_rows
from voice_dpki.errors import LocalError
from voice_dpki.x509.keys import from_pem
from voice_dpki.x509.profile import read_profile


def csv_file(folder: Path, *lines: str) -> Path:
    path = folder / "devices.csv"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def arguments(csv: Path, out: Path, testbed: Testbed | None = None, *more: str) -> list[str]:
    words = ["--csv", str(csv), "--out", str(out), "--organization", VENDOR, *more]
    if testbed is None:
        return words
    folder = testbed.site.folder
    words += ["--url", f"http://{testbed.addresses['ledger-v']}"]
    return [*words, "--token-file", str(folder / "vendor-v.token"), "--genesis", str(testbed.site.genesis)]


def test_recorded_in_bulk(testbed: Testbed, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = [f"enb{number}.bulk.vendor.example" for number in range(40)]
    csv = csv_file(tmp_path, "identity,key", *(f"{name}," for name in names[:-1]), f"{names[-1]},rsa")
    out = tmp_path / "out"
    assert command(arguments(csv, out, testbed)) == 0
    assert capsys.readouterr().out == "40 recorded\n"
    profile = read_profile((out / f"{names[-1]}.der").read_bytes())
    assert (profile.dns_names, profile.organization, profile.key_algorithm) == ((names[-1],), VENDOR, "PS256")
    key = from_pem((out / f"{names[0]}.pem").read_bytes())
    assert key.public_key_der == read_profile((out / f"{names[0]}.der").read_bytes()).public_key_der
    assert (out / f"{names[0]}.pem").stat().st_mode & 0o777 == 0o600
    told = json.loads((out / "report.json").read_bytes())
    assert (told["devices"], told["recorded"]) == (40, 40)
    assert all(outcome["height"] for outcome in told["outcomes"])


def test_goes_on_after_a_break(testbed: Testbed, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    first = csv_file(tmp_path, "identity", "a.resume.vendor.example", "b.resume.vendor.example")
    assert command(arguments(first, out)) == 0  # made, and nothing sent
    kept = (out / "a.resume.vendor.example.der").read_bytes()
    (out / "progress.jsonl").write_text('{"identity": "a.resume', encoding="utf-8")  # as a crash leaves it
    assert command(arguments(first, out, testbed)) == 0
    assert (out / "a.resume.vendor.example.der").read_bytes() == kept
    more = csv_file(
        tmp_path, "identity", "a.resume.vendor.example", "b.resume.vendor.example", "c.resume.vendor.example"
    )
    before = (out / "progress.jsonl").read_text()
    assert command(arguments(more, out, testbed)) == 0
    assert len((out / "progress.jsonl").read_text().splitlines()) == len(before.splitlines()) + 1
    assert capsys.readouterr().out.splitlines() == ["2 recorded", "3 recorded"]


def test_refused_and_why(testbed: Testbed, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    csv = csv_file(tmp_path, "identity", "enb1.elsewhere.example", "enb1.refused.vendor.example")
    out = tmp_path / "out"
    assert command(arguments(csv, out, testbed)) == 1
    assert capsys.readouterr().out == "1 recorded, 1 refused\n"
    refused, recorded = json.loads((out / "report.json").read_bytes())["outcomes"]
    assert (refused["outcome"], refused["name"]) == ("refused", "names-outside-domains")
    assert "domains" in refused["detail"]
    assert recorded["outcome"] == "recorded"


def test_pkcs12(tmp_path: Path) -> None:
    csv = csv_file(tmp_path, "identity", "enb1.vendor.example")
    password = tmp_path / "password"
    password.write_text("correct horse\n")
    out = tmp_path / "out"
    assert command(arguments(csv, out, None, "--pkcs12", "--password-file", str(password))) == 0
    data = (out / "enb1.vendor.example.p12").read_bytes()
    key, certificate, _ = pkcs12.load_key_and_certificates(data, b"correct horse")
    assert key
    assert certificate
    assert not (out / "enb1.vendor.example.pem").exists()


def test_wrong_token(testbed: Testbed, tmp_path: Path) -> None:
    csv = csv_file(tmp_path, "identity", "enb1.token.vendor.example")
    words = arguments(csv, tmp_path / "out", testbed)
    words[words.index("--token-file") + 1] = str(testbed.site.folder / "operator-a.token")
    with pytest.raises(LocalError, match="the submission node does not know the token"):
        command(words)
    assert (tmp_path / "out" / "report.json").exists()


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        (["name", "x"], "must name identity"),
        (["identity,colour", "a.example,red"], "must name identity"),
        (["identity", "a.example", "A.example"], "line 3: a device twice"),
        (["identity", "../../etc/passwd"], "line 2: the identity is not a DNS name"),
        (["identity", "localhost"], "not a DNS name"),
        (["identity,key", "a.example,dsa"], "the key is ec or rsa"),
        (["identity,days", "a.example,99999"], "days is a number"),
        (["identity,days", "a.example,-1"], "days is a number"),
    ],
)
def test_lists_that_are_refused(tmp_path: Path, lines: list[str], words: str) -> None:
    with pytest.raises(LocalError, match=words):
        read_rows(csv_file(tmp_path, *lines), 365)


def test_what_belongs_together(tmp_path: Path) -> None:
    csv = csv_file(tmp_path, "identity", "enb1.vendor.example")
    with pytest.raises(LocalError, match="token-file"):
        command([*arguments(csv, tmp_path / "out"), "--url", "http://127.0.0.1:1"])
    with pytest.raises(LocalError, match="password-file"):
        command(arguments(csv, tmp_path / "out", None, "--pkcs12"))
    with pytest.raises(LocalError, match="cannot be read"):
        command(arguments(tmp_path / "nothing.csv", tmp_path / "out"))
