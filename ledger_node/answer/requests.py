"""Parsing of requests, the node's description, and the problem documents of errors, for nodes of all roles."""

import re
from dataclasses import replace
from importlib.metadata import version

from ledger_node.answer.inquiry import NoBlockError
from ledger_node.keep.mapped import MovedError
from ledger_node.order.orderer import BusyError, UnavailableError
from voice_dpki.errors import LocalError, PeerError
from voice_dpki.ledger.header import Header, format_time
from voice_dpki.ledger.rules import VERSIONS
from voice_dpki.names import CertDigest
from voice_dpki.shell.http import Handler, Request, Response, json_response, problem

MAX_WAIT_MS = 30_000
"""How long a node holds a request that waits for a block or for changes."""

_ROOT = re.compile("([0-9a-f]{64})?")


class BadRequestError(PeerError):
    """The request is malformed; the message says how."""


class PrunedError(LocalError):
    """The node no longer has the requested block or header; the message says who may have it."""

    @classmethod
    def below(cls, height: int, first: int, history: str | None) -> "PrunedError":
        """Return the error for a `height` below the node's lowest block, `first`; `history` is an archive's URL."""
        where = f"ask {history}" if history else "ask a node that keeps the whole history"
        return cls(f"this node keeps blocks from {first} on, and no longer block {height}: {where}")


def parse_digest(text: str) -> CertDigest:
    """Parse H(CERT) in hexadecimal; raises BadRequestError."""
    try:
        digest = bytes.fromhex(text)
    except ValueError:
        digest = b""
    if len(digest) != 32 or len(text) != 64:
        raise BadRequestError("H(CERT) is the SHA-256 of the certificate's DER: 64 hexadecimal digits")
    return CertDigest(digest)


def parse_number(text: str, what: str) -> int:
    """Parse a whole number of at most 15 digits; raises BadRequestError, which calls it `what`."""
    if not (text.isascii() and text.isdigit() and 1 <= len(text) <= 15):
        raise BadRequestError(f"{what} is a whole number")
    return int(text)


def wait_s(request: Request) -> float:
    """Return how many seconds a request is to be held, at most MAX_WAIT_MS / 1000; raises BadRequestError."""
    return min(parse_number(request.query.get("wait_ms", "0"), "wait_ms"), MAX_WAIT_MS) / 1000


def changes_after(request: Request) -> tuple[bytes, int]:
    """Return the AppHash, perhaps empty, and the height after which a subscriber wants changes.

    Raises BadRequestError.
    """
    root, height = request.query.get("root", ""), parse_number(request.query.get("height", "0"), "height")
    if not _ROOT.fullmatch(root):
        raise BadRequestError("root is the AppHash that is known, 64 hexadecimal digits, or empty")
    return bytes.fromhex(root), height


def rules_described(present: int | None, coming: tuple[int, int] | None) -> dict[str, object]:
    """Describe the versions of the ledger's rules: those that this release has, the present and the coming one.

    `present` is None if it is not known. `coming` is a version with the height of its first block.
    """
    next_one = {"version": coming[0], "height": coming[1]} if coming else None
    return {"versions": VERSIONS, "present": present, "next": next_one}


def description(
    name: str,
    role: str,
    chain_id: str,
    height: int,
    header: Header | None,
    rules: dict[str, object],
    now_s: float,
) -> Response:
    """Answer with the node's name, role and height, and its newest header's AppHash, time and age in seconds.

    `software` is the release, and `rules` is what `rules_described` returns.
    """
    said = {
        "name": name,
        "role": role,
        "chain_id": chain_id,
        "height": height,
        "app_hash": header.app_hash.hex() if header else "",
        "time": format_time(header.time_ns) if header else None,
        "age_s": round(header.age_s(now_s), 3) if header else None,
        "software": f"voice-dpki {version('voice-dpki')}",
        "rules": rules,
    }
    return json_response(200, said)


def guarded(handler: Handler) -> Handler:
    """Turn the errors that a handler can raise into problem documents."""

    async def guarded(request: Request) -> Response:
        try:
            return await handler(request)
        except BadRequestError as error:
            return problem(400, "Bad Request", str(error))
        except PrunedError as error:
            return problem(410, "Gone", str(error))
        except (BusyError, UnavailableError, NoBlockError, MovedError) as error:
            answer = problem(503, "Service Unavailable", str(error))
            return replace(answer, headers=(("Retry-After", "1"),))

    return guarded


def short(digest: CertDigest) -> str:
    """Return the beginning of H(CERT), for people."""
    return f"{digest[:4].hex()}.."
