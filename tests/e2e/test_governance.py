"""Four operators on CometBFT decide: one is removed by vote, and with it its validator and its signers' trust."""

import asyncio
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ledger_node.abci.cometbft import find
from ledger_node.command.federation import Processes, agree, node_info
from ledger_node.command.federation_folder import OperatorNode, provision
from ledger_node.command.sending import Bulk, CertificateFile, Report, Sender, TransactionRefusedError
from voice_dpki.effects import SystemRandom
from voice_dpki.errors import LocalError
from voice_dpki.ledger.genesis import Genesis, load_genesis
from voice_dpki.ledger.members import member_key
from voice_dpki.ledger.proposals import RemoveMember, encode_change, proposal_id
from voice_dpki.ledger.records import CertStatus
from voice_dpki.ledger.transactions import Body, Propose, Submit, Transaction, Vote, endorse
from voice_dpki.wire.ledger.client import LedgerClient
from voice_dpki.x509.keys import LocalSigner, from_pem, generate_es256
from voice_dpki.x509.profile import build_certificate

NETWORK = "127.0.12"
DEADLINE_S = 60.0
EACH = 200

pytestmark = pytest.mark.timeout(300)


class Federation:
    """Running nodes, their operators' keys, and a genesis whose delay is a second."""

    def __init__(self, folder: Path) -> None:
        self.nodes = provision(folder, 4, NETWORK)
        file = folder / "genesis.json"
        form = json.loads(file.read_bytes())
        form["app_state"]["parameters"] = {"delay_s": 1}
        file.write_text(json.dumps(form))
        self.genesis: Genesis = load_genesis(file.read_bytes())
        self.keys = {node.organization: self._key(folder, node) for node in self.nodes}

    def _key(self, folder: Path, node: OperatorNode) -> LocalSigner:
        return from_pem((folder / "keys" / f"endorsing-{node.name}.pem").read_bytes())

    def client(self, node: OperatorNode) -> LedgerClient:
        return LedgerClient.of_genesis(node.url, self.genesis, max_age_s=60, timeout_s=10)

    def endorsed(self, body: Body) -> bytes:
        return endorse(body, [self.keys[body.by]])

    def certificate(self, organization: str, name: str) -> CertificateFile:
        now_s = int(time.time())
        der = build_certificate(
            generate_es256(),
            organization=organization,
            common_name=name,
            not_before_s=now_s - 60,
            not_after_s=now_s + 86_400,
            random=SystemRandom(),
        )
        return CertificateFile(Path(name), der)

    async def record(self, node: OperatorNode, items: list[CertificateFile]) -> Report:
        """Have certificates recorded in batches."""
        async with Sender(node.url) as sender, self.client(node) as client:
            bulk = Bulk(sender, self.genesis.chain_id, node.organization, self.keys[node.organization])
            resolve = client.resolve_all
            return await bulk.record(items, resolve, on_progress=lambda _: None, stop=asyncio.Event())


@pytest.fixture(scope="module")
def federation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Federation]:
    try:
        find()
    except LocalError as error:
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(str(error))
    federation = Federation(tmp_path_factory.mktemp("g") / "net")
    with Processes(federation.nodes) as processes:
        asyncio.run(processes.ready())
        yield federation


async def test_an_operator_is_removed_by_vote(federation: Federation) -> None:
    nodes, chain_id = federation.nodes, federation.genesis.chain_id
    items = [[federation.certificate(node.organization, f"{number}") for number in range(EACH)] for node in nodes]
    reports = await asyncio.gather(*(federation.record(*each) for each in zip(nodes, items, strict=True)))
    assert [(report.recorded, report.refused) for report in reports] == [(EACH, [])] * 4
    again = await federation.record(nodes[0], items[0])
    assert (again.recorded, again.already) == (0, EACH)

    change = encode_change(RemoveMember("Operator D"))
    raw = federation.endorsed(Propose(chain_id, "Operator A", int(time.time()) + 600, change))
    identity = proposal_id(Transaction.parse(raw).body_bytes)
    async with Sender(nodes[0].url) as sender:
        await sender.send(raw)
        for operator in ("Operator B", "Operator C"):
            await sender.send(federation.endorsed(Vote(chain_id, operator, identity, True)))
        await removed(federation, "Operator D")
        late = federation.certificate("Operator D", "late")
        with pytest.raises(TransactionRefusedError, match="unknown-member"):
            await sender.send(federation.endorsed(Submit(chain_id, "Operator D", late.der)))
        after = federation.certificate("Operator A", "after")
        await sender.send(federation.endorsed(Submit(chain_id, "Operator A", after.der)))

    await agree(nodes)
    async with federation.client(nodes[0]) as client:
        theirs, ours = await client.resolve_all([items[3][0].digest, after.digest])
        assert (theirs.status, theirs.member, ours.status) == (CertStatus.REVOKED, None, CertStatus.VALID)
        info = await node_info(nodes[0])
        assert info is not None
        assert len((await client.light_block(info.height)).validators.validators) == 3


async def removed(federation: Federation, organization: str) -> None:
    """Wait until every node proves that an organisation is no member."""
    end = time.monotonic() + DEADLINE_S
    for node in federation.nodes:
        async with federation.client(node) as client:
            while (await client.leaves([member_key(organization)]))[0] is not None:
                assert time.monotonic() < end
                await asyncio.sleep(0.2)
