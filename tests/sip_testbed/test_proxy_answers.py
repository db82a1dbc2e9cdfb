"""Who answers: B's proxy signs the answers of its users, and A's tells its users whether they are (RFC 9970)."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any

import pytest
from sipmessage import Response

from sip_testbed.proxy_answers import MAX_ANSWERS, Change, EachOnce
from voice_dpki.sip.events import TransactionKey
from voice_dpki.sip.message import parse_message
from voice_dpki.wire.sip.user_agent import FinalAnswer, IncomingCall

from .test_proxy_calls import ANSWER, CALLEE, CALLER, OFFER, PASSED, REVOKED, RSP, Start, World

OF_B = PASSED | {"signer": "Operator B"}
TOLD = f"<sip:+{CALLEE};verstat=%s@a.example;user=phone>"


@pytest.fixture
async def start(tmp_path: Path) -> AsyncIterator[Start]:
    async with AsyncExitStack() as stack:

        async def start_world(**options: Any) -> World:
            world = World(stack, tmp_path)
            await world.start(**{"sign_answers": True, "verify_answers": True, **options})
            world.a.verdicts = [OF_B]
            return world

        yield start_world


def asserted(answer: FinalAnswer) -> list[str]:
    return list(answer.headers.getlist("P-Asserted-Identity"))


async def test_the_answer_is_signed_verified_and_told(start: Start) -> None:
    world = await start()
    answer = await world.call()
    assert (answer.status, answer.sdp, answer.verstat) == (200, ANSWER, "TN-Validation-Passed")
    assert asserted(answer) == [TOLD % "TN-Validation-Passed"]
    (signing,), (verification,) = world.b.signing, world.a.verification
    date_s = int(parsedate_to_datetime(answer.headers["Date"]).timestamp())
    assert abs(date_s - time.time()) < 5
    call_id = world.incoming[0].request.headers["Call-ID"]
    parties = {"orig": {"tn": CALLER}, "dest": {"tn": [CALLEE]}}
    assert signing == {"callId": call_id, "ppt": "rsp", **parties, "iat": date_s}
    told = {name: verification[name] for name in ("answer", "callId", "from", "identity", "time", "to")}
    assert told == {
        "answer": True, "callId": call_id, "from": {"tn": CALLER}, "identity": f"d.e.1;{RSP}", "time": date_s,
        "to": {"tn": [CALLEE]},
    }  # fmt: skip
    assert world.notes("b")[-1]["text"] == "answer signed by Operator B's authentication server"
    text = "answer valid by Operator A's verification server, signed by Operator B"
    assert (world.notes("a")[-1]["text"], world.notes("a")[-1]["signer"]) == (text, "Operator B")


async def test_an_answer_that_does_not_verify_is_told_and_the_call_stands(start: Start) -> None:
    world = await start()
    world.a.verdicts = [REVOKED]
    answer = await world.call()
    assert (answer.status, asserted(answer)) == (200, [TOLD % "TN-Validation-Failed"])
    note = world.notes("a")[-1]
    assert (note["step"], note["ok"]) == ("E17 certificate", False)
    assert note["text"].startswith("answer: 437 Unsupported Credential: The signer's certificate was revoked")


async def test_an_answer_that_is_not_signed_is_told(start: Start) -> None:
    world = await start(sign_answers=False)
    answer = await world.call()
    assert (answer.status, asserted(answer)) == (200, [TOLD % "No-TN-Validation"])
    assert world.a.verification == []
    assert world.notes("a")[-1]["text"] == "answer: The answer is not signed."


def says_more(world: World, *headers: tuple[str, str]) -> None:
    """Let the callee's telephone put these header fields into its 2xx."""

    async def take(call: IncomingCall) -> None:
        exchange = call._line.exchange
        respond = exchange.respond

        def respond_with_more(key: TransactionKey, response: Response) -> None:
            for name, value in headers if response.code == 200 else ():
                if value not in response.headers.getlist(name):
                    response.headers.add(name, value)
            respond(key, response)

        exchange.respond = respond_with_more  # type: ignore[method-assign]
        await world.take(call)

    world.callee.on_invite = take


@pytest.mark.parametrize("others", [("a.b.1;info=<https://x>",), (f"u.v.w;{RSP}", f"x.y.z;{RSP}")])
async def test_nothing_but_one_signature_for_answers_is_asked_about(start: Start, others: tuple[str, ...]) -> None:
    """Such as the Identity of the call itself, which B's proxy and everybody on the path has."""
    world = await start(sign_answers=False)
    says_more(world, *(("Identity", other) for other in others))
    answer = await world.call()
    assert list(answer.headers.getlist("Identity")) == list(others)
    assert (asserted(answer), world.a.verification) == ([TOLD % "No-TN-Validation"], [])


async def test_what_the_telephone_says_of_itself_does_not_count(start: Start) -> None:
    world = await start()
    forged = TOLD.replace("a.example", "b.example") % "TN-Validation-Passed"
    says_more(world, ("Identity", f"x.y.z;{RSP}"), ("P-Asserted-Identity", forged))
    answer = await world.call()
    assert list(answer.headers.getlist("Identity")) == [f"d.e.1;{RSP}"]
    assert asserted(answer) == [TOLD % "TN-Validation-Passed"]
    world.a.verdicts = [REVOKED]
    assert asserted(await world.call()) == [TOLD % "TN-Validation-Failed"]


async def test_an_answer_that_cannot_be_signed_goes_unsigned(start: Start) -> None:
    world = await start()
    says_more(world, ("Identity", f"x.y.z;{RSP}"))
    world.b.refusal = (403, {"requestError": {"policyException": {"text": "no"}}})
    answer = await world.call()
    assert (answer.status, list(answer.headers.getlist("Identity"))) == (200, [])
    assert asserted(answer) == [TOLD % "No-TN-Validation"]
    text = "Operator B's authentication server refused: no; the answer goes unsigned"
    assert world.notes("b")[-1]["text"] == text


async def test_services_that_do_not_answer_hold_no_call_up_for_long(start: Start) -> None:
    world = await start(timeout_ms=100)

    async def take(call: IncomingCall) -> None:
        world.b.gate.clear()
        world.a.gate.clear()
        await world.take(call)

    world.callee.on_invite = take
    answer = await world.call()
    assert (answer.status, asserted(answer)) == (200, [TOLD % "No-TN-Validation"])


async def test_a_slow_signature_is_asked_for_once(start: Start) -> None:
    """The telephone sends its 2xx again until it has the ACK."""
    world = await start()

    async def take(call: IncomingCall) -> None:
        world.b.gate.clear()
        asyncio.get_running_loop().call_later(1.2, world.b.gate.set)
        await world.take(call)

    world.callee.on_invite = take
    answer = await world.call()
    assert (answer.verstat, len(world.b.signing), len(world.a.verification)) == ("TN-Validation-Passed", 1, 1)


async def test_calls_that_are_not_signed_have_no_signed_answer(start: Start) -> None:
    world = await start(sign=False, verify=False)
    answer = await world.call()
    assert (answer.status, answer.verstat, asserted(answer)) == (200, None, [])
    assert (world.b.signing, world.a.verification) == ([], [])


async def test_it_is_off_by_default(start: Start) -> None:
    world = await start(sign_answers=False, verify_answers=False)
    answer = await world.call()
    assert (answer.status, answer.verstat, answer.headers.get("Identity")) == (200, None, None)


def response(tag: str) -> Response:
    made = parse_message(f"SIP/2.0 200 OK\r\nTo: <sip:a@b.example>;tag={tag}\r\n\r\n".encode())
    assert isinstance(made, Response)
    return made


async def test_each_fork_is_asked_about_once_and_not_too_many() -> None:
    asked: list[str] = []

    async def find(given: Response) -> Change:
        asked.append(given.headers["To"])
        return lambda changed: changed.headers.set("X", "found")

    each = EachOnce(find, lambda changed: changed.headers.set("X", "not asked"))
    seen = []
    for number in (*range(MAX_ANSWERS + 2), 0):
        given = response(str(number))
        await each(given)
        seen.append(given.headers["X"])
    assert seen == ["found"] * MAX_ANSWERS + ["not asked"] * 2 + ["found"]
    assert len(asked) == MAX_ANSWERS


async def test_what_counts_without_an_answer_counts_if_asking_fails() -> None:
    async def find(given: Response) -> Change:
        raise RuntimeError("a fault in our own code")

    given = response("1")
    with pytest.raises(RuntimeError):
        await EachOnce(find, lambda changed: changed.headers.set("X", "not asked"))(given)
    assert given.headers["X"] == "not asked"


# UPDATEs before the answer.


async def updated(world: World, *, times: int = 1) -> tuple[list[str | None], FinalAnswer]:
    """A call whose callee updates it before it answers; what the caller was told each time, and the answer."""
    told: list[str | None] = []

    async def take(call: IncomingCall) -> None:
        await call.progress(ANSWER)
        for _ in range(times):
            await call.update()
        await call.answer(ANSWER)

    world.callee.on_invite = take
    call = await world.caller.invite(f"sip:+{CALLEE}@b.example", OFFER)
    call.on_connected = told.append
    answer = await asyncio.wait_for(call.answered(), 60)
    return told, answer


async def test_an_update_before_the_answer_is_signed_verified_and_told(start: Start) -> None:
    world = await start()
    told, answer = await updated(world)
    assert (told, answer.verstat) == (["TN-Validation-Passed"], "TN-Validation-Passed")
    parties = {"orig": {"tn": CALLER}, "dest": {"tn": [CALLEE]}}
    for signing in world.b.signing:
        assert {name: signing[name] for name in ("ppt", "orig", "dest")} == {"ppt": "rsp", **parties}
    assert len(world.b.signing) == len(world.a.verification) == 2, "the UPDATE, and the answer by itself"


async def test_an_update_that_does_not_verify_or_is_not_signed_is_told(start: Start) -> None:
    world = await start()
    world.a.verdicts = [REVOKED]
    told, _ = await updated(world)
    assert told == ["TN-Validation-Failed"]
    world = await start(sign_answers=False)
    told, _ = await updated(world)
    assert told == ["No-TN-Validation"]


async def test_only_so_many_updates_of_a_call_are_asked_about(start: Start) -> None:
    world = await start()
    told, answer = await updated(world, times=MAX_ANSWERS + 1)
    assert told == [*["TN-Validation-Passed"] * MAX_ANSWERS, "No-TN-Validation"]
    assert answer.verstat == "TN-Validation-Passed"
    assert len(world.b.signing) == MAX_ANSWERS + 1


async def test_what_a_telephone_says_of_itself_in_an_update_does_not_count(start: Start) -> None:
    told: list[str | None] = []
    for options in ({}, {"verify_answers": False}):
        world = await start(sign_answers=False, **options)

        async def take(call: IncomingCall) -> None:
            await call.progress(ANSWER)
            await call.ask(
                "UPDATE", [("P-Asserted-Identity", TOLD % "TN-Validation-Passed"), ("Contact", "<sip:x@127.0.0.1>")]
            )
            await call.reject(486)

        world.callee.on_invite = take
        call = await world.caller.invite(f"sip:+{CALLEE}@b.example", OFFER)
        call.on_connected = told.append
        await asyncio.wait_for(call.answered(), 60)
    assert told == ["No-TN-Validation"]
