"""The result of a call, as one telephone reports it at its end."""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal

from voice_dpki.media.figures import MediaStatistics
from voice_dpki.media.pcm import Pcm
from voice_dpki.media.recording import write_wav
from voice_dpki.media.video import VideoStatistics
from voice_dpki.shell.files import make_folder, write_whole

Purpose = Literal["call", "transferred", "consultation"]
"""The purpose of a call: an ordinary one, one that a transfer made, or the consultation before a transfer."""


@dataclass(slots=True)
class Result:
    """The result of a call, as seen by one side; result.json has these members."""

    role: str
    purpose: Purpose = "call"
    established: bool = False
    """Whether the call was answered and keyed, and lasted until our speech was over and media due had arrived, or
    until it was transferred."""
    status: int | None = None
    """SIP status of the call's answer."""
    refused_by: str | None = None
    """Our own step that refused the call, such as "MIKEY SIGN", or "local" for a failure of our own; None if the
    other side did, or nobody."""
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
    """What either side changed while the call was up: hold, resume, rekey, the name of a codec, or a transfer."""
    digits: str = ""
    """The digits that the other side dialled while the call was up."""
    early_s: float = 0.0
    """Seconds of media that the callee said, or the caller heard, before the call was answered."""
    early_verstat: str | None = None
    """Its own domain's verdict about the number of the other side, as far as it was told before the answer."""
    codec: str | None = None
    srtp: str | None = None
    media: MediaStatistics | None = None
    video: VideoStatistics | None = None
    remarks: list[str] = field(default_factory=list)
    """Remarks about the other side for the call's report: clauses that begin in lower case."""


def keep_recording(path: Path, pcm: Pcm) -> None:
    """Write a recording; raises LocalError, and then leaves an earlier file as it was."""
    make_folder(path.parent)
    write_whole(path, write_wav(pcm))


def keep_result(path: Path, result: Result) -> None:
    """Write a result as JSON; raises LocalError, and then leaves an earlier file as it was.

    A reader never sees a part of the file.
    """
    write_whole(path, (json.dumps(asdict(result), indent=2, ensure_ascii=False) + "\n").encode())
