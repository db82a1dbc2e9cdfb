"""An inquiry node states no status by a clock that is behind its own newest block."""

from pathlib import Path
from typing import Any

import pytest

from ledger_node.answer.inquiry import Inquiry, NoBlockError
from ledger_node.keep.chain import Chain
from ledger_node.keep.store import Store
from tests.clocks import STEPS_S, SettableClock
from voice_dpki.clock_health import HEALTH
from voice_dpki.x509.profile import digest_of


@pytest.fixture
def recorded(network: Any, tmp_path: Path) -> Any:
    """A chain with a certificate, and its digest."""
    chain = Chain(Store(tmp_path / "data", network.genesis), network.genesis)
    der = network.certificate()
    for step in network.maker().steps((network.submission_of(der),), ()):
        chain.store.commit(step)
    yield chain, digest_of(der)
    chain.close()


@pytest.mark.parametrize("step_s", STEPS_S)
def test_an_inquiry_nodes_clock_is_set(recorded: Any, step_s: float) -> None:
    chain, digest = recorded
    clock = SettableClock(chain.store.view.block(chain.height).signed_header().header.time_ns / 1e9 + 1)
    inquiry = Inquiry(chain, clock)
    assert inquiry.status(digest, with_certificate=False).status == "valid"
    clock.set(step_s)
    if step_s < 0:
        with pytest.raises(NoBlockError, match=r"clock is \d+ s behind the ledger"):
            inquiry.status(digest, with_certificate=False)
    assert "clock" in inquiry._clock.problem()
    assert HEALTH.problem()
    clock.set(0)
    assert inquiry.status(digest, with_certificate=False).status == "valid"
    assert inquiry._clock.problem() == ""
