"""Trace: what a process sent and decided, as JSON lines from which reports are made.

Each line is an object with `t` (Unix time in seconds), `actor`, `kind`, and by kind:

- `sip`: transport, src, dst ("host:port"), data (base64): a SIP message, written by its sender only;
- `http`: src, dst, data (base64): octets of an HTTP connection, written by the server, without TLS;
- `rtp`: src, dst, wire (base64), clear (base64): an RTP or RTCP packet, as sent and before encryption;
- `note`: text, and if known ms, step, ok and other data: a row of the ladder;
- `ready`: the addresses that a server listens on;
- `result`: the result that a program reports at its end;
- other kinds: a service defines them and writes them with `write`.

Tracing into a file is for tests and demonstrations: it holds speech and subscribers' numbers in clear. `sip` and
`note` can also go to a HEP collector (`voice_dpki.shell.hep`), and `note` to an OpenTelemetry collector
(`voice_dpki.shell.otlp`); these are for operators. Nothing depends on any: an event that cannot be written, for
instance to a full disk, is lost, and the log and a metric say so.
"""

import base64
import logging
import os
import re
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import BinaryIO, Self

import msgspec

from voice_dpki.codec.hep import Flow
from voice_dpki.effects import Clock, SystemClock
from voice_dpki.errors import LocalError
from voice_dpki.metrics import counter
from voice_dpki.shell.config import Config, resolve
from voice_dpki.shell.current import current_call
from voice_dpki.shell.hep import HepConfig, HepSender, HepTarget
from voice_dpki.shell.hidden import Hidden, hidden_in_sip
from voice_dpki.shell.otlp import OtlpConfig, OtlpSender, OtlpTarget
from voice_dpki.shortfalls import SHORTFALLS
from voice_dpki.sip.hop import Hop
from voice_dpki.wire.seldom import Seldom

log = logging.getLogger(__name__)

_ZONE = re.compile(r"%[^\]]*")
"""The zone of a link-local address (RFC 4007 §11), which HEP packets do not carry."""

LOST = counter("trace_events_lost", "Trace events that could not be written.")


@dataclass(frozen=True, slots=True)
class TraceTo:
    """Destinations of events: a file, a HEP collector, an OpenTelemetry collector, some of them or none."""

    file: Path | None = None
    hep: HepTarget | None = None
    otlp: OtlpTarget | None = None


class CallTraceConfig(Config, frozen=True, kw_only=True):
    """`[trace]` of a service that handles calls."""

    file: str | None = None
    hep: HepConfig | None = None
    otlp: OtlpConfig | None = None

    def read(self, path: Path) -> TraceTo:
        """Return the destinations of events, by the configuration at `path`; raises LocalError."""
        return TraceTo(
            resolve(path, self.file) if self.file is not None else None,
            self.hep.target(path) if self.hep else None,
            self.otlp.target(path) if self.otlp else None,
        )


class Tracer:
    """A writer of one actor's trace events to `path` and to collectors; without any nothing is written.

    Raises LocalError if the file cannot be opened, or a collector cannot be sent to.
    """

    def __init__(
        self,
        path: Path | None,
        actor: str,
        clock: Clock | None = None,
        hep: HepTarget | None = None,
        otlp: OtlpTarget | None = None,
    ) -> None:
        try:
            # Each event is one unbuffered write, so that a reader sees it at once and whole.
            self._file: BinaryIO | None = path.open("ab", buffering=0) if path else None
        except OSError as error:
            raise LocalError(f"{path}: cannot write this trace: {error.strerror}") from None
        self._said = Seldom(log)
        self._actor = actor
        self._clock = clock or SystemClock()
        self._loses = False
        self._hep = HepSender(hep, actor) if hep is not None else None
        self._otlp = OtlpSender(otlp, actor) if otlp is not None else None
        SHORTFALLS.watch(self)

    @classmethod
    def named_by(cls, to: TraceTo, program: str, clock: Clock | None = None) -> Self:
        """Trace with the file's stem as the actor's name; without a file the name is `program`."""
        return cls(to.file, to.file.stem if to.file else program, clock, to.hep, to.otlp)

    @property
    def on(self) -> bool:
        """Whether events are written, so that a caller need not describe any in vain."""
        return not (self._file is None and self._hep is None and self._otlp is None)

    def shortfall(self) -> str:
        """Return what people should know if the last event could not be written; otherwise an empty string."""
        return "the trace cannot be written, and its events are lost" if self._loses and self._file else ""

    def sip(self, transport: str, src: str, dst: str, data: bytes) -> None:
        """Record a SIP message that this actor sends from `src` to `dst`, without bypasses and keys."""
        data = hidden_in_sip(data)
        if self._hep is not None:
            self._hep.sip(self._clock.now_s(), Flow(transport, _end(src), _end(dst)), data)
        self.write("sip", transport=transport, src=src, dst=dst, data=_base64(data))

    @property
    def writes(self) -> bool:
        """Whether events go to a file."""
        return self._file is not None

    def http(self, src: str, dst: str) -> Callable[[bytes], None]:
        """Return a function that records what `src` sends to `dst` on one HTTP connection, without secrets."""
        hidden = Hidden()

        def record(data: bytes) -> None:
            if self._file is not None:
                self.write("http", src=src, dst=dst, data=_base64(hidden.hide(data)))

        return record

    def rtp(self, src: str, dst: str, wire: bytes, clear: bytes) -> None:
        """Record an RTP or RTCP packet that this actor sends, as on the wire and in clear."""
        if self._file is not None:
            self.write("rtp", src=src, dst=dst, wire=_base64(wire), clear=_base64(clear))

    def note(self, text: str, **data: object) -> None:
        """Record a row of the ladder; usual data: ms (duration), step, ok."""
        if self._hep is not None and current_call():
            self._hep.note(self._clock.now_s(), msgspec.json.encode({"text": text, **data}))
        if self._otlp is not None:
            self._otlp.note(self._clock.now_s(), text, data)
        self.write("note", text=text, **data)

    def ready(self, **addresses: str) -> None:
        """Record that a server listens, and where."""
        self.write("ready", **addresses)

    def result(self, **data: object) -> None:
        """Record the result that a program reports at its end."""
        self.write("result", **data)

    def write(self, kind: str, **data: object) -> None:
        """Record an event of the caller's own `kind`; `data` must be encodable as JSON."""
        if self._file is not None:
            event = {"t": round(self._clock.now_s(), 6), "actor": self._actor, "kind": kind, **data}
            self._append(self._file, msgspec.json.encode(event) + b"\n")

    def _append(self, file: BinaryIO, line: bytes) -> None:
        """Write a line whole or not at all, as a partial line would corrupt the next one."""
        written = 0
        try:
            written = file.write(line)
            self._loses = written != len(line)
            if not self._loses:
                return
            reason = "no room for a whole event"
        except OSError as error:
            self._loses, reason = True, str(error.strerror)
        if written:
            with suppress(OSError):
                os.ftruncate(file.fileno(), os.fstat(file.fileno()).st_size - written)
        LOST.inc()
        self._said.warning("trace event lost", file=file.name, reason=reason)

    def close(self) -> None:
        """Close file and sockets; later events are dropped."""
        if self._file is not None:
            self._file.close()
            self._file = None
        if self._hep is not None:
            self._hep.close()
            self._hep = None
        if self._otlp is not None:
            self._otlp.close()
            self._otlp = None


def ms_since(began_s: float) -> float:
    """Return the milliseconds since `began_s`, a time of `perf_counter`, to the microsecond: the `ms` of a note."""
    return round((perf_counter() - began_s) * 1000, 3)


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


def _end(address: str) -> tuple[str, int]:
    hop = Hop.parse(f"udp:{_ZONE.sub('', address)}")
    return hop.host, hop.port
