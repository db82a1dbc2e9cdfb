"""What the OpenAPI 3.1 documents of all services share: where they are served, and how they are encoded."""

from typing import Any, Final

import msgspec

OPENAPI_PATH: Final = "/openapi.json"

Document = dict[str, Any]


def encode(told: Document) -> bytes:
    """Encode a document readably and deterministically."""
    return msgspec.json.format(msgspec.json.encode(told), indent=1) + b"\n"
