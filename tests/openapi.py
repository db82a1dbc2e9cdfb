"""The OpenAPI documents in docs/openapi, made from the code: `make openapi` writes them again."""

from pathlib import Path

from voice_dpki.stir.openapi import PROGRAMS, document, encode

FOLDER = Path(__file__).parent.parent / "docs/openapi"


def documents() -> dict[Path, bytes]:
    """Return each file with what it must hold."""
    return {FOLDER / f"{program}.json": encode(document(name)) for program, name in PROGRAMS.items()}


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for path, text in documents().items():
        path.write_bytes(text)
