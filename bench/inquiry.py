"""Inquiry: answers that prove themselves, a second on one core, their sizes, and what it takes to verify them.

    python bench/inquiry.py [--max 1000000] [--seconds 3] [--dir DIR]

A node's store grows to 1,000, 10,000, 100,000 and 1,000,000 certificates, each with its record, its key's owner and
its name as leaves of the tree. Blocks are signed by four validators. At each size, certificates drawn at random:

    answers/s    over the node's HTTP server, 16 connections, one question each at a time: by the clock, and by a
                 second of the server's processor time (the machine's cores ask too, and do other things)
    batched      certificates a second in questions about 100 of them, by processor time
    proof, leaf  bytes of the certificate's proof, and hashes on its path
    answer       bytes of the whole answer: record, proof, member with its proof, header, four signatures
    verify       microseconds of the client for the whole answer, at a header that it has seen before

Proof size and verification time follow as bars over the logarithm of the number of certificates.

Last, the subscriber's side: looking up a certificate that is held, and verifying a block that changes 1, 10, 100.
"""

import argparse
import asyncio
import contextlib
import gc
import hashlib
import itertools
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import uvloop
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from ledger_node.answer.api import Api
from ledger_node.answer.feed import Feed
from ledger_node.answer.inquiry import Inquiry
from ledger_node.keep.chain import Chain
from ledger_node.keep.store import DATA_FILE, Store
from voice_dpki.codec import cbor
from voice_dpki.effects import SystemClock
from voice_dpki.ledger import tree
from voice_dpki.ledger.answers import AnswerVerifier, Resolution
from voice_dpki.ledger.block import NextBlock
from voice_dpki.ledger.changes import Holdings, changed_keys, encode_step, parse_changes
from voice_dpki.ledger.draft import Outcome
from voice_dpki.ledger.genesis import Genesis, dump_genesis, load_genesis
from voice_dpki.ledger.header import SignedHeader, Validator
from voice_dpki.ledger.members import Member, MemberKind
from voice_dpki.ledger.records import CertRecord, CertStatus
from voice_dpki.ledger.replica import Executed, SignedBlock, Step
from voice_dpki.ledger.view import value_hashes
from voice_dpki.names import CertDigest, Height, Tn
from voice_dpki.shell.config import Listen
from voice_dpki.shell.http import serve
from voice_dpki.shell.reload import Live
from voice_dpki.shell.trace import Tracer
from voice_dpki.wire.ledger.client import light_client
from voice_dpki.x509.keys import generate_es256
from voice_dpki.x509.tnauthlist import TnRange

SIZES = (1_000, 10_000, 100_000, 1_000_000)
BLOCK = 10_000
CERTIFICATE_BYTES = 412
CONNECTIONS = 16
BATCH = 100
SAMPLES = 2000
ORGANIZATIONS = ("Operator A", "Operator B", "Operator C", "Operator D")
MAX_AGE_S = 3600.0

ROW = "{:>9} {:>10} {:>12} {:>12} {:>8} {:>6} {:>9} {:>10} {:>10} {:>10}"
HEAD = ROW.format(
    "certs",
    "answers/s",
    "a cpu second",
    "batched",
    "proof B",
    "hashes",
    "answer B",
    "verify us",
    "disk B",
    "node MB",
)


def digest(number: int) -> CertDigest:
    """H(CERT) of the certificate with a number."""
    return CertDigest(hashlib.sha256(b"cert%d" % number).digest())


class Ledger:
    """A store that grows."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.keys = [Ed25519PrivateKey.generate() for _ in ORGANIZATIONS]
        members = [
            Member(
                name,
                MemberKind.OPERATOR,
                domains=(f"{name[-1].lower()}.example",),
                ranges=(TnRange(Tn(f"4930231250{at}0"), 10),),
                validators=(key.public_key().public_bytes_raw(),),
                endorsing_keys=(generate_es256().public_key_der,),
            )
            for at, (name, key) in enumerate(zip(ORGANIZATIONS, self.keys, strict=True))
        ]
        data = dump_genesis("bench-1", time.time_ns(), members)
        (folder / "genesis.json").write_bytes(data)
        self.genesis = load_genesis(data)
        self.store = Store(folder, self.genesis)
        self.size = 0

    def grow(self, size: int) -> None:
        """Add certificates up to `size`."""
        while self.size < size:
            count = min(BLOCK, size - self.size)
            leaves: dict[bytes, bytes | None] = {}
            for number in range(self.size, self.size + count):
                leaves |= self._leaves(number)
            ders = {digest(number): os.urandom(CERTIFICATE_BYTES) for number in range(self.size, self.size + count)}
            self.commit(leaves, ders)
            self.size += count

    def commit(self, leaves: Mapping[bytes, bytes | None], ders: Mapping[CertDigest, bytes | None]) -> None:
        """Store a block that changes leaves, and the header that proves it."""
        height = Height(self.store.height + 1)
        outcome = Outcome((), leaves, ders, tree.update(self.store.view, value_hashes(leaves)))
        block = SignedBlock(self._next(height, tree.root(self.store.view)), ())
        tip = self._next(Height(height + 1), outcome.app_hash)
        self.store.commit(Step((Executed(block, outcome),), tip))

    def _next(self, height: Height, app_hash: bytes) -> SignedHeader:
        validators = self.genesis.validators
        block = NextBlock(
            chain_id=self.genesis.chain_id,
            previous=None,
            time_ns=time.time_ns(),
            transactions=(),
            app_hash=app_hash,
            last_results=(),
            validators=validators,
            next_validators=validators,
            initial_height=height,
        )
        return block.seal(
            {Validator(key.public_key().public_bytes_raw(), 1).address: key.sign for key in self.keys}
        )

    def _leaves(self, number: int) -> dict[bytes, bytes | None]:
        organization = ORGANIZATIONS[number % len(ORGANIZATIONS)]
        key_id = hashlib.sha256(b"key%d" % number).digest()
        name = hashlib.sha256(b"name%d" % number).digest()
        return {
            bytes(digest(number)): record(organization, key_id, CertStatus.VALID).serialize(),
            hashlib.sha256(b"owner" + key_id).digest(): cbor.encode(["key", organization, 1]),
            name: cbor.encode(["name", [digest(number)]]),
        }


def record(organization: str, key_id: bytes, status: CertStatus) -> CertRecord:
    """A certificate's record."""
    height, now_s = Height(12345), int(time.time())
    return CertRecord(status, organization, now_s - 60, now_s + 10**7, height, height, 0, None, key_id)


# Serving


def serve_store(folder: Path) -> None:
    """Serve a store that stands still, as a node's process does."""
    uvloop.run(_serve(folder))


async def _serve(folder: Path) -> None:
    genesis = load_genesis((folder / "genesis.json").read_bytes())
    chain = Chain(Store(folder, genesis, read_only=True), genesis)
    api = Api(
        chain,
        name="bench",
        role="follower",
        folder=folder,
        orderer=None,  # type: ignore[arg-type]  # no transaction comes
        feed=Feed(chain),
        submission=None,
        tokens=Live(()),
        clock=SystemClock(),
        tracer=Tracer(None, "bench"),
    )
    async with serve(api.app(), Listen(port=0)) as port:
        print(port, flush=True)
        await asyncio.Event().wait()


@contextlib.contextmanager
def server(folder: Path) -> Iterator[tuple[int, int]]:
    """Run a serving process; gives its id and its port."""
    command = [sys.executable, __file__, "--serve", str(folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield process.pid, int(process.stdout.readline())
        finally:
            process.kill()


def processor_s(pid: int) -> float:
    """Seconds of processor time that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(") ", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def resident_mb(pid: int) -> float:
    """Memory of a process without the pages of the store's file."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("RssAnon"))


class Asker(asyncio.Protocol):
    """One connection that asks again as soon as it is answered."""

    def __init__(self, questions: Iterator[bytes]) -> None:
        self._questions = questions
        self._left = 0
        self.answers = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Ask the first question."""
        self._transport: asyncio.WriteTransport = transport  # type: ignore[assignment]
        self._transport.write(next(self._questions))

    def data_received(self, data: bytes) -> None:
        """Count answers by their lengths."""
        if not self._left:
            head, _, data = data.partition(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 200"), head
            self._left = int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0])
        self._left -= len(data)
        if not self._left:
            self.answers += 1
            self._transport.write(next(self._questions))


async def ask(port: int, questions: Iterator[bytes], seconds: float) -> int:
    """Ask over several connections for a while; returns how many answers came."""
    loop = asyncio.get_running_loop()
    pairs = [await loop.create_connection(lambda: Asker(questions), "127.0.0.1", port) for _ in range(CONNECTIONS)]
    await asyncio.sleep(seconds)
    for transport, _ in pairs:
        transport.abort()
    return sum(asker.answers for _, asker in pairs)


def single(size: int) -> Iterator[bytes]:
    """Questions about certificates drawn at random."""
    while True:
        name = digest(random.randrange(size)).hex()
        yield b"GET /ledger/v1/status/%s HTTP/1.1\r\nhost: a\r\n\r\n" % name.encode()


def batched(size: int) -> Iterator[bytes]:
    """Questions about BATCH certificates."""
    while True:
        names = ",".join(f'"{digest(random.randrange(size)).hex()}"' for _ in range(BATCH))
        body = b'{"digests":[%s]}' % names.encode()
        yield b"POST /ledger/v1/statuses HTTP/1.1\r\nhost: a\r\ncontent-length: %d\r\n\r\n%s" % (len(body), body)


def load(folder: Path, size: int, seconds: float) -> tuple[float, float, float, float]:
    """Return answers by the clock, by processor time, batched by processor time, and the server's megabytes."""
    with server(folder) as (pid, port):
        uvloop.run(ask(port, single(size), 1.0))  # to warm it
        rates = []
        for questions in (single(size), batched(size)):
            began, used = time.perf_counter(), processor_s(pid)
            answers = uvloop.run(ask(port, questions, seconds))
            rates.append((answers / (time.perf_counter() - began), answers / (processor_s(pid) - used)))
        return rates[0][0], rates[0][1], BATCH * rates[1][1], resident_mb(pid)


# Verifying


def measure(ledger: Ledger, seconds: float, curves: dict[str, list[float]]) -> str:
    """One row of the table; adds to the curves."""
    wall, processor, many, megabytes = load(ledger.folder, ledger.size, seconds)
    chain = Chain(ledger.store, ledger.genesis)
    inquiry, verifier = Inquiry(chain, SystemClock()), fresh_verifier(ledger.genesis)
    sample = [digest(random.randrange(ledger.size)) for _ in range(SAMPLES)]
    answers = [inquiry.status(each, with_certificate=False).body for each in sample]
    proofs = [tree.prove(ledger.store.view, each) for each in sample]
    verify_us = timed(lambda: [verify(verifier, *pair) for pair in zip(answers, sample, strict=True)]) / SAMPLES
    proof_bytes = sum(len(proof.serialize()) for proof in proofs) / SAMPLES
    curves.setdefault("proof, bytes", []).append(proof_bytes)
    curves.setdefault("verification, us", []).append(verify_us)
    used = (ledger.folder / DATA_FILE).stat().st_blocks * 512
    return ROW.format(
        f"{ledger.size:,}",
        f"{wall:,.0f}",
        f"{processor:,.0f}",
        f"{many:,.0f}",
        f"{proof_bytes:.0f}",
        f"{sum(len(proof.siblings) for proof in proofs) / SAMPLES:.1f}",
        f"{sum(map(len, answers)) / SAMPLES:.0f}",
        f"{verify_us:.0f}",
        f"{used / ledger.size:.0f}",
        f"{megabytes:.0f}",
    )


def plot(curves: dict[str, list[float]]) -> None:
    """Draw each curve over the sizes, which are equal steps of the logarithm."""
    for name, values in curves.items():
        print(f"\n{name}")
        for size, value in zip(SIZES, values, strict=False):
            print(f"{size:>9,} {'#' * round(60 * value / max(values))} {value:.0f}")


def fresh_verifier(genesis: Genesis) -> AnswerVerifier:
    """Make a verifier that trusts the genesis."""
    return AnswerVerifier(light_client(genesis), max_age_s=MAX_AGE_S)


def verify(verifier: AnswerVerifier, data: bytes, about: CertDigest) -> Resolution:
    """Verify an answer, as a client does."""
    return verifier.verify(data, about, time.time(), min_height=0, with_certificate=False)


def timed(work) -> float:  # type: ignore[no-untyped-def]
    """Microseconds of processor time."""
    gc.collect()
    began = time.process_time()
    work()
    return (time.process_time() - began) * 1e6


def subscriber(ledger: Ledger) -> None:
    """Measure what a verification server does with held certificates, and with changes."""
    inquiry, verifier = Inquiry(Chain(ledger.store, ledger.genesis), SystemClock()), fresh_verifier(ledger.genesis)
    about = digest(1)
    data = inquiry.status(about, with_certificate=False).body
    found = verify(verifier, data, about)
    holdings, now_s = Holdings(10_000), time.time()
    holdings.advance(verifier.trust(ledger.store.view.tip_json or b"", now_s, min_height=0), None)
    holdings.put(found)
    lookups = timed(lambda: [holdings.get(about, now_s) for _ in range(10_000)]) / 10_000
    print(f"\nlookup of a certificate that is held: {lookups:.1f} us")
    for count in (1, 10, 100):
        numbers = random.sample(range(ledger.size), count)
        leaves = {
            bytes(digest(number)): record(ORGANIZATIONS[0], bytes(32), CertStatus.REVOKED).serialize()
            for number in numbers
        }
        with ledger.store.snapshot() as before:
            ledger.commit(leaves, {})
            with ledger.store.snapshot() as after:
                roots = tree.root(before), tree.root(after)
                began = time.process_time()
                step = encode_step(tree.diff(before, after))
                making = (time.process_time() - began) * 1e3
        form = parse_changes(b'{"steps":[%s],"signed_header":{}}' % step)
        checking = timed(lambda form=form, roots=roots: changed_keys(roots[0], form.steps, roots[1])) / 1e3
        times = f"made in {making:.1f} ms, checked in {checking:.1f} ms"
        print(f"a block that changes {count:>3} certificates: {len(step):>7,} bytes, {times}")


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--max", type=int, default=SIZES[-1], help="largest size (default: %(default)s)")
    parser.add_argument(
        "--seconds", type=float, default=3.0, help="of asking, for each rate (default: %(default)s)"
    )
    parser.add_argument("--dir", type=Path, help="where the store goes (default: a temporary folder)")
    parser.add_argument("--serve", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        serve_store(options.serve)
        return
    random.seed(1)
    with tempfile.TemporaryDirectory(dir=options.dir) as folder:
        ledger = Ledger(Path(folder))
        curves: dict[str, list[float]] = {}
        print(HEAD)
        for size in itertools.takewhile(lambda size: size <= options.max, SIZES):
            ledger.grow(size)
            print(measure(ledger, options.seconds, curves), flush=True)
        plot(curves)
        subscriber(ledger)
        ledger.store.close()


if __name__ == "__main__":
    main()
