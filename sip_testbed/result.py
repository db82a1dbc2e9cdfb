"""How a call went, as one telephone tells it at its end."""

import logging
from dataclasses import dataclass, field
from pathlib import Path

from voice_dpki.media.figures import MediaStatistics
from voice_dpki.media.pcm import Pcm
from voice_dpki.media.recording import write_wav

log = logging.getLogger(__name__)


@dataclass(slots=True)
class Result:
    """How a call went, as seen by one side; result.json has these members."""

    role: str
    established: bool = False
    """Whether the call was answered and keyed, and lasted until our speech was over and media due had arrived."""
    status: int | None = None
    """SIP status of the call's answer."""
    refused_by: str | None = None
    """Our own step that refused the call, for instance "MIKEY SIGN"; None if the other side did, or nobody."""
    reason: str | None = None
    """Why the call was refused or ended early: our sentence, or the received Reason or Warning."""
    verstat: str | None = None
    """Its own domain's verdict about the number of the other side."""
    setup_ms: float | None = None
    """Time from the INVITE to its 200."""
    mikey_ms: float | None = None
    """Time of our part of the key agreement, including the ledger's answer."""
    peer_key: str | None = None
    """How the other side's key is known (`pinning.Standing`): first, known, renewed, changed; None without pins."""
    changes: list[str] = field(default_factory=list)
    """What either side changed while the call was up: hold, resume, rekey, or the name of a codec."""
    early_s: float = 0.0
    """How many seconds of media the callee has said, or the caller heard, before the call was answered."""
    codec: str | None = None
    srtp: str | None = None
    media: MediaStatistics | None = None
    remarks: list[str] = field(default_factory=list)
    """Remarks about the other side for the call's report: clauses that begin in lower case."""


def keep_recording(path: Path, pcm: Pcm) -> None:
    """Write a recording; a failure is logged and does not change the call's result."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(write_wav(pcm))
    except OSError as error:
        log.error("recording cannot be written", extra={"fields": {"file": str(path), "reason": error.strerror}})
