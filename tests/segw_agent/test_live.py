"""The list of live SAs on the disk."""

import asyncio
import json
import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import msgspec
import pytest

from segw_agent import live as live_module
from segw_agent import live_log
from segw_agent.departed import Departed
from segw_agent.judge import Judge
from segw_agent.live import LiveSas
from segw_agent.live_log import LiveLog, LiveSa, Standing
from segw_agent.metrics import UNCHECKED
from segw_agent.policy import Policy, Question, Side
from segw_agent.rules import Peer, PeerRefusedError
from segw_agent.tracer import IkeTracer
from segw_agent.watch import Watch
from tests.disks import fill
from tests.ikev2.conftest import certificate_for
from voice_dpki.effects import SystemClock
from voice_dpki.errors import LocalError
from voice_dpki.ikev2.events import SaName, Untrusted
from voice_dpki.ledger.answers import InquiryCode, InquiryError
from voice_dpki.ledger.clock import LedgerClock
from voice_dpki.names import CertDigest, Tn
from voice_dpki.shell.config import Listen
from voice_dpki.shell.http import HttpApp, serve
from voice_dpki.shell.metrics import HEALTH_ROUTE
from voice_dpki.shell.reload import Live
from voice_dpki.wire.http_client import HttpAnswer, HttpClient
from voice_dpki.x509.keys import generate_es256
from voice_dpki.x509.profile import read_profile
from voice_dpki.x509.tnauthlist import TnAuthList

ONE = CertDigest(b"\1" * 32)


def live(number: int) -> LiveSa:
    name = SaName(bytes([number]) * 8, b"\1" * 8)
    names = (f"enb{number}.vendor.example",)
    return LiveSa(name, number, Side.GATEWAY, f"enb{number}", ONE, "Vendor V", 2**31, 1.5, names, (), None)


def test_log_is_read_back(tmp_path: Path) -> None:
    path = tmp_path / "live.jsonl"
    log = LiveLog(path)
    assert list(log.load()) == []
    for number in (1, 2, 3):
        log.add(live(number))
    log.remove(live(2).name)
    log.remove(live(9).name)
    with path.open("a") as file:
        file.write('{"name": "cut')
    assert list(LiveLog(path).load()) == [live(1), live(3)]
    assert len(path.read_text().splitlines()) == 2
    assert path.stat().st_mode & 0o777 == 0o600


def test_claims_are_read_back(tmp_path: Path) -> None:
    numbers = TnAuthList(spcs=("1234",), tns=(Tn("493023125001"),))
    sa = replace(live(1), dns_names=("a.example", "b.example"), uris=("sip:x@a.example",), tn_auth_list=numbers)
    assert LiveSa.from_json(json.loads(json.dumps(sa.to_json()))) == sa


@pytest.mark.parametrize(
    ("identity", "names"), [("enb1.vendor.example", ("enb1.vendor.example",)), ("CN=enb1,O=Vendor V", ())]
)
def test_an_sa_that_an_earlier_agent_admitted_is_held_to_its_identity(
    tmp_path: Path, identity: str, names: tuple[str, ...]
) -> None:
    members = replace(live(1), identity=identity).to_json()
    for later in ("dns_names", "uris", "tn_auth_list"):
        del members[later]
    (tmp_path / "live.jsonl").write_text(json.dumps(members) + "\n")
    (sa,) = LiveLog(tmp_path / "live.jsonl").load()
    assert (sa.dns_names, sa.uris, sa.tn_auth_list) == (names, (), None)


def test_log_does_not_grow_for_ever(tmp_path: Path, monkeypatch: object) -> None:
    monkeypatch.setattr(live_log, "SPARE_LINES", 10)  # type: ignore[attr-defined]
    log = LiveLog(tmp_path / "live.jsonl")
    log.load()
    log.add(live(1))
    for _ in range(100):
        log.add(live(2))
        log.remove(live(2).name)
    assert len((tmp_path / "live.jsonl").read_text().splitlines()) <= 14
    assert list(LiveLog(tmp_path / "live.jsonl").load()) == [live(1)]


async def health() -> HttpAnswer:
    async with (
        serve(HttpApp([HEALTH_ROUTE]), Listen(port=0)) as port,
        HttpClient(f"http://127.0.0.1:{port}", timeout_s=60, max_answer_bytes=1000) as client,
    ):
        return await client.request("GET", "/healthz")


async def test_a_full_disk_stops_nobody_and_the_list_is_written_once_there_is_room(
    disk: Callable[[int], Path], caplog: pytest.LogCaptureFixture
) -> None:
    folder = disk(64)
    path = folder / "live.jsonl"
    log = LiveLog(path)
    log.load()
    ballast = fill(folder, leave_kilobytes=4)
    for number in range(1, 101):
        log.add(live(number))
    assert log.behind
    assert [record.message for record in caplog.records].count(SAID_BEHIND) == 1
    for _ in range(5):
        log.catch_up()
    assert log.behind
    told = await health()
    assert (told.status, json.loads(told.body)) == (200, {"status": "ok", "notes": [SAID_BEHIND]})
    assert not path.with_suffix(".new").exists()
    log.remove(live(2).name)
    ballast.unlink()
    for _ in range(live_log.MAX_TURNS):
        log.catch_up()
    assert not log.behind
    assert json.loads((await health()).body) == {"status": "ok"}
    log.add(live(101))
    assert [sa.unique_id for sa in LiveLog(path).load()] == [1, *range(3, 102)]


def test_an_agent_starts_on_a_full_disk_and_not_without_its_folder(disk: Callable[[int], Path]) -> None:
    folder = disk(64)
    path = folder / "live.jsonl"
    path.write_text("".join(json.dumps(live(number).to_json()) + "\n" for number in range(1, 40)))
    fill(folder)
    log = LiveLog(path)
    assert len(list(log.load())) == 39
    assert log.behind
    assert len(path.read_text().splitlines()) == 39
    with pytest.raises(LocalError, match="cannot be written: No such file or directory"):
        LiveLog(folder / "nowhere" / "live.jsonl").load()


SAID_BEHIND = "list of live SAs cannot be written: after a restart, SAs admitted now would not be ended"


class NoControl:
    async def end(self, sa: LiveSa, reason: str) -> bool:
        return False

    async def standing(self) -> None:
        return None


def live_sas(tmp_path: Path, *known: LiveSa) -> LiveSas:
    log = LiveLog(tmp_path / "live.jsonl")
    log.load()
    for each in known:
        log.add(each)
    watch = Watch([], LedgerClock(SystemClock(), 0), bound_s=2, max_age_s=30, max_entries=10)
    return LiveSas(None, watch, NoControl(), SystemClock(), log)  # type: ignore[arg-type]  # nothing is judged here


def names_in(tmp_path: Path) -> set[SaName]:
    return {sa.name for sa in LiveLog(tmp_path / "live.jsonl").load()}


def test_rekeyed_sa_is_followed(tmp_path: Path) -> None:
    sas = live_sas(tmp_path, live(1), live(2))
    sas.renamed(1, live(3).name, 3)
    sas.renamed(77, live(4).name, 4)
    assert len(sas) == 2
    assert names_in(tmp_path) == {live(2).name, live(3).name}


def test_missed_rekeying_is_made_up_for(tmp_path: Path) -> None:
    sas = live_sas(tmp_path, live(1), live(2), live(3))
    standing = {
        live(2).name: Standing(2, "enb2"),
        live(5).name: Standing(5, "ENB1"),
        live(6).name: Standing(6, "somebody else"),
    }
    sas.reconcile(standing)
    assert names_in(tmp_path) == {live(2).name, live(3).name, live(5).name}


def test_missed_attachments_replace_the_older_sas_too(tmp_path: Path) -> None:
    """Only at a device, and only by an SA whose AUTH has been verified."""
    device = [replace(live(number), side=Side.DEVICE, identity="segw") for number in (1, 2, 3)]
    gateway = [replace(live(number), identity="enb") for number in (4, 5)]
    sas = live_sas(tmp_path, *device, *gateway)
    standing = {sa.name: Standing(sa.unique_id, sa.identity) for sa in (*device, *gateway)}
    standing[device[2].name] = Standing(3, "segw", is_established=False)
    sas.reconcile(standing)
    assert sas._ending.keys() == {device[0].name}
    sas.reconcile({device[2].name: Standing(3, "segw")})
    assert sas._ending.keys() == {device[0].name, device[1].name}


def test_missed_attachments_are_told_as_trusted_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Neither again with charon's event, nor for a rekeyed SA, nor for those from before a restart."""
    caplog.set_level(logging.INFO)
    LiveLog(tmp_path / "live.jsonl").add(live(1))
    sas = live_sas(tmp_path, live(2), live(3))
    for sa in (live(2), live(3)):
        sas._keep(sa)
    sas.reconcile({live(1).name: Standing(1, "enb1"), live(2).name: Standing(2, "enb2")})
    assert "trusted" in caplog.messages
    sas.established(live(2).name)
    sas.renamed(2, live(4).name, 4)
    sas.reconcile({live(4).name: Standing(4, "enb2"), live(3).name: Standing(3, "enb3", is_established=False)})
    said = [record.fields for record in caplog.records if record.message == "trusted"]  # type: ignore[attr-defined]
    assert said == [{"sa": str(live(2).name), "identity": "enb2"}]


class Listing(NoControl):
    """Lists these SAs."""

    def __init__(self, *names: SaName) -> None:
        self.names = frozenset(names)

    async def standing(self) -> frozenset[SaName]:  # type: ignore[override]
        return self.names


class SlowControl(NoControl):
    """Ends an SA, but the peer has rekeyed the first one meanwhile.

    charon still lists the old SA until the peer deletes it, so it may end that one and report the rekeying later.
    """

    def __init__(self, *, told_late: bool) -> None:
        self.sas: LiveSas | None = None
        self.told_late = told_late
        self.ended: list[SaName] = []

    async def end(self, sa: LiveSa, reason: str) -> bool:
        assert self.sas is not None
        if sa.name == live(1).name:
            if self.told_late:
                asyncio.get_running_loop().call_soon(self.sas.renamed, 1, live(3).name, 3)
            else:
                self.sas.renamed(1, live(3).name, 3)
            return self.told_late
        self.ended.append(sa.name)
        return True


@pytest.mark.parametrize("rekeyed", ["before", "missed", "meanwhile", "afterwards"])
async def test_end_that_was_resolved_on_reaches_the_rekeyed_sa(tmp_path: Path, rekeyed: str) -> None:
    sas, control = live_sas(tmp_path, live(1), live(2)), SlowControl(told_late=rekeyed == "afterwards")
    control.sas, sas._control = sas, control
    sas._ending[live(1).name] = Untrusted("revoked", "live SA", "the certificate was revoked")
    if rekeyed == "before":
        sas.moved(live(1).name, live(3).name)
    elif rekeyed == "missed":
        sas.reconcile({live(2).name: Standing(2, "enb2"), live(3).name: Standing(3, "enb1")})
    for _ in range(2):
        await sas._end_marked()
        await asyncio.sleep(0)
    assert control.ended == [live(3).name]
    assert names_in(tmp_path) == {live(2).name}


async def test_an_sa_that_was_rekeyed_while_the_daemon_listed_its_sas_is_followed_and_checked_again(
    tmp_path: Path,
) -> None:
    sas = live_sas(tmp_path, live(1), live(2))
    sas._control = Listing(live(2).name, live(3).name)
    await sas._forget_gone()
    assert names_in(tmp_path) == {live(2).name}
    sas.renamed(1, live(3).name, 3)
    assert names_in(tmp_path) == {live(2).name, live(3).name}
    assert sas._unsure == {ONE}
    sas.renamed(1, live(4).name, 4)
    assert len(sas) == 2


def test_departed_sas_are_forgotten_in_time() -> None:
    departed = Departed(30)
    departed.add(live(1), None, 0)
    departed.add(live(2), None, 20)
    departed.add(live(3), None, 31)
    assert departed.numbered(1) is None
    assert departed.numbered(2) == live(2)
    departed.forget_old(51)
    assert departed.take(live(2).name) is None
    assert departed.take(live(3).name) == (live(3), None, 31)


async def test_a_certificate_left_unchecked_is_not_forgotten_while_a_change_is_checked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sas, checking, checked = live_sas(tmp_path), asyncio.Event(), asyncio.Event()

    async def recheck(digests: list[CertDigest]) -> set[CertDigest]:
        checking.set()
        await checked.wait()
        return set()

    monkeypatch.setattr(sas, "_recheck", recheck)
    following = asyncio.create_task(sas._follow_changes())
    await checking.wait()
    sas._unsure = {ONE}
    checked.set()
    await asyncio.sleep(0)
    following.cancel()
    assert sas._unsure == {ONE}


def test_expired_certificates_are_noticed(tmp_path: Path) -> None:
    first, second = replace(live(1), not_after_s=100), replace(live(2), not_after_s=200)
    sas = live_sas(tmp_path, second, first, live(3))
    marked = []
    for now_s in (99.0, 100.0, 100.5, 101.0, 200.5, 201.0):
        sas._mark_expired(now_s)
        marked.append([name.spi_i[0] for name in sas._ending])
    assert marked == [[], [], [1], [1], [1, 2], [1, 2]]
    sas.remove(first.name)
    sas._insert(replace(live(4), not_after_s=150))
    sas._mark_expired(300.0)
    assert set(sas._ending) == {second.name, live(4).name}


def test_identities_as_charon_writes_them() -> None:
    assert Standing(1, "O=Vendor V, CN=enb1").is_of("CN=enb1,O=Vendor V")
    assert not Standing(1, "O=Vendor V, CN=\u212aenb1").is_of("CN=kenb1,O=Vendor V")
    assert not Standing(1, "O=Vendor W, CN=enb1").is_of("CN=enb1,O=Vendor V")


def test_renamed() -> None:
    renamed = live(1).renamed(live(2).name, 7)
    assert (renamed.name, renamed.unique_id, renamed.identity) == (live(2).name, 7, "enb1")


def with_certificate(number: int, digest: bytes, since_s: float = 1.5) -> LiveSa:
    return replace(live(number), identity="enb", digest=CertDigest(digest * 32), since_s=since_s)


@pytest.mark.parametrize("newest_first", [True, False])
def test_one_successor_depends_on_the_newest_certificate_only(tmp_path: Path, newest_first: bool) -> None:
    old, renewed = with_certificate(1, b"\1", 1.0), with_certificate(2, b"\2", 2.0)
    successor = live(3).name
    sas = live_sas(tmp_path)
    for each in (renewed, old) if newest_first else (old, renewed):
        sas._keep(each)
    sas.reconcile({successor: Standing(3, "enb")})
    assert sas._digests(frozenset({old.digest})) == [old.digest]
    assert sas._sas[successor].digest == renewed.digest
    sas.remove(old.name)
    assert sas._digests(frozenset({old.digest})) == []
    assert sas._digests(frozenset({renewed.digest})) == [renewed.digest]
    sas.remove(successor)
    assert sas._of_key == {}


def test_an_sa_that_is_to_be_ended_hands_that_on_whoever_is_newer(tmp_path: Path) -> None:
    sas = live_sas(tmp_path, with_certificate(1, b"\1", 1.0), with_certificate(2, b"\2", 2.0))
    sas._insert(with_certificate(1, b"\1", 1.0))
    sas._insert(with_certificate(2, b"\2", 2.0))
    sas._ending[live(1).name] = Untrusted("revoked", "live SA", "the certificate was revoked")
    sas.reconcile({live(3).name: Standing(3, "enb")})
    assert live(3).name in sas._ending


def test_a_name_that_comes_again_depends_on_its_new_certificate_only(tmp_path: Path) -> None:
    sas = live_sas(tmp_path)
    first, second = with_certificate(1, b"\1"), with_certificate(1, b"\2")
    sas._keep(first)
    sas._keep(second)
    assert sas._digests(frozenset({first.digest})) == []
    assert sas._digests(frozenset({second.digest})) == [second.digest]


class Inquiries:
    """A ledger whose nodes are silent: each inquiry waits for `timeout`, and then fails."""

    def __init__(self) -> None:
        self.asked: list[CertDigest] = []
        self.timeout = asyncio.Event()

    async def ask(self, digest: CertDigest, *, step: str) -> object:
        self.asked.append(digest)
        await self.timeout.wait()
        raise InquiryError(InquiryCode.UNREACHABLE, "the ledger node does not answer")


def with_many(tmp_path: Path, ledger: Inquiries) -> LiveSas:
    sas = live_sas(tmp_path)
    sas._judge = SimpleNamespace(ledger=ledger, policy=None)  # type: ignore[assignment]
    for number in range(5 * live_module.SWEEP_AT_ONCE):
        name = SaName(number.to_bytes(8, "big"), b"\1" * 8)
        sas._insert(replace(live(1), name=name, digest=CertDigest(number.to_bytes(32, "big"))))
    return sas


async def test_without_an_answer_a_sweep_ends_at_its_first_batch(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    ledger = Inquiries()
    ledger.timeout.set()
    sas = with_many(tmp_path, ledger)
    everything = sas._digests()
    assert await sas._recheck(everything) == set(everything)
    assert len(ledger.asked) == live_module.SWEEP_AT_ONCE
    assert await sas._recheck(everything) == set(everything)
    assert len(set(ledger.asked)) == 2 * live_module.SWEEP_AT_ONCE  # the next sweep begins with others
    assert [record.message for record in caplog.records].count("live SAs cannot be checked") == 1


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(60):
        while not condition():
            await asyncio.sleep(0.01)


async def test_silent_nodes_keep_no_expired_certificate_alive(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live_module, "TICK_S", 0.02)
    ledger = Inquiries()
    sas = with_many(tmp_path, ledger)
    sas._watch.bound_s = 3600.0
    task = asyncio.create_task(sas.run())
    try:
        await until(lambda: len(ledger.asked) == 2 * live_module.SWEEP_AT_ONCE)  # at the start, and the sweep
        sas._keep(replace(live(9), not_after_s=1))
        await until(lambda: sas._ending)
        assert list(sas._ending) == [live(9).name]
        ledger.timeout.set()
        await until(lambda: UNCHECKED._value.get() == len(sas) - 1)
        await asyncio.sleep(0.1)
        assert len(ledger.asked) == 2 * live_module.SWEEP_AT_ONCE  # the next sweep waits for the bound
        assert not task.done()
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@pytest.mark.parametrize("revoked", [True, False])
async def test_what_is_held_when_an_sa_is_added_may_be_newer_than_its_judgement(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, revoked: bool
) -> None:
    def check(policy: object, peer: Peer) -> None:
        if revoked:
            raise PeerRefusedError("revoked", "live SA", "revoked")

    sas = with_many(tmp_path, Inquiries())
    monkeypatch.setattr(live_module, "check_live", check)
    certificate = replace(read_profile(certificate_for(generate_es256(), "enb1")), digest=ONE)
    question = Question(Side.GATEWAY, live(1).name, "enb1", certificate, None)
    monkeypatch.setattr(sas._watch, "held", lambda digest: SimpleNamespace())
    sas.add(question)
    assert list(sas._ending) == [live(1).name] * revoked
    assert sas._unsure == set()
    monkeypatch.setattr(sas._watch, "held", lambda digest: None)
    sas.add(question)
    assert sas._unsure == {ONE}


async def test_a_change_of_the_lists_ends_sas_though_no_node_answers(tmp_path: Path) -> None:
    """Also those that a restarted agent finds in its file."""
    named = [replace(live(number), digest=CertDigest(bytes([number]) * 32)) for number in (1, 2, 3)]
    named[2] = replace(named[2], identity="CN=x,O=V", dns_names=("enb9.vendor.example",), subject="CN=x,O=V")
    named[1] = replace(named[1], identity="enb2.vendor.example")
    named[0] = replace(named[0], identity="enb1.vendor.example")
    sas = live_sas(tmp_path, *named)
    first = Policy(organizations=frozenset({"Vendor V"}), allow=("*.vendor.example", "O=V, CN=x"))
    policy = Live(first)
    sas._judge = Judge(None, policy, SystemClock(), IkeTracer(None, "agent"))  # type: ignore[arg-type]
    sas._hold_to_lists()
    assert sas._ending == {}
    policy.value = msgspec.structs.replace(first, deny=("enb9.vendor.example",))
    sas._hold_to_lists()
    assert {name: why.code for name, why in sas._ending.items()} == {named[2].name: "identity-denied"}
    policy.value = msgspec.structs.replace(first, allow=("enb2.vendor.example", "*.w.example"))
    sas._hold_to_lists()
    assert {sas._ending[each.name].code for each in (named[0], named[2])} == {"identity-not-allowed"}
    assert named[1].name not in sas._ending
    assert sas._unsure >= {each.digest for each in named}


class ManyAtOnce(NoControl):
    """A daemon that takes a while for each command, and notes how many are in flight."""

    def __init__(self, *, gone: bool = False) -> None:
        self.gone, self.ended, self.at_once, self.most = gone, list[SaName](), 0, 0

    async def end(self, sa: LiveSa, reason: str) -> bool:
        self.at_once += 1
        self.most = max(self.most, self.at_once)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        self.at_once -= 1
        if self.gone:
            raise LocalError("charon does not answer")
        self.ended.append(sa.name)
        return True


def removed_vendor(tmp_path: Path, count: int, control: ManyAtOnce) -> LiveSas:
    """SAs of a vendor that is no member any more, all marked to be ended."""
    sas = live_sas(tmp_path)
    sas._log = None
    sas._control = control
    for number in range(count):
        each = replace(live(1), name=SaName(number.to_bytes(8, "big"), b"\1" * 8), unique_id=number)
        sas._insert(each)
        sas._ending[each.name] = Untrusted("not-a-member", "5.4 certificate", "the vendor is no member any more")
    return sas


async def test_ten_thousand_sas_are_ended_many_at_a_time(tmp_path: Path) -> None:
    """Each once, though the ledger's change and the tick both begin to."""
    control = ManyAtOnce()
    sas = removed_vendor(tmp_path, 10_000, control)
    await asyncio.gather(sas._end_marked(), sas._end_marked())
    assert len(sas) == 0
    assert sas._ending == {}
    assert len(control.ended) == len(set(control.ended)) == 10_000
    assert live_module.END_AT_ONCE <= control.most <= 2 * live_module.END_AT_ONCE


async def test_a_daemon_that_is_gone_is_not_told_ten_thousand_times(tmp_path: Path) -> None:
    control = ManyAtOnce(gone=True)
    sas = removed_vendor(tmp_path, 10_000, control)
    asked = []
    end = control.end

    async def count(sa: LiveSa, reason: str) -> bool:
        asked.append(sa.name)
        return await end(sa, reason)

    control.end = count  # type: ignore[method-assign]
    await sas._end_marked()
    assert live_module.END_AT_ONCE <= len(asked) <= 2 * live_module.END_AT_ONCE
    assert len(sas._ending) == 10_000, "the next tick tries again"
    assert not sas._under_way
    control.gone = False
    await sas._end_marked()
    assert len(sas) == 0
