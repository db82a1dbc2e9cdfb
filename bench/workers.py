"""Signing over HTTP with one process and with several workers, in turn.

    python bench/workers.py [--workers 2] [--seconds 4] [--rounds 5] [--connections 64]

The kernel spreads connections over the workers, so what counts is the busiest of them: when its core is full,
others wait. For each round the processor time of each worker is divided by the requests of all, and the largest of
these is what the service needs of its busiest core for one request. With one process it is all its processor time.

    ratio    the busiest core's time for a request with one process, divided by that with several workers

wrk runs on the same cores. Requests a second by the clock mean something only where there are cores for it besides.
"""

import argparse
import os
import shutil
import statistics
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from bench.stir import (
    AUTHN,
    SIGN_OURS,
    SIGNING,
    TOKEN,
    Load,
    Side,
    certificate,
    free_ports,
    processor_us,
    program,
    running,
)
from voice_dpki.stage.patience import children
from voice_dpki.x509.keys import generate_es256, to_pem


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--seconds", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--connections", type=int, default=64)
    options = parser.parse_args()
    if shutil.which("wrk") is None or (os.cpu_count() or 1) < options.workers:
        print("bench/workers.py: needs wrk (on Debian: apt-get install wrk) and a core for each worker; left out")
        return
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="workers-")))
        write_credential(folder)
        sides = [stack.enter_context(served(folder, count)) for count in (1, options.workers)]
        load = Load(folder, options.seconds, options.connections)
        busiest_us: list[list[float]] = [[], []]
        for side in sides:
            load.warm_up(side)
        for _ in range(options.rounds):
            for side, figures in zip(sides, busiest_us, strict=True):
                figures.append(round_of(load, side))
    one, several = map(statistics.median, busiest_us)
    for side, figures in zip(sides, busiest_us, strict=True):
        rounds = " ".join(f"{each:.1f}" for each in figures)
        median, rate = statistics.median(figures), statistics.median(side.rates)
        print(f"{side.name:10} busiest core {median:6.1f} us a request ({rounds}), {rate:.0f} requests/s")
    print(f"{options.workers} workers: {one / several:.2f} times one")


def round_of(load: Load, side: Side) -> float:
    """Ask one server; return the processor time of its busiest process for a request of all."""
    pids = children(side.pid) or (side.pid,)
    before_us = {pid: processor_us(pid) for pid in pids}
    load.round(side)
    count = side.rates[-1] * load.seconds
    return max(processor_us(pid) - before_us[pid] for pid in pids) / count


def write_credential(folder: Path) -> None:
    """Write the files that the servers' configurations name."""
    signer = generate_es256()
    (folder / "authn.der").write_bytes(certificate(signer))
    (folder / "authn.pem").write_bytes(to_pem(signer))
    (folder / "proxy.tokens").write_text(TOKEN + "\n")


@contextmanager
def served(folder: Path, workers: int) -> Iterator[Side]:
    """Start an authentication server with some workers, on any core."""
    (port,) = free_ports(1)
    config = folder / f"authn-{workers}.toml"
    config.write_text(f"workers = {workers}\n" + AUTHN % port)
    command = program("authn_server", config)
    with running(config.with_suffix(".log"), command, port, "/healthz", core=-1) as pid:
        yield Side(f"{workers} workers", "sign", f"http://127.0.0.1:{port}{SIGNING}", pid, SIGN_OURS)


if __name__ == "__main__":
    main()
