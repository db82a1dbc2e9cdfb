"""A gateway and ordinary telephones at it, for the tests of either kind of telephone."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from sip_testbed.network import Testbed
from tests.e2e.gateways import RATE, Site, speech
from tests.e2e.hearing import SPEECH_S
from voice_dpki.media.pcm import SAMPLE_BYTES, Pcm
from voice_dpki.media.recording import write_wav


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with Testbed(tmp_path_factory.mktemp("logs")) as testbed:
        testbed.start()
        testbed.record_all()
        site = Site(testbed)
        site.record()
        yield site


@pytest.fixture
def gateway(site: Site) -> Iterator[Callable[..., Any]]:
    yield site.start
    site.stop()


@pytest.fixture
def spoken(tmp_path: Path) -> Callable[[str], Path]:
    """Writes one side's speech. The callee's goes on in silence: baresip hangs up at its file's end."""

    def write(who: str, speech_s: float = SPEECH_S) -> Path:
        path = tmp_path / f"{who}.wav"
        after = bytes(3 * RATE * SAMPLE_BYTES if who == "callee" else 0)
        path.write_bytes(write_wav(Pcm(RATE, speech(who, speech_s).data + after)))
        return path

    return write
