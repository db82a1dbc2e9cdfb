"""What the reports of calls and of attachments have in common."""

import json
from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Check:
    """Something that had to hold, whether it did, and what was seen."""

    name: str
    held: bool
    detail: str


def encode_report(members: Mapping[str, object]) -> bytes:
    """Return report.json: its members in the order given, for programs, and indented for people."""
    return (json.dumps(members, indent=2, ensure_ascii=False) + "\n").encode("utf-8")
