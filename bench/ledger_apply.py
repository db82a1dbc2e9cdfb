"""How many certificates a second the ledger's state machine takes, alone on one core, without network and disk.

"cold" verifies every certificate and signature; "warm" has the verdicts of the mempool's check, as a validator has
when the block comes. The state is held in memory, and grows from nothing.
"""

import argparse
import time

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from voice_dpki.effects import SystemRandom
from voice_dpki.ledger.activation import notice
from voice_dpki.ledger.admission import read_admitted
from voice_dpki.ledger.genesis import Genesis, dump_genesis, load_genesis
from voice_dpki.ledger.members import Member, MemberKind
from voice_dpki.ledger.rules import NEWEST
from voice_dpki.ledger.signatures import verify
from voice_dpki.ledger.state import Block, apply
from voice_dpki.ledger.transactions import Batch, Submit, endorse
from voice_dpki.names import Height, Tn
from voice_dpki.x509.keys import LocalSigner, generate_es256
from voice_dpki.x509.profile import build_certificate
from voice_dpki.x509.tnauthlist import TnRange

CHAIN = "bench"
NAME = "Operator A"
START_S = 1_790_000_000
PER_BLOCK = 2000
PER_BATCH = 100


def main() -> None:
    """Measure batches, and certificates one by one."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--certificates", type=int, default=4000)
    parser.add_argument("--rules", type=int, default=NEWEST.version, help="the version of the ledger's rules")
    options = parser.parse_args()
    signer = generate_es256()
    genesis = ledger(signer, options.rules)
    ders = [certificate(number) for number in range(options.certificates)]
    batches = [Batch(CHAIN, NAME, tuple(ders[at : at + PER_BATCH])) for at in range(0, len(ders), PER_BATCH)]
    print(f"{len(ders)} certificates of {len(ders[0])} B, each with a name, a number and a key of its own")
    for what, bodies, per_block in (
        (f"batches of {PER_BATCH}", batches, PER_BLOCK // PER_BATCH),
        ("one by one", [Submit(CHAIN, NAME, der) for der in ders], PER_BLOCK),
    ):
        raws = [endorse(body, [signer]) for body in bodies]
        read_admitted.cache_clear()
        verify.cache_clear()
        cold, warm = (run(genesis, raws, per_block) for _ in range(2))
        print(f"{what:16} cold {len(ders) / cold:7.0f}/s   warm {len(ders) / warm:7.0f}/s")


def ledger(signer: LocalSigner, version: int) -> Genesis:
    """Make a ledger with one operator, whose first block follows a version of the rules."""
    validator = Ed25519PrivateKey.generate()
    member = Member(
        organization=NAME,
        kind=MemberKind.OPERATOR,
        domains=("a.example",),
        ranges=(TnRange(Tn("4930231000000"), 1_000_000),),
        validators=(validator.public_key().public_bytes_raw(),),
        endorsing_keys=(signer.public_key_der,),
    )
    members = [member] if version == 1 else [member, notice(version, 1)]
    return load_genesis(dump_genesis(CHAIN, START_S * 10**9, members))


def certificate(number: int) -> bytes:
    """Make a telephone's certificate."""
    return build_certificate(
        generate_es256(),
        organization=NAME,
        common_name=f"telephone {number}",
        uris=(f"sip:+4930231{number:06}@a.example",),
        not_before_s=START_S - 3600,
        not_after_s=START_S + 365 * 86_400,
        random=SystemRandom(),
    )


def run(genesis: Genesis, raws: list[bytes], per_block: int) -> float:
    """Execute all transactions; returns seconds of processor time."""
    state = genesis.initial_state()
    started = time.process_time()
    for height, at in enumerate(range(0, len(raws), per_block), 1):
        outcome = apply(state, Block(Height(height), START_S + height, tuple(raws[at : at + per_block])))
        assert not any(result.code for result in outcome.results)
        state.commit(outcome)
    return time.process_time() - started


if __name__ == "__main__":
    main()
