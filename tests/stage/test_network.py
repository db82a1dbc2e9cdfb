import stat
from pathlib import Path

import pytest

from voice_dpki.errors import LocalError
from voice_dpki.stage.events import COMMON_KINDS, NoteEvent
from voice_dpki.stage.network import Network

SOURCE = """
import sys, time, tomllib
from pathlib import Path
from voice_dpki.shell.trace import Tracer, TraceTo

config = tomllib.loads(Path(sys.argv[sys.argv.index("--config") + 1]).read_text())
tracer = Tracer.named_by(TraceTo(Path(config["trace"]["file"])), "unnamed")
tracer.note(config["says"])
tracer.ready(http="127.0.0.1:80")
time.sleep(60)
"""


def test_programs_run_with_their_configurations_until_the_network_stops(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    (tmp_path / "speaker.py").write_text(SOURCE)
    with Network(tmp_path / "logs", COMMON_KINDS) as network:
        given_back: list[str] = []
        network.held.callback(given_back.append, "address")
        for actor in ("first", "second"):
            network.start_program(actor, "speaker", ("start",), {"says": f"{actor} is here"})
        with pytest.raises(LocalError, match="first runs already"):
            network.start_program("first", "speaker", ("start",), {})
        network.wait_ready(("first", "second"))
        assert stat.S_IMODE((network.folder / "first.toml").stat().st_mode) == 0o600
        ended = network.end(("first", "nobody"))
        assert [(event.actor, event.text) for event in ended if isinstance(event, NoteEvent)] == [
            ("first", "first is here")
        ]
        again = network.start_program("first", "speaker", ("start",), {"says": "again"})
        again.wait_ready()
        assert [event.text for event in again.trace.events if isinstance(event, NoteEvent)] == ["again"]
        second = network.running["second"]
    assert given_back == ["address"]
    assert not network.running
    assert second.status == -15
    assert not network.folder.exists()
    assert sorted(path.name for path in (tmp_path / "logs").iterdir()) == ["first.log", "second.log"]
