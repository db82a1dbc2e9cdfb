"""The list of live SAs on the disk."""

from pathlib import Path

from segw_agent import live_log
from segw_agent.live_log import LiveLog, LiveSa
from segw_agent.policy import Side
from voice_dpki.ikev2.events import SaName
from voice_dpki.names import CertDigest

ONE = CertDigest(b"\1" * 32)


def live(number: int) -> LiveSa:
    name = SaName(bytes([number]) * 8, b"\1" * 8)
    return LiveSa(name, number, Side.GATEWAY, f"enb{number}", ONE, "Vendor V", 2**31, 1.5)


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


def test_renamed() -> None:
    renamed = live(1).renamed(live(2).name, 7)
    assert (renamed.name, renamed.unique_id, renamed.identity) == (live(2).name, 7, "enb1")
