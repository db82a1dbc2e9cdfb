"""Fuzzing for a time: valid inputs that are bent at random, over and over, until the time is up.

`FUZZ_S` says for how many seconds each such test runs: 1 by default, and 200 with `make fuzz`. A failure names the
seed of its round; `FUZZ_SEED` begins with another one.
"""

import os
import random
import time
from collections.abc import Iterator, Sequence

import pytest

FUZZ_S = float(os.environ.get("FUZZ_S", 200 if os.environ.get("HYPOTHESIS_PROFILE") == "fuzz" else 1))
FUZZ_SEED = int(os.environ.get("FUZZ_SEED", 0))

campaign = pytest.mark.hypothesis
"""Marks a test that runs for FUZZ_S, so that `make fuzz` runs it."""


def rounds(request: pytest.FixtureRequest) -> Iterator[random.Random]:
    """Give a source of chance for each round until the time is up, and report how many rounds there were."""
    end_s, seed = time.monotonic() + FUZZ_S, FUZZ_SEED
    while time.monotonic() < end_s:
        chance = random.Random(seed)
        try:
            yield chance
        except GeneratorExit:
            print(f"failed with FUZZ_SEED={seed}")
            raise
        seed += 1
    request.node.user_properties.append(("rounds", seed - FUZZ_SEED))
    print(f"{request.node.name}: {seed - FUZZ_SEED} rounds in {FUZZ_S:g} s")


def bent(chance: random.Random, octets: bytes, others: Sequence[bytes] = ()) -> bytes:
    """Bend bytes in one to four places: bits, bytes, numbers of two bytes, pieces cut, doubled or from `others`."""
    out = bytearray(octets)
    for _ in range(chance.randint(1, 4)):
        at = chance.randrange(len(out) + 1)
        end = min(at + chance.choice((1, 2, 4, 8, 40, 200)), len(out))
        match chance.randrange(6):
            case 0 if at < len(out):
                out[at] ^= 1 << chance.randrange(8)
            case 1:
                out[at:end] = chance.randbytes(end - at)
            case 2:
                number = chance.choice((0, 1, 3, 4, 255, 0x7FFF, 0xFFFF, len(out), len(out) - at, end - at))
                out[at : at + 2] = (number & 0xFFFF).to_bytes(2, "big")
            case 3:
                del out[at:end]
            case 4:
                out[at:at] = out[at:end]
            case _:
                other = chance.choice(others) if others else bytes(out)
                start = chance.randrange(len(other) + 1)
                out[at:at] = other[start : start + chance.choice((1, 4, 16, 100))]
    return bytes(out)
