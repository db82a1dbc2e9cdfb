"""Export of a service's SIP messages and decisions to a HEP collector (Homer, sngrep).

The packets hold subscribers' numbers, as SIP does, and are sent by UDP in clear: on loopback, to a collector on
this machine or its forwarder, or where the operator declares the network protected. Nothing waits for the
collector: a packet that the socket does not take at once is lost, and a metric counts it.
"""

import logging
import re
import socket
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated

import msgspec

from voice_dpki.codec import hep
from voice_dpki.errors import LocalError, MalformedError
from voice_dpki.metrics import counter
from voice_dpki.shell.config import Config, read_secret, resolve
from voice_dpki.shell.current import MAX_CHARS, current_call
from voice_dpki.wire.seldom import Seldom

log = logging.getLogger(__name__)

SENT = counter("hep_packets", "Packets that were sent to the HEP collector.")
LOST = counter("hep_packets_lost", "Packets for the HEP collector that could not be sent.")

AGENT = 2001
"""Default capture agent id of a service."""

_CALL_ID = re.compile(rb"\r\n(?:call-id|i)[ \t]*:[ \t]*([^\r\n]+)", re.IGNORECASE)


class HepConfig(Config, frozen=True, kw_only=True):
    """`[trace.hep]`: the collector that is told of SIP messages and decisions."""

    host: str = "127.0.0.1"
    """Its numeric address."""
    port: Annotated[int, msgspec.Meta(ge=1, le=65535)] = 9060
    agent: Annotated[int, msgspec.Meta(ge=0, le=0xFFFF_FFFF)] = AGENT
    """The capture agent id of this service."""
    key: str | None = None
    """File with what the collector asks for, if it does."""
    insecure: bool = False
    """Tell a collector on another machine, although others on the network can read the calls' messages."""

    def target(self, path: Path) -> "HepTarget":
        """Return the collector that the configuration at `path` describes; raises LocalError."""
        try:
            is_loopback = ip_address(self.host).is_loopback
        except ValueError:
            raise LocalError(f"{path}: trace.hep.host: {self.host} is no numeric address") from None
        if not (is_loopback or self.insecure):
            raise LocalError(
                f"{path}: on the way to {self.host} others could read the calls' messages: send to a forwarder on "
                "this machine, or add insecure = true to [trace.hep] where the network itself is protected"
            )
        key = read_secret(resolve(path, self.key)).encode() if self.key is not None else b""
        return HepTarget(self.host, self.port, self.agent, key)


@dataclass(frozen=True, slots=True)
class HepTarget:
    """A collector, with the agent id and key that identify us to it."""

    host: str
    port: int
    agent: int = AGENT
    key: bytes = b""


class HepSender:
    """Sends the messages and decisions of the service `name` to the collector at `target`."""

    def __init__(self, target: HepTarget, name: str) -> None:
        """Raise LocalError if this machine has no route to the collector."""
        self._target, self._name = target, name
        family = socket.AF_INET6 if ip_address(target.host).version == 6 else socket.AF_INET
        self._socket = socket.socket(family, socket.SOCK_DGRAM)
        self._socket.setblocking(False)
        self._said = Seldom(log)
        try:
            self._socket.connect((target.host, target.port))
        except OSError as error:
            self._socket.close()
            raise LocalError(f"cannot send to the HEP collector at {target.host}: {error.strerror}") from None
        own = self._socket.getsockname()
        self._self = hep.Flow("udp", (own[0], own[1]), (own[0], own[1]))

    def sip(self, time_s: float, flow: hep.Flow, message: bytes) -> None:
        """Export a SIP message that was sent at `time_s`."""
        found = _CALL_ID.search(message.partition(b"\r\n\r\n")[0])
        call_id = found[1].rstrip().decode("utf-8", "replace")[:MAX_CHARS] if found else ""
        self._send(time_s, flow, message, hep.SIP, call_id)

    def note(self, time_s: float, line: bytes) -> None:
        """Export a decision on the current call, as JSON; one without a known call is dropped."""
        if call_id := current_call():
            self._send(time_s, self._self, line, hep.LOG, call_id)

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()

    def _send(self, time_s: float, flow: hep.Flow, payload: bytes, protocol: int, call_id: str) -> None:
        agent, name, key = self._target.agent, self._name, self._target.key
        try:
            packet = hep.packet(
                payload, flow, time_s, protocol=protocol, correlation=call_id, agent=agent, name=name, key=key
            )
            self._socket.send(packet)
        except (OSError, MalformedError) as error:
            LOST.inc()
            self._said.warning("a packet for the HEP collector is lost", reason=str(error))
        else:
            SENT.inc()
