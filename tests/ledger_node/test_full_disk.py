"""A node whose disk is full ends in a sentence, promises nothing that it has not stored, and goes on with room."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.disks import fill
from voice_dpki.x509.profile import digest_of


@pytest.fixture
def small(disk: Callable[[int], Path], network_in: Any) -> Any:
    folder = disk(1024)
    made = network_in(folder)
    yield made
    made.end()


def submitted(node: Any, network: Any) -> bytes | None:
    """Submit a certificate; returns it if the node says that it is recorded."""
    der = network.certificate()
    try:
        answer = node.http.post("/ledger/v1/transactions", content=network.submission_of(der), timeout=30)
    except httpx.HTTPError:
        return None
    return der if answer.status_code == 200 else None


async def test_an_engine_ends_in_a_sentence_and_what_it_said_is_there_when_it_starts_again(small: Any) -> None:
    engine = small.engine().start()
    ballast = fill(small.folder, leave_kilobytes=60)
    recorded = []
    while der := submitted(engine, small):
        recorded.append(der)
    assert recorded
    assert engine.process.wait(60) == 2
    engine.process = None
    last = engine.log.read_text().splitlines()[-1] if engine.log.exists() else ""
    assert "a block could not be stored" in last
    assert last.endswith("Make room on the disk and start again")
    ballast.unlink()
    engine.start()
    async with small.client(engine) as client:
        for der in (recorded[0], recorded[-1]):
            assert (await client.resolve(digest_of(der), with_certificate=False)).record is not None
    assert submitted(engine, small)
    assert engine.stop() == 0
