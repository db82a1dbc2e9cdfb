"""A federation whose operators decide on versions of the rules, and what its nodes tell of them."""

import asyncio
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import httpx

from ledger_node.command.federation import node_info
from ledger_node.command.federation_folder import OperatorNode, provision
from ledger_node.command.sending import Sender
from voice_dpki.ledger.genesis import Genesis, load_genesis
from voice_dpki.ledger.members import Member
from voice_dpki.ledger.proposals import Change, encode_change, proposal_id
from voice_dpki.ledger.transactions import Body, Propose, Transaction, Vote, endorse
from voice_dpki.names import CertDigest
from voice_dpki.x509.keys import LocalSigner, from_pem

from .operators import answers, at, blocks, reaches
from .releases import within

REPEATED = {"already-recorded", "already-proposed", "already-voted", "wrong-revision"}
"""Refusals of a transaction that has taken effect, and is sent again."""


class Federation:
    """Four operators' nodes and keys. Voted changes take effect at once."""

    def __init__(self, folder: Path, network: str, *admitted: Member, **parameters: int) -> None:
        """Make it, with further members and the ledger's parameters in its genesis."""
        self.folder = folder
        self.nodes = provision(folder, 4, network)
        self.file = folder / "genesis.json"
        form = json.loads(self.file.read_bytes())
        form["app_state"]["parameters"] = {"delay_s": 0, **parameters}
        further = [{"organization": each.organization, "kind": each.kind} for each in admitted]
        form["app_state"]["members"] += further
        self.file.write_text(json.dumps(form))
        self.genesis: Genesis = load_genesis(self.file.read_bytes())
        keys = folder / "keys"
        self.keys = {
            node.organization: from_pem((keys / f"endorsing-{node.name}.pem").read_bytes()) for node in self.nodes
        }

    def endorsed(self, body: Body, key: LocalSigner | None = None) -> bytes:
        return endorse(body, [key or self.keys[body.by]])

    def proposal(self, change: Change, by: str) -> bytes:
        return self.endorsed(Propose(self.genesis.chain_id, by, int(time.time()) + 600, encode_change(change)))

    def vote(self, proposal: bytes, by: str, key: LocalSigner | None = None) -> bytes:
        identity = proposal_id(Transaction.parse(proposal).body_bytes)
        return self.endorsed(Vote(self.genesis.chain_id, by, identity, True), key)

    async def decide(self, change: Change) -> None:
        """Have the first three operators approve a change."""
        by, *others = (node.organization for node in self.nodes[:3])
        raw = self.proposal(change, by)
        await self.send(raw, *(self.vote(raw, other) for other in others))

    async def send(self, *transactions: bytes) -> None:
        """Have transactions take effect, one after the other. On a busy machine an answer may come too late."""
        async with Sender(self.nodes[0].url) as sender:
            for raw in transactions:
                verdict = await sender.verdict(raw)
                assert not verdict.code or verdict.name in REPEATED, verdict

    def engine(self, host: int) -> OperatorNode:
        """Make a node that has all validators' keys and needs no CometBFT."""
        keys = ", ".join(f'"keys/validator-{node.name}-1.pem"' for node in self.nodes)
        return self._node("engine", host, f"[engine]\nvalidator_keys = [{keys}]\nheartbeat_s = 0.5\n")

    def follower(self, name: str, host: int) -> OperatorNode:
        """Make a node that follows the first operator's."""
        return self._node(name, host, f'[follow]\nurl = "{self.nodes[0].url}"\n')

    def _node(self, name: str, host: int, role: str) -> OperatorNode:
        address = f"{self.nodes[0].url.split('/')[2].rpartition('.')[0]}.{host}"
        config = self.folder / f"{name}.toml"
        config.write_text(
            f'[node]\nname = "{name}"\ndata_dir = "data-{name}"\ngenesis = "genesis.json"\n'
            f'[listen]\nhost = "{address}"\nport = 26680\n{role}'
        )
        return OperatorNode(config, "nobody", f"http://{address}:26680", "")


async def begun(node: OperatorNode, version: int) -> int:
    """Wait for a version, however long, while a node gains blocks; return the height of its first block."""
    while not (info := await node_info(node)) or info.rules.present != version:
        await all_at([node], await height_of(node) + 1)
    await all_at([node], info.height + 1)  # the block that the next one follows may be the last one stored
    return (await versions_of(node)).index(version) + 1


async def height_of(node: OperatorNode) -> int:
    """Ask a node until it answers, which may take long on a busy machine."""
    await reaches(partial(answers, node), f"{node.name} answers")
    info = await node_info(node)
    return -1 if info is None else info.height


async def all_at(nodes: Sequence[OperatorNode], height: int) -> None:
    """Wait until nodes have stored the block at a height, however long, while each gains blocks."""
    for node in nodes:
        reached = -1
        while reached < height:
            await reaches(partial(at, node, reached + 1), f"{node.name} has block {reached + 1}")
            reached = await height_of(node)


def empty(node: OperatorNode) -> None:
    """Remove what a stopped node has stored, except what its validator has signed last."""
    shutil.rmtree(node.config.with_name(f"data-{node.name}"))
    for path in (node.home / "data").iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        elif path.name != "priv_validator_state.json":
            path.unlink()


async def health(node: OperatorNode) -> tuple[int, dict[str, Any]]:
    """Ask a node whether it can do its work, until it answers."""
    found: list[httpx.Response] = []
    await reaches(partial(_health, node, found), f"{node.name} says how it is")
    return found[0].status_code, found[0].json()


async def _health(node: OperatorNode, found: list[httpx.Response]) -> bool:
    async with httpx.AsyncClient(timeout=30, trust_env=False) as client:
        with suppress(httpx.HTTPError):
            found.append(await client.get(f"{node.url}/healthz"))
    return bool(found)


async def fails(node: OperatorNode) -> bool:
    """Tell whether a node says that it cannot do its work."""
    return (await health(node))[0] == 503


async def versions_of(node: OperatorNode) -> list[int]:
    """Return `version.app` of each header of a node."""
    return [block.header.version_app for block in await blocks(node)]


READ = """
import asyncio, json, sys
from voice_dpki.ledger.genesis import load_genesis
from voice_dpki.names import CertDigest
from voice_dpki.wire.ledger.client import LedgerClient

async def main(url, genesis, digests):
    trusted = load_genesis(open(genesis, "rb").read())
    async with LedgerClient.of_genesis(url, trusted, max_age_s=600, timeout_s=60) as client:
        await client.node_info()
        found = await client.resolve_all([CertDigest(bytes.fromhex(each)) for each in digests])
        single = await client.resolve(found[0].digest)
        assert single.status == found[0].status and single.member == found[0].member
        print(json.dumps([str(each.status) for each in found]))

asyncio.run(main(*json.loads(sys.argv[1])))
"""


async def read_by(code: Path, node: OperatorNode, federation: Federation, digests: list[CertDigest]) -> list[str]:
    """Have another release's client ask a node for certificates; it verifies the answers from the genesis."""
    asked = json.dumps([node.url, str(federation.file), [digest.hex() for digest in digests]])
    command = [*within(code), sys.executable, "-c", READ, asked]
    found: list[str] = json.loads(await asyncio.to_thread(subprocess.check_output, command, text=True))
    return found
