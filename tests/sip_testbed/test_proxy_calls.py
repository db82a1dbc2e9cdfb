"""Calls between two domains' proxies, with STIR services that the test plays over HTTP."""

import asyncio
import base64
import hashlib
import json
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from email.utils import formatdate, parsedate_to_datetime
from pathlib import Path
from typing import Any, Literal

import pytest

from sip_testbed.path import Mode, PathConfig, PathService, make_attack
from sip_testbed.proxy_config import (
    Access,
    ProxyConfig,
    ProxySetup,
    Route,
    Routes,
    SigningConfig,
    Users,
    VerificationConfig,
)
from sip_testbed.proxy_service import ProxyService
from tests.no_numbers import NUMBER, logged
from tests.without import removals
from voice_dpki.codec import base64url
from voice_dpki.effects import SystemClock, SystemRandom
from voice_dpki.names import Tn
from voice_dpki.shell.config import AdvertisedListen, Listen
from voice_dpki.shell.http import HttpApp, Request, Response, json_response, serve
from voice_dpki.shell.http import Route as HttpRoute
from voice_dpki.shell.trace import Tracer, TraceTo
from voice_dpki.sip.digest import Secret
from voice_dpki.sip.message import Hop, header_values, parse_uri
from voice_dpki.sip.sdp import RtpMap, SessionDescription, audio_description
from voice_dpki.wire.http_client import HttpClient
from voice_dpki.wire.sip.user_agent import Account, FinalAnswer, IncomingCall, RegistrationError, UserAgent


def has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6) as tried:
            tried.bind(("::1", 0))
    except OSError:
        return False
    return True


CALLER, CALLEE, OTHER = Tn("493023125001"), Tn("442079460123"), Tn("442079460999")
TARGET = f"sip:+{CALLEE}@b.example"
MIKEY = "mikey " + base64.b64encode(bytes(range(64))).decode()
OFFER = audio_description("127.0.0.1", 4000, [RtpMap(0, "PCMU/8000")], session_id=1, key_mgmt=[MIKEY]).serialize()
ANSWER = audio_description("127.0.0.1", 4002, [RtpMap(0, "PCMU/8000")], session_id=2, key_mgmt=[MIKEY]).serialize()
OFFER_DIGEST = {"alg": "sha-256", "dig": base64url.encode(hashlib.sha256(OFFER).digest())}
PASSED = {"verstat": "TN-Validation-Passed", "signer": "Operator A"}
REVOKED = {
    "verstat": "TN-Validation-Failed",
    "reasoncode": 437,
    "reasontext": "Unsupported Credential",
    "reasondesc": "The signer's certificate was revoked on the ledger.",
    "step": "E17 certificate",
}
INFO = {
    "verstat": "No-TN-Validation",
    "reasoncode": 436,
    "reasontext": "Bad Identity Info",
    "reasondesc": "No info.",
}
TOKEN = "token"
RSP = "info=<https://y>;alg=ES256;ppt=rsp"


class StirDouble:
    """Both STIR services of a domain: it keeps what it was asked, and says what it was told to say."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.signing: list[Any] = []
        self.verification: list[Any] = []
        self.verdicts: list[dict[str, Any]] = [PASSED]
        self.refusal: tuple[int, dict[str, Any]] | None = None
        self.gate = asyncio.Event()
        self.gate.set()

    def routes(self) -> list[HttpRoute]:
        return [
            HttpRoute("POST", f"/{self.name}/sign", self._sign),
            HttpRoute("POST", f"/{self.name}/verify", self._verify),
        ]

    async def _sign(self, request: Request) -> Response:
        assert request.headers["authorization"] == f"Bearer {TOKEN}"
        self.signing.append(json.loads(request.body)["signingRequest"])
        await self.gate.wait()
        if self.refusal is not None:
            return json_response(*self.refusal)
        if self.signing[-1].get("ppt") == "rsp":
            return json_response(200, {"signingResponse": {"identityHeader": f"d.e.{len(self.signing)};{RSP}"}})
        return json_response(200, {"signingResponse": {"identity": f"a.b.{len(self.signing)};info=<https://x>"}})

    async def _verify(self, request: Request) -> Response:
        self.verification.append(json.loads(request.body)["verificationRequest"])
        await self.gate.wait()
        verdict = self.verdicts[min(len(self.verification), len(self.verdicts)) - 1]
        return json_response(200, {"verificationResponse": verdict})


class World:
    """Two domains, one user each, and what the callee's telephone saw."""

    def __init__(self, stack: AsyncExitStack, folder: Path) -> None:
        self.stack = stack
        self.folder = folder
        self.a, self.b = StirDouble("a"), StirDouble("b")
        self.host = "127.0.0.1"
        self.incoming: list[IncomingCall] = []

    async def proxy(self, letter: str, number: Tn, routes: tuple[Route, ...] = (), **options: Any) -> ProxyService:
        config = ProxyConfig(
            listen=AdvertisedListen(host=self.host, port=0), domain=f"{letter}.example",
            operator=f"Operator {letter.upper()}", users="", udp_max_bytes=9000, **options,
        )  # fmt: skip
        setup = ProxySetup(
            config, Users({number: Secret("right")}), Routes(routes), None, Access(TOKEN), Access(TOKEN), TraceTo()
        )
        tracer = Tracer(self.folder / f"{letter}.jsonl", letter)
        self.stack.callback(tracer.close)
        service = ProxyService(setup, tracer, SystemClock(), SystemRandom())
        await service.start()
        self.stack.push_async_callback(service.close)
        return service

    async def telephone(
        self, letter: str, number: Tn, proxy: Hop, *, password: str = "right", register: bool = True
    ) -> UserAgent:
        account = Account(f"sip:+{number}@{letter}.example", f"+{number}", password)
        agent = UserAgent(account, host=self.host, proxy=proxy, udp_max_bytes=9000)
        await agent.start()
        self.stack.push_async_callback(agent.close)
        if register:
            await agent.register()
        return agent

    async def start(
        self,
        *,
        policy: Literal["refuse", "label"] = "refuse",
        on_failure: Literal["refuse", "forward"] = "refuse",
        timeout_ms: int = 2000,
        transport: str = "udp",
        sign: bool = True,
        verify: bool = True,
        attack: Mode | None = None,
        dialled: str = "",
        rewrites_sdp: bool = False,
        host: str = "127.0.0.1",
        sign_answers: bool = False,
        verify_answers: bool = False,
        **options: Any,
    ) -> None:
        """Start both domains, as Operator A's proxy and Operator B's are configured here."""
        self.host = host
        app = HttpApp([*self.a.routes(), *self.b.routes()])
        url = f"http://127.0.0.1:{await self.stack.enter_async_context(serve(app, Listen(port=0)))}"
        for double in (self.a, self.b):
            self.stack.callback(double.gate.set)
        common: dict[str, Any] = {"token_file": "", "timeout_ms": timeout_ms}
        signing = SigningConfig(url=f"{url}/a/sign", on_failure=on_failure, **common)
        verification = VerificationConfig(url=f"{url}/b/verify", policy=policy, **common)
        of_answers = SigningConfig(url=f"{url}/b/sign", answers=True, **common) if sign_answers else None
        self.proxy_b = await self.proxy(
            "b", CALLEE, verification=verification if verify else None, signing=of_answers
        )
        if verify_answers:
            options["verification"] = VerificationConfig(url=f"{url}/a/verify", answers=True, **common)
        next_hop = f"{transport}:{self.proxy_b.address.address}"
        if attack is not None:
            next_hop = f"{transport}:{await self.attacker(attack, next_hop)}"
        routes: tuple[Route, ...] = (Route(domain="b.example", next_hop=next_hop, rewrites_sdp=rewrites_sdp),)
        if dialled:
            nowhere = Route(prefix=dialled[:-1], to_domain="c.example", next_hop="udp:127.0.0.1:9")
            routes = (nowhere, Route(prefix=dialled, to_domain="b.example", next_hop=next_hop))
        self.proxy_a = await self.proxy("a", CALLER, routes, signing=signing if sign else None, **options)
        self.hops = {name: Hop(transport, p.address.host, p.address.port) for name, p in self.proxies.items()}
        self.callee = await self.telephone("b", CALLEE, self.hops["b"])
        self.caller = await self.telephone("a", CALLER, self.hops["a"])
        self.callee.on_invite = self.take

    @property
    def proxies(self) -> dict[str, ProxyService]:
        return {"a": self.proxy_a, "b": self.proxy_b}

    async def attacker(self, mode: Mode, next_hop: str) -> str:
        routes: tuple[Route, ...] = (Route(domain="b.example", next_hop=next_hop),)
        config = PathConfig(
            listen=AdvertisedListen(host="127.0.0.66", port=0),
            mode=mode,
            routes=routes,
            udp_max_bytes=9000,
            hold_s=0.05,
        )
        attack = make_attack(config, self.folder / "path.toml", SystemClock(), SystemRandom())
        tracer = Tracer(self.folder / "path.jsonl", "path")
        self.stack.callback(tracer.close)
        service = PathService(config, attack, tracer, SystemRandom())
        await service.start()
        self.stack.push_async_callback(service.close)
        return service.address.address

    async def take(self, call: IncomingCall) -> None:
        self.incoming.append(call)
        await call.ring()
        await call.answer(ANSWER)

    async def call(
        self, target: str = TARGET, headers: tuple[tuple[str, str], ...] = (), caller: UserAgent | None = None
    ) -> FinalAnswer:
        """Place a call, end it if it was answered, and return the answer."""
        call = await (caller or self.caller).invite(target, OFFER, headers)
        answer = await asyncio.wait_for(call.answered(), 30)
        await asyncio.wait_for(call.bye(), 30)
        return answer

    def notes(self, actor: str) -> list[dict[str, Any]]:
        lines = (self.folder / f"{actor}.jsonl").read_text().splitlines()
        return [event for event in map(json.loads, lines) if event["kind"] == "note"]


Start = Callable[..., Awaitable[World]]


@pytest.fixture
async def start(tmp_path: Path) -> AsyncIterator[Start]:
    async with AsyncExitStack() as stack:

        async def start_world(**options: Any) -> World:
            world = World(stack, tmp_path)
            await world.start(**options)
            return world

        yield start_world


@pytest.mark.parametrize("transport", ["udp", "tcp"])
async def test_a_call_is_signed_verified_and_shown(start: Start, transport: str) -> None:
    world = await start(transport=transport)
    answer = await world.call()
    assert (answer.status, answer.sdp) == (200, ANSWER)
    incoming = world.incoming[0]
    assert incoming.verstat == "TN-Validation-Passed"
    assert incoming.asserted_identity == f"sip:+{CALLER};verstat=TN-Validation-Passed@b.example;user=phone"
    assert (incoming.identity, incoming.sdp) == (["a.b.1;info=<https://x>"], OFFER)
    (signing,), (verification,) = world.a.signing, world.b.verification
    date_s = int(parsedate_to_datetime(incoming.request.headers["Date"]).timestamp())
    assert abs(date_s - time.time()) < 5
    assert signing.pop("origid")
    assert signing == {
        "callId": incoming.request.headers["Call-ID"],
        "attest": "A", "dest": {"tn": [CALLEE]}, "iat": date_s, "keyMgmt": [MIKEY], "orig": {"tn": CALLER},
        "sdp": OFFER_DIGEST,
    }  # fmt: skip
    assert verification == {
        "callId": incoming.request.headers["Call-ID"],
        "from": {"tn": CALLER}, "identity": incoming.identity[0], "keyMgmt": [MIKEY], "time": date_s,
        "to": {"tn": [CALLEE]}, "sdp": OFFER_DIGEST,
    }  # fmt: skip
    assert world.notes("a")[0]["text"] == "INVITE signed by Operator A's authentication server"
    assert world.notes("b")[0]["text"] == "Identity valid by Operator B's verification server, signed by Operator A"
    assert incoming.ended_by_peer


@pytest.mark.skipif(not has_ipv6(), reason="this machine has no ::1")
@pytest.mark.parametrize("transport", ["udp", "tcp"])
async def test_a_call_over_ipv6(start: Start, transport: str) -> None:
    """Brackets in Via, Record-Route, Contact and the Request-URI, none in received; BYE goes the whole way."""
    world = await start(transport=transport, host="::1")
    assert (await world.call(f"sip:+{CALLEE}@b.example")).status == 200
    (incoming,) = world.incoming
    invite = incoming.request
    assert str(invite.uri).startswith(f"sip:+{CALLEE}@[::1]:")
    own, *others = header_values(invite, "Via")
    assert own.startswith(f"SIP/2.0/{transport.upper()} [::1]:{world.proxy_b.address.port};")
    assert [";received=::1" in via for via in others] == [True, True]
    assert all(route.startswith("<sip:[::1]:") for route in header_values(invite, "Record-Route"))
    assert incoming.ended_by_peer
    assert incoming.verstat == "TN-Validation-Passed"


async def test_what_a_caller_says_of_itself_does_not_count(start: Start) -> None:
    world = await start()
    await world.call(
        headers=(
            ("Identity", "x.y.z;info=<https://x>"),
            ("P-Asserted-Identity", f"<sip:+{OTHER};verstat=TN-Validation-Passed@b.example>"),
            ("P-Preferred-Identity", f"<sip:+{OTHER}@a.example>"),
        )
    )
    request = world.incoming[0].request
    assert world.incoming[0].identity == ["a.b.1;info=<https://x>"]
    assert list(request.headers.getlist("P-Asserted-Identity")) == [
        f"<sip:+{CALLER};verstat=TN-Validation-Passed@b.example;user=phone>"
    ]
    assert request.headers.get("P-Preferred-Identity") is None
    assert request.headers.get("Proxy-Authorization") is None


async def test_an_unproven_caller_is_refused_with_code_and_reason(start: Start) -> None:
    world = await start()
    world.b.verdicts = [REVOKED]
    answer = await world.call()
    assert (answer.status, answer.reason) == (437, "Unsupported Credential")
    assert answer.reasons == [f'STIR;cause=437;text="{REVOKED["reasondesc"]}"']
    assert world.incoming == []
    note = world.notes("b")[0]
    assert (note["step"], note["ok"], note["verstat"]) == ("E17 certificate", False, "TN-Validation-Failed")


async def test_a_verdict_without_a_failure_does_not_prove_the_caller(start: Start) -> None:
    """An Identity of a kind that says nothing of the caller may be good, and the call is not."""
    world = await start()
    sentence = "A div PASSporT proves nothing about the caller's number."
    world.b.verdicts = [{"verstat": "No-TN-Validation", "reasondesc": sentence}]
    answer = await world.call()
    assert (answer.status, answer.reasons) == (438, [f'STIR;cause=438;text="{sentence}"'])
    assert world.incoming == []
    note = world.notes("b")[0]
    assert (note["text"], note["ok"], note["verstat"]) == (sentence, False, "No-TN-Validation")


async def test_an_operator_may_label_instead(start: Start) -> None:
    world = await start(policy="label")
    world.b.verdicts = [REVOKED]
    assert (await world.call()).status == 200
    assert world.incoming[0].verstat == "TN-Validation-Failed"


@pytest.mark.parametrize(("policy", "status"), [("refuse", 428), ("label", 200)])
async def test_a_call_without_identity(start: Start, policy: str, status: int) -> None:
    world = await start(sign=False, policy=policy)
    answer = await world.call()
    assert answer.status == status
    assert world.b.verification == []
    if status == 200:
        assert world.incoming[0].verstat == "No-TN-Validation"
    else:
        assert answer.reasons == ['STIR;cause=428;text="The INVITE has no Identity header field."']


async def test_domains_without_stir_pass_calls_as_they_are(start: Start) -> None:
    world = await start(sign=False, verify=False)
    assert (await world.call()).status == 200
    assert world.incoming[0].verstat is None


async def test_one_good_identity_is_enough_and_436_is_told_only_if_all_have_it(start: Start) -> None:
    world = await start(verify=True)
    trunk = await world.telephone("a", CALLER, world.hops["b"], register=False)
    two = (("Identity", "1.1.1;info=<x>"), ("Identity", "2.2.2;info=<x>"))
    world.b.verdicts = [INFO, PASSED]
    assert (await world.call(headers=two, caller=trunk)).status == 200
    for verdicts, status in (([INFO, REVOKED], 437), ([INFO, INFO], 436)):
        world.b.verification.clear()
        world.b.verdicts = verdicts
        answer = await world.call(headers=two, caller=trunk)
        assert (answer.status, len(answer.reasons)) == (status, 2)


async def test_six_identities_of_which_four_are_asked_about(start: Start) -> None:
    """A call that was diverted five times: its SHAKEN Identity stands last, and is asked about first."""
    world = await start(verify=True)
    trunk = await world.telephone("a", CALLER, world.hops["b"], register=False)
    diverted = tuple(("Identity", f"{n}.1.1;info=<x>;ppt=div") for n in range(5))
    world.b.verdicts = [PASSED, REVOKED]
    answer = await world.call(headers=(*diverted, ("Identity", "5.1.1;info=<x>;ppt=Shaken")), caller=trunk)
    assert answer.status == 200
    asked = [request["identity"].partition(".")[0] for request in world.b.verification]
    assert asked == ["5", "0", "1", "2"]
    world.b.verdicts = [REVOKED]
    answer = await world.call(headers=diverted, caller=trunk)
    assert (answer.status, len(answer.reasons)) == (437, 5)
    assert "1 more Identity header fields were not looked at" in answer.reasons[-1]


async def test_a_call_that_was_retargeted_is_not_proven(start: Start) -> None:
    world = await start()
    trunk = await world.telephone("a", CALLER, world.hops["b"], register=False)
    call = await trunk.invite(f"sip:+{OTHER}@b.example", OFFER, (("Identity", "1.1.1;info=<x>"),))
    assert (await call.answered()).status == 404
    # To names one number, and the Request-URI another: what a thief of an Identity would send.
    request = trunk._new_request("INVITE", TARGET, f"<sip:+{OTHER}@b.example>")
    request.headers.set("CSeq", "1 INVITE")
    request.headers.set("Identity", "1.1.1;info=<x>")
    response = await trunk._exchange.ask(request, world.hops["b"])
    assert response.code == 438
    assert world.b.verification == []


@pytest.mark.parametrize(("on_failure", "status"), [("refuse", 500), ("forward", 428)])
async def test_a_signing_service_that_refuses(start: Start, on_failure: str, status: int) -> None:
    world = await start(on_failure=on_failure)
    text = "There is no signature for this call: %1."
    error = {"requestError": {"policyException": {"messageId": "POL4030", "text": text, "variables": ["not ours"]}}}
    world.a.refusal = (403, error)
    answer = await world.call()
    assert answer.status == status
    sentence = "Operator A's authentication server refused: There is no signature for this call: not ours."
    assert world.notes("a")[0]["text"].startswith(sentence)
    if status == 500:
        assert answer.reason == "Server Internal Error: the call gets no signature"
        assert answer.reasons == [f'SIP;cause=500;text="{sentence}"']


async def test_services_that_are_down_or_slow_or_talk_nonsense_fail_closed(start: Start) -> None:
    world = await start(timeout_ms=100)
    world.b.gate.clear()
    answer = await world.call()
    assert answer.status == 500
    assert "Operator B's verification server did not answer in time" in answer.reasons[0]
    world.b.gate.set()
    world.b.verdicts = [{"verstat": "surely fine"}]
    assert (await world.call()).status == 500
    world.a.refusal = (200, {"signingResponse": {"identity": "x\r\nEvil: header"}})
    assert "gave an answer that cannot be read" in (await world.call()).reasons[0]
    world.a.refusal = (503, {"oops": 1})
    assert "refused: HTTP 503" in (await world.call()).reasons[0]
    world.a.gate.clear()
    assert "did not answer in time" in (await world.call()).reasons[0]
    assert world.incoming == []


async def test_a_service_that_is_not_there(start: Start) -> None:
    world = await start()
    service = world.proxy_a._services[0]
    await service._client.aclose()
    service._client = HttpClient("http://127.0.0.1:9/", timeout_s=1, max_answer_bytes=1)
    assert "cannot be reached" in (await world.call()).reasons[0]


async def test_a_verifier_that_is_down_labels_where_that_is_the_policy(start: Start) -> None:
    world = await start(policy="label", timeout_ms=100)
    world.b.gate.clear()
    assert (await world.call()).status == 200
    assert world.incoming[0].verstat == "No-TN-Validation"


async def test_a_call_given_up_while_it_is_being_signed_goes_nowhere(start: Start) -> None:
    world = await start()
    world.a.gate.clear()
    call = await world.caller.invite(TARGET, OFFER)
    async with asyncio.timeout(30):
        while not world.a.signing:
            await asyncio.sleep(0.002)
        call.cancel()
        assert (await call.answered()).status == 487
    world.a.gate.set()
    assert (await world.call()).status == 200
    assert len(world.incoming) == 1


async def test_no_signature_without_the_right_user_at_the_right_place(start: Start) -> None:
    world = await start()
    home = world.hops["a"]
    wrong = await world.telephone("a", CALLER, home, password="wrong", register=False)
    assert (await world.call(caller=wrong)).status == 407
    account = Account(f"sip:+{OTHER}@a.example", f"+{CALLER}", "right")
    somebody = UserAgent(account, host="127.0.0.1", proxy=home, udp_max_bytes=9000)
    await somebody.start()
    world.stack.push_async_callback(somebody.close)
    assert (await world.call(caller=somebody)).status == 403
    old = (("Date", formatdate(time.time() - 120, usegmt=True)),)
    answer = await world.call(headers=old)
    assert (answer.status, answer.reason) == (403, "Stale Date: the caller's clock is wrong")
    assert (await world.call(headers=(("Date", "yesterday"),))).status == 400
    await world.caller.register(0)
    answer = await world.call()
    assert (answer.status, answer.reason) == (403, "Forbidden: the caller is not registered here")
    assert world.a.signing == []


async def test_registration_can_be_left_out(start: Start) -> None:
    world = await start(require_registration=False)
    await world.caller.register(0)
    assert (await world.call()).status == 200


async def test_destinations_that_are_not_there(start: Start) -> None:
    world = await start()
    for target, status in (
        ("sip:+441@c.example", 404),
        (f"sip:+{OTHER}@b.example", 404),
        (f"sip:+{OTHER}@a.example", 404),
        ("sip:bob@b.example", 404),
    ):
        assert (await world.call(target)).status == status
    await world.callee.register(0)
    assert (await world.call()).status == 480


async def test_a_stranger_is_not_relayed_for(start: Start) -> None:
    world = await start()
    stranger = await world.telephone("c", OTHER, world.hops["a"], register=False)
    assert (await world.call(caller=stranger)).status == 404
    impostor = await world.telephone("a", CALLER, world.hops["a"], password="guess", register=False)
    assert (await world.call(caller=impostor)).status == 407


async def test_a_call_within_a_domain_needs_no_signature(start: Start) -> None:
    world = await start()
    world.caller.on_invite = world.take
    assert (await world.call(f"sip:+{CALLER}@a.example")).status == 200
    assert world.incoming[0].asserted_identity == f"sip:+{CALLER}@a.example;user=phone"
    assert world.a.signing == []


def test_the_longest_prefix_decides_before_the_domain() -> None:
    routes = Routes(
        [
            Route(domain="b.example", next_hop="udp:127.0.0.3:1"),
            Route(prefix="+44", next_hop="udp:127.0.0.3:2"),
            Route(prefix="44207", next_hop="tcp:127.0.0.3:3"),
        ]
    )
    target = parse_uri(TARGET)
    assert routes.find(target, CALLEE) == Hop("tcp", "127.0.0.3", 3)
    assert routes.find(target, Tn("441")) == Hop("udp", "127.0.0.3", 2)
    assert routes.find(target, None) == Hop("udp", "127.0.0.3", 1)
    assert routes.find(parse_uri("sip:x@c.example"), None) is None


@pytest.mark.parametrize(
    ("target", "arrives_for"),
    [
        (f"sip:+{CALLEE}@a.example", f"sip:+{CALLEE}@127.0.0.1"),
        (f"sip:{CALLEE}@A.EXAMPLE;user=phone", f"sip:+{CALLEE}@127.0.0.1"),
        ("tel:+44-20-7946-0123", f"sip:+{CALLEE}@127.0.0.1"),
    ],
)
async def test_a_number_dialled_at_the_own_domain_crosses_to_the_next(
    start: Start, target: str, arrives_for: str
) -> None:
    world = await start(dialled="+4420")
    assert (await world.call(target)).status == 200
    (incoming,) = world.incoming
    assert str(incoming.request.uri).startswith(arrives_for)
    assert incoming.request.headers["To"] == f"<{target}>"
    assert world.a.signing[0]["dest"] == {"tn": [CALLEE]}
    assert world.b.verification[0]["to"] == {"tn": [CALLEE]}


async def test_a_route_with_the_own_domains_name_is_own(start: Start) -> None:
    world = await start()
    headers = (("Route", "<sip:a.example;lr>"), ("Route", f"<sip:{world.hops['a'].address};lr>"))
    answer = await world.call(headers=headers)
    assert (answer.status, world.incoming[0].request.headers.get("Route")) == (200, None)
    assert (await world.call(headers=(("Route", "<sip:b.example;lr>"),))).status == 403


async def test_requests_about_the_proxy_itself(start: Start) -> None:
    world = await start()
    for method, uri, status in (
        ("OPTIONS", "sip:a.example", 200),
        ("OPTIONS", "sip:c.example", 404),
        ("MESSAGE", TARGET, 405),
        ("REGISTER", "sip:c.example", 404),
        ("BYE", "sip:a.example", 405),
    ):
        request = world.caller._new_request(method, uri, f"<{uri}>")
        request.headers.set("CSeq", f"1 {method}")
        response = await world.caller._exchange.ask(request, world.hops["a"])
        assert response.code == status
        assert (status in (200, 405)) == (response.headers.get("Allow") is not None)


async def test_nobody_registers_for_another(start: Start) -> None:
    world = await start()
    account = Account(f"sip:+{OTHER}@a.example", f"+{CALLER}", "right")
    thief = UserAgent(account, host="127.0.0.1", proxy=world.hops["a"])
    await thief.start()
    world.stack.push_async_callback(thief.close)
    with pytest.raises(RegistrationError) as refused:
        await thief.register()
    assert refused.value.status == 403
    assert await world.caller.register(5) == 30


# The attacker between the domains.


async def test_an_idle_attacker_changes_nothing(start: Start) -> None:
    world = await start(attack="forward")
    assert (await world.call()).status == 200
    assert world.incoming[0].identity == ["a.b.1;info=<https://x>"]
    assert world.notes("path") == []
    assert world.incoming[0].ended_by_peer


async def test_a_stripped_identity(start: Start) -> None:
    world = await start(attack="strip-identity")
    assert (await world.call()).status == 428
    assert world.notes("path")[0]["text"] == "the attacker took the Identity out of the INVITE"


async def test_without_the_check_a_call_that_nobody_signed_comes_in(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    for removed in removals("E2 Identity present"):
        monkeypatch.setattr(*removed)
    world = await start(attack="strip-identity")
    assert (await world.call()).status == 200
    assert (world.incoming[0].identity, world.incoming[0].verstat) == ([], "No-TN-Validation")


async def test_a_replayed_identity(start: Start) -> None:
    world = await start(attack="replay")
    await world.call()
    await world.call()
    first, second = world.b.verification
    assert first.pop("callId") != second.pop("callId")
    assert first == second
    assert len(world.a.signing) == 2


async def test_changed_keys(start: Start) -> None:
    world = await start(attack="change-key-mgmt")
    await world.call()
    (changed,) = world.b.verification[0]["keyMgmt"]
    before, after = (base64.b64decode(value.split()[1]) for value in (MIKEY, changed))
    assert sum(a != b for a, b in zip(before, after, strict=True)) == 1


async def test_a_changed_session_description(start: Start) -> None:
    world = await start(attack="change-sdp")
    await world.call()
    (signing,), (verification,) = world.a.signing, world.b.verification
    assert (signing["sdp"], verification["keyMgmt"]) == (OFFER_DIGEST, [MIKEY])
    assert verification["sdp"] != OFFER_DIGEST
    changed = world.incoming[0].sdp.splitlines()
    others = [(old, new) for old, new in zip(OFFER.splitlines(), changed, strict=True) if old != new]
    assert others == [(b"c=IN IP4 127.0.0.1", b"c=IN IP4 127.0.0.66")]


async def test_a_way_on_which_addresses_are_rewritten(start: Start) -> None:
    """There the key management alone is signed; what came is told to the verifier all the same."""
    world = await start(attack="change-sdp", rewrites_sdp=True)
    await world.call()
    (signing,), (verification,) = world.a.signing, world.b.verification
    assert (signing["keyMgmt"], "sdp" in signing) == ([MIKEY], False)
    assert verification["sdp"] not in (None, OFFER_DIGEST)


async def test_stripped_keys(start: Start) -> None:
    world = await start(attack="strip-key-mgmt")
    await world.call()
    assert world.b.verification[0]["keyMgmt"] == []
    assert SessionDescription.parse(world.incoming[0].sdp).audio.protocol == "RTP/AVP"


async def test_a_changed_answer(start: Start) -> None:
    world = await start(attack="change-answer-key-mgmt")
    answer = await world.call()
    assert world.b.verification[0]["keyMgmt"] == [MIKEY]
    assert SessionDescription.parse(answer.sdp).key_mgmt != (MIKEY,)
    assert answer.sdp != ANSWER


async def test_an_answer_with_another_address(start: Start) -> None:
    world = await start(attack="change-sdp")
    answer = await world.call()
    pairs = zip(ANSWER.splitlines(), answer.sdp.splitlines(), strict=True)
    assert [pair for pair in pairs if pair[0] != pair[1]] == [(b"c=IN IP4 127.0.0.1", b"c=IN IP4 127.0.0.66")]


async def test_a_call_that_is_held_back(start: Start) -> None:
    world = await start(attack="hold")
    answer = await world.call()
    assert answer.status == 200
    assert answer.setup_ms > 50


async def test_no_refusal_tells_a_number(start: Start, caplog: pytest.LogCaptureFixture) -> None:
    """Neither an answer's phrase, Reason or Warning, nor a note, nor the log, whatever a service or a peer says."""
    caplog.set_level("DEBUG")
    world = await start()
    said = f"calls from +{NUMBER} and {NUMBER[:3]}-{NUMBER[3:]} are not ours"
    text = {"text": "There is no signature: %1.", "variables": [said]}
    answers = []
    for refusal in (
        {"requestError": {"policyException": text}},
        {"requestError": {"serviceException": {"text": said}}},
    ):
        world.a.refusal = (403, refusal)
        answers.append(await world.call())
    world.a.refusal = None
    world.b.verdicts = [
        REVOKED | {"reasondesc": said, "step": NUMBER},
        REVOKED | {"reasondesc": "", "reasontext": said},
    ]
    trunk = await world.telephone("a", CALLER, world.hops["b"], register=False)
    good = ("Identity", "1.1.1;info=<x>")
    headers: tuple[tuple[tuple[str, str], ...], ...] = (
        (good,), (good,), (good, ("Date", NUMBER)), (good, ("Date", f"Thu, 26 Nov {NUMBER} 19:00:00 GMT")),
        (("Identity", NUMBER),), (("P-Asserted-Identity", f"<tel:{NUMBER}"),),
    )  # fmt: skip
    answers += [await world.call(headers=each, caller=trunk) for each in headers]
    for number in (NUMBER, f"{NUMBER}x"):
        answers.append(await world.call(f"sip:{number}@b.example", caller=trunk))
        answers.append(await world.call(f"sip:{number}@a.example"))
    for line in (f"m=audio {NUMBER} RTP/SAVP 0", f"a=rtpmap:{NUMBER} PCMU/8000", f"o=- {NUMBER} x IN IP4 h"):
        offer = OFFER + f"{line}\r\n".encode()
        answers.append(await (await trunk.invite(TARGET, offer, (good,))).answered())
    assert {answer.status for answer in answers} >= {400, 404, 437, 500}
    for answer in answers:
        assert NUMBER not in f"{answer.reason} {answer.reasons}", answer
    for actor in "ab":
        assert all(NUMBER not in json.dumps(note) for note in world.notes(actor))
    assert NUMBER not in logged(caplog.records)
