"""Signing and verifying over HTTP on one core, beside secsipidx, in turn.

    python bench/stir.py [--seconds 4] [--rounds 5] [--connections 8]

Four servers run, all on the first core: our authentication server, our verification server with its signer's
certificate on a ledger of its own (a real node with the embedded engine), and secsipidx for each of the two. wrk,
with one thread, sits on the other cores with the ledger. Rounds alternate between the four, and after each the raw
operations of the `cryptography` package are timed on the same core, for comparison.

Every request is the kind that a proxy makes. Signing requests have the iat of their second. Tokens to verify are
signed for their round, since ours are accepted for one call each, and secsipidx gets its own in the same way. It
verifies a certificate of a CA with dates and chain (`-cert-verify 5`). Its Go runtime has one processor
(GOMAXPROCS=1).

    requests/s    by the clock; on a busy machine it says little
    processor     user and system time of the server for a request, from /proc/PID/stat
    p99           latency, as wrk reports it

A run in which a request was refused is not counted but ends with a message. Nothing else may use the servers' core
where the requests/s are to mean anything.
"""

import argparse
import base64
import json
import os
import re
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key
from cryptography.x509.oid import NameOID

sys.path.insert(0, str(Path(__file__).parents[1]))

from tests.one_operator import make_ledger
from voice_dpki.effects import SystemRandom
from voice_dpki.names import Tn
from voice_dpki.x509.keys import LocalSigner, generate_es256, to_pem
from voice_dpki.x509.profile import build_certificate, digest_of
from voice_dpki.x509.tnauthlist import TnAuthList, TnRange

CORE = 0
AIM_RATIOS = {"sign": 1.3, "verify": 2.5}
TOKENS_PER_S = 12_000
"""More than any of the servers verifies; where it is not, the run says so."""

READY_S = 60.0
TOKEN = "t0ken-of-the-proxy"
ORIG, DEST = "493023125001", "442079460001"
ORIGID = "5f4e3b1c-7d2a-4b8e-9c1d-2e3f4a5b6c7d"
SIGNING, VERIFICATION = "/stir/v1/signing", "/stir/v1/verification"
ES256 = ec.ECDSA(hashes.SHA256())

AUTHN = """\
domain = "a.example"
organization = "Operator A"
certificate = "authn.der"
key = "authn.pem"
info_url = "https://certs.a.example/{digest}.der"
tokens = "proxy.tokens"
[listen]
host = "127.0.0.1"
port = %d
"""
VERIFY = """\
domain = "b.example"
ledger_url = "http://127.0.0.1:%d"
genesis = "net/genesis.json"
tokens = "proxy.tokens"
replay_max_entries = 2000000
[listen]
host = "127.0.0.1"
port = %d
"""

HEADERS = f"""\
wrk.method = "POST"
wrk.headers["Content-Type"] = "%s"
wrk.headers["Authorization"] = "Bearer {TOKEN}"
"""
SIGN_OURS = (
    HEADERS % "application/json"
    + f"""
local head = '{{"signingRequest":{{"attest":"A","orig":{{"tn":"{ORIG}"}},"dest":{{"tn":["{DEST}"]}},"iat":'
function request()
  return wrk.format(nil, nil, nil, head .. os.time() .. ',"origid":"{ORIGID}"}}}}')
end
"""
)
SIGN_PEER = (
    HEADERS % "text/plain"
    + f"""
wrk.body = "{ORIG},{DEST},A,{ORIGID},https://certs.a.example/c.pem"
"""
)
FROM_FILE = (
    HEADERS
    + """
local bodies, at = {}, 0
function init()
  for line in io.lines("%s") do bodies[#bodies + 1] = line end
end
function request()
  at = math.min(at + 1, #bodies)
  return wrk.format(nil, nil, nil, bodies[at])
end
"""
)
"""Past the end the last one is repeated, which ours refuses and the count below shows."""


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--connections", type=int, default=8)
    options = parser.parse_args()
    missing = [program for program in ("wrk", "secsipidx", "taskset") if shutil.which(program) is None]
    if missing or (os.cpu_count() or 1) < 2:
        lacks = " and ".join(missing) or "a second core"
        print(f"bench/stir.py: needs {lacks} (on Debian: apt-get install wrk secsipidx util-linux); left out")
        return
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="stir-")))
        sides = [*stack.enter_context(ours(folder)), *stack.enter_context(peers(folder))]
        load = Load(folder, options.seconds, options.connections)
        raw = Raw()
        for side in sides:
            load.warm_up(side)
        for _ in range(options.rounds):
            for side in sides:
                load.round(side)
            raw.round()
    report(sides, raw)


@dataclass
class Side:
    """A server, what it is asked, and what was measured."""

    name: str
    operation: str
    url: str
    pid: int
    script: str
    body: Callable[[], str] | None = None
    """Makes one request of the file that the script reads; None where the script makes requests itself."""
    accepted: Callable[[], float] | None = None
    """How many requests it has accepted, where its answer's status does not say that."""
    rates: list[float] = field(default_factory=list)
    costs_us: list[float] = field(default_factory=list)
    p99s_ms: list[float] = field(default_factory=list)


@dataclass(frozen=True)
class Load:
    """wrk, a few seconds at a time."""

    folder: Path
    seconds: int
    connections: int

    def warm_up(self, side: Side) -> None:
        """Ask for a second, for first executions, and forget what was measured."""
        Load(self.folder, 1, self.connections).round(side)
        for figures in (side.rates, side.costs_us, side.p99s_ms):
            figures.clear()

    def round(self, side: Side) -> None:
        """Ask one server, and note how that went; ends the program where it refused a request."""
        script = self.folder / "wrk.lua"
        script.write_text(side.script)
        if side.body is not None:
            with (self.folder / "bodies").open("w") as file:
                file.writelines(side.body() + "\n" for _ in range(TOKENS_PER_S * self.seconds))
        accepted, before_us = side.accepted() if side.accepted else 0.0, processor_us(side.pid)
        told = self._wrk(side.url, script)
        count = int(_found(r"(\d+) requests in", told))
        side.costs_us.append((processor_us(side.pid) - before_us) / count)
        side.rates.append(float(_found(r"Requests/sec:\s+([\d.]+)", told)))
        side.p99s_ms.append(_ms(_found(r"99%\s+([\d.]+[mu]?s)", told)))
        # wrk forgets the answers that are on their way when it ends, so the server may have accepted some more.
        if "Non-2xx" in told or "Socket errors" in told or (side.accepted and side.accepted() - accepted < count):
            sys.exit(f"{side.name}, {side.operation}: requests were refused, or tokens ran out\n{told}")

    def _wrk(self, url: str, script: Path) -> str:
        others = f"{CORE + 1}-{(os.cpu_count() or 2) - 1}"
        command = ["taskset", "-c", others, "wrk", "-t1", f"-c{self.connections}", f"-d{self.seconds}s"]
        done = subprocess.run(
            [*command, "--latency", "-s", str(script), url], capture_output=True, text=True, check=True
        )
        return done.stdout


class Raw:
    """P-256 by itself."""

    def __init__(self) -> None:
        self._key, self._message = ec.generate_private_key(ec.SECP256R1()), b"a" * 300
        self.sign_us: list[float] = []
        self.verify_us: list[float] = []

    def round(self) -> None:
        """Time both operations on the servers' core."""
        cores = os.sched_getaffinity(0)
        os.sched_setaffinity(0, {CORE})
        public, signature = self._key.public_key(), self._key.sign(self._message, ES256)
        self.sign_us.append(_time_us(lambda: self._key.sign(self._message, ES256)))
        self.verify_us.append(_time_us(lambda: public.verify(signature, self._message, ES256)))
        os.sched_setaffinity(0, cores)


@contextmanager
def ours(folder: Path) -> Iterator[list[Side]]:
    """Start a ledger with a signer's certificate, and both of our servers."""
    signer = generate_es256()
    der = certificate(signer)
    (folder / "authn.der").write_bytes(der)
    (folder / "authn.pem").write_bytes(to_pem(signer))
    (folder / "proxy.tokens").write_text(TOKEN + "\n")
    ledger_port, authn_port, verify_port = free_ports(3)
    engine = make_ledger(folder, port=ledger_port)
    (folder / "authn.toml").write_text(AUTHN % authn_port)
    (folder / "verify.toml").write_text(VERIFY % (ledger_port, verify_port))
    with ExitStack() as stack:
        ledger = program("ledger_node", engine)
        stack.enter_context(running(folder / "ledger.log", ledger, ledger_port, "/ledger/v1/node", core=None))
        record(der, f"http://127.0.0.1:{ledger_port}", (folder / "net/tokens-operator-a").read_text().strip())
        sides = []
        for name, port in (("authn", authn_port), ("verify", verify_port)):
            command = program(f"{name}_server.main", folder / f"{name}.toml")
            pid = stack.enter_context(running(folder / f"{name}.log", command, port, "/healthz"))
            sides.append((f"http://127.0.0.1:{port}", pid))
        tokens = Tokens(signer_key(folder / "authn.pem"), f"https://certs.a.example/{digest_of(der).hex()}.der")
        url = sides[1][0]
        yield [
            Side("ours", "sign", sides[0][0] + SIGNING, sides[0][1], SIGN_OURS),
            Side(
                "ours",
                "verify",
                url + VERIFICATION,
                sides[1][1],
                FROM_FILE % ("application/json", folder / "bodies"),
                body=lambda: verification(tokens.identity()),
                accepted=lambda: passed(url),
            ),
        ]


@contextmanager
def peers(folder: Path) -> Iterator[list[Side]]:
    """Start secsipidx twice, with a key that a CA has certified."""
    key = generate_es256()
    (folder / "peer.pem").write_bytes(to_pem(key))
    private = signer_key(folder / "peer.pem")
    write_chain(folder, private)
    sign_port, check_port = free_ports(2)
    tokens = Tokens(private, "https://certs.a.example/c.pem")
    commands = {
        "sign": (sign_port, ["-k", "peer.pem"]),
        "verify": (
            check_port,
            ["-fpubkey", "peer-cert.pem", "-ca-file", "ca.pem", "-cert-verify", "5", "-expire", "60"],
        ),
    }
    with ExitStack() as stack:
        pids = {}
        for operation, (port, arguments) in commands.items():
            command = ["secsipidx", "-http-srv", f"127.0.0.1:{port}", *arguments]
            log = folder / f"peer-{operation}.log"
            pids[operation] = stack.enter_context(running(log, command, port, "/", folder=folder))
        yield [
            Side("secsipidx", "sign", f"http://127.0.0.1:{sign_port}/v1/sign-csv", pids["sign"], SIGN_PEER),
            Side(
                "secsipidx",
                "verify",
                f"http://127.0.0.1:{check_port}/v1/check",
                pids["verify"],
                FROM_FILE % ("text/plain", folder / "bodies"),
                body=tokens.identity,
            ),
        ]


class Tokens:
    """SHAKEN PASSporTs as RFC 8588 has them, made here so that no server verifies what its own code signed."""

    def __init__(self, key: ec.EllipticCurvePrivateKey, info: str) -> None:
        self._key, self._info, self._count = key, info, 0
        header = {"alg": "ES256", "ppt": "shaken", "typ": "passport", "x5u": info}
        self._head = _base64url(json.dumps(header, separators=(",", ":")).encode())

    def identity(self) -> str:
        """Sign the next call, now; returns the value of an Identity header."""
        self._count += 1
        origid = f"5f4e3b1c-7d2a-4b8e-9c1d-{self._count:012x}"
        claims = (
            f'{{"attest":"A","dest":{{"tn":["{DEST}"]}},"iat":{int(time.time())},'
            f'"orig":{{"tn":"{ORIG}"}},"origid":"{origid}"}}'
        )
        signed = f"{self._head}.{_base64url(claims.encode())}"
        r, s = decode_dss_signature(self._key.sign(signed.encode(), ES256))
        signature = _base64url(r.to_bytes(32, "big") + s.to_bytes(32, "big"))
        return f"{signed}.{signature};info=<{self._info}>;alg=ES256;ppt=shaken"


def verification(identity: str) -> str:
    """Write a verification request with the call's own Call-ID, so that the token is remembered."""
    request = {"from": {"tn": ORIG}, "to": {"tn": [DEST]}, "time": int(time.time()), "identity": identity}
    call_id = identity.partition(";")[0][-22:]
    return json.dumps({"verificationRequest": {**request, "callId": call_id}})


def passed(url: str) -> float:
    """Ask our verification server how many calls have passed."""
    told = httpx.get(f"{url}/metrics", trust_env=False).text
    lines = re.findall(r"voice_dpki_verdicts_total\{.*TN-Validation-Passed.*\} ([\d.e+]+)", told)
    return sum(map(float, lines))


def certificate(signer: LocalSigner) -> bytes:
    """Make the self-signed certificate of our authentication server."""
    now_s = int(time.time())
    return build_certificate(
        signer,
        organization="Operator A",
        common_name="sti.a.example",
        tn_auth_list=TnAuthList(ranges=(TnRange(Tn("493023125000"), 1000),)),
        not_before_s=now_s - 3600,
        not_after_s=now_s + 86_400,
        random=SystemRandom(),
    )


def record(der: bytes, url: str, token: str) -> None:
    """Have a certificate recorded."""
    headers = {"Authorization": f"Bearer {token}"}
    answer = httpx.post(f"{url}/ledger/v1/submissions", content=der, headers=headers, timeout=30, trust_env=False)
    answer.raise_for_status()


def signer_key(path: Path) -> ec.EllipticCurvePrivateKey:
    """Read a private key."""
    key = load_pem_private_key(path.read_bytes(), None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    return key


def write_chain(folder: Path, key: ec.EllipticCurvePrivateKey) -> None:
    """Write a CA's certificate, and the one that it gives `key`."""
    authority = ec.generate_private_key(ec.SECP256R1())
    issuer = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "A CA")])
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "sti.a.example")])
    for name, owner, public, ca in (
        ("ca.pem", issuer, authority.public_key(), True),
        ("peer-cert.pem", subject, key.public_key(), False),
    ):
        now, day = datetime.now(UTC), timedelta(days=1)
        builder = x509.CertificateBuilder(issuer, owner, public, x509.random_serial_number())
        builder = builder.not_valid_before(now - day).not_valid_after(now + day)
        builder = builder.add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
        (folder / name).write_bytes(builder.sign(authority, hashes.SHA256()).public_bytes(Encoding.PEM))


def program(module: str, config: Path) -> list[str]:
    """Return the command that starts one of our programs."""
    return [sys.executable, "-m", module, "start", "--config", str(config)]


@contextmanager
def running(
    log: Path, command: list[str], port: int, path: str, *, folder: Path | None = None, core: int | None = CORE
) -> Iterator[int]:
    """Run a server on the core, off it, or on any with -1, until the context ends.

    Yields its process id once it answers.
    """
    cores = _cores(core)
    with log.open("wb") as out:
        process = subprocess.Popen(
            ["taskset", "-c", cores, *command],
            cwd=folder,
            env={**os.environ, "GOMAXPROCS": "1"},
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
        )
    try:
        _wait_until_it_answers(process, f"http://127.0.0.1:{port}{path}", log)
        yield process.pid
    finally:
        process.terminate()
        process.wait(30)


def _cores(core: int | None) -> str:
    last = (os.cpu_count() or 2) - 1
    return f"{CORE + 1}-{last}" if core is None else f"0-{last}" if core < 0 else str(core)


def _wait_until_it_answers(process: subprocess.Popen[bytes], url: str, log: Path) -> None:
    end_s = time.monotonic() + READY_S
    while time.monotonic() < end_s and process.poll() is None:
        try:
            httpx.get(url, timeout=5, trust_env=False)
        except httpx.HTTPError:
            time.sleep(0.1)
        else:
            return
    raise SystemExit(f"{log.stem} did not start: {log.read_text()[-400:]}")


def free_ports(count: int) -> list[int]:
    """Find ports that nobody listens at."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


def processor_us(pid: int) -> float:
    """Return the processor time that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) * 1e6 / os.sysconf("SC_CLK_TCK")


def report(sides: list[Side], raw: Raw) -> None:
    """Print medians, and the ratios of processor time to secsipidx's."""
    row = "{:10} {:7} {:>11} {:>15} {:>10}   {}"
    print(row.format("server", "", "requests/s", "processor us", "p99 ms", "processor us of each round"))
    for side in sorted(sides, key=lambda side: side.operation):
        figures = (statistics.median(values) for values in (side.rates, side.costs_us, side.p99s_ms))
        rounds = " ".join(f"{cost:.0f}" for cost in side.costs_us)
        print(row.format(side.name, side.operation, *(f"{figure:.1f}" for figure in figures), rounds))
    for operation, costs_us in (("sign", raw.sign_us), ("verify", raw.verify_us)):
        print(f"raw P-256 {operation:7} {statistics.median(costs_us):27.1f}")
    for operation in ("sign", "verify"):
        own, peer = (side for side in sides if side.operation == operation)
        costs = statistics.median(peer.costs_us) / statistics.median(own.costs_us)
        rates = statistics.median(own.rates) / statistics.median(peer.rates)
        ratios = f"{costs:.2f} times secsipidx by processor time, {rates:.2f} by the clock"
        print(f"{operation}: {ratios} (aim {AIM_RATIOS[operation]})")


def _time_us(work: Callable[[], object]) -> float:
    """Return the processor time of one piece of work, over half a second."""
    count, began_s = 0, time.process_time()
    while time.process_time() - began_s < 0.5:
        for _ in range(100):
            work()
        count += 100
    return (time.process_time() - began_s) * 1e6 / count


def _base64url(octets: bytes) -> str:
    return base64.urlsafe_b64encode(octets).rstrip(b"=").decode("ascii")


def _found(pattern: str, text: str) -> str:
    found = re.search(pattern, text)
    if found is None:
        sys.exit(f"wrk's answer has no {pattern}:\n{text}")
    return found[1]


def _ms(text: str) -> float:
    """Read a time of wrk's."""
    for unit, factor in (("us", 1e-3), ("ms", 1.0), ("s", 1e3)):
        if text.endswith(unit):
            return float(text.removesuffix(unit)) * factor
    raise ValueError(text)


if __name__ == "__main__":
    main()
