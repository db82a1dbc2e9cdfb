"""A node of this version goes on with a store that an earlier version wrote (`tests/vectors/stores`)."""

import json
import math
import os
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lmdb
import pytest

from ledger_node.abci.cometbft import find
from ledger_node.keep.store import DATA_FILE, FORMAT, Store
from tests.present import present
from voice_dpki.effects import SystemRandom
from voice_dpki.errors import LocalError
from voice_dpki.ledger import tree
from voice_dpki.ledger.genesis import load_genesis
from voice_dpki.ledger.light import LightClient, TrustPoint
from voice_dpki.ledger.members import member_key
from voice_dpki.ledger.proposals import ProposalState, entries_of, proposal_of
from voice_dpki.ledger.state import Block, apply
from voice_dpki.ledger.transactions import Submit, Vote, endorse
from voice_dpki.names import CertDigest, Height
from voice_dpki.wire.ledger.client import LedgerClient
from voice_dpki.x509.keys import LocalSigner, from_pem, generate_es256
from voice_dpki.x509.profile import build_certificate, digest_of

from .conftest import Node, run

STORES = Path(__file__).parents[1] / "vectors" / "stores"
HOST = "127.0.8.30"


class Earlier:
    """A copy of what an earlier version left on disk, what it said of it, and a node of this version on it."""

    def __init__(self, name: str, folder: Path) -> None:
        with tarfile.open(STORES / f"{name}.tar.xz") as archive:
            options: Any = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}
            archive.extractall(folder, **options)
        self.folder = folder / name
        self.said: dict[str, Any] = json.loads((STORES / f"{name}.json").read_text())
        self.genesis = load_genesis((self.folder / "genesis.json").read_bytes())
        self.records = {CertDigest(bytes.fromhex(name)): record for name, record in self.said["records"].items()}
        self.node = Node(self.folder, "node")
        self.node.data = self.folder / "data"
        self.node.write(_COMETBFT if name == "cometbft" else _engine(self.folder))

    def signer(self, organization: str) -> LocalSigner:
        slug = organization.lower().replace(" ", "-")
        return from_pem((self.folder / "keys" / f"endorsing-{slug}.pem").read_bytes())

    def client(self) -> LedgerClient:
        """Trust the genesis, however long ago it was."""
        trust = TrustPoint.genesis(self.genesis.validators, self.genesis.time_ns)
        light = LightClient(self.genesis.chain_id, trust, trusting_period_s=math.inf)
        return LedgerClient(self.node.url, light, max_age_s=math.inf, timeout_s=10)

    async def answers(self) -> dict[CertDigest, dict[str, Any]]:
        """Ask for the records that the earlier version gave, with their proofs."""
        async with self.client() as client:
            found = await client.resolve_all(list(self.records))
        return {each.digest: {**_facts(each.record), "status": each.status} for each in found}

    async def send(self, raw: bytes) -> dict[str, Any]:
        answer = self.node.http.post("/ledger/v1/transactions", content=raw, timeout=20)
        assert answer.status_code == 200, answer.text
        return answer.json()


def _engine(folder: Path) -> str:
    keys = [f"keys/{path.name}" for path in sorted((folder / "keys").glob("validator-*"))]
    return f"[engine]\nvalidator_keys = {keys}\nheartbeat_s = 0.2\n"


_COMETBFT = f"""[cometbft]
home = "comet"
heartbeat_s = 1
rpc = {{ host = "{HOST}", port = 26657 }}
p2p = {{ host = "{HOST}", port = 26656 }}
validator_key = "keys/validator-operator-a-1.pem"
"""


def _facts(record: Any) -> dict[str, Any]:
    names = ("organization", "recorded_height", "changed_height", "revision", "reason")
    replaced_by = record.replaced_by.hex() if record.replaced_by else None
    return {**{name: getattr(record, name) for name in names}, "replaced_by": replaced_by}


@pytest.fixture(params=["embedded", "cometbft"])
def earlier(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Earlier]:
    if request.param == "cometbft":
        try:
            find()
        except LocalError as error:
            (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(str(error))
    earlier = Earlier(request.param, tmp_path_factory.mktemp("u"))
    yield earlier
    earlier.node.stop()
    earlier.node.http.close()


async def test_a_node_goes_on_with_the_store_of_an_earlier_version(earlier: Earlier) -> None:
    checked = run("check", "--config", earlier.node.config)
    assert checked.stdout.startswith(f"height {earlier.said['height']}: looked at"), checked
    earlier.node.start()
    headers = [
        earlier.node.http.get(f"/ledger/v1/headers/{height}").json()["signed_header"]["header"]
        for height in range(1, earlier.said["height"] + 1)
    ]
    assert [header["app_hash"].lower() for header in headers] == earlier.said["app_hashes"]
    earlier.node.reaches(earlier.said["height"] + 1)
    first = earlier.node.http.get(f"/ledger/v1/headers/{earlier.said['height'] + 1}").json()
    assert first["signed_header"]["header"]["app_hash"].lower() == earlier.said["app_hash"]
    assert await earlier.answers() == earlier.records


def open_proposal(earlier: Earlier) -> bytes:
    """Return the id of the one proposal in the stopped node's store that is not decided."""
    store = Store(earlier.node.data, earlier.genesis, read_only=True)
    identities = [entry.proposal_id for entry in entries_of(store.view)]
    found = [each for each in identities if present(proposal_of(store.view, each)).state is ProposalState.OPEN]
    store.close()
    (identity,) = found
    return identity


async def test_it_records_and_decides_further(earlier: Earlier) -> None:
    """One more certificate; a proposal that the earlier version left open is decided; a restart keeps both."""
    identity = open_proposal(earlier)
    earlier.node.start()
    chain_id, now_s = earlier.genesis.chain_id, int(time.time())
    der = build_certificate(
        generate_es256(),
        organization="Operator A",
        common_name="recorded by this version",
        not_before_s=now_s - 3600,
        not_after_s=now_s + 86_400,
        random=SystemRandom(),
    )
    await earlier.send(endorse(Submit(chain_id, "Operator A", der), [earlier.signer("Operator A")]))
    vote = Vote(chain_id, "Operator B", identity, True)
    decided = await earlier.send(endorse(vote, [earlier.signer("Operator B")]))
    earlier.node.reaches(decided["height"] + 3)
    assert earlier.node.stop() == 0
    assert "looked at" in run("check", "--config", earlier.node.config).stdout
    earlier.node.start()
    async with earlier.client() as client:
        assert (await client.resolve(digest_of(der))).certificate == der
        assert await client.leaves([member_key("Newcomer")]) != (None,)
    assert await earlier.answers() == earlier.records


def test_this_version_executes_the_earlier_blocks_to_the_same_app_hashes(earlier: Earlier) -> None:
    """What an earlier version's validators agreed on follows from the genesis for this version too."""
    state = earlier.genesis.initial_state()
    roots = [tree.root(state)]
    store = Store(earlier.node.data, earlier.genesis, read_only=True)
    for height in range(1, earlier.said["height"] + 1):
        stored = store.view.block(height)
        assert stored is not None
        time_s = stored.signed_header().header.time_ns // 10**9
        outcome = apply(state, Block(Height(height), time_s, stored.transactions, stored.evidence))
        assert tuple(result.code for result in outcome.results) == stored.codes
        state.commit(outcome)
        roots.append(tree.root(state))
    store.close()
    assert [root.hex() for root in roots] == [*earlier.said["app_hashes"], earlier.said["app_hash"]]


def test_a_store_of_another_format_is_refused_in_one_sentence(earlier: Earlier) -> None:
    with lmdb.open(str(earlier.node.data / DATA_FILE), subdir=False, max_dbs=8, map_size=1 << 30) as environment:
        meta = environment.open_db(b"meta")
        with environment.begin(write=True) as transaction:
            assert transaction.get(b"format", db=meta) == FORMAT
            transaction.put(b"format", b"voice-dpki ledger store 1", db=meta)
    said = earlier.node.fails()
    assert "the store has another format than this version's" in said
    assert "voice-dpki ledger store 1" in said
    assert "that wrote it" in said
