"""The memory of used signatures that servers share, with a real redis-server."""

import asyncio
import json
import logging
import math
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, closing
from pathlib import Path
from typing import Any, Literal

import pytest
import pytest_asyncio

from tests.clocks import SettableClock
from tests.ports import free_port
from tests.present import present
from tests.recorded import RangesAlone, recorded
from verify_server import replay_store
from verify_server.config import EXAMPLE, load_setup
from verify_server.replay_store import Link, SharedReplays, shared
from verify_server.service import VerifyService
from verify_server.store_config import StoreConfig
from voice_dpki.effects import SystemClock, SystemRandom
from voice_dpki.errors import LocalError
from voice_dpki.names import CertDigest
from voice_dpki.shell.tls import ClientTls, make_certificate
from voice_dpki.shell.trace import Tracer
from voice_dpki.stir.examine import Policy
from voice_dpki.stir.replay import ReplayCache, Sighting, TokenUse
from voice_dpki.x509.allotment import Allotment
from voice_dpki.x509.recorded import RecordedCertificate

from .conftest import RANGE_A, Caller, Site, verification
from .redis_server import RedisServer, redis_server

pytestmark = pytest.mark.peer("redis-server")

NOW_S = int(SystemClock().now_s())
DOMAIN = "b.example"
Down = Literal["no-validation", "local"]


def use(
    key: bytes = b"k1", call: bytes = b"call 1", signer: str = "Operator A", iat_s: int = NOW_S + 3600
) -> TokenUse:
    return TokenUse(key, call, signer, iat_s)


@pytest_asyncio.fixture
async def store(tmp_path: Path) -> AsyncIterator[RedisServer]:
    async with redis_server(tmp_path) as server:
        yield server


class Servers:
    """Verification servers with a store."""

    def __init__(self, opened: AsyncExitStack) -> None:
        self._opened = opened
        self.links: list[Link] = []

    async def new(
        self, config: StoreConfig, folder: Path, *, when_down: Down = "no-validation", max_entries: int = 1000
    ) -> SharedReplays:
        clock = SystemClock()
        link = config.link(folder / "verify.toml", DOMAIN, clock)
        self.links.append(link)
        cache = ReplayCache(max_entries, 180)
        replays = SharedReplays(cache, link, 180, clock, SystemRandom(), when_down)
        return await self._opened.enter_async_context(shared(replays, link))


@pytest_asyncio.fixture
async def servers() -> AsyncIterator[Servers]:
    async with AsyncExitStack() as opened:
        yield Servers(opened)


def config_of(store: RedisServer, **options: Any) -> StoreConfig:
    return StoreConfig(**{"url": store.url, "timeout_s": 2.0, **options})


async def test_a_second_server_tells_a_replay_from_a_fork(servers: Servers, store: RedisServer) -> None:
    one, two = [await servers.new(config_of(store), store.folder) for _ in range(2)]
    assert await one.claim(use()) is Sighting.NEW
    assert await two.claim(use(call=b"call 2")) is Sighting.OTHER_CALL
    assert await two.claim(use(call=b"")) is Sighting.REPEATED
    assert await two.claim(use()) is Sighting.SAME_CALL
    assert await one.claim(use(call=b"call 2")) is Sighting.OTHER_CALL
    assert await two.claim(use(b"k2", b"")) is Sighting.NEW
    assert await one.claim(use(b"k2", b"")) is Sighting.REPEATED
    assert await one.claim(use(b"k2")) is Sighting.REPEATED


class Told(RangesAlone):
    """A ledger that has one certificate."""

    def __init__(self, der: bytes) -> None:
        self._record = recorded(der, Allotment(ranges=(RANGE_A,)))

    def held(self, digest: CertDigest) -> RecordedCertificate | None:
        return self._record

    async def look_up(self, digest: CertDigest) -> RecordedCertificate:
        return self._record


async def test_a_call_that_another_server_of_the_domain_has_accepted(
    servers: Servers, store: RedisServer, caller: Caller
) -> None:
    der = caller.der()
    identity = caller.identity(der, ahead_s=30)  # a store that has just begun does not reach back
    with closing(Tracer(store.folder / "trace.jsonl", "verify-b")) as tracer:
        both = [
            VerifyService(
                Told(der), Policy(), await servers.new(config_of(store), store.folder), SystemClock(), tracer
            )
            for _ in range(2)
        ]

        async def step(server: VerifyService, call_id: str) -> str:
            answer = server.verify(json.dumps(verification(identity, callId=call_id)).encode())
            assert not isinstance(answer, bytes), "the store has to be asked"
            verdict = json.loads(await answer)["verificationResponse"]
            return f"{verdict['verstat']} {verdict.get('step', '')}".strip()

        assert await step(both[0], "c1") == "TN-Validation-Passed"
        assert await step(both[1], "c2") == "TN-Validation-Failed E21 replay"
        assert await step(both[1], "c1") == "TN-Validation-Passed"
        store.kill()
        assert await step(both[1], "c1") == "TN-Validation-Passed", "this process knows the call"
        identity = caller.identity(der, ahead_s=30)
        assert await step(both[1], "c1") == "No-TN-Validation E21 replay memory"


async def test_of_calls_at_the_same_time_one_has_the_token(servers: Servers, store: RedisServer) -> None:
    four = [await servers.new(config_of(store), store.folder) for _ in range(4)]
    for n in range(50):
        told = await asyncio.gather(
            *(each.claim(use(b"key %d" % n, b"call %d" % at)) for at, each in enumerate(four))
        )
        assert sorted(each.value for each in told) == ["new", *["other call"] * 3]


async def test_keys_end_with_the_window_and_belong_to_the_domain(servers: Servers, store: RedisServer) -> None:
    one = await servers.new(config_of(store), store.folder)
    await one.claim(use(b"k9"))
    lasts_ms = int(store.told("PTTL", f"voice-dpki:{DOMAIN}:k9").strip().lstrip(b":"))
    assert 100_000 < lasts_ms <= 180_000


async def test_a_server_that_starts_again_knows_what_was_used_before(servers: Servers, store: RedisServer) -> None:
    one = await servers.new(config_of(store), store.folder)
    await one.claim(use())
    again = await servers.new(config_of(store), store.folder)
    again.cache.since_s = math.inf
    assert await again.claim(use(call=b"call 2")) is Sighting.OTHER_CALL
    assert await again.claim(use()) is Sighting.SAME_CALL
    assert await again.claim(use(b"k2")) is Sighting.NEW


@pytest.mark.parametrize("when_down", ["no-validation", "local"])
async def test_a_store_that_is_down(
    servers: Servers,
    store: RedisServer,
    caplog: pytest.LogCaptureFixture,
    when_down: Down,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    caplog.set_level(logging.INFO, logger="verify_server.replay_store")
    replays = await servers.new(config_of(store), store.folder, when_down=when_down)
    assert await replays.claim(use()) is Sighting.NEW
    assert replay_store.UP._value.get() == 1
    store.kill()
    told = [await replays.claim(use(b"k%d" % n)) for n in range(2, 7)]
    assert told == [Sighting.UNKNOWN if when_down == "no-validation" else Sighting.NEW] * 5
    assert await replays.claim(use(call=b"call 2")) is Sighting.OTHER_CALL, "this process knows it"
    assert await replays.claim(use()) is Sighting.SAME_CALL
    assert replay_store.UP._value.get() == 0
    assert [record.message for record in caplog.records] == ["the store of used signatures does not answer"]
    assert ("no call passes" if when_down == "no-validation" else "alone") in replays.shortfall()
    assert replays.readiness().state == ("failed" if when_down == "no-validation" else "warning")
    await store.start()
    monkeypatch.setattr(replay_store, "RETRY_S", 0.0)
    replays._left_alone_until_s = -math.inf
    assert await replays.claim(use(b"k8")) is Sighting.NEW
    assert (replay_store.UP._value.get(), replays.shortfall()) == (1, "")
    assert caplog.records[-1].message == "the store of used signatures answers again"


async def test_a_store_that_is_back_is_noticed_without_a_call(
    servers: Servers, store: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who is not ready may get no call by which to notice."""
    monkeypatch.setattr(replay_store, "WATCH_S", 0.01)
    replays = await servers.new(config_of(store), store.folder)
    store.kill()
    assert await replays.claim(use()) is Sighting.UNKNOWN
    assert replays.readiness().state == "failed"
    await store.start()
    async with asyncio.timeout(60):
        while replays.readiness().state != "ok":
            await asyncio.sleep(0.01)


async def test_a_store_that_has_lost_what_it_kept_does_not_reach_back(servers: Servers, store: RedisServer) -> None:
    replays = await servers.new(config_of(store), store.folder)
    old = NOW_S - 3600
    assert await replays.claim(use(b"k1", iat_s=old)) is Sighting.UNKNOWN, "it was signed before the store began"
    assert store.told("DBSIZE") == b":0\r\n"
    assert b"cmdstat_set:" not in store.told("INFO", "commandstats"), "not even for a moment"
    assert await replays.claim(use(b"k1", iat_s=old)) is Sighting.UNKNOWN
    store.kill()
    await store.start()
    await replays.claim(use(b"k2"))
    replays._left_alone_until_s = -math.inf
    assert await replays.claim(use(b"k3", iat_s=old)) is Sighting.UNKNOWN
    assert await replays.claim(use(b"k4")) is Sighting.NEW


async def test_what_was_asked_while_the_store_began_anew_is_not_kept(servers: Servers, store: RedisServer) -> None:
    """The first question of a connection is how the server learns that the store is new."""
    replays = await servers.new(config_of(store), store.folder)
    (link,) = servers.links
    await link.close()
    link.since_s = -math.inf  # type: ignore[misc]
    assert await replays.claim(use(b"k1", iat_s=NOW_S - 3600)) is Sighting.UNKNOWN
    assert store.told("EXISTS", f"voice-dpki:{DOMAIN}:k1") == b":0\r\n"


async def test_a_store_that_forgets_early_is_not_used(
    servers: Servers, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with redis_server(tmp_path, "--maxmemory", "100mb", "--maxmemory-policy", "allkeys-lru") as store:
        replays = await servers.new(config_of(store), tmp_path)
        assert await replays.claim(use()) is Sighting.UNKNOWN
        assert "maxmemory-policy is allkeys-lru" in str(caplog.records[0].fields)  # type: ignore[attr-defined]


async def test_a_store_that_is_full_cannot_tell(servers: Servers, tmp_path: Path) -> None:
    async with redis_server(tmp_path, "--maxmemory", "100kb", "--maxmemory-policy", "noeviction") as store:
        replays = await servers.new(config_of(store), tmp_path)
        assert await replays.claim(use()) is Sighting.UNKNOWN


async def test_a_signers_flood_reaches_the_store_only_as_far_as_its_share(
    servers: Servers, store: RedisServer
) -> None:
    replays = await servers.new(config_of(store), store.folder, max_entries=100)
    told = [await replays.claim(use(b"flood %d" % n, signer="flooder")) for n in range(200)]
    assert (told.count(Sighting.NEW), told.count(Sighting.FULL)) == (51, 149)
    assert store.told("DBSIZE") == b":51\r\n"
    assert await replays.claim(use(b"other", signer="Operator A")) is Sighting.NEW


async def test_a_request_that_is_given_up_spoils_no_other(servers: Servers, store: RedisServer) -> None:
    """A client may hang up at any moment; the answer to its question must not reach the next one."""
    replays = await servers.new(config_of(store, max_connections=2), store.folder, max_entries=10_000)
    other = await servers.new(config_of(store), store.folder)
    for n in range(300):
        await other.claim(use(b"odd %d" % n, b"call 9"))
        task = asyncio.create_task(replays.claim(use(b"even %d" % n)))
        for _ in range(n % 12):
            await asyncio.sleep(0)
        task.cancel()
        assert await replays.claim(use(b"odd %d" % n)) is Sighting.OTHER_CALL
        assert await replays.claim(use(b"new %d" % n)) is Sighting.NEW


async def test_a_store_that_is_silent_holds_no_call_up_for_long(servers: Servers, tmp_path: Path) -> None:
    asked = 0

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal asked
        asked += 1
        await reader.read()
        writer.close()

    server = await asyncio.start_unix_server(silent, tmp_path / "silent.sock")
    async with server:
        config = StoreConfig(url=f"unix://{tmp_path}/silent.sock", timeout_s=0.05)
        clock = SettableClock(NOW_S)
        link = config.link(tmp_path / "verify.toml", DOMAIN, clock)
        replays = SharedReplays(ReplayCache(9, 180), link, 180, clock, SystemRandom())
        told = [await replays.claim(use(b"k%d" % n)) for n in range(20)]
        assert (told, asked <= 4) == ([Sighting.UNKNOWN] * 20, True), "it is left alone after the first call"
        before = asked
        clock.elapse(2)
        assert await replays.claim(use()) is Sighting.UNKNOWN
        assert asked > before
        await link.close()


async def test_with_tls_user_and_password(servers: Servers, tmp_path: Path) -> None:
    for name in ("redis", "verify", "stranger"):
        make_certificate(tmp_path, name, "Operator B", 30)
    (tmp_path / "password").write_text("s3cret\n")
    rights = "user verify on >s3cret ~voice-dpki:* -@all +set +get +del +info"
    (tmp_path / "users.acl").write_text(f"{rights}\nuser default on nopass ~* +@all\n")
    port = free_port()
    files = {"cert-file": "redis.pem", "key-file": "redis-key.pem", "ca-cert-file": "verify.pem"}
    options = [part for name, file in files.items() for part in (f"--tls-{name}", str(tmp_path / file))]
    listed = ClientTls(certificate="verify.pem", key="verify-key.pem", servers=("redis.pem",))
    url = f"rediss://127.0.0.1:{port}/0"
    async with redis_server(
        tmp_path, "--tls-port", str(port), *options, "--aclfile", str(tmp_path / "users.acl")
    ) as store:
        config = config_of(store, url=url, user="verify", password="password", tls=listed)
        one, two = [await servers.new(config, tmp_path) for _ in range(2)]
        assert await one.claim(use()) is Sighting.NEW, one._fault
        assert await two.claim(use(call=b"call 2")) is Sighting.OTHER_CALL
        (tmp_path / "password").write_text("wrong\n")
        wrong = await servers.new(config, tmp_path)
        assert await wrong.claim(use()) is Sighting.UNKNOWN
        stranger = ClientTls(certificate="stranger.pem", key="stranger-key.pem", servers=("stranger.pem",))
        other = await servers.new(config_of(store, url=url, tls=stranger), tmp_path)
        assert await other.claim(use()) is Sighting.UNKNOWN


@pytest.mark.parametrize(
    ("section", "said"),
    [
        ('url = "http://127.0.0.1/"', "schemes"),
        ('url = "redis:///0"', "schemes"),
        ('url = "redis://verify:s3cret@127.0.0.1/0"', "keys of their own"),
        ('url = "rediss://127.0.0.1/0"', "needs replay.store.tls"),
        ('url = "redis://192.0.2.1/0"', "others could change"),
        ('url = "redis://127.0.0.1/0"\npassword = "missing"', "missing"),
        ('url = "redis://127.0.0.1:port/0"', "replay.store.url"),
        ('url = "redis://127.0.0.1/zero"', "replay.store.url"),
    ],
)
def test_a_store_that_cannot_be_used_is_told_at_the_start(site: Site, section: str, said: str) -> None:
    site.write(f"{EXAMPLE}\n[replay.store]\n{section}\n")
    with pytest.raises(LocalError, match=said) as refused:
        load_setup(site.config)
    assert "s3cret" not in str(refused.value)


@pytest.mark.parametrize("url", ["redis://127.0.0.1", "redis://[::1]:6380/3", "unix:///run/redis.sock?db=2"])
def test_where_a_store_can_be(site: Site, url: str) -> None:
    site.write(f'{EXAMPLE}\n[replay.store]\nurl = "{url}"\n')
    present(load_setup(site.config).link)


def test_a_missing_package_is_named(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "redis.asyncio", None)
    monkeypatch.delitem(sys.modules, "verify_server.redis_link", raising=False)
    site.write(f'{EXAMPLE}\n[replay.store]\nurl = "redis://127.0.0.1"\n')
    with pytest.raises(LocalError, match="pip install redis"):
        load_setup(site.config)
