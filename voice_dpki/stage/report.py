"""The common parts of the reports on calls and on attachments."""

import json
from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Check:
    """Something that had to hold, whether it did, and what was observed."""

    name: str
    held: bool
    detail: str


def encode_report(members: Mapping[str, object]) -> bytes:
    """Encode report.json, with the members in the given order, and indented so that people can read it."""
    return (json.dumps(members, indent=2, ensure_ascii=False) + "\n").encode("utf-8")
