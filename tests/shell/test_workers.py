"""The processes of a service with several workers: which ends of theirs are the service's."""

import asyncio
from pathlib import Path

import pytest

from voice_dpki.shell.config import Listen
from voice_dpki.shell.ending import EXIT_HARMFUL_AGAIN, EXIT_USAGE
from voice_dpki.shell.workers import _Workers


@pytest.mark.parametrize("status", [EXIT_USAGE, EXIT_HARMFUL_AGAIN])
async def test_a_worker_that_must_not_start_again_ends_the_service(tmp_path: Path, status: int) -> None:
    """A refused PIN is tried by no next worker, for the token counts."""
    command = ["/bin/sh", "-c", f"echo >>{tmp_path}/began; exit {status}"]
    workers = _Workers(command, tmp_path, Listen(port=0), 1)
    async with asyncio.timeout(60):
        assert await workers.run(asyncio.Event()) == status
    assert (tmp_path / "began").read_text() == "\n"
