"""Four operators' validators and their CometBFT under the real Prometheus: the alerts that need several of them."""

import asyncio
import json
import os
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from ledger_node.command.federation import Processes
from ledger_node.command.federation_folder import OperatorNode, provision

from .operators import certificate, host, require_cometbft, submit
from .prometheus import FOLDER, Prometheus, asking, job
from .twins import make_twin

pytestmark = [pytest.mark.long, pytest.mark.timeout(900), pytest.mark.peer("prometheus")]

METRICS_PORT = 26660
MISSING, MEMPOOL = "cometbft_consensus_missing_validators", "cometbft_mempool_size"
WAITING = "voice_dpki_ledger_waiting_transactions"


def federation(folder: Path, network: str) -> list[OperatorNode]:
    """Make a federation whose CometBFTs serve their own metrics."""
    require_cometbft()
    nodes = provision(folder, 4, network)
    for node in nodes:
        metrics = f'metrics = {{ host = "{host(node)}", port = {METRICS_PORT} }}\n'
        node.config.write_text(node.config.read_text().replace("[cometbft]\n", f"[cometbft]\n{metrics}"))
    return nodes


@contextmanager
def watched(folder: Path, nodes: list[OperatorNode]) -> Iterator[Prometheus]:
    """Have Prometheus ask the nodes, and each one's CometBFT."""
    own = [f"http://{host(node)}:{METRICS_PORT}" for node in nodes]
    with asking(folder, job([node.url for node in nodes]), job(own, "cometbft")) as prometheus:
        yield prometheus


@contextmanager
def paused(processes: Processes, *nodes: OperatorNode) -> Iterator[None]:
    """Have nodes and their CometBFTs do nothing, as on a machine that hangs."""
    pids = [pid for node in nodes for pid in processes.pids(node)]
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)


def unanswered(prometheus: Prometheus) -> set[str]:
    """Return the queries of the ledger's dashboard that find no series."""
    board = json.loads((FOLDER / "ledger.json").read_text())
    queries = [target["expr"] for panel in board["panels"] for target in panel["targets"]]
    return {query for query in queries if not prometheus.values(query.replace("$instance", ".*"))}


def waits(prometheus: Prometheus, node: OperatorNode) -> bool:
    """Whether one transaction waits at a node, by its own metric and by its CometBFT's."""
    at = {MEMPOOL: f"{host(node)}:{METRICS_PORT}", WAITING: node.url.removeprefix("http://")}
    return all(prometheus.values(metric).get(instance) == 1.0 for metric, instance in at.items())


def test_a_ledger_without_its_quorum_stalls_and_goes_on(tmp_path: Path) -> None:
    """CometBFT's metrics say what docs/monitoring.md says of them while validators are missing."""
    nodes = federation(tmp_path / "net", "127.0.51")
    (here, there, *lost) = nodes
    alone = f"{host(here)}:{METRICS_PORT}"
    with Processes(nodes) as processes, ThreadPoolExecutor(1) as threads:
        asyncio.run(processes.ready())
        with watched(tmp_path, nodes) as prometheus:
            young = {'voice_dpki_ledger_disk_days_left{instance=~"$instance"} < +Inf'}
            prometheus.waits(lambda: unanswered(prometheus) == young, "the dashboard has series")
            prometheus.waits(lambda: list(prometheus.values(MISSING).values()) == [0.0] * 4, "all validators vote")
            with paused(processes, lost[0]):
                prometheus.waits(lambda: prometheus.values(MISSING).get(alone) == 1.0, "one vote is missing")
                with prometheus.fires("VoiceDpkiLedgerStalled", at=here.url), paused(processes, lost[1]):
                    sent = threads.submit(lambda: asyncio.run(submit(here, certificate(here, "waits"), 600)))
                    prometheus.waits(lambda: waits(prometheus, here), "it waits for a block")
                    prometheus.waits(lambda: "VoiceDpkiLedgerStalled" in prometheus.firing(here.url), "it fires")
                    prometheus.waits(lambda: "VoiceDpkiLedgerStalled" in prometheus.firing(there.url), "it fires")
                    assert prometheus.values(MISSING)[alone] == 1.0, "it is told of blocks, and none comes"
                prometheus.ends("VoiceDpkiLedgerStalled")
            sent.result()
            prometheus.waits(lambda: set(prometheus.values(MEMPOOL).values()) == {0.0}, "nothing waits")
            prometheus.waits(lambda: list(prometheus.values(MISSING).values()) == [0.0] * 4, "all vote again")
            prometheus.waits(lambda: not prometheus.firing(), "all is well")


def test_a_validator_that_signs_twice_is_reported_until_it_is_removed(tmp_path: Path) -> None:
    """Its operator starts a second node with the same key; the evidence removes it from the validators."""
    nodes = federation(tmp_path / "net", "127.0.52")
    twin = make_twin(nodes[3])
    with Processes(nodes) as processes:
        asyncio.run(processes.ready())
        with watched(tmp_path, nodes) as prometheus:

            def record() -> bool:
                return asyncio.run(submit(nodes[0], certificate(nodes[0], "another")))

            with prometheus.fires("VoiceDpkiValidatorMisbehaved"):
                processes.start(twin)
                prometheus.waits(
                    lambda: record() and "VoiceDpkiValidatorMisbehaved" in prometheus.firing(), "it is convicted"
                )
            prometheus.ends("VoiceDpkiValidatorMisbehaved")
            voting = prometheus.values("cometbft_consensus_validators")
            assert list(voting.values()) == [3.0] * 4
