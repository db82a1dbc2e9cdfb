"""The export of verdicts: a line for each call, as JSON or CSV, for statistics and for regulators.

    {"time":"2026-11-27T07:00:00.000Z","peer":"proxy","trunk":"","verstat":"TN-Validation-Passed","code":"", ...}

Both forms have the same columns; unknown values are empty. Numbers are exported only if that is configured.
"""

import csv
import io
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Final, Literal

import msgspec

from voice_dpki.shell.config import Config, resolve
from voice_dpki.shell.rotating import RotatingFile
from voice_dpki.stir.call import Call
from voice_dpki.stir.verdict import Verdict, overall

COLUMNS: Final = (
    "time", "peer", "trunk", "orig", "dest", "identities", "verstat", "code", "step", "signer", "certificate",
    "attest", "act", "rule", "status", "instead_of", "emergency", "trust", "bypass", "out_of_band",
)  # fmt: skip
SHOWN_DIGITS: Final = 4
"""Number of last digits that are masked where only a number's beginning is exported."""


class Numbers(StrEnum):
    """How much of the numbers is exported."""

    NONE = "none"
    BEGINNING = "beginning"
    """All but the last four digits."""
    FULL = "full"


class ExportConfig(Config, frozen=True, kw_only=True):
    """One `[[export]]`: a file, and older ones with `.1`, `.2` and so on behind its name."""

    file: str
    format: Literal["json", "csv"] = "json"
    numbers: Numbers = Numbers.NONE
    max_bytes: Annotated[int, msgspec.Meta(ge=4096, le=1 << 40)] = 100_000_000
    keep: Annotated[int, msgspec.Meta(ge=0, le=1000)] = 10

    def open(self, path: Path) -> "Export":
        """Open the file that the configuration at `path` names; raises LocalError."""
        head = _csv(COLUMNS) if self.format == "csv" else b""
        file = RotatingFile(resolve(path, self.file), self.max_bytes, self.keep, head)
        return Export(file, self.numbers, _csv_row if self.format == "csv" else _json)


class Export:
    """One file of verdicts."""

    def __init__(self, file: RotatingFile, numbers: Numbers, write: "Callable[[dict[str, str]], bytes]") -> None:
        self._file, self._numbers, self._write = file, numbers, write

    def add(self, call: Call, verdicts: Sequence[Verdict], now_s: float) -> None:
        """Write the line of a call; a line that cannot be written is counted as lost, and the call goes on."""
        self._file.append(self._write(row(call, verdicts, now_s, self._numbers)))

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def row(call: Call, verdicts: Sequence[Verdict], now_s: float, numbers: Numbers) -> dict[str, str]:
    """Return the columns of a call."""
    verdict = overall(verdicts)
    treatment = verdict.treatment
    uris = call.dest.uris if numbers is Numbers.FULL else ()
    told = [*(_told(tn, numbers) for tn in call.dest.tns), *uris]
    values = {
        "time": datetime.fromtimestamp(now_s, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "peer": call.source.peer,
        "trunk": call.source.trunk,
        "orig": _told(call.orig, numbers),
        "dest": " ".join(filter(None, told)),
        "identities": len(call.identities),
        "verstat": verdict.verstat,
        "code": verdict.reasoncode,
        "step": verdict.step,
        "signer": verdict.signer,
        "certificate": verdict.certificate.hex() if verdict.certificate else None,
        "attest": verdict.attest,
        "act": treatment and treatment.act,
        "rule": treatment and treatment.rule,
        "status": treatment and (treatment.status or None),
        "instead_of": treatment and treatment.instead_of,
        "trust": verdict.trust,
        "bypass": call.source.bypass,
        "out_of_band": "yes" if verdict.out_of_band else None,
        "emergency": "yes" if treatment and treatment.is_emergency else None,
    }
    return {name: "" if values[name] is None else str(values[name]) for name in COLUMNS}


def _told(number: str, numbers: Numbers) -> str:
    if numbers is Numbers.NONE:
        return ""
    return number if numbers is Numbers.FULL else number[:-SHOWN_DIGITS] + "x" * min(SHOWN_DIGITS, len(number))


def _json(values: dict[str, str]) -> bytes:
    return msgspec.json.encode(values) + b"\n"


def _csv_row(values: dict[str, str]) -> bytes:
    return _csv([_harmless(value) for value in values.values()])


def _harmless(value: str) -> str:
    """Return a value that no spreadsheet takes for a formula."""
    return f"'{value}" if value.startswith(("=", "+", "-", "@", "\t", "\r")) else value


def _csv(values: Sequence[str]) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(
        [value.replace("\n", " ").replace("\r", " ") for value in values]
    )
    return text.getvalue().encode()
