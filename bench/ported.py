"""Numbers one by one: how long it takes to give hundreds of thousands to another member, and to ask who holds one.

    python bench/ported.py [--numbers 300000] [--seconds 3]

A node with the embedded engine and LMDB runs as a process. One member gives numbers of its range to another, 1000
in a transaction. Each is sent when the one before it is durable, as `voice-dpki ledger numbers give` does. Then a
client that verifies each answer asks for the leaves of numbers drawn at random, half of them given and half not:
one by one, and 64 at a time.
"""

import argparse
import asyncio
import json
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import httpx

sys.path.insert(0, str(Path(__file__).parents[1]))

from ledger_node.command.sending import Sender
from ledger_node.make.initialise import initialise
from tests.one_operator import Service
from voice_dpki.codec import base64text
from voice_dpki.effects import SystemClock
from voice_dpki.ledger.activation import notice
from voice_dpki.ledger.answer_forms import MAX_LEAVES
from voice_dpki.ledger.genesis import load_genesis
from voice_dpki.ledger.held_numbers import number_key
from voice_dpki.ledger.numbers import MAX_GIVEN, Numbers
from voice_dpki.ledger.proof import Proof
from voice_dpki.ledger.transactions import endorse
from voice_dpki.names import Tn
from voice_dpki.wire.ledger.client import LedgerClient
from voice_dpki.x509.keys import LocalSigner, from_pem

GIVER, TAKER = "Operator A", "Operator B"
FIRST = 493_020_000_000
MEMBERS = f"""\
chain_id = "bench"
[[members]]
organization = "{GIVER}"
kind = "operator"
ranges = [{{ start = "{FIRST}", count = 2000000 }}]
validators = 1
[[members]]
organization = "{TAKER}"
kind = "operator"
"""
ENGINE = """\
[node]
name = "engine"
data_dir = "data"
genesis = "genesis.json"
[listen]
port = 0
[engine]
validator_keys = ["keys/validator-operator-a-1.pem"]
heartbeat_s = 0.5
[trace]
file = "engine.jsonl"
"""


def main() -> None:
    """Give numbers, and ask for them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--numbers", type=int, default=300_000)
    parser.add_argument("--seconds", type=float, default=3.0, help="for each kind of question")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        config = make(Path(folder))
        node = Service("ledger_node", config, config.with_suffix(".jsonl"))
        try:
            asyncio.run(measure(node.url, config, options.numbers, options.seconds))
        finally:
            node.stop()
        size = sum(path.stat().st_blocks * 512 for path in (config.parent / "data").iterdir())
        print(f"the node's files have {size / 2**20:.0f} MiB, with blocks")


def make(folder: Path) -> Path:
    """Make the files of a ledger that follows version 5 of the rules from its second block on."""
    (folder / "members.toml").write_text(MEMBERS)
    config, *_ = initialise(folder / "members.toml", folder / "net", SystemClock())
    genesis = config.with_name("genesis.json")
    form = json.loads(genesis.read_bytes())
    member = notice(5, 2)
    form["app_state"]["members"].append({"organization": member.organization, "kind": str(member.kind)})
    genesis.write_text(json.dumps(form))
    config.write_text(ENGINE)
    return config


async def measure(url: str, config: Path, count: int, seconds: float) -> None:
    """Measure a running node."""
    genesis = load_genesis(config.with_name("genesis.json").read_bytes())
    async with (
        LedgerClient.of_genesis(url, genesis, timeout_s=60, max_age_s=600) as client,
        Sender(url) as sender,
    ):
        while (await client.node_info()).rules.present != 5:
            await asyncio.sleep(0.1)
        await give(sender, config, count)
        given = [Tn(str(FIRST + number)) for number in range(count)]
        others = [Tn(str(FIRST + 1_000_000 + number)) for number in range(count)]
        for each in (1, MAX_LEAVES):
            await ask(client, given, others, each, seconds)
        await proofs(url, given, others)


def endorsing_key(config: Path, organization: str) -> LocalSigner:
    """Return a member's endorsing key."""
    name = f"endorsing-{organization.lower().replace(' ', '-')}.pem"
    return from_pem((config.parent / "keys" / name).read_bytes())


async def give(sender: Sender, config: Path, count: int) -> None:
    """Give `count` numbers, and print how long it took, and the first and the last tenth of it."""
    await sender.send(endorse(Numbers("bench", TAKER, TAKER, 0, ()), [endorsing_key(config, TAKER)]))
    key, took_s = endorsing_key(config, GIVER), []
    for sequence, at in enumerate(range(0, count, MAX_GIVEN)):
        numbers = tuple(Tn(str(FIRST + number)) for number in range(at, min(at + MAX_GIVEN, count)))
        raw = endorse(Numbers("bench", GIVER, TAKER, sequence, numbers), [key])
        began_s = time.perf_counter()
        await sender.send(raw)
        took_s.append(time.perf_counter() - began_s)
    tenth = max(len(took_s) // 10, 1)
    first, last = (1000 * statistics.mean(part) for part in (took_s[:tenth], took_s[-tenth:]))
    print(f"{count} numbers given in {sum(took_s):.1f} s: {count / sum(took_s):.0f} a second")
    print(
        f"a transaction of {MAX_GIVEN} is durable after {first:.0f} ms in the first tenth, {last:.0f} in the last"
    )


async def ask(client: LedgerClient, given: Sequence[Tn], others: Sequence[Tn], each: int, seconds: float) -> None:
    """Ask for numbers for some seconds, and print how long an answer with its verification takes."""
    took_s: list[float] = []
    while sum(took_s) < seconds:
        numbers = [random.choice(random.choice((given, others))) for _ in range(each)]
        began_s = time.perf_counter()
        await client.leaves([number_key(tn) for tn in numbers])
        took_s.append(time.perf_counter() - began_s)
    p50, p99 = (1000 * statistics.quantiles(took_s, n=100)[at] for at in (49, 98))
    print(f"{each} in a question: verified after {p50:.2f} ms p50, {p99:.2f} ms p99")


async def proofs(url: str, given: Sequence[Tn], others: Sequence[Tn]) -> None:
    """Print the sizes of proofs and of an answer about one number."""
    async with httpx.AsyncClient(base_url=url, trust_env=False) as http:
        for what, numbers in (("presence", given), ("absence", others)):
            sizes, answers = [], []
            for tn in random.sample(numbers, min(200, len(numbers))):
                answer = await http.get(f"/ledger/v1/numbers/{tn}")
                proof = base64text.decode(answer.json()["number"]["proof"])
                Proof.parse(proof)
                sizes.append(len(proof))
                answers.append(len(answer.content))
            print(f"proof of {what}: {statistics.mean(sizes):.0f} bytes; an answer {statistics.mean(answers):.0f}")


if __name__ == "__main__":
    main()
