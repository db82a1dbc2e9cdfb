"""What version 4 of the rules refuses, sent with `voice-dpki ledger` to running nodes, as operators send it."""

import ipaddress
import json
import time
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from ledger_node.command.session import CONSOLE
from voice_dpki.effects import SystemRandom
from voice_dpki.names import Tn
from voice_dpki.x509.keys import generate_es256
from voice_dpki.x509.possession import possession_of
from voice_dpki.x509.profile import build_certificate
from voice_dpki.x509.tnauthlist import TnAuthList

from .test_decisions import asked
from .test_ledger import Terminal, until
from .test_rules import agreed

A, B = "Operator A", "Operator B"
FOREIGN = "441632960000"
"""A number that is neither operator's."""

NAMES: dict[str, x509.GeneralName] = {
    "ip-address-name": x509.IPAddress(ipaddress.ip_address("192.0.2.1")),
    "email-name": x509.RFC822Name("alice@a.example"),
    "wildcard-name": x509.DNSName("*.a.example"),
    "host-name-form": x509.DNSName("a.example."),
    "uri-escape": x509.UniformResourceIdentifier("sip:%2B493023125001@a.example"),
    "uri-port": x509.UniformResourceIdentifier("sip:a.example:5060"),
    "uri-kind": x509.UniformResourceIdentifier("https://a.example"),
    "uri-number": x509.UniformResourceIdentifier("sip:493023125001@a.example"),
    "names-outside-domains": x509.DNSName("b.example"),
}
"""A name of each kind and form that is refused, by the refusal's name."""


@pytest.fixture
def terminal(
    tmp_path: Path, network_in: Any, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Terminal]:
    """Two operators, whose ledger follows version 4, and a follower; the commands are sent to the engine."""
    monkeypatch.setattr(CONSOLE, "_file", None)
    network = network_in(tmp_path, "[parameters]\ndelay_s = 0\n\n")
    engine = network.engine(heartbeat_s=0.1).start()
    network.follower("operator-b", engine.url, B).start().reaches(1)
    terminal = Terminal(network, capsys)
    agreed(terminal, 4, "--from", asked(terminal, "rules")["height"] + 50)
    until(lambda: asked(terminal, "rules")["present"] == 4)
    yield terminal
    network.end()


def refused(terminal: Terminal, folder: Path, ders: Mapping[str, bytes], by: str = A) -> dict[str, str]:
    """Have the operator record certificates; return the names of the refusals by those of the certificates."""
    folder.mkdir()
    for name, der in ders.items():
        (folder / f"{name}.der").write_bytes(der)
    report = folder / "report.json"
    terminal("submit", folder, "--report", report, by=by)
    return {Path(each["file"]).stem: each["name"] for each in json.loads(report.read_bytes())["refused"]}


def named(*names: x509.GeneralName) -> bytes:
    """Make a certificate of Operator A with names that the project's own builder does not make."""
    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.now(UTC)
    subject = x509.Name([x509.NameAttribute(NameOID.ORGANIZATION_NAME, A)])
    begin, end = now - timedelta(days=1), now + timedelta(days=30)
    builder = x509.CertificateBuilder(subject, subject, key.public_key(), 1, begin, end)
    builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    return builder.sign(key, SHA256()).public_bytes(Encoding.DER)


def test_certificates_are_admitted_by_version_4(terminal: Terminal, tmp_path: Path) -> None:
    bars_a_compromised_key(terminal, tmp_path)
    reads_all_names(terminal, tmp_path)
    binds_anonymous_certificates(terminal, tmp_path)
    allots_single_numbers(terminal, tmp_path)


def bars_a_compromised_key(terminal: Terminal, tmp_path: Path) -> None:
    """The key's other certificate falls on every node, and nobody records one with the key again."""
    key, make = generate_es256(), terminal.network.certificate
    first, second, third = (make(key=key) for _ in range(3))
    assert refused(terminal, tmp_path / "before", {"first": first, "second": second}) == {}
    stolen = tmp_path / "before" / "first.der"
    assert terminal("revoke", stolen, "--reason", "keyCompromise", by=A)[0] == 0
    engine, terminal.url = terminal.url, terminal.network.nodes[1].url
    until(lambda: "valid, proved by" not in terminal("status", tmp_path / "before" / "second.der")[1])
    status, said = terminal("status", tmp_path / "before" / "second.der")
    terminal.url = engine
    assert (status, "revoked, proved by" in said, "keyCompromise" in said) == (1, True, True), said
    assert refused(terminal, tmp_path / "after", {"third": third, "new": make()}) == {"third": "compromised-key"}
    assert terminal("resume", stolen, by=A)[0] == 2


def reads_all_names(terminal: Terminal, tmp_path: Path) -> None:
    ders = {name: named(alternative) for name, alternative in NAMES.items()}
    found = refused(terminal, tmp_path / "names", {**ders, "good": named(x509.DNSName("sip.a.example"))})
    assert found == {name: name for name in NAMES}


def binds_anonymous_certificates(terminal: Terminal, tmp_path: Path) -> None:
    """Only the member for which it was made has an anonymous certificate recorded."""
    chain = terminal.network.genesis.chain_id
    for_a, for_b, for_nobody = (
        anonymous(None if member is None else possession_of(chain, member)) for member in (A, B, None)
    )
    taken = refused(terminal, tmp_path / "taken", {"for_a": for_a, "nobody": for_nobody}, by=B)
    assert taken == {"for_a": "no-possession", "nobody": "no-possession"}
    own = {"for_a": for_a, "for_b": for_b}
    assert refused(terminal, tmp_path / "own", own) == {"for_b": "no-possession"}


def anonymous(possession: bytes | None) -> bytes:
    now_s = int(time.time())
    return build_certificate(
        generate_es256(),
        organization=None,
        common_name=None,
        possession=possession,
        not_before_s=now_s - 60,
        not_after_s=now_s + 86_400,
        random=SystemRandom(),
    )


def allots_single_numbers(terminal: Terminal, tmp_path: Path) -> None:
    """Operator B gets one number by a vote, and certificates of B for it are recorded, and of nobody else."""
    numbers = TnAuthList(tns=(Tn(FOREIGN),))
    mine, yours = (terminal.network.certificate(by, tn_auth_list=numbers) for by in (B, A))
    assert refused(terminal, tmp_path / "too soon", {"mine": mine}, by=B) == {"mine": "numbers-outside-ranges"}
    file = tmp_path / "b.toml"
    asked(terminal, "members", B, "--export", file)
    file.write_text(f'{file.read_text()}\n[[ranges]]\nstart = "{FOREIGN}"\ncount = 1\n')
    identity = asked(terminal, "propose", "change", file, by=A)["proposal"]
    assert asked(terminal, "proposals", identity)["come"] == [f"numbers: +{FOREIGN} to +{FOREIGN} (1)"]
    asked(terminal, "vote", identity, by=B)
    until(lambda: asked(terminal, "proposals", identity)["state"] == "done")
    assert refused(terminal, tmp_path / "numbers", {"mine": mine}, by=B) == {}
    assert refused(terminal, tmp_path / "others", {"yours": yours}) == {"yours": "numbers-outside-ranges"}
