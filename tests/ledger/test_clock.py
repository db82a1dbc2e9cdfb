"""A wall clock that is set makes nothing old look new: it is noticed, and nothing is believed until it is right."""

import asyncio
import json
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.clocks import STEPS_S, SettableClock
from tests.disks import fill
from tests.present import present
from voice_dpki.clock_health import HEALTH, WRONG
from voice_dpki.errors import LocalError
from voice_dpki.ledger.answers import InquiryCode, InquiryError
from voice_dpki.ledger.clock import STEADY_RATE, ClockError, LedgerClock
from voice_dpki.ledger.light import MAX_CLOCK_DRIFT_S, LightBlock
from voice_dpki.shell.config import Listen
from voice_dpki.shell.http import HttpApp, Request, Response, Route, serve
from voice_dpki.shell.metrics import HEALTH_ROUTE
from voice_dpki.wire.ledger.client import LedgerClient, light_client, load_trust, save_trust
from voice_dpki.wire.ledger.subscription import Subscription

pytestmark = pytest.mark.undescribed

START_S = 1_790_000_000.0


class Node:
    """Serves the newest header of a chain in memory as changes, with as little as a client needs."""

    def __init__(self, chain: Any) -> None:
        self.signed_header = chain.replica.last
        self.time_s = self.signed_header.header.time_ns / 1e9

    async def changes(self, _request: Request) -> Response:
        answer = {"steps": None, "signed_header": self.signed_header.to_json()}
        return Response(200, json.dumps(answer).encode())


@asynccontextmanager
async def asked(
    federation: Any, node: Node, clock: SettableClock, trust_file: Path | None = None
) -> AsyncIterator[LedgerClient]:
    routes = [Route("GET", "/ledger/v1/changes", node.changes), HEALTH_ROUTE]
    async with serve(HttpApp(routes), Listen(port=0)) as port:
        async with LedgerClient.of_genesis(
            f"http://127.0.0.1:{port}", federation.genesis, clock=clock, max_age_s=30, trust_file=trust_file
        ) as client:
            yield client


async def code_of(client: LedgerClient) -> str:
    try:
        await client.newest(0, wait_s=0)
    except InquiryError as error:
        return error.code
    return "believed"


async def health(client: LedgerClient) -> tuple[int, Any]:
    answer = await client._http.request("GET", "/healthz")
    return answer.status, json.loads(answer.body)


def said_of_clock(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.message for record in caplog.records if record.message.startswith("clock is")]


@pytest.fixture
def node(chain: Any) -> Node:
    chain.take(chain.next_block())
    return Node(chain)


@pytest.mark.parametrize("step_s", STEPS_S)
async def test_a_client_whose_clock_is_set_believes_nothing_until_it_is_right(
    federation: Any, node: Node, step_s: float, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    clock = SettableClock(node.time_s + 1)
    async with asked(federation, node, clock) as client:
        assert await code_of(client) == "believed"
        assert await health(client) == (200, {"status": "ok"})
        clock.elapse(5)
        clock.set(step_s)
        for _ in range(2):
            assert await code_of(client) == InquiryCode.CLOCK
        status, said = await health(client)
        way = "behind the ledger" if step_s < 0 else "set forward"
        assert (status, way in said["detail"]) == (503, True)
        assert float(present(re.search(r"(\d+) s ", said["detail"]))[1]) == pytest.approx(abs(step_s), abs=10)
        assert next(iter(WRONG.collect())).samples[0].value == 1
        assert said_of_clock(caplog) == ["clock is wrong"]
        clock.set(0)
        assert await code_of(client) == "believed"
        assert await health(client) == (200, {"status": "ok"})
        assert said_of_clock(caplog) == ["clock is wrong", "clock is right again"]


@pytest.mark.parametrize("step_s", [-86_400, -3600, -600])
async def test_a_header_does_not_get_young_again(federation: Any, node: Node, step_s: float) -> None:
    """The node is stuck, or lies, and the clock is set back to where its last header was new."""
    clock = SettableClock(node.time_s + 1)
    async with asked(federation, node, clock) as client:
        assert await code_of(client) == "believed"
        clock.elapse(-step_s)
        assert await code_of(client) == InquiryCode.STALE
        clock.set(step_s)
        assert await code_of(client) == InquiryCode.CLOCK
        clock.set(step_s + 2 * MAX_CLOCK_DRIFT_S + 0.002 * -step_s)
        assert await code_of(client) in (InquiryCode.CLOCK, InquiryCode.STALE)


@pytest.mark.parametrize("step_s", STEPS_S)
async def test_a_client_that_starts_with_a_wrong_clock(federation: Any, node: Node, step_s: float) -> None:
    clock = SettableClock(node.time_s + 1)
    clock.set(step_s)
    async with asked(federation, node, clock) as client:
        wanted = InquiryCode.CLOCK if step_s < 0 else InquiryCode.STALE
        assert await code_of(client) == wanted
        if step_s < 0:
            assert (await health(client))[0] == 503
        clock.set(0)
        assert await code_of(client) == "believed"
        assert await health(client) == (200, {"status": "ok"})


async def test_a_kept_header_tells_that_the_clock_is_behind(federation: Any, node: Node, tmp_path: Path) -> None:
    """Even before a node is asked, and without one."""
    trust_file = tmp_path / "trust.json"
    save_trust(trust_file, LightBlock(node.signed_header, federation.genesis.validators))
    clock = SettableClock(node.time_s + 1)
    clock.set(-3600)
    async with LedgerClient.of_genesis(
        "http://127.0.0.1:9", federation.genesis, clock=clock, trust_file=trust_file
    ) as client:
        with pytest.raises(ClockError, match="3599 s behind the ledger"):
            client.clock.checked_s()
        clock.set(0)
        assert client.clock.checked_s() == clock.true_s


async def test_a_header_for_which_there_is_no_room_is_a_note_and_is_kept_once_there_is(
    federation: Any, node: Node, disk: Callable[[int], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = disk(64)
    ballast, trust_file = fill(folder), folder / "trust.json"
    async with asked(federation, node, SettableClock(node.time_s + 1), trust_file) as client:
        assert await code_of(client) == "believed"
        note = "the trusted header cannot be written: the next start takes an older one"
        assert await health(client) == (200, {"status": "ok", "notes": [note]})
        assert list(folder.iterdir()) == [ballast]
        ballast.unlink()
        monkeypatch.setattr("voice_dpki.wire.ledger.client.RETRY_TRUST_S", -1.0)
        assert await code_of(client) == "believed"
        assert await health(client) == (200, {"status": "ok"})
    assert load_trust(trust_file).signed_header.header == node.signed_header.header


@pytest.mark.parametrize("heard", [False, True])
@pytest.mark.parametrize(("behind_s", "wanted"), [(10, "believed"), (11, InquiryCode.CLOCK)])
async def test_ten_seconds_are_drift_and_more_is_the_future(
    federation: Any, node: Node, behind_s: float, wanted: str, heard: bool
) -> None:
    """For a client that hears the ledger for the first time, and for one that knows its time."""
    clock = SettableClock(node.time_s)
    async with asked(federation, node, clock) as client:
        if heard:
            assert await code_of(client) == "believed"
        clock.set(-behind_s)
        assert await code_of(client) == wanted


async def test_what_is_held_is_not_answered_by_a_wrong_clock(
    federation: Any, node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = SettableClock(node.time_s + 1)
    async with asked(federation, node, clock) as client:
        header, _ = await client.newest(0, wait_s=0)
        subscription = Subscription(client)
        ages: list[float] = []
        monkeypatch.setattr(subscription._holdings, "get", lambda _digest, now_s: ages.append(now_s))
        for step_s in (0, *STEPS_S):
            clock.set(step_s)
            assert subscription.held(bytes(32)) is None  # type: ignore[arg-type]
        assert ages == [clock.true_s, *(clock.true_s + step_s for step_s in STEPS_S if step_s > 0)]
        assert header.age_s(ages[-1]) > client.max_age_s


async def test_nobody_on_the_path_can_make_us_doubt_our_clock(federation: Any, chain: Any) -> None:
    """A header from the future counts only with the validators' signatures."""
    chain.take(chain.next_block())
    clock = SettableClock(chain.replica.last.header.time_ns / 1e9)
    future = chain.next_block(time_ns=int((clock.true_s + 3600) * 1e9)).signed_header
    for signed_header, is_signed in ((_forged(future), False), (future, True)):
        node = Node(chain)
        node.signed_header = signed_header
        async with asked(federation, node, clock) as client:
            assert (await code_of(client) == InquiryCode.CLOCK) is is_signed
            assert bool(HEALTH.problem()) is is_signed


def _forged(signed: Any) -> Any:
    votes = tuple(replace(vote, signature=bytes(64)) for vote in signed.commit.signatures)
    return replace(signed, commit=replace(signed.commit, signatures=votes))


Moves = st.lists(
    st.one_of(
        st.tuples(st.just("elapse"), st.floats(0, 7200)),
        st.tuples(st.just("set"), st.sampled_from((0.0, 5.0, -5.0, *map(float, STEPS_S)))),
        st.tuples(st.just("hear"), st.floats(0, 40)),
    ),
    max_size=40,
)


@given(Moves)
def test_time_is_never_earlier_than_the_ledger_bears_out(moves: list[tuple[str, float]]) -> None:
    """However the wall clock is set: what `checked_s` returns is no earlier than the last header, and ages with it.

    It is right, within the drift and the headers' delay, whenever the wall clock is.
    """
    clock = SettableClock(START_S)
    held = LedgerClock(clock, START_S)
    held.heard(START_S)
    heard_at_s, header_s = clock.true_s, START_S
    for what, amount in moves:
        if what == "elapse":
            clock.elapse(amount)
        elif what == "set":
            clock.set(amount)
        else:
            header_s = max(header_s, clock.true_s - amount)
            heard_at_s = clock.true_s
            held.heard(clock.true_s - amount)
        waited_s = clock.true_s - heard_at_s
        try:
            now_s = held.checked_s()
        except ClockError:
            assert clock.error_s < -MAX_CLOCK_DRIFT_S + 1e-3
            assert "behind the ledger" in held.problem()
            continue
        assert now_s >= header_s + STEADY_RATE * waited_s - 1e-3
        assert now_s <= max(clock.now_s(), clock.true_s) + 1e-3
        if held.set_forward_s():
            assert clock.error_s > 0 or amount


def test_a_fast_monotonic_clock_does_not_carry_the_time_away() -> None:
    """500 ppm for a month, with a header each minute, and then an hour without."""
    clock = SettableClock(START_S)
    held = LedgerClock(clock, START_S)
    for minutes in [1] * 43_200 + [60]:
        clock.true_s += 60 * minutes
        clock.steady += 60 * minutes * 1.0005
        assert abs(held.checked_s() - clock.true_s) < 1e-3
        held.heard(clock.true_s - 1)
    assert held.problem() == ""


@pytest.mark.parametrize("agrees", [True, False])
def test_a_genesis_in_the_future_makes_the_clock_wrong_until_then_only(agrees: bool) -> None:
    clock = SettableClock(START_S)
    held = LedgerClock(clock, START_S + 3600, agrees=agrees)
    with pytest.raises(ClockError, match="3600 s behind the ledger"):
        held.checked_s()
    clock.elapse(3600)
    assert held.checked_s() == clock.true_s
    assert held.problem() == ""
    held.heard(clock.true_s)
    clock.elapse(100)
    clock.set(-50)
    with pytest.raises(ClockError, match="50 s behind the ledger"):
        held.checked_s()


@pytest.mark.parametrize(
    ("ahead_s", "agrees"), [(-3600, True), (0, True), (10, True), (10.5, False), (3600, False)]
)
def test_an_engines_clock_counts_as_right_at_its_start_unless_it_is_behind(ahead_s: float, agrees: bool) -> None:
    """What is known is so many seconds ahead of the clock. Who agrees notices when the clock is set forward."""
    clock = SettableClock(START_S)
    held = LedgerClock(clock, START_S + ahead_s, agrees=True)
    clock.set(7200)
    assert held.set_forward_s() == (7200 if agrees else 0)
    assert held.agreed_s() == (clock.true_s if agrees else clock.now_s())
    assert LedgerClock(clock, START_S + ahead_s).set_forward_s() == 0


@pytest.mark.parametrize("step_s", STEPS_S)
def test_the_time_that_agreed_with_the_ledger_goes_on(step_s: float) -> None:
    """However the wall clock is set, once it has agreed; until then there is only the wall clock."""
    clock = SettableClock(START_S)
    held = LedgerClock(clock, START_S - 100)
    clock.set(step_s)
    assert held.agreed_s() == clock.now_s()
    clock.set(0)
    held.heard(START_S)
    clock.elapse(50)
    for error_s in (step_s, 10, -10, 10.5, -10.5):
        clock.set(error_s)
        assert held.agreed_s() == (clock.now_s() if abs(error_s) <= 10 else clock.true_s)
    assert held.steady_s() == clock.steady


def test_a_wall_clock_agrees_with_headers_of_a_minute_and_with_drift() -> None:
    for age_s, agrees in ((60, True), (61, False), (-10, True), (-11, False)):
        clock = SettableClock(START_S)
        held = LedgerClock(clock, START_S - 3600)
        held.heard(START_S - age_s)
        clock.set(3600)
        assert held.set_forward_s() == (3600 if agrees else 0)


def beyond(folder: Path) -> Path:
    """A path of which the disk does not tell whether there is a file, even to root (ENAMETOOLONG)."""
    return folder / ("x" * 300)


async def test_a_disk_that_does_not_tell_costs_no_answer(federation: Any, node: Node, tmp_path: Path) -> None:
    async with asked(federation, node, SettableClock(node.time_s + 1), tmp_path / "trust.json") as client:
        client._trust_file = beyond(tmp_path)
        assert await code_of(client) == "believed"
        assert await code_of(client) == "believed"
        assert "cannot be written" in client.shortfall()


def test_a_trust_file_that_the_disk_does_not_tell_of_is_named(federation: Any, tmp_path: Path) -> None:
    with pytest.raises(LocalError, match="x: cannot be read: File name too long"):
        light_client(federation.genesis, beyond(tmp_path))


async def test_a_subscription_outlives_a_fault_of_our_own(
    federation: Any, node: Node, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("voice_dpki.wire.ledger.subscription.RETRY_S", (0.001,))
    async with asked(federation, node, SettableClock(node.time_s + 1)) as client:
        subscription, faults = Subscription(client), 0
        advance = subscription._holdings.advance

        def faulty(header: Any, changed: Any) -> Any:
            nonlocal faults
            faults += 1
            advance(header, changed)
            if faults <= 5:
                raise KeyError("a fault")
            return []

        monkeypatch.setattr(subscription._holdings, "advance", faulty)
        async with subscription.following(), asyncio.timeout(60):
            while faults < 6:
                assert subscription._holdings.header is None or faults > 5
                await asyncio.sleep(0.001)
    assert subscription._holdings.header is not None
    assert [each.message for each in caplog.records].count("changes could not be taken in") == 1


def test_a_refused_header_is_a_problem_for_a_minute_or_until_one_is_accepted() -> None:
    clock = SettableClock(START_S)
    held = LedgerClock(clock, START_S)
    held.refused("from the future")
    clock.elapse(60.0)
    assert held.problem() == "from the future"
    clock.elapse(0.25)
    assert held.problem() == ""
    held.refused("from the future")
    held.heard(clock.now_s())
    assert held.problem() == ""
