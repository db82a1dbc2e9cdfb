"""A federation with calls going on, for strangers to attack: the call network without traces of its services.

A trace has a line for each SIP message, and would be all that a flood fills. Only the telephones trace, for their
results are the calls.
"""

import socket
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from importlib.resources import files
from pathlib import Path

from sip_testbed.network import Testbed
from sip_testbed.network_config import user_agent_config
from sip_testbed.placing import CODECS, SRTP_PROFILES
from sip_testbed.provision import CALLEE, CALLER, FEDERATION, OPERATORS, aor
from voice_dpki.effects import SystemRandom
from voice_dpki.media.pcm import SAMPLE_BYTES, Pcm
from voice_dpki.media.recording import read_wav, write_wav
from voice_dpki.names import Tn
from voice_dpki.stage.events import Event, ResultEvent
from voice_dpki.stage.network import write_config
from voice_dpki.stage.processes import Program, Running, memory_mb
from voice_dpki.x509.keys import generate_es256
from voice_dpki.x509.profile import build_certificate

SAY_S = 0.5
PAUSE_S = 1.0
TELEPHONES = ("caller", "callee")
STARTING_S = 120.0

HTTP = ("authn-a", "verify-b", "ledger-a", "ledger-b", *(f"validator-{each.letter}" for each in FEDERATION))
LEDGERS = HTTP[2:]
SIP = ("proxy-a", "proxy-b")
P2P = tuple(f"cometbft-p2p-{each.letter}" for each in FEDERATION)


class AttackedTestbed(Testbed):
    """Two operators and their federation."""

    def start_program(
        self, actor: str, module: str, arguments: Sequence[str], sections: Mapping[str, object]
    ) -> Running:
        if actor in TELEPHONES:
            return super().start_program(actor, module, arguments, sections)
        config = write_config(self.folder, actor, sections)
        never = self.folder / "no-trace" / f"{actor}.jsonl"
        program = Program(actor, module, (*arguments, "--config", str(config)), never, self.logs / f"{actor}.log")
        self.running[actor] = Running(program, self._kinds)
        return self.running[actor]

    def wait_ready(self, actors: Iterable[str]) -> None:
        """Wait until these take connections, for they trace nothing."""
        for actor in actors:
            address = self.addresses[actor]
            self.running[actor].wait_open(address.host, address.port)

    def begin_calls(self) -> None:
        """Have the callee answer, and the caller call again and again."""
        self._launch("callee", CALLEE, {})
        self.running["callee"].wait_ready()
        call = {"target": aor(CALLEE, OPERATORS[1]), "times": 100_000, "pause_s": PAUSE_S}
        self._launch("caller", CALLER, {"call": call})
        self.running["caller"].wait_for(_is_result, "place a call", STARTING_S)

    def _launch(self, role: str, number: Tn, call: Mapping[str, object]) -> None:
        pcm = read_wav(files("sip_testbed").joinpath("speech", f"{role}.wav").read_bytes())
        say = self.folder / f"{role}.wav"
        say.write_bytes(write_wav(Pcm(pcm.rate, pcm.data[: int(SAY_S * pcm.rate) * SAMPLE_BYTES])))
        sections = user_agent_config(
            self.site, role, number=number, codec=CODECS["pcmu"], srtp=SRTP_PROFILES[0], say=say, out=self.folder
        )
        self.launch(role, {**sections, **call})

    def results(self) -> list[Mapping[str, object]]:
        """Return how the caller's calls went, so far."""
        trace = self.running["caller"].trace
        trace.poll()
        return [event.data for event in trace.events if isinstance(event, ResultEvent)]

    def targets(self) -> dict[str, list[list[object]]]:
        """Return what is open to strangers, as the stranger wants it."""
        return {
            name: [[self.addresses[actor].host, self.addresses[actor].port] for actor in actors]
            for name, actors in (("http", HTTP), ("statuses", LEDGERS[:3]), ("sip", SIP), ("p2p", P2P))
        }

    def actor_at(self, address: tuple[str, int]) -> str:
        return next((actor for actor in (*HTTP, *SIP, *P2P) if self.address(actor) == address), str(address))

    def memory_mb(self) -> dict[str, float]:
        """Return each program's own memory. The store that it maps is not: it grows with the chain, on the disk."""
        memory: dict[str, float] = {}
        for actor, running in self.running.items():
            own, *children = (memory_mb(pid, "Anonymous") for pid in running.pids)
            memory[actor] = own
            if actor.startswith("validator-"):
                memory[actor.replace("validator-", "cometbft-")] = sum(children)
        return memory

    def address(self, actor: str) -> tuple[str, int]:
        return self.addresses[actor].host, self.addresses[actor].port

    def certificate(self, number: int) -> bytes:
        """Make a certificate of Operator A's that is not recorded yet."""
        now_s = int(time.time())
        return build_certificate(
            generate_es256(),
            organization=OPERATORS[0].organization,
            common_name=f"bystander {number}",
            not_before_s=now_s - 60,
            not_after_s=now_s + 86_400,
            random=SystemRandom(),
        )


def _is_result(event: Event) -> bool:
    return isinstance(event, ResultEvent)


def lost(results: Sequence[Mapping[str, object]]) -> list[str]:
    """Return why calls were lost: those that were not answered, or that did not end well."""
    return [str(each.get("reason") or each.get("status")) for each in results if each.get("status") != 200]


def connections_of(sources: Iterable[str]) -> Counter[tuple[str, int]]:
    """Count the connections from these addresses that each server still has, by the server's address."""
    wanted = {socket.inet_aton(source)[::-1].hex().upper() for source in sources}
    found: Counter[tuple[str, int]] = Counter()
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        local, remote, state = line.split()[1:4]
        if remote.partition(":")[0] in wanted and state not in _ENDING:
            host, port = local.split(":")
            found[socket.inet_ntoa(bytes.fromhex(host)[::-1]), int(port, 16)] += 1
    return found


_ENDING = ("04", "05", "06", "09", "0B")
"""What the server has closed: it only waits for the other side."""
