"""What the blocks say has changed, and the list of live SAs on the disk."""

from pathlib import Path

from segw_agent import live_log
from segw_agent.live_log import LiveLog, LiveSa
from segw_agent.policy import Side
from segw_agent.watch import Changes
from voice_dpki.ikev2.events import SaName
from voice_dpki.ledger.transactions import Batch, ChangeStatus, Submit, Vote, endorse
from voice_dpki.names import CertDigest
from voice_dpki.x509.keys import generate_es256
from voice_dpki.x509.profile import digest_of

SIGNER = generate_es256()
ONE, OTHER = CertDigest(b"\1" * 32), CertDigest(b"\2" * 32)


def change(digest: CertDigest) -> bytes:
    return endorse(ChangeStatus("chain", "Vendor V", digest, 0, "revoked", "unspecified"), [SIGNER])


def test_changes() -> None:
    changes = Changes()
    changes.start(10)
    assert not changes.unchanged_since(ONE, 10)
    assert changes.unchanged_since(ONE, 11)
    assert changes.take(11, [change(ONE)]) == {ONE}
    assert not changes.unchanged_since(ONE, 11)  # a header proves the state before its own block
    assert changes.unchanged_since(ONE, 12)
    assert changes.unchanged_since(OTHER, 11)
    assert changes.take(12, []) == frozenset()
    assert changes.take(13, [endorse(Submit("chain", "Vendor V", b"der"), [SIGNER])]) == {digest_of(b"der")}


def test_every_kind_names_what_it_changes() -> None:
    changes = Changes()
    changes.start(10)
    der, other = digest_of(b"der"), digest_of(b"other")
    batch = endorse(Batch("chain", "Vendor V", (b"der", b"other")), [SIGNER])
    assert changes.take(11, [batch]) == {der, other}
    vote = endorse(Vote("chain", "Vendor V", bytes(32), True), [SIGNER])
    assert changes.take(12, [vote]) is None  # a member's end is its certificates'


def test_what_is_not_understood_may_change_anything() -> None:
    changes = Changes()
    changes.start(10)
    assert changes.take(11, [b"another kind"]) is None
    assert not changes.unchanged_since(ONE, 11)
    assert changes.unchanged_since(ONE, 12)


def test_changes_are_bounded(monkeypatch: object) -> None:
    import segw_agent.watch

    monkeypatch.setattr(segw_agent.watch, "MAX_CHANGES", 2)  # type: ignore[attr-defined]
    changes = Changes()
    changes.start(10)
    for height in range(11, 15):
        changes.take(height, [change(CertDigest(bytes([height]) * 32))])
    assert not changes.unchanged_since(ONE, 12)  # forgotten what happened then
    assert changes.unchanged_since(ONE, 13)


def live(number: int) -> LiveSa:
    return LiveSa(SaName(bytes([number]) * 8, b"\1" * 8), number, Side.GATEWAY, f"enb{number}", ONE, 2**31, 1.5)


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
    assert live(1).renamed(live(2).name, 7) == LiveSa(live(2).name, 7, Side.GATEWAY, "enb1", ONE, 2**31, 1.5)
