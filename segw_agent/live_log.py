"""The list of live SAs on disk, so that an agent can still end them after a restart.

The file has JSON lines: an SA that was admitted, or {"gone": SPIs}. A line that a crash cut short is skipped.

A full disk does not stop new devices: the ledger decides about them, and this list matters only after a restart.
Meanwhile the list is kept in memory only, as the log and a metric say; it is written when there is room again.
"""

import errno
import json
import logging
import os
from collections.abc import Iterable
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import IO, Any

from segw_agent.metrics import STATE_BEHIND
from segw_agent.peer_names import PeerNames, is_distinguished, subject_of
from segw_agent.policy import Question, Side
from segw_agent.rules import Attached
from voice_dpki.errors import LocalError, MalformedError
from voice_dpki.ikev2.events import SaName
from voice_dpki.ledger.answers import Resolution
from voice_dpki.ledger.members import member_key
from voice_dpki.names import CertDigest, ascii_lower
from voice_dpki.shell.ending import FULL
from voice_dpki.shell.files import take_lock
from voice_dpki.shortfalls import SHORTFALLS
from voice_dpki.x509.tnauthlist import TnAuthList

log = logging.getLogger(__name__)

MAX_TURNS = 64
"""Most calls of `catch_up` per attempt to write the file: the number doubles with each failure up to this."""

SPARE_LINES = 10_000
"""The file is rewritten when it has this many lines more than there are live SAs."""

BEHIND = "list of live SAs cannot be written: after a restart, SAs admitted now would not be ended"
"""What the log and /healthz say while the file cannot be written."""


@dataclass(frozen=True, slots=True)
class LiveSa:
    """An IKE SA that was admitted, and the facts that decide whether it may stay."""

    name: SaName
    unique_id: int
    side: Side
    identity: str
    digest: CertDigest
    organization: str
    """The organisation that recorded the certificate; if it leaves the ledger or is suspended, the SA ends."""
    not_after_s: int
    since_s: float
    """When it was admitted, by the monotonic clock of the process that did so."""
    dns_names: tuple[str, ...]
    uris: tuple[str, ...]
    tn_auth_list: TnAuthList | None
    """The certificate's names and numbers, which must stay its organisation's (`x509.allotment.Claims`)."""
    common_name: str = ""
    subject: str = ""
    """The certificate's subject in RFC 4514's form; empty for an SA that an earlier agent admitted."""
    connection: str = ""
    """The daemon's name of the connection, by which a device's new SA replaces its old one."""

    @classmethod
    def of(cls, question: Question, now_s: float) -> "LiveSa":
        """Make one from a question whose certificate was found to be trusted."""
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
            certificate.dns_names,
            certificate.uris,
            certificate.tn_auth_list,
            certificate.common_name or "",
            subject_of(certificate.der),
            question.connection,
        )

    def peer(self, found: Resolution | None, now_s: float) -> Attached:
        """Return the peer in the rules' form; `found` is the ledger's answer at `now_s`, None if not asked."""
        return Attached(side=self.side, names=self.names(), claims=self, found=found, now_s=now_s)

    def names(self) -> PeerNames:
        """Return the peer's names, to which the lists apply."""
        return PeerNames(self.identity, self.dns_names, self.uris, self.common_name, self.subject)

    def leaves(self) -> tuple[bytes, bytes]:
        """Return the keys of the ledger's leaves on which the SA depends: its certificate's and organisation's."""
        return self.digest, member_key(self.organization)

    def replaceable_by(self, new: "LiveSa") -> bool:
        """Whether `new`, which the daemon made later, is the same device's SA with the same gateway."""
        same = (self.side, self.identity, self.connection) == (new.side, new.identity, new.connection)
        return same and self.unique_id < new.unique_id

    def renamed(self, name: SaName, unique_id: int) -> "LiveSa":
        """Return the SA under another name."""
        return replace(self, name=name, unique_id=unique_id)

    def to_json(self) -> dict[str, Any]:
        """Return the members of the SA's line."""
        numbers = self.tn_auth_list.serialize().hex() if self.tn_auth_list else None
        texts = {"name": _joined(self.name), "digest": self.digest.hex(), "tn_auth_list": numbers}
        return {each.name: getattr(self, each.name) for each in fields(self)} | texts

    @classmethod
    def from_json(cls, members: dict[str, Any]) -> "LiveSa":
        """Read the members of a line; raises ValueError, KeyError, TypeError or MalformedError for anything else.

        Agents before this one did not write the certificate's names: its identity, if that is one, stands for them.
        """
        identity, numbers = str(members["identity"]), members.get("tn_auth_list")
        named = () if is_distinguished(identity) else (identity,)
        return cls(
            _split(members["name"]),
            int(members["unique_id"]),
            Side(members["side"]),
            identity,
            CertDigest(bytes.fromhex(members["digest"])),
            str(members["organization"]),
            int(members["not_after_s"]),
            float(members["since_s"]),
            tuple(map(str, members.get("dns_names", named))),
            tuple(map(str, members.get("uris", ()))),
            TnAuthList.parse(bytes.fromhex(numbers)) if numbers is not None else None,
            str(members.get("common_name", "")),
            str(members.get("subject", "")),
            str(members.get("connection", "")),
        )


@dataclass(frozen=True, slots=True)
class Standing:
    """An SA that an IKEv2 daemon lists: its number there, and the peer's identity as the daemon writes it."""

    unique_id: int
    remote_id: str
    is_established: bool = True
    """Whether AUTH has been verified; an SA is listed before that."""

    def is_of(self, identity: str) -> bool:
        """Whether the peer is `identity`; the parts of a distinguished name may be in any order."""
        return _parts(self.remote_id) == _parts(identity)


def _parts(identity: str) -> frozenset[str]:
    return frozenset(ascii_lower(part.strip()) for part in identity.split(","))


class LiveLog:
    """The file. While it cannot be written, `behind` is true, and the list is complete only in memory."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._known: dict[SaName, LiveSa] = {}
        self._lines = 0
        self._lock: IO[bytes] | None = None
        self._turns = self._turn = 0
        """While behind: the calls of `catch_up` to each attempt, and those since the last attempt."""
        SHORTFALLS.watch(self)

    @property
    def behind(self) -> bool:
        """Whether the file lacks entries."""
        return self._turns > 0

    def shortfall(self) -> str:
        """Return a warning while the file is behind; empty if it is not."""
        return BEHIND if self.behind else ""

    def reserve(self) -> None:
        """Lock the file for this process; raises LocalError if another agent has it."""
        self._lock = take_lock(self._path, "another agent keeps its live SAs in this file; give each its own")

    def load(self) -> Iterable[LiveSa]:
        """Read the file, and rewrite it without the SAs that are gone.

        Raises LocalError if the file cannot be read, or cannot be written for another reason than a full disk. A
        full disk is only logged.
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
        """Try to rewrite the file if it is behind. Call this regularly, for instance twice a second."""
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
        except (ValueError, KeyError, TypeError, MalformedError):
            log.warning("a line of the list of live SAs cannot be read")

    def _append(self, members: dict[str, Any]) -> None:
        if self.behind:
            return
        try:
            if self._lines > len(self._known) + SPARE_LINES:
                self._rewrite()
                return
            _write(self._path, json.dumps(members).encode("ascii") + b"\n")
        except OSError as error:
            self._fall_behind(error)
        self._lines += 1

    def _fall_behind(self, error: OSError) -> None:
        self._turns, self._turn = 1, 0
        STATE_BEHIND.set(1)
        fields = {"file": str(self._path), "reason": error.strerror}
        log.error(BEHIND, extra={"fields": fields})

    def _rewrite(self) -> None:
        """Rewrite the file; if that fails, keep the old one and raise OSError."""
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


def _write(path: Path, line: bytes) -> None:
    """Append a line by one system call, because devices come by the thousand; raises OSError also if it is cut."""
    file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        if os.write(file, line) < len(line):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    finally:
        os.close(file)


def _joined(name: SaName) -> str:
    return f"{name.spi_i.hex()}:{name.spi_r.hex()}"


def _split(text: str) -> SaName:
    spi_i, spi_r = text.split(":")
    return SaName(bytes.fromhex(spi_i), bytes.fromhex(spi_r))
