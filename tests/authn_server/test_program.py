"""The program itself: started, asked over its socket, and stopped."""

import json
import time
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest

from authn_server.config import EXAMPLE, load_setup
from tests.one_operator import Service, until
from tests.openapi import FOLDER as DOCUMENTS
from voice_dpki.effects import SystemClock
from voice_dpki.stage.events import NoteEvent
from voice_dpki.stir.identity import IdentityHeader
from voice_dpki.stir.passport import Passport
from voice_dpki.stir.shaken import ShakenClaims
from voice_dpki.stir.sign import DEFAULT_MAX_SKEW_S
from voice_dpki.wire.sip.asked import read_invite
from voice_dpki.wire.sip.invite import date_of
from voice_dpki.x509.keys import verify_signature

from .conftest import Site

MakeRequest = Callable[..., dict[str, Any]]

PATH = "/stir/v1/signing"
INVITE = """\
INVITE sip:+442079460001@b.example;user=phone SIP/2.0
Via: SIP/2.0/UDP 192.0.2.7;branch=z9hG4bK1
Max-Forwards: 70
From: "Alice" <sip:+493023125001@a.example;user=phone>;tag=1
To: <sip:+442079460001@b.example;user=phone>
Call-ID: c1
CSeq: 1 INVITE
Attestation-Info: B

""".replace("\n", "\r\n")


class Server:
    """A running `authn-server`, its client and what it wrote."""

    def __init__(self, site: Site) -> None:
        site.write(EXAMPLE + '\n[trace]\nfile = "authn-a.jsonl"\n')
        self.site = site
        self.service = Service("authn_server.main", site.config, site.folder / "authn-a.jsonl")
        headers = {"Authorization": "Bearer t0ken-of-the-proxy"}
        self.client = httpx.Client(base_url=self.service.url, headers=headers, trust_env=False)

    def last_note(self) -> NoteEvent:
        return [event for event in self.service.events() if isinstance(event, NoteEvent)][-1]

    def stop(self) -> int:
        self.client.close()
        return self.service.stop()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(Site(tmp_path_factory.mktemp("authn")))
    yield server
    assert server.stop() == 0


def test_signs(server: Server, signing_request: MakeRequest) -> None:
    answer = server.client.post(PATH, json=signing_request(keyMgmt=["mikey AQ"]), headers={"X-RequestID": "r-1"})
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["x-requestid"] == "r-1"
    passport = Passport.parse(IdentityHeader.parse(answer.json()["signingResponse"]["identity"]).token)
    profile = load_setup(server.site.config, SystemClock()).credential.value.profile
    verify_signature(profile.public_key_der, "ES256", passport.signing_input, passport.signature)
    assert len(ShakenClaims.parse(passport.payload_untrusted).key_mgmt) == 1
    row = server.last_note()
    assert (row.actor, row.text, row.data["ok"]) == ("authn-a", "sign", True)


def test_a_hangup_reads_the_tokens_again(server: Server, signing_request: MakeRequest) -> None:
    file, was = server.site.folder / "proxy.tokens", (server.site.folder / "proxy.tokens").read_text()
    new = {"Authorization": "Bearer a-newer-token"}

    def signs(**headers: Any) -> bool:
        return server.client.post(PATH, json=signing_request(), **headers).status_code == 200

    def reload(tokens: str, event: str) -> None:
        file.write_text(tokens)
        server.service.hang_up(event)

    assert not signs(headers=new)
    reload("a-newer-token\n", "configuration read again")
    assert signs(headers=new)
    assert not signs()
    reload("# none\n", "configuration refused, the one before stays")
    assert signs(headers=new)
    assert "proxy.tokens: holds no secret" in server.service.log_path.read_text()
    notes = server.client.get("/healthz").json()["notes"]
    assert notes == ["the changed configuration is refused, the one before stays: see the log"]
    reload(was, "configuration read again")
    assert signs()
    assert "notes" not in server.client.get("/healthz").json()


def refused(answer: httpx.Response, status: int, message_id: str) -> dict[str, Any]:
    kind = "serviceException" if message_id.startswith("SVC") else "policyException"
    assert answer.status_code == status
    error: dict[str, Any] = answer.json()["requestError"][kind]
    assert error["messageId"] == message_id
    assert answer.headers["x-requestid"]
    return error


def _logs_refusal(server: Server, signing_request: MakeRequest, headers: dict[str, Any]) -> bool:
    """Refuse one more; the log has one line a second for what strangers cause, and another test's may be it."""
    server.client.post(PATH, json=signing_request(), headers=headers)
    return '"POL4010"' in server.service.log_path.read_text()


@pytest.mark.parametrize(
    "headers",
    [
        {"Authorization": ""},
        {"Authorization": "Bearer t0ken-of-the-prox"},
        {"Authorization": "Basic t0ken-of-the-proxy"},
        {"Authorization": "Bearer t0ken-of-the-pröxy".encode()},
    ],
)
def test_nobody_else_gets_a_signature(
    server: Server, signing_request: MakeRequest, headers: dict[str, Any]
) -> None:
    answer = server.client.post(PATH, json=signing_request(), headers=headers)
    refused(answer, 401, "POL4010")
    assert answer.headers["www-authenticate"].startswith("Bearer")
    until(lambda: _logs_refusal(server, signing_request, headers))
    assert "t0ken" not in server.service.log_path.read_text()
    count = [
        line
        for line in server.client.get("/metrics").text.splitlines()
        if 'outcome="POL4010"' in line and "total" in line
    ]
    assert float(count[0].split()[-1]) >= 1


def test_a_number_of_somebody_else_is_not_signed_for(server: Server, signing_request: MakeRequest) -> None:
    answer = server.client.post(PATH, json=signing_request(orig={"tn": "442079460001"}))
    error = refused(answer, 403, "POL4030")
    assert "not among those that this server's certificate may sign for" in error["variables"][0]
    assert "442079460001" not in server.service.log_path.read_text()
    assert server.last_note().data["ok"] is False


def test_the_form_of_3gpp(server: Server, signing_request: MakeRequest) -> None:
    answer = server.client.post(PATH, json=signing_request(ppt="shaken", requestId="12378"))
    assert answer.status_code == 200
    signed = answer.json()["signingResponse"]
    assert set(signed) == {"identityHeader", "requestId"}
    assert (IdentityHeader.parse(signed["identityHeader"]).ppt, signed["requestId"]) == ("shaken", "12378")
    answer = server.client.post(PATH, json=signing_request(ppt="shaken", orig={"tn": "442079460001"}))
    assert answer.status_code == 403
    assert answer.json()["error"].startswith("There is no signature for this call: the originating number is not")
    answer = server.client.post(PATH, json=signing_request(ppt="msg", msgi="sha256-AAAA"))
    assert (answer.status_code, list(answer.json())) == (400, ["error"])
    assert (
        "PASSporTs of type div, div-o, rcd, rph, rsp and shaken alone are signed here, and not msg"
        in answer.json()["error"]
    )


def test_other_types_are_signed_as_such_or_not_at_all(server: Server, signing_request: MakeRequest) -> None:
    answer = server.client.post(PATH, json=signing_request(ppt="div", div={"tn": "493023125009"}))
    identity = IdentityHeader.parse(answer.json()["signingResponse"]["identityHeader"])
    assert (answer.status_code, identity.ppt) == (200, "div")
    answer = server.client.post(PATH, json=signing_request(ppt="div"))
    assert (answer.status_code, "'div' is missing" in answer.json()["error"]) == (400, True)
    answer = server.client.post(PATH, json=signing_request(ppt="div", div={"tn": "442079460009"}))
    assert (answer.status_code, "the diverting number is not among" in answer.json()["error"]) == (403, True)
    answer = server.client.post(PATH, json=signing_request(ppt="rph", rph={"auth": ["ets.0"]}))
    assert (answer.status_code, "the namespace of rph is not among" in answer.json()["error"]) == (403, True)


def post_invite(server: Server, text: str, content_type: str = "message/sip", **headers: str) -> httpx.Response:
    return server.client.post(
        f"{PATH}/sip", content=text.encode(), headers={"Content-Type": content_type, **headers}
    )


@pytest.mark.parametrize("content_type", ["message/sip", "application/sip;charset=utf-8", "text/plain"])
def test_the_text_of_an_invite(server: Server, content_type: str) -> None:
    answer = post_invite(server, INVITE, content_type)
    assert answer.status_code == 200
    assert answer.headers["content-type"] == content_type.partition(";")[0]
    assert answer.headers["x-requestid"]
    request = read_invite(answer.content)
    passport = Passport.parse(IdentityHeader.parse(request.headers["Identity"]).token)
    profile = load_setup(server.site.config, SystemClock()).credential.value.profile
    verify_signature(profile.public_key_der, "ES256", passport.signing_input, passport.signature)
    claims = ShakenClaims.parse(passport.payload_untrusted)
    assert (claims.attest, claims.orig, claims.dest.tns) == ("B", "493023125001", ("442079460001",))
    assert date_of(request, 0) == claims.iat_s
    assert server.last_note().data["ok"] is True


def test_the_text_of_an_invite_has_the_same_errors(server: Server, signing_request: MakeRequest) -> None:
    refused(post_invite(server, INVITE.replace("+493023125001", "+442079460009")), 403, "POL4030")
    refused(post_invite(server, INVITE.replace("Attestation-Info: B\r\n", "")), 400, "SVC4001")
    refused(post_invite(server, INVITE.replace("INVITE", "BYE")), 400, "SVC4006")
    refused(post_invite(server, ""), 400, "SVC4000")
    refused(post_invite(server, INVITE, "application/json"), 415, "SVC4004")
    refused(server.client.post(PATH, content=INVITE, headers={"Content-Type": "message/sip"}), 415, "SVC4004")
    refused(post_invite(server, INVITE, Accept="application/json"), 406, "SVC4002")
    refused(post_invite(server, INVITE, Authorization="Bearer other"), 401, "POL4010")
    refused(post_invite(server, "INVITE " + "x" * 70_000), 413, "POL4130")
    log = server.service.log_path.read_text()
    assert "442079460009" not in log
    assert "493023125001" not in log


def test_anybody_may_read_the_document(server: Server) -> None:
    answer = httpx.get(f"{server.service.url}/openapi.json", trust_env=False)
    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/json")
    assert answer.content == (DOCUMENTS / "authn-server.json").read_bytes()


@pytest.mark.parametrize("offset_s", [-DEFAULT_MAX_SKEW_S - 60, DEFAULT_MAX_SKEW_S + 60])
def test_a_call_that_is_not_of_now_is_not_signed(
    server: Server, signing_request: MakeRequest, offset_s: float
) -> None:
    answer = server.client.post(PATH, json=signing_request(iat=int(time.time() + offset_s)))
    refused(answer, 403, "POL4031")


def test_the_interfaces_errors(server: Server, signing_request: MakeRequest) -> None:
    post, body = server.client.post, signing_request()
    refused(post(PATH, json=signing_request(attest=None)), 400, "SVC4001")
    refused(post(PATH, content=b"{", headers={"Content-Type": "application/json"}), 400, "SVC4006")
    refused(post(PATH, content=b"", headers={"Content-Type": "application/json"}), 400, "SVC4000")
    refused(post(PATH, json=body, headers={"Accept": "text/html"}), 406, "SVC4002")
    refused(post(PATH, content=b"{}", headers={"Content-Type": "text/plain"}), 415, "SVC4004")
    refused(post("/stir/v1/nothing", json=body), 404, "SVC4003")
    refused(server.client.get(PATH), 405, "POL4050")
    refused(post(PATH, content=bytes(70_000), headers={"Content-Type": "application/json"}), 413, "POL4130")
    chunked = iter([json.dumps(body).encode()])
    refused(post(PATH, content=chunked, headers={"Content-Type": "application/json"}), 411, "SVC4007")


def test_a_request_id_that_could_split_a_header_is_not_echoed(server: Server, signing_request: MakeRequest) -> None:
    answer = server.client.post(PATH, json=signing_request(), headers={"X-RequestID": "a b"})
    assert len(answer.headers["x-requestid"]) == 32


def test_is_alive(server: Server) -> None:
    assert server.client.get("/healthz").status_code == 200
