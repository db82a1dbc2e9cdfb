"""`voice-dpki passport`: an INVITE, an Identity or a token in, every step with its result out."""

import io
import json
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from email.utils import formatdate
from pathlib import Path
from typing import Any

import pytest

from tests.recorded import recorded
from verify_server import passport_command, passport_report
from verify_server.passport_command import command
from voice_dpki.errors import LocalError
from voice_dpki.ledger.answers import InquiryCode, InquiryError
from voice_dpki.names import Tn
from voice_dpki.shell.ledger import LedgerAccess
from voice_dpki.stir.call import SigningRequest
from voice_dpki.stir.div import Diverting
from voice_dpki.stir.identity import IdentityHeader
from voice_dpki.stir.passport import Destinations
from voice_dpki.stir.sign import sign_call
from voice_dpki.x509.allotment import Allotment
from voice_dpki.x509.recorded import CertStatus

from .conftest import RANGE_A, Caller, Site

UUID = "5f4e3b1c-7d2a-4b8e-9c1d-2e3f4a5b6c7d"
OFFER = "mikey AQAFgM3YFvMAAAAA"
SDP = f"v=0\r\na=key-mgmt:{OFFER}\r\n"


def invite(identity: str, *, asserted: str = "493023125001", more: str = "") -> bytes:
    head = (
        "INVITE sip:+442079460001@b.example SIP/2.0\r\n"
        "Via: SIP/2.0/TCP a.example;branch=z9hG4bK1\r\n"
        "From: <sip:anonymous@anonymous.invalid>;tag=1\r\n"
        f"P-Asserted-Identity: <sip:+{asserted}@a.example;user=phone>\r\n"
        "To: <sip:+442079460001@b.example>\r\nCall-ID: 1@a.example\r\nCSeq: 1 INVITE\r\n"
        f"Date: {formatdate(usegmt=True)}\r\nIdentity: {identity}\r\n{more}"
        f"Content-Type: application/sdp\r\nContent-Length: {len(SDP)}\r\n\r\n"
    )
    return (head + SDP).encode()


Run = Callable[..., tuple[int, dict[str, Any]]]


@pytest.fixture
def run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    def run_on(work: str, data: bytes, *options: str) -> tuple[int, dict[str, Any]]:
        (tmp_path / "input").write_bytes(data)
        status = command([work, "--json", *options, str(tmp_path / "input")])
        told: dict[str, Any] = json.loads(capsys.readouterr().out)
        return status, told

    return run_on


@pytest.fixture
def identity(caller: Caller) -> str:
    return caller.identity(caller.der(), (OFFER,), sdp=SDP.encode())


def finding(told: dict[str, Any], step: str) -> str:
    (found,) = [each["finding"] for each in told["identities"][0]["steps"] if each["step"] == step]
    return str(found)


def failed(told: dict[str, Any]) -> list[str]:
    return [each["step"] for each in told["identities"][0]["steps"] if each["finding"] == "failed"]


def test_decode_shows_the_parts(run: Run, identity: str) -> None:
    status, told = run("decode", invite(identity))
    (shown,) = told["identities"]
    assert status == 0
    assert shown["header"]["ppt"] == shown["parameters"]["ppt"] == "shaken"
    assert shown["payload"]["orig"] == {"tn": "493023125001"}
    assert set(shown) == {"parameters", "header", "payload"}


@pytest.mark.parametrize("form", ["Identity: {}\r\n", "{}", "\n  {}\n"])
def test_an_identity_by_itself_is_enough_to_decode(run: Run, identity: str, form: str) -> None:
    for value in (identity, IdentityHeader.parse(identity).token):
        status, told = run("decode", form.format(value).encode())
        assert (status, told["identities"][0]["payload"]["attest"]) == (0, "A")


def test_what_cannot_be_decoded_ends_with_1(run: Run) -> None:
    status, told = run("decode", b"e30.e30")
    assert (status, told["identities"][0]["problem"]) == (
        1,
        "a PASSporT has three parts, divided by dots (RFC 8225 §6)",
    )


def test_explain_runs_all_steps_that_need_no_ledger(run: Run, identity: str) -> None:
    status, told = run("explain", invite(identity))
    steps = told["identities"][0]["steps"]
    assert (status, {each["finding"] for each in steps}, len(steps)) == (0, {"passed"}, 15)


def test_explain_tells_all_that_is_wrong(run: Run, identity: str) -> None:
    status, told = run("explain", invite(identity, asserted="493023125009"), "--at", str(int(time.time()) + 300))
    assert (status, failed(told)) == (1, ["E3 time", "E15 iat", "E16 numbers"])


def test_explain_joins_the_diversions_of_an_invite(run: Run, caller: Caller) -> None:
    """To has the number that was dialled, and the Request-URI the one where the call went."""
    der, now_s = caller.der(), int(time.time())
    dest = Destinations((Tn("442079460002"),))
    diverting = Diverting(Tn("493023125002"))
    request = SigningRequest("", Tn("493023125001"), dest, now_s, "", ppt="div", own={"div": diverting})
    div = sign_call(request, caller.credential(der), now_s).serialize()
    asked = SigningRequest("A", request.orig, Destinations((Tn("493023125002"),)), now_s, UUID)
    shaken = sign_call(asked, caller.credential(der), now_s).serialize()
    diverted = invite(f"{shaken}\r\nIdentity: {div}").replace(b"To: <sip:+442079460001", b"To: <sip:+493023125002")
    moved = diverted.replace(b"INVITE sip:+442079460001", b"INVITE sip:+442079460002")
    status, told = run("explain", moved)
    assert (status, len(told["identities"])) == (0, 2)
    status, told = run("explain", diverted)
    wrong = [each["step"] for each in told["identities"][1]["steps"] if each["finding"] == "failed"]
    assert (status, wrong) == (1, ["E16 diversion"])


def test_explain_shows_the_token_inside_another(run: Run, caller: Caller) -> None:
    der, now_s, first = caller.der(), int(time.time()), Tn("493023125002")
    asked = SigningRequest("A", Tn("493023125001"), Destinations((first,)), now_s, UUID)
    own = {"div": Diverting(first), "opt": sign_call(asked, caller.credential(der), now_s).token}
    asked = replace(
        asked, attest="", origid="", dest=Destinations((Tn("442079460001"),)), ppt="div-o", own=own
    )  # fmt: skip
    identity = sign_call(asked, caller.credential(der), now_s).serialize()
    status, told = run("explain", identity.encode(), "--from", "493023125001", "--to", "442079460001")
    assert status == 0
    assert [each["header"]["ppt"] for each in told["identities"]] == ["div-o", "shaken"]


def test_numbers_may_be_given(run: Run, identity: str) -> None:
    status, told = run("explain", identity.encode(), "--from", "+493023125001", "--to", "442079460001")
    assert (status, finding(told, "E16 numbers")) == (0, "passed")
    status, told = run("explain", identity.encode())
    assert (status, finding(told, "E16 numbers")) == (0, "not run")


def test_an_invite_from_an_editor_is_read(run: Run, identity: str) -> None:
    status, told = run("explain", b"\n" + invite(identity).replace(b"\r\n", b"\n"))
    assert status == 0, told


class ToldClient:
    """Stands for the ledger's client: tells what the test set."""

    def __init__(self, answer: Any) -> None:
        self._answer = answer

    async def __aenter__(self) -> "ToldClient":
        return self

    async def __aexit__(self, *_: object) -> None:
        pass

    async def resolve(self, digest: object) -> Any:
        if isinstance(self._answer, Exception):
            raise self._answer
        return self._answer


class Resolved:
    def __init__(self, record: Any) -> None:
        self.recorded = record


@pytest.fixture
def ledger(monkeypatch: pytest.MonkeyPatch) -> Callable[[Any], None]:
    def tell(answer: Any) -> None:
        monkeypatch.setattr(LedgerAccess, "client", lambda *_, **__: ToldClient(answer))

    return tell


AFTER = ["E17 authority", "E17 constraints", "E18 signature", "E20 key-mgmt", "E22 SDP"]


@pytest.mark.parametrize(
    ("status", "step", "after"),
    [
        (CertStatus.VALID, None, []),
        (CertStatus.REVOKED, "E17 certificate", AFTER),
    ],
)
def test_verify_asks_the_ledger(
    run: Run, site: Site, caller: Caller, ledger: Any, status: CertStatus, step: str | None, after: list[str]
) -> None:
    der = caller.der()
    ledger(Resolved(recorded(der, Allotment(ranges=(RANGE_A,)), status=status)))
    identity = caller.identity(der, (OFFER,), sdp=SDP.encode())
    ended, told = run("verify", invite(identity), "--config", str(site.config))
    steps = told["identities"][0]["steps"]
    assert (ended, failed(told)) == ((0, []) if step is None else (1, [step]))
    assert [each["step"] for each in steps if each["finding"] == "not run"] == after
    assert told["identities"][0].get("signer") == ("Operator A" if step is None else None)


def test_a_changed_body_is_found(run: Run, site: Site, caller: Caller, ledger: Any) -> None:
    der = caller.der()
    ledger(Resolved(recorded(der, Allotment(ranges=(RANGE_A,)))))
    identity = caller.identity(der, (OFFER,), sdp=b"v=0\r\ns=another\r\n")
    ended, told = run("verify", invite(identity), "--config", str(site.config))
    assert (ended, failed(told), finding(told, "E18 signature")) == (1, ["E22 SDP"], "passed")


def test_a_ledger_that_is_not_heard_proves_nothing(run: Run, site: Site, identity: str, ledger: Any) -> None:
    ledger(InquiryError(InquiryCode.UNREACHABLE, "nobody answers"))
    ended, told = run("verify", invite(identity), "--config", str(site.config))
    assert (ended, failed(told), finding(told, "E18 signature")) == (1, ["E8 ledger"], "not run")


def test_the_ledger_is_not_asked_about_a_call_that_has_failed(run: Run, site: Site, identity: str) -> None:
    ended, told = run("verify", invite(identity, asserted="493023125009"), "--config", str(site.config))
    assert (ended, failed(told), finding(told, "E8 ledger")) == (1, ["E16 numbers"], "not run")


def test_people_read_lines(
    identity: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    given = io.TextIOWrapper(io.BytesIO(invite(identity, more="Identity: e30.e30.c2ln;info=<\\x1b>\r\n")))
    monkeypatch.setattr(sys, "stdin", given)
    assert command(["explain"]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "Identity 1 of 2"
    assert "  E13 ppt            passed" in lines
    assert any(
        line.startswith("  E7 info URL        failed 436: the Identity's info cannot be used") for line in lines
    )


def test_what_would_steer_a_terminal_is_escaped(caller: Caller) -> None:
    assert passport_report._escaped({"x": "\x1b[2J\u202e"}) == '{"x":"\\u001b[2J\\u202e"}'


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "the input is empty"),
        (b" \r\n", "the input is empty"),
        (b"INVITE sip:b SIP/2.0\r\n\r\n", "no Identity header field"),
        (b"INVITE x", "the input cannot be used: "),
        (b"x" * 65_537, "more than 65536 bytes"),
    ],
)
def test_input_that_cannot_be_used(run: Run, data: bytes, reason: str) -> None:
    with pytest.raises(LocalError, match=reason):
        run("explain", data)
    with pytest.raises(LocalError, match="cannot be read"):
        passport_command._read(Path("/nowhere"))


def test_more_than_ten_identities_are_not_looked_at(run: Run, identity: str) -> None:
    with pytest.raises(LocalError, match="more than 10 Identity"):
        run("explain", invite(identity, more="Identity: e30.e30.c2ln\r\n" * 10))
