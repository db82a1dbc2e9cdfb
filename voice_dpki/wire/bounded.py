"""Bounded reading of HTTP answers from other nodes, which are never decompressed."""

import time
from typing import Final

import httpx

from voice_dpki.errors import MalformedError

UNPACKED: Final = {"Accept-Encoding": "identity"}
"""Header fields of such a client; a compressed answer then fails to parse as JSON."""


async def read_body(response: httpx.Response, max_bytes: int) -> bytes:
    """Read a body; raises MalformedError for one of more than `max_bytes`, and httpx.HTTPError."""
    data = bytearray()
    async for chunk in response.aiter_raw():
        _add(data, chunk, max_bytes)
    return bytes(data)


def fetch_body(client: httpx.Client, path: str, *, max_bytes: int, within_s: float) -> bytes:
    """Request a path and read the body, whatever the status, within `within_s` seconds in all.

    Raises MalformedError for more than `max_bytes`, and httpx.HTTPError.
    """
    data = bytearray()
    with client.stream("GET", path, headers=UNPACKED) as response:
        end_s = time.monotonic() + within_s
        for chunk in response.iter_raw():
            _add(data, chunk, max_bytes)
            if time.monotonic() > end_s:
                raise httpx.ReadTimeout("the answer does not end in time")
    return bytes(data)


def _add(data: bytearray, chunk: bytes, max_bytes: int) -> None:
    data += chunk
    if len(data) > max_bytes:
        raise MalformedError("the node sends more than was asked for")
