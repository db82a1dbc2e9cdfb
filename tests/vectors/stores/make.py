"""Make the stores in this folder with the version of the project that is checked out in another folder.

    git worktree add ../earlier COMMIT
    PYTHONPATH=../earlier .venv/bin/python tests/vectors/stores/make.py COMMIT

A small ledger is run by that version's own programs, once with the embedded engine and once on CometBFT. What they
leave on disk goes into `NAME.tar.xz`, and what they said of it into `NAME.json`.
"""

import asyncio
import json
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import httpx
from ledger_node.config import read_validator_key
from ledger_node.engine import signers_of
from ledger_node.initialise import initialise
from ledger_node.store import Store
from voice_dpki.ledger.client import LedgerClient

from voice_dpki.effects import SystemClock, SystemRandom
from voice_dpki.ledger.block import NextBlock, SignFunction, encode_block, part_set_header, sign_commit
from voice_dpki.ledger.genesis import load_genesis
from voice_dpki.ledger.header import BlockId, SignedHeader
from voice_dpki.ledger.members import Member, MemberKind
from voice_dpki.ledger.proposals import SetMember, SetStatus, encode_change, proposal_id
from voice_dpki.ledger.records import CertStatus
from voice_dpki.ledger.replica import Replica, SignedBlock
from voice_dpki.ledger.transactions import (
    Batch,
    Body,
    ChangeStatus,
    OwnerStatus,
    Propose,
    Renew,
    Submit,
    Transaction,
    Vote,
    endorse,
    renewal_bytes,
)
from voice_dpki.ledger.validators import validator_sets
from voice_dpki.names import Tn
from voice_dpki.x509.keys import LocalSigner, from_pem, generate_es256
from voice_dpki.x509.profile import build_certificate, digest_of
from voice_dpki.x509.tnauthlist import TnAuthList

HERE = Path(__file__).parent
YEARS_S = 39 * 366 * 86_400
"""Nothing in the stores shall expire while the project lives."""

MEMBERS = """
chain_id = "earlier"

[parameters]
delay_s = 0
voting_s = {years_s}

[[members]]
organization = "Operator A"
kind = "operator"
domains = ["a.example"]
ranges = [{{ start = "493023125000", count = 1000 }}]
validators = {validators}

[[members]]
organization = "Operator B"
kind = "operator"
domains = ["b.example"]
ranges = [{{ start = "442079460000", count = 1000 }}]
validators = {others}

[[members]]
organization = "Vendor"
kind = "vendor"
"""
URL = "http://127.0.8.30:26680"
LISTEN = '[listen]\nhost = "127.0.8.30"\nport = 26680\n'


class Ledger:
    """The ledger's folder, the keys in it, and a history to run through it."""

    def __init__(self, folder: Path, validators: int, others: int) -> None:
        members = folder.with_suffix(".toml")
        members.write_text(MEMBERS.format(validators=validators, others=others, years_s=YEARS_S))
        for config in initialise(members, folder, SystemClock()):
            config.unlink()
        self.folder = folder
        self.config = folder / "node.toml"
        self.genesis = load_genesis((folder / "genesis.json").read_bytes())
        self.digests: list[bytes] = []

    def configure(self, role: str) -> None:
        node = '[node]\nname = "node"\ndata_dir = "data"\ngenesis = "genesis.json"\n'
        self.config.write_text(f"{node}\n{LISTEN}\n{role}")

    def signer(self, organization: str) -> LocalSigner:
        slug = organization.lower().replace(" ", "-")
        return from_pem((self.folder / "keys" / f"endorsing-{slug}.pem").read_bytes())

    def endorsed(self, body: Body) -> bytes:
        return endorse(body, [self.signer(body.by)])

    def certificate(self, organization: str, name: str, key: LocalSigner | None = None, **options: object) -> bytes:
        der = build_certificate(
            key or generate_es256(),
            organization=organization,
            common_name=name,
            not_before_s=self.genesis.time_ns // 10**9 - 86_400,
            not_after_s=self.genesis.time_ns // 10**9 + YEARS_S,
            random=SystemRandom(),
            **options,
        )
        self.digests.append(digest_of(der))
        return der

    def lifecycle(self) -> list[bytes]:
        """Certificates alone and in a batch, one renewed, one revoked, others suspended and resumed."""
        chain, key, own = self.genesis.chain_id, generate_es256(), generate_es256()
        numbers = TnAuthList(tns=(Tn("493023125001"),))
        old = self.certificate(
            "Operator A", "renewed", key, tn_auth_list=numbers, uris=("sip:+493023125001@a.example",)
        )
        new = self.certificate("Operator A", "renewed", key)
        signature = key.sign(renewal_bytes(chain, digest_of(old), digest_of(new)))
        lost, back = (self.certificate("Operator A", name) for name in ("lost", "back"))
        doubtful = self.certificate("Operator B", "doubtful")
        batch = (self.certificate("Vendor", "own", own), *(self.certificate("Vendor", f"{at}") for at in range(3)))
        suspend = OwnerStatus(
            chain, "Vendor", digest_of(batch[0]), 0, "suspended", "unspecified", own.public_key_der
        )

        def change(
            der: bytes, revision: int, status: str, reason: str = "unspecified", by: str = "Operator A"
        ) -> bytes:
            return self.endorsed(ChangeStatus(chain, by, digest_of(der), revision, status, reason))

        return [
            *(self.endorsed(Submit(chain, "Operator A", der)) for der in (old, lost, back)),
            self.endorsed(Submit(chain, "Operator B", doubtful)),
            self.endorsed(Batch(chain, "Vendor", batch)),
            self.endorsed(Renew(chain, "Operator A", new, digest_of(old), key.public_key_der, signature)),
            change(lost, 0, "revoked", "keyCompromise"),
            change(doubtful, 0, "suspended", by="Operator B"),
            change(back, 0, "suspended"),
            change(back, 1, "valid"),
            endorse(suspend, [own]),
        ]

    def governance(self) -> list[bytes]:
        """A vendor's domain by vote, a certificate revoked by the quorum, and a proposal that is left open."""
        vendor = replace(self.genesis.member("Vendor"), domains=("v.example",))
        newcomer = Member("Newcomer", MemberKind.VENDOR, endorsing_keys=(generate_es256().public_key_der,))
        revoke = SetStatus((self.digests[-1],), CertStatus.REVOKED, "keyCompromise")
        return [
            *self.decided(SetMember(vendor, 0)),
            *self.decided(revoke),
            self.decided(SetMember(newcomer, None))[0],
        ]

    def decided(self, change: SetMember | SetStatus) -> list[bytes]:
        until_s = self.genesis.time_ns // 10**9 + YEARS_S
        proposal = self.endorsed(Propose(self.genesis.chain_id, "Operator A", until_s, encode_change(change)))
        identity = proposal_id(Transaction.parse(proposal).body_bytes)
        return [proposal, self.endorsed(Vote(self.genesis.chain_id, "Operator B", identity, True))]

    @contextmanager
    def running(self) -> Iterator[httpx.Client]:
        """Run the node, and give a client of it."""
        process = subprocess.Popen([sys.executable, "-m", "ledger_node.main", "start", "--config", self.config])
        try:
            with httpx.Client(base_url=URL, timeout=30, trust_env=False) as http:
                while not _answers(http):
                    assert process.poll() is None
                    time.sleep(0.05)
                yield http
        finally:
            process.terminate()
            process.wait()

    def send(self, http: httpx.Client, transactions: Sequence[bytes], blocks: int = 0) -> None:
        """Have each transaction executed, and wait for so many blocks after its own."""
        for raw in transactions:
            answer = http.post("/ledger/v1/transactions", content=raw)
            assert answer.status_code == 200, answer.text
            http.get(f"/ledger/v1/blocks/{answer.json()['height'] + blocks}?wait_ms=10000").raise_for_status()

    def evidence(self) -> None:
        """Add to a stopped node a block that convicts one of B's validators, with a transaction that is refused."""
        signers = signers_of([read_validator_key(path) for path in (self.folder / "keys").glob("validator-*")])
        store = Store(self.folder / "data", self.genesis)
        last = store.view.block(store.height)
        replica = Replica(store.view, last.signed_header(), last.codes)
        convicted = (sorted(self.genesis.member("Operator B").validators)[1],)
        addresses = tuple(v.address for v in self.genesis.validators.validators if v.public_key in convicted)
        refused = self.endorsed(Submit(self.genesis.chain_id, "Operator A", b"no certificate"))
        parts: list[tuple[tuple[bytes, ...], tuple[bytes, ...]]] = [(addresses, (refused,))]
        while parts or replica.next_height > store.height + 1:
            misbehaving, transactions = parts.pop() if parts else ((), ())
            block = self.sealed(replica, signers, misbehaving, transactions)
            if (step := replica.take(block)).executed:
                store.commit(step)
        store.close()

    def sealed(
        self,
        replica: Replica,
        signers: dict[bytes, SignFunction],
        misbehaving: tuple[bytes, ...],
        transactions: tuple[bytes, ...],
    ) -> SignedBlock:
        """Make the next block, with a hash of evidence where there is some."""
        validators, following = validator_sets(replica.state)
        header = NextBlock(
            chain_id=self.genesis.chain_id,
            previous=replica.last,
            time_ns=time.time_ns(),
            transactions=transactions,
            app_hash=replica.app_hash,
            last_results=replica.last_results,
            validators=validators,
            next_validators=following,
            consensus_hash=self.genesis.consensus_hash(),
        ).header
        if misbehaving:
            header = replace(header, evidence_hash=sha256(b"evidence").digest())
        encoded = encode_block(header, transactions, replica.last.commit)
        identity = BlockId(header.hash(), part_set_header(encoded))
        commit = sign_commit(header, identity, validators, signers, header.time_ns)
        return SignedBlock(SignedHeader(header, commit), transactions, misbehaving)

    def described(self, http: httpx.Client, version: str) -> dict[str, object]:
        """Say what the node says: its height and AppHash, all AppHashes before, and every certificate's record."""
        info = http.get("/ledger/v1/node").json()
        blocks = [http.get(f"/ledger/v1/blocks/{at}").json() for at in range(1, info["height"] + 1)]
        return {
            "made by": version,
            "height": info["height"],
            "app_hash": info["app_hash"],
            "app_hashes": [block["signed_header"]["header"]["app_hash"].lower() for block in blocks],
            "records": asyncio.run(self.records()),
        }

    async def records(self) -> dict[str, dict[str, object]]:
        async with LedgerClient.of_genesis(URL, self.genesis, max_age_s=600) as client:
            found = await client.resolve_all(sorted(self.digests))
        return {
            each.digest.hex(): {
                "status": each.status,
                "organization": each.record.organization,
                "recorded_height": each.record.recorded_height,
                "changed_height": each.record.changed_height,
                "revision": each.record.revision,
                "reason": each.record.reason,
                "replaced_by": each.record.replaced_by.hex() if each.record.replaced_by else None,
            }
            for each in found
        }

    def keep(self, name: str, described: dict[str, object]) -> None:
        """Write the archive and what is known of it."""
        with tarfile.open(HERE / f"{name}.tar.xz", "w:xz") as archive:
            archive.add(self.folder, arcname=name, filter=_anonymous)
        (HERE / f"{name}.json").write_text(json.dumps(described, indent=2) + "\n")


def _answers(http: httpx.Client) -> bool:
    try:
        return int(http.get("/ledger/v1/node").json()["height"]) > 0
    except httpx.HTTPError:
        return False


def _anonymous(member: tarfile.TarInfo) -> tarfile.TarInfo | None:
    """Leave out who made the files, and what is made anew at each start."""
    if not (member.isfile() or member.isdir()) or member.name.endswith(
        ("/cometbft.log", "LOCK", "node.lock", "-lock")
    ):
        return None
    member.uid = member.gid = 0
    member.uname = member.gname = ""
    return member


def embedded(folder: Path, version: str) -> None:
    """The embedded engine's store."""
    ledger = Ledger(folder / "embedded", 2, 2)
    keys = [f"keys/{path.name}" for path in sorted((ledger.folder / "keys").glob("validator-*"))]
    ledger.configure(f"[engine]\nvalidator_keys = {keys}\nheartbeat_s = 0.5\n")
    with ledger.running() as http:
        ledger.send(http, ledger.lifecycle())
    ledger.evidence()
    with ledger.running() as http:
        ledger.send(http, ledger.governance(), blocks=2)
        described = ledger.described(http, version)
    ledger.keep("embedded", described)


def cometbft(folder: Path, version: str) -> None:
    """The only validator's store, and its CometBFT's."""
    ledger = Ledger(folder / "cometbft", 1, 0)
    ports = 'rpc = { host = "127.0.8.30", port = 26657 }\np2p = { host = "127.0.8.30", port = 26656 }\n'
    key = 'validator_key = "keys/validator-operator-a-1.pem"\n'
    ledger.configure(f'[cometbft]\nhome = "comet"\nheartbeat_s = 3600\n{ports}{key}')
    with ledger.running() as http:
        ledger.send(http, ledger.lifecycle() + ledger.governance())
        described = ledger.described(http, version)
    ledger.keep("cometbft", described)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as made:
        embedded(Path(made), sys.argv[1])
        cometbft(Path(made), sys.argv[1])
