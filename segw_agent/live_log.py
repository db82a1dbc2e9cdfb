"""The list of live SAs on the disk, so that an agent that was restarted can still end them.

A file of JSON lines: an SA that was admitted, or {"gone": SPIs}. A line that a crash cut short is passed over.

A disk without room stops nobody: what decides is the ledger, and this list matters only after a restart. It is then
kept in memory, which the log and a metric say, and written as soon as there is room again.
"""

import json
import logging
import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import IO, Any

from segw_agent.metrics import STATE_BEHIND
from segw_agent.policy import Question, Side
from voice_dpki.errors import LocalError
from voice_dpki.ikev2.events import SaName
from voice_dpki.ledger.members import member_key
from voice_dpki.names import CertDigest
from voice_dpki.shell.ending import FULL
from voice_dpki.shell.files import take_lock
from voice_dpki.shortfalls import SHORTFALLS

log = logging.getLogger(__name__)

MAX_TURNS = 64
"""A file that cannot be written is tried at every second, fourth, ... call of `catch_up`, at last at every such."""

SPARE_LINES = 10_000
"""The file is written anew when so many more lines than live SAs are in it."""

BEHIND = "list of live SAs cannot be written: after a restart, SAs admitted now would not be ended"
"""What log and /healthz say while that is so."""


@dataclass(frozen=True, slots=True)
class LiveSa:
    """An IKE SA that was admitted, and what decides whether it may stay."""

    name: SaName
    unique_id: int
    side: Side
    identity: str
    digest: CertDigest
    organization: str
    """Under whom the certificate is recorded: its end, or suspension, ends the SA too."""
    not_after_s: int
    since_s: float
    """By the monotonic clock of the process that admitted it."""

    @classmethod
    def of(cls, question: Question, now_s: float) -> "LiveSa":
        """Make one of a question that was answered with trust."""
        certificate = question.certificate
        return cls(
            question.sa,
            question.unique_id,
            question.side,
            question.identity,
            certificate.digest,
            certificate.organization or "",
            certificate.not_after_s,
            now_s,
        )

    def leaves(self) -> tuple[bytes, bytes]:
        """Keys of the ledger's leaves that decide: the certificate's and its organisation's."""
        return self.digest, member_key(self.organization)

    def renamed(self, name: SaName, unique_id: int) -> "LiveSa":
        """Return the SA under another name."""
        return replace(self, name=name, unique_id=unique_id)

    def to_json(self) -> dict[str, Any]:
        """Return the line's content."""
        return asdict(self) | {"name": _joined(self.name), "digest": self.digest.hex()}

    @classmethod
    def from_json(cls, members: dict[str, Any]) -> "LiveSa":
        """Read a line's content; raises ValueError, KeyError or TypeError on others."""
        return cls(
            _split(members["name"]),
            int(members["unique_id"]),
            Side(members["side"]),
            str(members["identity"]),
            CertDigest(bytes.fromhex(members["digest"])),
            str(members["organization"]),
            int(members["not_after_s"]),
            float(members["since_s"]),
        )


@dataclass(frozen=True, slots=True)
class Standing:
    """An SA that stands at an IKEv2 daemon: its number there, and the peer's identity as the daemon writes it."""

    unique_id: int
    remote_id: str

    def is_of(self, identity: str) -> bool:
        """Whether the peer is `identity`; distinguished names are written in either order."""
        return _parts(self.remote_id) == _parts(identity)


def _parts(identity: str) -> frozenset[str]:
    return frozenset(part.strip().lower() for part in identity.split(","))


class LiveLog:
    """The file. While it cannot be written, `behind` is true, and the list is in memory alone."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._known: dict[SaName, LiveSa] = {}
        self._lines = 0
        self._lock: IO[bytes] | None = None
        self._turns = self._turn = 0
        """While behind: how many calls of `catch_up` there are to a try, and how many were since the last."""
        SHORTFALLS.watch(self)

    @property
    def behind(self) -> bool:
        """Whether the file lacks something."""
        return self._turns > 0

    def shortfall(self) -> str:
        """Say what it means that the file is behind."""
        return BEHIND if self.behind else ""

    def reserve(self) -> None:
        """Keep other agents from the file while this process runs; raises LocalError where one has it."""
        self._lock = take_lock(self._path, "another agent keeps its live SAs in this file; give each its own")

    def load(self) -> Iterable[LiveSa]:
        """Read what is there, and write it anew without what is gone.

        Raises LocalError where it cannot be read, or can never be written; a full disk is only said in the log.
        """
        try:
            text = self._path.read_text(encoding="utf-8") if self._path.exists() else ""
        except (OSError, UnicodeDecodeError) as error:
            raise LocalError(f"{self._path}: cannot be read: {error}") from None
        for line in text.splitlines():
            self._replay(line)
        try:
            self._rewrite()
        except OSError as error:
            if error.errno not in FULL:
                raise LocalError(f"{self._path}: cannot be written: {error.strerror}") from None
            self._fall_behind(error)
        return list(self._known.values())

    def add(self, sa: LiveSa) -> None:
        """Write down an SA."""
        self._known[sa.name] = sa
        self._append(sa.to_json())

    def remove(self, name: SaName) -> None:
        """Write down that an SA is gone."""
        if self._known.pop(name, None) is not None:
            self._append({"gone": _joined(name)})

    def catch_up(self) -> None:
        """Write the file anew if it is behind; to be called now and then, for instance twice a second."""
        if not self.behind:
            return
        self._turn += 1
        if self._turn < self._turns:
            return
        try:
            self._rewrite()
        except OSError:
            self._turn, self._turns = 0, min(2 * self._turns, MAX_TURNS)
            return
        self._turn = self._turns = 0
        STATE_BEHIND.set(0)
        log.info("list of live SAs is written again", extra={"fields": {"file": str(self._path)}})

    def _replay(self, line: str) -> None:
        try:
            members = json.loads(line)
            if "gone" in members:
                self._known.pop(_split(members["gone"]), None)
            else:
                sa = LiveSa.from_json(members)
                self._known[sa.name] = sa
        except (ValueError, KeyError, TypeError):
            log.warning("a line of the list of live SAs cannot be read")

    def _append(self, members: dict[str, Any]) -> None:
        if self.behind:
            return
        try:
            if self._lines > len(self._known) + SPARE_LINES:
                self._rewrite()
                return
            with self._path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(members) + "\n")
        except OSError as error:
            self._fall_behind(error)
        self._lines += 1

    def _fall_behind(self, error: OSError) -> None:
        self._turns, self._turn = 1, 0
        STATE_BEHIND.set(1)
        fields = {"file": str(self._path), "reason": error.strerror}
        log.error(BEHIND, extra={"fields": fields})

    def _rewrite(self) -> None:
        """Write the file anew; raises OSError, and leaves the old one then."""
        new = self._path.with_suffix(".new")
        try:
            with open(new, "w", encoding="utf-8", opener=_private) as file:
                file.writelines(json.dumps(sa.to_json()) + "\n" for sa in self._known.values())
            new.replace(self._path)
        except OSError:
            new.unlink(missing_ok=True)
            raise
        self._lines = len(self._known)


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _joined(name: SaName) -> str:
    return f"{name.spi_i.hex()}:{name.spi_r.hex()}"


def _split(text: str) -> SaName:
    spi_i, spi_r = text.split(":")
    return SaName(bytes.fromhex(spi_i), bytes.fromhex(spi_r))
