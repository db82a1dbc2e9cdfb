"""Subscribers' numbers in places where they must not be: what to put into requests, and what to look for."""

import asyncio
import json
import logging
from collections.abc import Iterable, Iterator
from typing import Any

from voice_dpki.shell.log import JsonFormatter
from voice_dpki.wire.http_client import HttpAnswer, HttpClient

NUMBER = "4930231259876543"
"""Long enough to stand nowhere by chance: not in a digest, a time or a port."""

_FORMS: tuple[Any, ...] = (
    f"{NUMBER}x", float(f"{NUMBER}.5"), -int(NUMBER), [[NUMBER]], {NUMBER: NUMBER}, {"tn": [NUMBER, int(NUMBER)]},
    {"uri": [f"tel:{NUMBER}"], "tn": NUMBER},
)  # fmt: skip


def bent_members(members: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Give the members again and again, each time with the number in one place where it does not belong."""
    for name in [*members, "ppt", "div", "crit", "later", NUMBER]:
        for form in _FORMS:
            yield {**members, name: form}


def bent_texts(text: str) -> Iterator[str]:
    """Give a text with the number before, behind and inside it, quoted and bare."""
    for at in (0, len(text) // 2, len(text)):
        for form in (NUMBER, f'"{NUMBER}"', f"<{NUMBER}>", f";tn={NUMBER}", f"\r\n {NUMBER}"):
            yield text[:at] + form + text[at:]


def spoiled(body: bytes) -> Iterator[bytes]:
    """Give JSON that holds the number and is broken in one of the ways that decoders quote."""
    yield body[:-1]
    yield body + NUMBER.encode()
    yield body[:-1] + f',"{NUMBER}":1,"{NUMBER}":2}}'.encode()
    yield body[:-1] + f',"x":{NUMBER}.5e3}}'.encode()
    yield body[:-1] + f',"x":{NUMBER * 300}}}'.encode()
    yield body[:-1] + f',"x":"{NUMBER}\\ud800"}}'.encode()
    yield body[:-1] + b',"x":"' + NUMBER.encode() + b'\xff"}'
    yield json.dumps([NUMBER]).encode()
    yield NUMBER.encode()


async def asked(client: HttpClient, path: str, bodies: Iterable[bytes]) -> list[tuple[bytes, HttpAnswer]]:
    """Send all bodies, some at the same time, and return each with its answer."""
    room = asyncio.Semaphore(16)

    async def ask(body: bytes) -> tuple[bytes, HttpAnswer]:
        async with room:
            return body, await client.request("POST", path, body)

    return await asyncio.gather(*map(ask, bodies))


def logged(records: list[logging.LogRecord]) -> str:
    """Return log records as the services write them, with fields and tracebacks."""
    return "\n".join(map(JsonFormatter("test").format, records))
