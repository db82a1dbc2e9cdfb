"""A NAT of Linux's that forgets a telephone's mappings in mid-call: both are heard on, at the new ports."""

import json
import time
from collections.abc import Iterator
from contextlib import ExitStack
from itertools import groupby
from pathlib import Path

import pytest

from tests.e2e.nats import FIRST, OUTSIDE, SECOND, Domain, at_nat, forget, nat, speech_sent
from tests.media.conftest import SPEECH
from voice_dpki.media.correlate import correlate
from voice_dpki.media.pcm import Pcm
from voice_dpki.media.recording import read_wav, write_wav
from voice_dpki.stage.events import host_port
from voice_dpki.stage.processes import Running

FRAME_S = 0.02
SPEECH_S, BEFORE_S, COMPARED_S = 12.0, 1.5, 3.0
"""How much is said in the call, before the NAT forgets, and in the part at the end that must have been heard."""

PATIENCE_S = 60.0

pytestmark = [pytest.mark.long, pytest.mark.netns, pytest.mark.peer("nft"), pytest.mark.peer("conntrack")]


@pytest.fixture(params=["caller", "callee"])
def domain(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Domain]:
    speech = {}
    for role in ("caller", "callee"):
        pcm = read_wav((SPEECH / f"{role}.wav").read_bytes())
        speech[role] = tmp_path / f"{role}.say.wav"
        speech[role].write_bytes(write_wav(Pcm(pcm.rate, (pcm.data * 9)[: 2 * int(pcm.rate * SPEECH_S)])))
    with ExitStack() as stack:
        stack.enter_context(nat())
        yield Domain(tmp_path, request.param, speech, stack)


def wait_for_speech(telephone: Running, packets: int) -> None:
    """Wait until a telephone has sent so many packets of speech."""
    until = time.monotonic() + PATIENCE_S
    while len(speech_sent(telephone)) < packets:
        telephone.check_running()
        assert time.monotonic() < until, f"{telephone.program.actor} does not speak"
        time.sleep(FRAME_S)


def end_heard(folder: Path, speaker: str, listener: str) -> float:
    """How much of the end of a speech was heard."""
    said, heard = (
        read_wav((folder / f"{name}.wav").read_bytes()) for name in (f"{speaker}.said", f"{listener}.heard")
    )
    at_s = said.duration_s - COMPARED_S
    return correlate(said.part(at_s, said.duration_s), heard.part(at_s - 1, heard.duration_s)).coefficient


def test_both_are_heard_on_when_the_nat_gives_new_ports(domain: Domain) -> None:
    """Of a caller it forgets the way to the proxy, too; a callee would not be reached by the caller's BYE then."""
    telephones = dict(zip(("caller", "callee"), domain.start(), strict=True))
    for each in telephones.values():
        wait_for_speech(each, int(BEFORE_S / FRAME_S))
    media = {host_port(packet.src)[1] for packet in speech_sent(telephones[domain.behind])}
    assert len(media) == 1
    forget(*(() if domain.behind == "caller" else ("-p", "udp", "--sport", str(*media))))
    for each in telephones.values():
        assert len(speech_sent(each)) * FRAME_S < SPEECH_S - COMPARED_S, "the call went on meanwhile"
    assert telephones["caller"].wait_end(PATIENCE_S) == 0
    telephones["callee"].stop()
    for speaker, listener in (("caller", "callee"), ("callee", "caller")):
        assert end_heard(domain.folder, speaker, listener) >= 0.99
    (public,) = telephones.keys() - {domain.behind}
    way = [host_port(packet.dst) for packet in speech_sent(telephones[public])]
    (old, _), (new, _) = ((where, list(same)) for where, same in groupby(way) if where[0] == OUTSIDE)
    assert old[1] in FIRST
    assert new[1] in SECOND
    for role in telephones:
        result = json.loads((domain.folder / f"{role}.json").read_bytes())
        assert (result["established"], result["reason"]) == (True, None)
        assert (result["media"]["foreign"], result["media"]["unauthentic"]) == (0, 0)
    assert str(*media) in at_nat("conntrack", "-L")
