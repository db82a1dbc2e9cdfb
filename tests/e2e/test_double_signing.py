"""A validator runs twice with one key: evidence removes it everywhere, and followers verify the evidence."""

import asyncio
import base64
import json
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest

from ledger_node.abci.cometbft import find
from ledger_node.command.config import read_validator_key
from ledger_node.command.federation import Processes, agree, node_info
from ledger_node.command.federation_folder import OperatorNode, provision
from ledger_node.command.sending import Sender
from voice_dpki.effects import SystemRandom
from voice_dpki.errors import LocalError
from voice_dpki.ledger.evidence import DuplicateVote, parse_evidence, serialize_evidence
from voice_dpki.ledger.genesis import Genesis, load_genesis
from voice_dpki.ledger.header import Validator, ValidatorSet
from voice_dpki.ledger.members import Member, member_key
from voice_dpki.ledger.records import CertStatus
from voice_dpki.ledger.replica import SignedBlock
from voice_dpki.ledger.transactions import Submit, endorse
from voice_dpki.names import CertDigest
from voice_dpki.shell.config import Listen
from voice_dpki.shell.http import HttpApp, Request, Response, Route, serve
from voice_dpki.wire.ledger.client import LedgerClient
from voice_dpki.x509.keys import LocalSigner, from_pem, generate_es256
from voice_dpki.x509.profile import build_certificate, digest_of

from .twins import make_twin

NETWORK = "127.0.7"
DEADLINE_S = 60.0
REFUSED = "voice_dpki_ledger_blocks_refused_total"
Lie = Callable[[dict[str, Any]], None]

pytestmark = pytest.mark.timeout(300)


class Federation:
    """Four operators' nodes, and a twin of the last one's: the same validator key, another node."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.nodes = provision(folder, 4, NETWORK)
        self.genesis: Genesis = load_genesis((folder / "genesis.json").read_bytes())
        self.signer: LocalSigner = from_pem((folder / "keys" / "endorsing-operator-a.pem").read_bytes())
        key = read_validator_key(folder / "keys" / "validator-operator-d-1.pem")
        self.guilty = Validator(key.public_key().public_bytes_raw(), 1)
        self.twin = make_twin(self.nodes[3])

    async def record(self, name: str) -> CertDigest:
        """Have a certificate of A's recorded."""
        now_s = int(time.time())
        der = build_certificate(
            generate_es256(),
            organization="Operator A",
            common_name=name,
            not_before_s=now_s - 60,
            not_after_s=now_s + 86_400,
            random=SystemRandom(),
        )
        async with Sender(self.nodes[0].url) as sender:
            await sender.send(endorse(Submit(self.genesis.chain_id, "Operator A", der), [self.signer]))
        return digest_of(der)

    def client(self, node: OperatorNode) -> LedgerClient:
        return LedgerClient.of_genesis(node.url, self.genesis, max_age_s=60, timeout_s=10)

    @property
    def to_kill(self) -> OperatorNode:
        """The validator that a test kills and starts again."""
        return self.nodes[2]

    def follower(self, name: str, host: int, url: str) -> OperatorNode:
        config = self.folder / f"{name}.toml"
        config.write_text(
            f'[node]\nname = "{name}"\ndata_dir = "data-{name}"\ngenesis = "genesis.json"\n'
            f'[listen]\nhost = "{NETWORK}.{host}"\nport = 26680\n[follow]\nurl = "{url}"\n'
        )
        return OperatorNode(config, "nobody", f"http://{NETWORK}.{host}:26680", "")


@pytest.fixture(scope="module")
def federation(tmp_path_factory: pytest.TempPathFactory) -> Federation:
    try:
        find()
    except LocalError as error:
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(str(error))
    return Federation(tmp_path_factory.mktemp("d") / "net")


@pytest.fixture(scope="module")
def processes(federation: Federation) -> Iterator[Processes]:
    with Processes([*federation.nodes, federation.twin]) as processes:
        asyncio.run(processes.ready())
        yield processes


@pytest.fixture(scope="module")
def convicting(federation: Federation, processes: Processes) -> SignedBlock:
    """The block that convicts the validator; certificates are recorded until there is one."""
    return asyncio.run(_convicting(federation))


async def _convicting(federation: Federation) -> SignedBlock:
    end, height = time.monotonic() + DEADLINE_S, 1
    async with httpx.AsyncClient(base_url=federation.nodes[0].url, trust_env=False) as client:
        while time.monotonic() < end:
            answer = await client.get(f"/ledger/v1/blocks/{height}")
            if answer.status_code != 200:
                await federation.record(f"certificate {height}")
                continue
            block = SignedBlock.from_json(answer.content)
            if block.evidence:
                return block
            height += 1
    raise AssertionError("nobody was convicted in time")


async def test_the_evidence_proves_that_the_validator_signed_twice(
    federation: Federation, convicting: SignedBlock
) -> None:
    for evidence in convicting.evidence:
        assert isinstance(evidence, DuplicateVote)
        assert evidence.misbehaving == (federation.guilty.address,)
        assert evidence.height < convicting.height
        evidence.verify(federation.genesis.chain_id, federation.guilty.public_key)


async def test_the_validator_is_removed_everywhere_and_the_chain_goes_on(
    federation: Federation, convicting: SignedBlock
) -> None:
    while (info := await node_info(federation.nodes[0])) and info.height < convicting.height + 3:
        await federation.record(f"after {info.height}")
    last = await federation.record("last")
    await agree(federation.nodes)
    for node in federation.nodes:
        assert len((await validators(federation, node)).addresses) == 3
        assert federation.guilty.address not in (await validators(federation, node)).addresses
        async with federation.client(node) as client:
            assert (await client.resolve(last, with_certificate=False)).status is CertStatus.VALID
            (leaf,) = await client.leaves([member_key("Operator D")])
        assert leaf is not None
        member = Member.parse(leaf)
        assert (member.validators, member.revision, member.suspended) == ((), 1, False)
        if node is not federation.to_kill:  # its counters begin anew when it is killed
            assert await counter(node, "voice_dpki_ledger_validators_misbehaved_total") >= 1
        said = [json.loads(line) for line in node.log.read_text().splitlines() if "validator-misbehaved" in line]
        assert {(line["kind"], line["validator"]) for line in said} == {
            ("DUPLICATE_VOTE", federation.guilty.address.hex())
        }


async def test_a_validator_that_was_killed_has_the_evidence_in_its_store_and_goes_on(
    federation: Federation, processes: Processes, convicting: SignedBlock
) -> None:
    node = federation.to_kill
    processes.kill(node)
    command = [sys.executable, "-m", "ledger_node", "check", "--config", str(node.config)]
    check = await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE)
    output, _ = await check.communicate()
    assert check.returncode == 0
    assert b"looked at" in output
    processes.start(node)
    await until(lambda: has_reached(node, convicting.height), "it is back")
    await agree(federation.nodes)


async def test_a_follower_goes_through_the_block_and_reports_it(
    federation: Federation, convicting: SignedBlock
) -> None:
    follower = federation.follower("follower", 20, federation.nodes[1].url)
    with Processes([follower]) as processes:
        await processes.ready()
        await agree([*federation.nodes, follower])
        assert await counter(follower, "voice_dpki_ledger_validators_misbehaved_total") >= 1
        assert await counter(follower, "voice_dpki_ledger_evidence_unproved_total") == 0
        assert await counter(follower, REFUSED) == 0
    assert "validator-misbehaved" in follower.log.read_text()


async def test_a_follower_refuses_other_evidence_until_the_right_one_comes(
    federation: Federation, convicting: SignedBlock
) -> None:
    async with path_to(federation.nodes[0]) as path:
        follower = federation.follower("deceived", 21, path.url)
        with Processes([follower]):
            for lie in lies(federation):
                path.tell(convicting.height, lie)
                # One request may be on its way with what was told before.
                refused = await counter(follower, REFUSED) + 2
                await until(partial(has_refused, follower, refused), f"{lie.__name__} is refused")
                info = await node_info(follower)
                assert info is not None
                assert info.height < convicting.height
            path.tell(convicting.height, lambda _: None)
            await until(lambda: has_reached(follower, convicting.height), "it follows")
            await agree([*federation.nodes, follower])
    assert "block refused" in follower.log.read_text()


def lies(federation: Federation) -> list[Lie]:
    """Ways to tell of the same block with other evidence."""
    innocent = next(each for each in federation.genesis.validators.validators if each != federation.guilty)

    def leave_out(block: dict[str, Any]) -> None:
        del block["evidence"]

    def say_twice(block: dict[str, Any]) -> None:
        block["evidence"] *= 2

    def accuse_another(block: dict[str, Any]) -> None:
        true = parse_evidence(base64.b64decode(block["evidence"][0]))
        assert isinstance(true, DuplicateVote)
        votes = [replace(vote, validator_address=innocent.address) for vote in (true.vote_a, true.vote_b)]
        raw = serialize_evidence(replace(true, vote_a=votes[0], vote_b=votes[1]))
        block["evidence"][0] = base64.b64encode(raw).decode("ascii")

    def cut_short(block: dict[str, Any]) -> None:
        block["evidence"][0] = block["evidence"][0][:-8]

    return [leave_out, say_twice, accuse_another, cut_short]


class _Path:
    """Passes on one node's blocks, and changes one of them on the way."""

    def __init__(self, upstream: httpx.AsyncClient) -> None:
        self.url = ""
        self._upstream = upstream
        self.tell(0, lambda _: None)

    def tell(self, height: int, lie: Lie) -> None:
        """Change the block at a height with `lie`."""
        self._height, self._lie = str(height), lie

    async def blocks(self, request: Request) -> Response:
        query = {**request.query, "wait_ms": "1000"}
        answer = (await self._upstream.get("/ledger/v1/blocks", params=query)).json()
        for block in answer["blocks"]:
            if block["signed_header"]["header"]["height"] == self._height:
                self._lie(block)
        return Response(200, json.dumps(answer).encode())


@asynccontextmanager
async def path_to(node: OperatorNode) -> AsyncIterator[_Path]:
    """Serve a node's blocks by a path that may lie."""
    async with httpx.AsyncClient(base_url=node.url, trust_env=False) as upstream:
        path = _Path(upstream)
        app = HttpApp([Route("GET", "/ledger/v1/blocks", path.blocks)])
        async with serve(app, Listen(host=f"{NETWORK}.30", port=0)) as port:
            path.url = f"http://{NETWORK}.30:{port}"
            yield path


async def validators(federation: Federation, node: OperatorNode) -> ValidatorSet:
    info = await node_info(node)
    assert info is not None
    async with federation.client(node) as client:
        return (await client.light_block(info.height)).validators


async def counter(node: OperatorNode, name: str) -> float:
    """Read a counter of a node's metrics; 0 while the node does not answer."""
    async with httpx.AsyncClient(base_url=node.url, trust_env=False) as client:
        try:
            lines = (await client.get("/metrics")).text.splitlines()
        except httpx.HTTPError:
            return 0
    return next(float(line.split()[1]) for line in lines if line.startswith(f"{name} "))


async def has_refused(node: OperatorNode, count: float) -> bool:
    return await counter(node, REFUSED) >= count


async def has_reached(node: OperatorNode, height: int) -> bool:
    info = await node_info(node)
    return info is not None and info.height >= height


async def until(condition: Callable[[], Awaitable[bool]], what: str) -> None:
    """Wait until a condition holds."""
    end = time.monotonic() + DEADLINE_S
    while not await condition():
        assert time.monotonic() < end, f"waited in vain until {what}"
        await asyncio.sleep(0.05)
