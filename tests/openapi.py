"""The OpenAPI documents in docs/openapi, made from the code: `make openapi` writes them again."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

from ledger_node.answer import openapi as ledger
from ledger_node.answer.api import Api
from voice_dpki.codec.openapi import encode
from voice_dpki.effects import SystemClock
from voice_dpki.shell.http import Route
from voice_dpki.shell.reload import Live
from voice_dpki.stir import cps_openapi
from voice_dpki.stir.openapi import PROGRAMS, document

FOLDER = Path(__file__).parent.parent / "docs/openapi"


def ledger_routes() -> list[Route]:
    """Return the routes of a ledger node with all roles."""
    unused: Any = dict.fromkeys(("folder", "orderer", "feed", "tracer"))
    chain: Any = SimpleNamespace(genesis=SimpleNamespace(time_ns=0))
    submission: Any = object()
    api = Api(chain, name="", role="", submission=submission, tokens=Live(()), clock=SystemClock(), **unused)
    return api.routes()


def documents() -> dict[Path, bytes]:
    """Return each file with what it must hold."""
    stir = {FOLDER / f"{program}.json": encode(document(name)) for program, name in PROGRAMS.items()}
    cps = {FOLDER / f"{cps_openapi.PROGRAM}.json": encode(cps_openapi.document())}
    return stir | cps | {FOLDER / "ledger-node.json": encode(ledger.document(ledger_routes()))}


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for path, text in documents().items():
        path.write_bytes(text)
