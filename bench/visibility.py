"""Time from the acknowledgement of a certificate, or of its revocation, to effect at every verification server.

    python bench/visibility.py [--probes 100] [--seconds 45]

The four operators' validators run on CometBFT; each operator has a ledger node that follows its own validator, and
a verification server that asks that node, as in `voice-dpki call --ledger federation`. One operator after the other
has a new signing certificate recorded through its own node, and then revoked. From the acknowledgement on, all four
verification servers are asked to verify calls signed with that key, each call new, until they say what they must.
The slowest of the four counts, its last question and answer included.

Then one validator of the four is killed (SIGKILL, with its CometBFT), and all of it is measured again: whenever it
is the dead one's turn to propose, a block waits for consensus to pass it over. Its operator goes on with a ledger
node that follows another operator's validator, which it need not trust. A change makes two blocks, and the turn
comes every fourth: a pause with a heartbeat's block now and then has it meet all steps.
"""

import argparse
import asyncio
import math
import os
import signal
import tempfile
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

import msgspec
from rich.console import Console
from rich.table import Table

from sip_testbed.network import Testbed
from sip_testbed.network_config import follower_config, service_configs, verifier_config
from sip_testbed.provision import CALLEE, FEDERATION, LedgerKind, Operator
from voice_dpki.effects import SystemRandom
from voice_dpki.errors import LocalError
from voice_dpki.ledger.genesis import load_genesis
from voice_dpki.stir.call import SigningRequest
from voice_dpki.stir.forms import VERIFICATION_PATH
from voice_dpki.stir.passport import Destinations
from voice_dpki.stir.sign import Credential, make_credential, sign_call
from voice_dpki.wire.http_client import HttpClient
from voice_dpki.wire.ledger.client import LedgerClient, Receipt
from voice_dpki.x509.keys import generate_es256
from voice_dpki.x509.profile import build_certificate, read_profile
from voice_dpki.x509.tnauthlist import TnAuthList

AIM_S = 1.0
PAUSE_S = 0.005
"""Between an answer of a verification server and the next question."""

HEARTBEAT_S = 1
PROBES_A_PHASE = 5
"""Certificates after which there is a pause for a heartbeat."""

TIMEOUT_S = 20.0
DAY_S = 86_400

Wanted = Callable[[dict[str, str]], bool]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--probes", type=int, default=100, help="certificates in each run (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=45, help="time for each, at most (default: %(default)s)")
    options = parser.parse_args()
    with (
        tempfile.TemporaryDirectory(prefix="voice-dpki-bench-") as logs,
        Testbed(Path(logs), ledger=LedgerKind.FEDERATION) as testbed,
    ):
        start(testbed)
        whole = asyncio.run(measure(testbed, options.probes, options.seconds))
        lose_validator(testbed)
        partial = asyncio.run(measure(testbed, options.probes, options.seconds))
    Console().print(table({"4 of 4": whole, "3 of 4": partial}))


@dataclass(slots=True)
class Change:
    """One kind of change: seconds from the request to its acknowledgement, and from there to all four verdicts."""

    name: str
    acknowledged_s: list[float] = field(default_factory=list)
    visible_s: list[float] = field(default_factory=list)


def start(testbed: Testbed) -> None:
    """Start each operator's validator, ledger node and verification server."""
    site = testbed.site
    configs: dict[str, dict[str, Any]] = {
        name: sections for name, sections in service_configs(site).items() if name.startswith("validator-")
    }
    for sections in configs.values():
        sections["cometbft"]["heartbeat_s"] = HEARTBEAT_S
    for operator in FEDERATION:
        configs[f"ledger-{operator.letter}"] = follower_config(site, operator)
        configs[f"verify-{operator.letter}"] = verifier_config(site, operator)
    for actor, sections in configs.items():
        testbed.launch(actor, sections)
    for actor in configs:
        testbed.running[actor].wait_ready()


def lose_validator(testbed: Testbed) -> None:
    """Kill the last operator's validator, and have its ledger node follow the first one's."""
    site, last, first = testbed.site, FEDERATION[-1], FEDERATION[0]
    dead, ledger = f"validator-{last.letter}", f"ledger-{last.letter}"
    process = testbed.running[dead]
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text(encoding="ascii").split()
    for pid in (process.pid, *map(int, children)):
        os.kill(pid, signal.SIGKILL)
    process.wait_end(TIMEOUT_S)
    testbed.end([dead, ledger])
    follow = {"url": f"http://{testbed.addresses[f'validator-{first.letter}']}"}
    testbed.launch(ledger, follower_config(site, last) | {"follow": follow}).wait_ready()


async def measure(testbed: Testbed, probes: int, seconds: float) -> tuple[Change, Change]:
    """Have certificates recorded and revoked, one at a time, until either bound is reached."""
    recorded, revoked = Change("recorded"), Change("revoked")
    end = time.monotonic() + seconds
    async with AsyncExitStack() as stack:
        nodes = {each: await stack.enter_async_context(ledger_node(testbed, each)) for each in FEDERATION}
        verifiers = [await stack.enter_async_context(verifier(testbed, each)) for each in FEDERATION]
        for number in range(probes):
            if time.monotonic() > end:
                break
            if number % PROBES_A_PHASE == 0:
                await asyncio.sleep(1.5 * HEARTBEAT_S)
            operator = FEDERATION[number % len(FEDERATION)]
            node, token = nodes[operator], testbed.site.tokens[f"submit-{operator.letter}"]
            credential = new_credential(operator)
            profile = credential.profile
            everywhere = [Questions(server, operator, credential) for server in verifiers]
            await timed(recorded, node.submit(profile.der, token), everywhere, passed)
            await timed(revoked, node.revoke(profile.digest, "keyCompromise", token), everywhere, failed_as_revoked)
    return recorded, revoked


async def timed(
    change: Change, request: Awaitable[Receipt], everywhere: Sequence["Questions"], wanted: Wanted
) -> None:
    """Do what is requested, and ask all verification servers until each gives the verdict that is `wanted`."""
    began_s = time.monotonic()
    await request
    acknowledged_s = time.monotonic()
    await asyncio.gather(*(questions.until(wanted) for questions in everywhere))
    change.acknowledged_s.append(acknowledged_s - began_s)
    change.visible_s.append(time.monotonic() - acknowledged_s)


def passed(verdict: dict[str, str]) -> bool:
    """Tell whether the caller's number was verified."""
    return verdict["verstat"] == "TN-Validation-Passed"


def failed_as_revoked(verdict: dict[str, str]) -> bool:
    """Tell whether the call was refused because of the revocation, and not for another reason."""
    return verdict["verstat"] == "TN-Validation-Failed" and "revoked" in verdict["reasondesc"]


@dataclass(frozen=True, slots=True)
class Questions:
    """One verification server, asked about calls that are signed with one operator's new key."""

    server: HttpClient
    operator: Operator
    credential: Credential

    async def until(self, wanted: Wanted) -> None:
        """Ask again and again, about a new call each time, until the verdict is `wanted`."""
        end = time.monotonic() + TIMEOUT_S
        while not wanted(verdict := await self._ask()):
            if time.monotonic() > end:
                raise LocalError(f"after {TIMEOUT_S:g} s a verification server still says: {verdict}")
            await asyncio.sleep(PAUSE_S)

    async def _ask(self) -> dict[str, str]:
        caller, now_s = self.operator.numbers.start, time.time()
        signing = SigningRequest("A", caller, Destinations((CALLEE,)), int(now_s), str(uuid4()))
        request = {
            "from": {"tn": caller},
            "to": {"tn": [CALLEE]},
            "time": int(now_s),
            "identity": sign_call(signing, self.credential, now_s).serialize(),
        }
        body = msgspec.json.encode({"verificationRequest": request})
        answer = await self.server.request("POST", VERIFICATION_PATH, body)
        found: dict[str, str] = msgspec.json.decode(answer.body)["verificationResponse"]
        return found


def ledger_node(testbed: Testbed, operator: Operator) -> LedgerClient:
    """Return a client of an operator's own inquiry and submission node."""
    genesis = load_genesis(testbed.site.genesis.read_bytes())
    return LedgerClient.of_genesis(f"http://{testbed.addresses[f'ledger-{operator.letter}']}", genesis)


def verifier(testbed: Testbed, operator: Operator) -> HttpClient:
    """Return a client of an operator's verification server."""
    actor = f"verify-{operator.letter}"
    headers = {"authorization": f"Bearer {testbed.site.tokens[actor]}", "content-type": "application/json"}
    url = f"http://{testbed.addresses[actor]}"
    return HttpClient(url, timeout_s=5, max_answer_bytes=65_536, headers=headers)


def new_credential(operator: Operator) -> Credential:
    """Make a key of an operator with a certificate over its numbers."""
    now_s, signer = time.time(), generate_es256()
    der = build_certificate(
        signer,
        organization=operator.organization,
        common_name=f"sti.{operator.domain}",
        tn_auth_list=TnAuthList(ranges=(operator.numbers,)),
        not_before_s=int(now_s) - DAY_S,
        not_after_s=int(now_s) + DAY_S,
        random=SystemRandom(),
    )
    return make_credential(signer, read_profile(der), f"https://{operator.domain}/{{digest}}.der", now_s)


def table(runs: Mapping[str, Sequence[Change]]) -> Table:
    """Both kinds of change, by how many validators are up: acknowledged, visible everywhere, and both together."""
    found = Table("validators", "", "n", "step", "p50 s", "p99 s", "most s", "aim (p99)", box=None)
    for validators, changes in runs.items():
        for change in changes:
            both = [sum(pair) for pair in zip(change.acknowledged_s, change.visible_s, strict=True)]
            rows = (
                ("request to acknowledgement", change.acknowledged_s, ""),
                ("from there to all verifiers", change.visible_s, f"<= {AIM_S:g} s"),
                ("request to all verifiers", both, ""),
            )
            for name, times, aim in rows:
                figures = (f"{at(times, quantile):.3f}" for quantile in (0.5, 0.99, 1))
                found.add_row(validators, change.name, str(len(times)), name, *figures, aim)
    return found


def at(values: Sequence[float], quantile: float) -> float:
    """Return a quantile: the least value that is not below this part of all."""
    return sorted(values)[math.ceil(len(values) * quantile) - 1]


if __name__ == "__main__":
    main()
