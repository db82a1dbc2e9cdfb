"""Telephones as processes in network namespaces, one of them behind a NAT of the kernel's; needs root."""

import os
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from sip_testbed.events import KINDS, RtpEvent
from voice_dpki.stage.network import write_config
from voice_dpki.stage.processes import Program, Running

NAME = f"vdn{os.getpid()}"
"""Begins the names of the namespaces: another one each time."""

HOME, NAT, NET = (f"{NAME}-{place}" for place in ("home", "nat", "net"))
INSIDE, GATEWAY, OUTSIDE, PROXY, PHONE = "10.9.0.2", "10.9.0.1", "192.0.2.1", "192.0.2.10", "192.0.2.20"
"""The telephone behind the NAT, both sides of the NAT, the proxy, and the telephone that has a public address."""

FIRST, SECOND = range(20_000, 30_000), range(40_000, 50_000)
"""The NAT's ports outside, before and after it forgets its mappings."""

PASSWORD = "of-both"
NUMBERS = {"caller": "+493023125001", "callee": "+493023125002"}


def run(*command: str) -> str:
    """Run a command and return what it printed; an error has what it said."""
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, f"{command}: {done.stderr}"
    return done.stdout


def masquerade(ports: range) -> None:
    """Have the NAT give new flows ports of a range; those that it has keep theirs."""
    rule = f'oifname "outside" meta l4proto udp masquerade to :{ports.start}-{ports.stop - 1}'
    chain = f"chain out {{ type nat hook postrouting priority srcnat; {rule}; }}"
    at_nat("nft", f"add table ip vd; delete table ip vd; table ip vd {{ {chain}; }}")


def at_nat(*command: str) -> str:
    """Run a command where the NAT is."""
    return run("ip", "netns", "exec", NAT, *command)


@contextmanager
def nat() -> Iterator[None]:
    """A home network and a public one, with the NAT between them, which gives ports of FIRST."""
    with ExitStack() as stack:
        for space in (HOME, NAT, NET):
            run("ip", "netns", "add", space)
            stack.callback(run, "ip", "netns", "del", space)
            run("ip", "-n", space, "link", "set", "lo", "up")
        for inner, space, inside, hosts in (
            ("inside", HOME, GATEWAY, (INSIDE,)),
            ("outside", NET, OUTSIDE, (PROXY, PHONE)),
        ):
            run("ip", "-n", NAT, "link", "add", inner, "type", "veth", "peer", "name", "eth0", "netns", space)
            run("ip", "-n", NAT, "address", "add", f"{inside}/24", "dev", inner)
            for host in hosts:
                run("ip", "-n", space, "address", "add", f"{host}/24", "dev", "eth0")
            run("ip", "-n", space, "link", "set", "eth0", "up")
            run("ip", "-n", NAT, "link", "set", inner, "up")
        run("ip", "-n", HOME, "route", "add", "default", "via", GATEWAY)
        at_nat("sh", "-c", "echo 1 >/proc/sys/net/ipv4/ip_forward")
        masquerade(FIRST)
        yield


def forget(*flows: str) -> None:
    """Have the NAT forget its mappings, or those of `flows` (options of conntrack), and give ports of SECOND."""
    masquerade(SECOND)
    at_nat("conntrack", *(("-D", *flows) if flows else ("-F",)))


@dataclass
class Domain:
    """A proxy and two telephones that share a key, in their namespaces; `behind` names the one behind the NAT."""

    folder: Path
    behind: str
    speech: Mapping[str, Path]
    stack: ExitStack

    def start(self) -> tuple[Running, Running]:
        """Start them, and return the caller and the callee, which talk soon."""
        users = [{"number": number, "password": PASSWORD} for number in NUMBERS.values()]
        write_config(self.folder, "users", {"users": users})
        (self.folder / "password").write_text(PASSWORD)
        (self.folder / "key").write_text("0f" * 16)
        proxy = {"domain": "a.example", "users": "users.toml", "listen": {"host": PROXY, "port": 5060}}
        self._run("proxy", "proxy", NET, proxy).wait_ready()
        callee = self._telephone("callee", "caller")
        callee.wait_ready()
        return self._telephone("caller", "callee", call={"target": f"sip:{NUMBERS['callee']}@a.example"}), callee

    def _telephone(self, role: str, other: str, **more: object) -> Running:
        host, space = (INSIDE, HOME) if role == self.behind else (PHONE, NET)
        shared = {"mode": "dhhmac", "with": {f"sip:{NUMBERS[other]}@a.example": "key"}}
        config = {
            "aor": f"sip:{NUMBERS[role]}@a.example",
            "password_file": "password",
            "proxy": f"udp:{PROXY}:5060",
            "listen": {"host": host, "port": 5060},
            "say": self.speech[role],
            **{what: f"{role}.{what}.wav" for what in ("said", "heard")},
            "result": f"{role}.json",
            "silence_s": 20,
            "shared_keys": shared,
            **more,
        }
        return self._run(role, "user-agent", space, config)

    def _run(self, actor: str, command: str, space: str, config: Mapping[str, object]) -> Running:
        trace = self.folder / f"{actor}.jsonl"
        file = write_config(self.folder, actor, {**config, "trace": {"file": trace}})
        arguments = (command, "--config", str(file))
        within = ("ip", "netns", "exec", space)
        program = Program(actor, "sip_testbed.main", arguments, trace, self.folder / f"{actor}.log", within)
        return self.stack.enter_context(Running(program, KINDS))


def speech_sent(telephone: Running) -> list[RtpEvent]:
    """The RTP packets that a telephone has sent until now, without reports."""
    telephone.trace.poll()
    return [each for each in telephone.trace.events if isinstance(each, RtpEvent) and not each.is_control]
