"""Signing with a key in a token beside one in a file: by itself, and over HTTP on one core, in turn.

    python bench/hsm.py [--seconds 4] [--rounds 5] [--connections 8]

The token is SoftHSM2's, so the figures are those of the way to a token: PKCS#11, threads, sessions. An HSM adds its
own time, during which the core is free.

    signatures/s    of one key, by one thread and by several, in this process
    requests/s      of `authn-server` by the clock, with processor time for a request, as in bench/stir.py
    ratio           token to file
"""

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from bench.stir import AUTHN, SIGN_OURS, SIGNING, TOKEN, Load, Side, certificate, free_ports, program, running
from voice_dpki.shell.credentials import read_signer
from voice_dpki.shell.token_uri import key_place
from voice_dpki.x509.keys import LocalSigner, generate_es256, to_pem

MODULE = Path("/usr/lib/softhsm/libsofthsm2.so")
PIN = "4711"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--connections", type=int, default=8)
    options = parser.parse_args()
    missing = [each for each in ("wrk", "softhsm2-util", "taskset") if shutil.which(each) is None]
    if missing or (os.cpu_count() or 1) < 2:
        print(
            f"bench/hsm.py: needs {' and '.join(missing) or 'two cores'} (apt-get install wrk softhsm2); left out"
        )
        return
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="hsm-")))
        uri = make_token(folder)
        in_file, in_token = read_signer(folder / "authn.pem"), read_signer(key_place(uri))
        alone(in_file, in_token, options.seconds)
        sides = [
            stack.enter_context(served(folder, name, key)) for name, key in (("file", "authn.pem"), ("token", uri))
        ]
        load = Load(folder, options.seconds, options.connections)
        for side in sides:
            load.warm_up(side)
        for _ in range(options.rounds):
            for side in sides:
                load.round(side)
        report(*sides)


def make_token(folder: Path) -> str:
    """Make a key in a file, and import it into a token; return its URI."""
    signer = generate_es256()
    (folder / "authn.der").write_bytes(certificate(signer))
    (folder / "authn.pem").write_bytes(to_pem(signer))
    (folder / "proxy.tokens").write_text(TOKEN + "\n")
    (folder / "pin").write_text(PIN)
    (folder / "pin").chmod(0o600)
    (folder / "tokens").mkdir()
    (folder / "softhsm2.conf").write_text(f"directories.tokendir = {folder}/tokens\nlog.level = ERROR\n")
    os.environ["SOFTHSM2_CONF"] = str(folder / "softhsm2.conf")
    token = ("--label", "calls", "--so-pin", "12345678", "--pin", PIN)
    subprocess.run(["softhsm2-util", "--init-token", "--free", *token], check=True, capture_output=True)
    key = ("--token", "calls", "--pin", PIN, "--label", "sti", "--id", "01")
    subprocess.run(["softhsm2-util", "--import", folder / "authn.pem", *key], check=True, capture_output=True)
    return f"pkcs11:token=calls;object=sti?module-path={MODULE}&pin-source={folder}/pin"


def alone(in_file: LocalSigner, in_token: LocalSigner, seconds: float) -> None:
    """Print how many signatures both keys make."""
    file = signatures_per_s(in_file, 1, seconds)
    print(f"file, 1 thread: {file:.0f} signatures/s")
    for count in (1, 2, 4, 8):
        token = signatures_per_s(in_token, count, seconds)
        print(f"token, {count} threads: {token:.0f} signatures/s, ratio {token / file:.2f}")


def signatures_per_s(signer: LocalSigner, count: int, seconds: float) -> float:
    """Sign in `count` threads for some seconds."""
    made, end_s = [0] * count, time.monotonic() + seconds

    def work(at: int) -> None:
        while time.monotonic() < end_s:
            signer.sign(b"a" * 300)
            made[at] += 1

    threads = [threading.Thread(target=work, args=(at,)) for at in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(made) / seconds


@contextmanager
def served(folder: Path, name: str, key: str) -> Iterator[Side]:
    """Start an authentication server with a key, on the servers' core."""
    (port,) = free_ports(1)
    config = folder / f"{name}.toml"
    assert 'key = "authn.pem"' in AUTHN
    config.write_text((AUTHN % port).replace('key = "authn.pem"', f'key = "{key}"'))
    with running(config.with_suffix(".log"), program("authn_server", config), port, "/healthz") as pid:
        yield Side(name, "sign", f"http://127.0.0.1:{port}{SIGNING}", pid, SIGN_OURS)


def report(file: Side, token: Side) -> None:
    """Print the medians and their ratio."""
    for side in (file, token):
        rate, cost_us, p99_ms = map(statistics.median, (side.rates, side.costs_us, side.p99s_ms))
        print(
            f"authn-server, {side.name}: {rate:.0f} requests/s, {cost_us:.1f} us of processor, p99 {p99_ms:.2f} ms"
        )
    rates, costs = (
        (statistics.median(token.rates) / statistics.median(file.rates)),
        (statistics.median(file.costs_us) / statistics.median(token.costs_us)),
    )
    print(f"ratio token to file: {rates:.2f} by the clock, {costs:.2f} by processor time")


if __name__ == "__main__":
    main()
