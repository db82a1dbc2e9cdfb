"""One operator's servers under the real Prometheus: alerts fire by what happens to machines, and end with it."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import httpx
import msgspec
import pytest

from authn_server.config import EXAMPLE
from tests.authn_server.conftest import Site
from tests.clocks import hurried
from tests.disks import fill
from tests.one_operator import TRACE, OneOperator, Service, make_ledger
from tests.ports import free_port
from voice_dpki.shell.tls import make_certificate

from .one_site import CALLER, Operator
from .prometheus import asking, job

pytestmark = [pytest.mark.long, pytest.mark.timeout(600), pytest.mark.peer("prometheus")]

BIN = Path(sys.executable).parent
HURRIED = 240
"""An hour, for which a store is watched before its pace is known, takes 15 s."""


@pytest.fixture
def at_end() -> Iterator[ExitStack]:
    """What is to be done when a test has ended, whether it passed or not."""
    with ExitStack() as stack:
        yield stack


def run(at_end: ExitStack, service: Service) -> Service:
    """Have a service stopped at the end; it then says that all was well."""

    def stop() -> None:
        assert service.stop() == 0

    at_end.callback(stop)
    return service


def test_tls_certificate_expires_and_is_renewed(at_end: ExitStack, tmp_path: Path) -> None:
    """Prometheus, a client that the server lists, goes along with the new certificate."""
    used, used_key, believed = (tmp_path / name for name in ("tls.pem", "tls-key.pem", "believed.pem"))

    def renew(days: int) -> bytes:
        new, key = make_certificate(tmp_path / f"{days}", "tls", "Operator A", days, hosts=["127.0.0.1"])
        new.rename(used)
        key.rename(used_key)
        return used.read_bytes()

    client, client_key = make_certificate(tmp_path, "prometheus", "Operator A", days=90)
    section = f'[tls]\ncertificate = "{used.name}"\nkey = "{used_key.name}"\nclients = ["{client.name}"]\n'
    site = Site(tmp_path).write(f'{EXAMPLE}{section}[trace]\nfile = "authn.jsonl"\n', valid_s=90 * 86_400)
    believed.write_bytes(old := renew(days=6))
    authn = run(at_end, Service("authn_server.main", site.config, tmp_path / "authn.jsonl"))
    shown = {"ca_file": str(believed), "cert_file": str(client), "key_file": str(client_key)}
    expires = "VoiceDpkiTlsCertificateExpires"
    with asking(tmp_path, job([authn.url], scheme="https", tls_config=shown)) as prometheus:
        prometheus.waits(lambda: expires in prometheus.firing(), "the alert fires")
        new = renew(days=90)
        believed.write_bytes(old + new)
        authn.hang_up("configuration read again")
        prometheus.ends(expires)
        believed.write_bytes(new)  # a changed file has Prometheus connect anew
        asked = "count_over_time(up[1h])"
        (before,) = prometheus.values(asked).values()
        prometheus.waits(lambda: max(prometheus.values(asked).values()) >= before + 3, "it asks some times more")
        assert set(prometheus.values("up").values()) == {1.0}


def test_lines_are_lost_while_a_disk_is_full(
    disk: Callable[[int], Path], at_end: ExitStack, tmp_path: Path
) -> None:
    """Each server has another kind of lines on the disk, so that each of the alert's metrics has it fire."""
    small = disk(1024)
    operator = Operator(tmp_path, lines=small)
    at_end.callback(operator.stop)
    with asking(tmp_path, job(operator.urls)) as prometheus:

        def lose() -> set[str]:
            """Have all write lines, and return where the alert fires."""
            os.kill(operator.ledger.node.pid, signal.SIGHUP)  # whose answer is a line of the log
            assert operator.verify_for(CALLER, operator.identity())
            return {url for url in operator.urls if "VoiceDpkiLinesLost" in prometheus.firing(url)}

        assert not lose()
        ballast = fill(small)
        prometheus.waits(lambda: lose() == set(operator.urls), "all lose lines")
        for kind, url in zip(("trace_events", "export_lines", "log_lines"), operator.urls, strict=True):
            losers = prometheus.values(f"voice_dpki_{kind}_lost_total > 0")
            assert list(losers) == [url.removeprefix("http://")], kind
        ballast.unlink()
        prometheus.waits(lambda: not lose(), "lines are written again")


@pytest.mark.peer("faketime")
def test_a_disk_fills_and_is_given_room(disk: Callable[[int], Path], at_end: ExitStack, tmp_path: Path) -> None:
    """The node's clocks are hurried, for it tells no pace before an hour; its store grows by heartbeats."""
    small = disk(32 * 1024)
    config = make_ledger(tmp_path, heartbeat_s=15, more=TRACE)
    config.write_text(config.read_text().replace('data_dir = "data"', f'data_dir = "{small}/data"'))
    with hurried(HURRIED):
        node = run(at_end, Service("ledger_node", config, config.with_suffix(".jsonl")))
    days = "voice_dpki_ledger_disk_days_left < +Inf"
    with asking(tmp_path, job([node.url])) as prometheus:
        with prometheus.fires("VoiceDpkiDiskFills"):
            assert not prometheus.values(days)
        (left,) = prometheus.values(days).values()
        assert 0 < left < 14
        subprocess.run(["mount", "-o", "remount,size=8g", str(small)], check=True)
        prometheus.ends("VoiceDpkiDiskFills")


def test_a_damaged_store_fails_requests_until_it_is_restored(at_end: ExitStack, tmp_path: Path) -> None:
    """A bit of an old block flips on the disk; the requests are those of a new follower, from block 1 on."""
    ledger = OneOperator(tmp_path)
    at_end.callback(ledger.stop)
    config = tmp_path / "net" / "follower.toml"
    config.write_text(
        '[node]\nname = "follower"\ndata_dir = "data-follower"\ngenesis = "genesis.json"\n'
        f'[listen]\nport = {free_port()}\n[follow]\nurl = "{ledger.url}"\n[trace]\nfile = "follower.jsonl"\n'
    )
    until_damaged = at_end.enter_context(ExitStack())
    follower = run(until_damaged, Service("ledger_node", config, config.with_suffix(".jsonl")))
    data, backup = config.with_name("data-follower"), tmp_path / "backup"
    with (
        httpx.Client(base_url=f"{follower.url}/ledger/v1", trust_env=False, timeout=60) as http,
        asking(tmp_path, job([follower.url])) as prometheus,
    ):
        prometheus.waits(lambda: http.get("/blocks/4").is_success, "some blocks come")
        assert _run("backup", config, "--out", str(backup)) == 0

        def asked() -> int:
            return http.get("/blocks?from=1&count=64").status_code

        assert asked() == 200
        with prometheus.fires("VoiceDpkiInternalErrors"):
            _flip(data / "ledger.mdb", http.get("/blocks/2").content)
            prometheus.waits(lambda: asked() == 500 and prometheus.firing(), "it answers 500")
        assert "MalformedError: stored block" in follower.log_path.read_text()
        until_damaged.close()
        assert _run("check", config) == 2
        data.rename(tmp_path / "damaged")
        assert _run("restore", config, "--from", str(backup)) == 0
        run(at_end, Service("ledger_node", config, config.with_suffix(".jsonl")))
        prometheus.waits(lambda: asked() == 200 and not prometheus.firing(), "all is well")


def _flip(store: Path, block: bytes) -> None:
    """Flip the first bit of a block, wherever LMDB has a copy of the page that holds it."""
    header = bytes(msgspec.json.decode(block, type=dict[str, msgspec.Raw])["signed_header"])
    data, at, flipped = store.read_bytes(), -1, 0
    with store.open("r+b", buffering=0) as file:
        while (at := data.find(header, at + 1)) >= 0:
            if data[at - 4 : at - 2] == b"\x84\x59":  # an array of four whose first is a byte string, in CBOR
                file.seek(at - 4)
                flipped += file.write(b"\x04")
    assert flipped


def _run(command: str, config: Path, *more: str) -> int:
    words = [str(BIN / "ledger-node"), command, "--config", str(config), *more]
    return subprocess.run(words, check=False, capture_output=True, timeout=300).returncode
