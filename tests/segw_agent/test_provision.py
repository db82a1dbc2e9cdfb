"""Provisioning in bulk: files, bounds, recorded for real, gone on with after a break, refusals with reasons."""

import json
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, pkcs12

from segw_agent import provision
from segw_agent.attachment.network import Testbed
from segw_agent.attachment.site import VENDOR
from segw_agent.device_list import TOLD, read_rows
from segw_agent.provision import Done, Store, command
from tests.piped import error_of, piped, result_of
from voice_dpki.errors import LocalError
from voice_dpki.x509.keys import from_pem, spki
from voice_dpki.x509.profile import digest_of, read_profile


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
    assert command([*arguments(csv, out, testbed), "--json"]) == 1
    told = json.loads(capsys.readouterr().out)["result"]
    assert told == {"folder": str(out), "made": 2, **json.loads((out / "report.json").read_bytes())}
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


def test_what_was_made_is_told_whole_and_in_json(tmp_path: Path) -> None:
    csv, out = csv_file(tmp_path, "identity", "enb1.vendor.example"), tmp_path / "out"
    told = result_of(command, *arguments(csv, out))
    assert told == {"folder": str(out), "devices": 1, "made": 1}
    done = piped("voice-dpki", "device", "provision", *arguments(csv, out))
    sent = f"1 devices are in {out}; nothing was sent, for there is no --url"
    assert (done.stdout, done.stderr.splitlines()[-1]) == ("", sent)
    csv.write_text("identity\nlocalhost\n")
    assert "not a DNS name" in error_of(command, *arguments(csv, out))


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
        (["identity", "a.example", "A.example"], "line 3: a.example is a device twice, first in line 2"),
        (["identity", "../../etc/passwd"], "line 2: the identity is not a DNS name"),
        (["identity", "localhost"], "not a DNS name"),
        (["identity,key", "a.example,dsa"], "the key is ec or rsa"),
        (["identity,days", "a.example,99999"], "days is a number"),
        (["identity,days", "a.example,-1"], "days is a number"),
        (["identity,days", "a.example,0000001461234"], "days is a number"),
    ],
)
def test_lists_that_are_refused(tmp_path: Path, lines: list[str], words: str) -> None:
    with pytest.raises(LocalError, match=words):
        read_rows(csv_file(tmp_path, *lines), 365)


SAMPLES = {
    "bom.csv": (b"\xef\xbb\xbfidentity,key\na.vendor.example,ec\n", ["a.vendor.example"]),
    "semi.csv": (b"identity;key\na.vendor.example;ec\n", ["a.vendor.example"]),
    "five.csv": (
        b"identity\nw0.vendor.example\nw1.vendor.example\nw2.vendor.example\nw3.vendor.example\nw4.vendor.example\n",
        [f"w{number}.vendor.example" for number in range(5)],
    ),
    "all of it": (
        "\ufeffidentity ;key\r\na.vendor.example; rsa\r\nB.vendor.example;\r\n".encode(),
        ["a.vendor.example", "b.vendor.example"],
    ),
    "tabs": (b"key\tidentity\nec\ta.vendor.example\n", ["a.vendor.example"]),
    "quoted": (b'"identity","common_name"\n"a.vendor.example","a; b"\n', ["a.vendor.example"]),
}
"""Lists as spreadsheets write them."""


@pytest.mark.parametrize("name", SAMPLES)
def test_lists_of_spreadsheets(tmp_path: Path, name: str) -> None:
    octets, identities = SAMPLES[name]
    (tmp_path / "list.csv").write_bytes(octets)
    assert [row.identity for row in read_rows(tmp_path / "list.csv", 365)] == identities


def test_all_wrong_lines_are_told_at_once(tmp_path: Path) -> None:
    bad = ["ok1.vendor.example,ec,10", "bad name,ec,10", "ok2.vendor.example,dsa,10", "ok3.vendor.example,ec,0"]
    with pytest.raises(LocalError) as told:
        read_rows(csv_file(tmp_path, "identity,key,days", *bad, "ok1.vendor.example,,", "c d,x,y,z"), 365)
    said = str(told.value)
    assert "nothing was done, for 5 lines are wrong" in said
    for line in (
        "line 3: the identity is not a DNS name",
        "line 4: the key is ec or rsa",
        "line 5: days is a number",
        "line 6: ok1.vendor.example is a device twice, first in line 2",
        "line 7: there are more columns than the first line names, the identity is not a DNS name, the key is",
    ):
        assert line in said
    assert "line 2:" not in said


def test_duplicates_in_another_case(tmp_path: Path) -> None:
    lines = "identity", "a.vendor.example", "b.vendor.example", "A.vendor.example"
    with pytest.raises(LocalError, match=r"line 4: a.vendor.example is a device twice, first in line 2"):
        read_rows(csv_file(tmp_path, *lines), 365)


def test_the_error_about_a_list_has_an_end(tmp_path: Path) -> None:
    with pytest.raises(LocalError, match=r"for 1000 lines are wrong.*and 950 more$") as told:
        read_rows(csv_file(tmp_path, "identity", *["x y"] * 1000), 365)
    assert str(told.value).count("line ") == TOLD


# --- what is done already: by ledger and digest -------------------------------------------------------------------


def digest_in(out: Path, name: str) -> str:
    return digest_of((out / f"{name}.der").read_bytes()).hex()


def test_a_corrected_organisation_is_submitted_again(
    testbed: Testbed, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name, out = "enb1.corrected.vendor.example", tmp_path / "out"
    csv = csv_file(tmp_path, "identity", name)
    wrong = arguments(csv, out, testbed)
    wrong[wrong.index(VENDOR)] = "Vendor X"
    assert command(wrong) == 1
    key, first = (out / f"{name}.pem").read_bytes(), digest_in(out, name)
    assert command(arguments(csv, out, testbed)) == 0
    assert capsys.readouterr().out.splitlines() == ["1 refused", "1 recorded"]
    (outcome,) = json.loads((out / "report.json").read_bytes())["outcomes"]
    assert outcome["digest"] == digest_in(out, name) != first
    assert (out / f"{name}.pem").read_bytes() == key, "the device keeps its key"


def test_another_ledger_has_recorded_nothing(tmp_path: Path) -> None:
    csv = csv_file(tmp_path, "identity", "enb1.vendor.example")
    out = tmp_path / "out"
    assert command(arguments(csv, out)) == 0
    rows, digest = read_rows(csv, 365), digest_in(out, "enb1.vendor.example")
    one = Store(out, None, "11")
    one.note(Done("enb1.vendor.example", digest, "recorded", 7, ledger="11"))
    assert Store(out, None, "11").outcome(rows[0]).outcome == "recorded"
    assert Store(out, None, "22").outcome(rows[0]).outcome == "not-sent"
    assert [done.ledger for done in Store(out, None, "22").report(rows)] == ["22"]


def test_what_an_earlier_version_noted_is_asked_for_again(
    testbed: Testbed, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It did not note the ledger. The ledger answers that the certificate is recorded, and that is what it is."""
    name, out = "enb1.earlier.vendor.example", tmp_path / "out"
    csv = csv_file(tmp_path, "identity", name)
    assert command(arguments(csv, out, testbed)) == 0
    noted = json.loads((out / "progress.jsonl").read_text())
    del noted["ledger"]
    (out / "progress.jsonl").write_text(json.dumps(noted) + "\n")
    assert command(arguments(csv, out, testbed)) == 0
    assert capsys.readouterr().out.splitlines() == ["1 recorded"] * 2
    assert len((out / "progress.jsonl").read_text().splitlines()) == 2


def test_pkcs12_after_pem(tmp_path: Path) -> None:
    """The key stays, and so does the certificate; the plain key goes."""
    name, out, password = "enb1.vendor.example", tmp_path / "out", tmp_path / "password"
    csv = csv_file(tmp_path, "identity", name)
    password.write_text("correct horse\n")
    assert command(arguments(csv, out)) == 0
    der, signer = (out / f"{name}.der").read_bytes(), from_pem((out / f"{name}.pem").read_bytes())
    wrapped = arguments(csv, out, None, "--pkcs12", "--password-file", str(password))
    for _ in range(2):
        assert command(wrapped) == 0
        key, certificate, _ = pkcs12.load_key_and_certificates((out / f"{name}.p12").read_bytes(), b"correct horse")
        assert key is not None
        assert certificate is not None
        assert spki(key.public_key()) == signer.public_key_der  # type: ignore[arg-type]
        assert (out / f"{name}.der").read_bytes() == der == certificate.public_bytes(Encoding.DER)
        assert not (out / f"{name}.pem").exists()
    other = [word if word != VENDOR else "Vendor X" for word in wrapped]
    assert command(other) == 0
    assert read_profile((out / f"{name}.der").read_bytes()).public_key_der == signer.public_key_der
    assert read_profile((out / f"{name}.der").read_bytes()).organization == "Vendor X"
    with pytest.raises(LocalError, match="give --pkcs12"):
        command(arguments(csv, out))
    password.write_text("wrong\n")
    with pytest.raises(LocalError, match="the password is not"):
        command(wrapped)


def test_ctrl_c_while_keys_are_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What is made stays, a line says how far it came, and the next run goes on."""
    names = [f"enb{number}.vendor.example" for number in range(5)]
    csv, out = csv_file(tmp_path, "identity", *names), tmp_path / "out"
    made = iter(range(5))

    def make(*arguments: object, **options: object) -> bytes:
        if next(made) == 3:
            raise KeyboardInterrupt
        return certificate(*arguments, **options)  # type: ignore[arg-type]

    certificate = provision._certificate
    monkeypatch.setattr(provision, "_certificate", make)
    assert command(arguments(csv, out)) == 1
    assert "stopped: 3 of 5 devices are in" in " ".join(capsys.readouterr().err.split())
    kept = {path.name: path.read_bytes() for path in out.glob("enb*")}
    assert {f"{name}.der" for name in names[:3]} <= kept.keys()
    monkeypatch.undo()
    assert command(arguments(csv, out)) == 0
    assert all((out / name).read_bytes() == data for name, data in kept.items()), (
        "also the key of the one cut short"
    )
    assert len(list(out.glob("*.der"))) == 5


def test_what_belongs_together(tmp_path: Path) -> None:
    csv = csv_file(tmp_path, "identity", "enb1.vendor.example")
    with pytest.raises(LocalError, match="token-file"):
        command([*arguments(csv, tmp_path / "out"), "--url", "http://127.0.0.1:1"])
    with pytest.raises(LocalError, match="password-file"):
        command(arguments(csv, tmp_path / "out", None, "--pkcs12"))
    with pytest.raises(LocalError, match="cannot be read"):
        command(arguments(tmp_path / "nothing.csv", tmp_path / "out"))
