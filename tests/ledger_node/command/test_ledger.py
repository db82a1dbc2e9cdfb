"""`voice-dpki ledger` against a running node: every command, its output, and what it refuses."""

import asyncio
import json
import re
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from ledger_node.command.sending import Bulk, CertificateFile, Sender, collect, pack, read_certificate
from ledger_node.command.session import CONSOLE
from tests.present import present
from voice_dpki.errors import LocalError, PeerError
from voice_dpki.ledger.transactions import MAX_TRANSACTION_BYTES, Batch, endorse
from voice_dpki.shell import again, cli
from voice_dpki.shell.config import Listen
from voice_dpki.shell.http import HttpApp, Request, Response, Route, json_response, serve
from voice_dpki.x509.keys import generate_es256, generate_rsa, to_pem
from voice_dpki.x509.profile import digest_of

DEADLINE_S = 60.0


class Terminal:
    """Runs commands against one node, and reads what they print."""

    def __init__(self, network: Any, capsys: pytest.CaptureFixture[str]) -> None:
        self.network = network
        self.url = network.nodes[0].url
        self.capsys = capsys

    def __call__(self, name: str, *arguments: object, by: str | None = None) -> tuple[int, str]:
        where = ["--url", self.url, "--genesis", str(self.network.folder / "genesis.json")]
        who = ["--organization", by, "--key", str(self.key(by))] if by else []
        status = cli.main(["ledger", name, *where, *who, *map(str, arguments)])
        captured = self.capsys.readouterr()
        return status, captured.out + captured.err

    def key(self, organization: str) -> Path:
        return self.network.folder / "keys" / f"endorsing-{organization.lower().replace(' ', '-')}.pem"


@pytest.fixture
def terminal(voting: Any, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Terminal:
    monkeypatch.setattr(CONSOLE, "width", 200)
    monkeypatch.setattr(CONSOLE, "_file", None)
    return Terminal(voting, capsys)


def test_thousands_are_recorded_in_batches_once(terminal: Terminal, tmp_path: Path) -> None:
    folder = tmp_path / "certificates"
    (folder / "deep").mkdir(parents=True)
    for number in range(300):
        place = folder / "deep" if number % 2 else folder
        (place / f"{number}.der").write_bytes(terminal.network.certificate())
    (folder / "foreign.der").write_bytes(terminal.network.certificate("Operator B"))
    (folder / "copy.der").write_bytes((folder / "0.der").read_bytes())
    (folder / "notes.txt").write_text("not a certificate")
    (folder / "broken.pem").write_text("-----BEGIN CERTIFICATE-----\n")
    report = tmp_path / "report.json"
    status, said = terminal("submit", folder, "--report", report, by="Operator A")
    assert status == 1
    assert re.search(r"300 recorded in .*, 0 were on the ledger already", said), said
    assert "foreign.der: refused (wrong-organization)" in said
    assert "broken.pem: refused (certificate-malformed)" in said
    refused = json.loads(report.read_bytes())["refused"]
    assert {each["file"] for each in refused} == {str(folder / "foreign.der"), str(folder / "broken.pem")}
    (folder / "foreign.der").unlink()
    (folder / "broken.pem").unlink()
    (folder / "late.der").write_bytes(terminal.network.certificate())
    status, said = terminal("submit", folder, by="Operator A")
    assert status == 0
    assert re.search(r"1 recorded in .*, 300 were on the ledger already", said), said


@pytest.mark.parametrize("generate", [generate_es256, generate_rsa])
def test_an_owner_renews_suspends_resumes_and_revokes(
    terminal: Terminal, tmp_path: Path, generate: Callable[[], Any]
) -> None:
    key, old, new = generate(), tmp_path / "old.der", tmp_path / "new.der"
    names = {"common_name": f"owned {generate.__name__}"}
    old.write_bytes(terminal.network.certificate(key=key, **names))
    new.write_bytes(terminal.network.certificate(**names))
    owner = tmp_path / "owner.pem"
    owner.write_bytes(to_pem(key))
    assert terminal("status", old)[1].startswith("unknown, proved by block")
    assert terminal("submit", old, by="Operator A")[0] == 0
    status, said = terminal("renew", old, new, "--owner-key", owner, by="Operator A")
    assert (status, digest_of(new.read_bytes()).hex() in said) == (0, True)
    digest = digest_of(old.read_bytes()).hex()
    assert terminal("suspend", digest, "--owner-key", owner)[0] == 0
    status, said = terminal("status", digest)
    assert status == 1
    assert "suspended, proved by" in said
    assert "by its owner: certificateHold" in said
    assert f"followed by {digest_of(new.read_bytes()).hex()}" in said
    assert terminal("resume", old, "--owner-key", owner)[0] == 0
    assert terminal("status", old)[0] == 0
    assert terminal("revoke", old, "--reason", "superseded", by="Operator A")[0] == 0
    assert "by its endorser: superseded" in terminal("status", old)[1]
    status, said = terminal("resume", old, "--owner-key", owner)
    assert (status, "transition-not-allowed" in said) == (2, True)
    assert f"follows {digest}" in terminal("status", new)[1]


def test_operators_decide_about_members(terminal: Terminal, tmp_path: Path) -> None:
    endorsing, validator = generate_es256(), Ed25519PrivateKey.generate()
    (tmp_path / "endorsing.pem").write_bytes(to_pem(endorsing))
    public = validator.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    (tmp_path / "validator.pub.pem").write_bytes(public)
    file = tmp_path / "member.toml"
    file.write_text(
        'organization = "Vendor V"\nkind = "vendor"\ndomains = ["v.example"]\nendorsing_keys = ["endorsing.pem"]\n'
    )
    status, said = terminal("propose", "admit", file, by="Operator A")
    assert status == 0, said
    identity = present(re.search(r"approval: ([0-9a-f]{64})", said))[1]
    status, said = terminal("proposals")
    assert re.search(rf"{identity[:12]}.*Operator A.*admit Vendor V.*open.*Operator A", said), said
    status, said = terminal("vote", identity[:10], by="Operator B")
    assert re.search(r"Voted in block \d+; the proposal is (passed|done)", said), said
    until(lambda: "Vendor V" in terminal("members")[1])
    assert "done" in terminal("proposals")[1]
    assert terminal("vote", identity, by="Operator B")[0] == 2
    file.write_text(file.read_text().replace("v.example", "w.example"))
    assert terminal("propose", "change", file, by="Operator A")[0] == 0
    assert terminal("propose", "suspend", "Vendor V", by="Operator A")[0] == 0
    assert terminal("propose", "remove", "Vendor V", by="Operator B")[0] == 0
    file.write_text(file.read_text().replace('"vendor"', '"operator"') + 'validators = ["validator.pub.pem"]\n')
    status, said = terminal("propose", "admit", file, "--force", by="Operator A")
    assert (status, "wrong-member-revision" in said) == (2, True)


def test_a_quorum_revokes_anothers_certificate(terminal: Terminal, tmp_path: Path) -> None:
    file = tmp_path / "certificate.der"
    file.write_bytes(terminal.network.certificate())
    assert terminal("submit", file, by="Operator A")[0] == 0
    _, said = terminal("propose", "revoke-certificates", file, by="Operator B")
    identity = present(re.search(r"approval: ([0-9a-f]{64})", said))[1]
    assert terminal("vote", identity, by="Operator A")[1].endswith("the proposal is done\n")
    assert "revoked since block" in terminal("status", file)[1]
    assert "by its quorum: keyCompromise" in terminal("status", file)[1]


def test_any_kind_of_leaf_is_shown_and_any_kind_of_transaction_is_sent(terminal: Terminal, tmp_path: Path) -> None:
    file = tmp_path / "certificate.der"
    file.write_bytes(terminal.network.certificate())
    digest = digest_of(file.read_bytes()).hex()
    assert terminal("submit", file, by="Operator A")[0] == 0
    change = ("status", f"digest={digest}", "revision=0", "status=suspended")
    status, said = terminal("send", *change, "reason=certificateHold", by="Operator A")
    assert (status, "In effect since block" in said) == (0, True), said
    status, said = terminal("show", "certificates", digest)
    assert status == 0
    assert {"status: suspended", "organization: Operator A", "revision: 1"} <= set(said.splitlines())
    assert "kind: operator" in terminal("show", "members", "Operator B")[1].splitlines()
    for arguments in (("show", "members", "Nobody"), ("show", "certificates", digest[1:])):
        assert terminal(*arguments)[0] == 2
    for members in (
        change,
        (*change, "reason=superseded", "reason=unspecified"),
        ("vote", "proposal=00", "approve=true"),
        ("vote", "approve"),
    ):
        assert terminal("send", *members, by="Operator A")[0] == 2


def test_two_weeks_after_the_genesis_the_way_to_a_newer_header_is_told(
    network_in: Any, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(CONSOLE, "width", 200)
    monkeypatch.setattr(CONSOLE, "_file", None)
    network = network_in(tmp_path)
    try:
        path = network.folder / "genesis.json"
        form = json.loads(path.read_bytes())
        old_s = time.time() - 15 * 86_400
        path.write_text(
            json.dumps({**form, "genesis_time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(old_s))})
        )
        engine = network.engine(heartbeat_s=0.1).start()
        engine.reaches(3)
        terminal = Terminal(network, capsys)
        status, said = terminal("members")
        assert status == 2
        assert "put a newer one into the trust file, which is what /ledger/v1/headers/HEIGHT gives" in said
        assert f"The trust file is {network.folder / 'ledger-trust.json'}; --trust names another" in said
        (tmp_path / "newer.json").write_bytes(engine.http.get("/ledger/v1/headers/3").content)
        status, said = terminal("members", "--trust", tmp_path / "newer.json")
        assert (status, "Operator A" in said) == (0, True)
    finally:
        network.end()


def test_arguments_that_do_not_fit(terminal: Terminal, tmp_path: Path) -> None:
    file = tmp_path / "certificate.der"
    file.write_bytes(terminal.network.certificate())
    for arguments, match in (
        (("revoke", file), "is on the ledger"),
        (("propose", "remove", "A", "B"), "takes one argument"),
        (("propose", "change", tmp_path / "none.toml"), "cannot read this configuration"),
        (("vote", "zz"), "0 proposals"),
        (("status", tmp_path / "none.der"), "cannot read this certificate"),
    ):
        by = "Operator A" if arguments[0] in ("propose", "vote") else None
        status, said = terminal(*arguments, by=by)
        assert (status, match in said) == (2, True), said
    assert terminal("submit", file, by="Operator A")[0] == 0
    assert "give --owner-key" in terminal("revoke", file)[1]


def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


def test_batches_fit_into_transactions(network: Any) -> None:
    der = network.certificate()
    items = [CertificateFile(Path(str(number)), der) for number in range(600)]
    batches = list(pack(items))
    assert [item for batch in batches for item in batch] == items
    sizes = [
        len(endorse(Batch("x" * 50, "y" * 64, tuple(item.der for item in batch)), [generate_es256()]))
        for batch in batches
    ]
    assert MAX_TRANSACTION_BYTES - 2000 < sizes[0] <= max(sizes) <= MAX_TRANSACTION_BYTES


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(LocalError, match=r"nothing\.der"):
        collect([tmp_path / "nothing.der"])
    (tmp_path / "half.pem").write_text("-----BEGIN CERTIFICATE-----\n")
    with pytest.raises(LocalError, match=r"half\.pem"):
        read_certificate(tmp_path / "half.pem")
    assert [item.path.name for item in collect([tmp_path])] == ["half.pem"], "the ledger will say what it is not"


@pytest.mark.undescribed
async def test_a_node_that_says_when_to_come_back_is_not_asked_before(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(again, "RETRY_S", (0.0, 0.0))
    asked_s: list[float] = []

    async def answer(_request: Request) -> Response:
        asked_s.append(time.monotonic())
        if len(asked_s) == 1:
            return Response(429, headers=(("Retry-After", "1"),))
        return json_response(200, {"code": 0, "name": "ok", "detail": "", "height": 5})

    app = HttpApp([Route("POST", "/ledger/v1/transactions", answer)])
    async with serve(app, Listen(port=0)) as port, Sender(f"http://127.0.0.1:{port}") as sender:
        assert (await sender.verdict(b"transaction")).height == 5
    assert asked_s[1] - asked_s[0] >= 1


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("7", 7), ("99999", again.MAX_RETRY_AFTER_S), ("soon", 0), ("-1", 0), ("", 0), ("1.5", 0)],
)
def test_how_long_a_node_wants_not_to_be_asked(text: str, seconds: float) -> None:
    assert again.retry_after_s(text) == seconds


async def test_a_node_that_stays_away_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(again, "RETRY_S", (0.0, 0.0))
    async with Sender("http://127.0.0.1:1") as sender:
        with pytest.raises(PeerError, match="does no harm"):
            await sender.verdict(b"transaction")
        bulk = Bulk(sender, "test-1", "Operator A", generate_es256())
        absent = SimpleNamespace(record=None)

        async def resolve(digests: Any) -> Any:
            return [absent] * len(digests)

        items = [CertificateFile(Path(str(number)), b"%d" % number) for number in range(1000)]
        with pytest.raises(PeerError, match="does no harm"):
            await bulk.record(items, resolve, on_progress=lambda _: None, stop=asyncio.Event())
        stopped = asyncio.Event()
        stopped.set()
        report = await bulk.record(items, resolve, on_progress=lambda _: None, stop=stopped)
        assert (report.recorded, report.already, report.refused) == (0, 0, [])
