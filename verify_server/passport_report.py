"""What `voice-dpki passport` tells of each Identity: its parts, its steps and the verdict, as text or JSON."""

from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import msgspec

from verify_server.config import load_setup
from verify_server.outside import OutsideSigners
from verify_server.outside_run import outside_signers
from verify_server.passport_source import Source
from voice_dpki.codec import canonical_json
from voice_dpki.effects import SystemClock
from voice_dpki.errors import MalformedError
from voice_dpki.ledger.answers import InquiryError
from voice_dpki.shell.ledger import LedgerAccess
from voice_dpki.stir.div_o import unfold
from voice_dpki.stir.examine import Examined, Policy
from voice_dpki.stir.explain import Explained, Finding, StepResult, explain_identity
from voice_dpki.stir.identity import IdentityHeader
from voice_dpki.stir.passport import Passport
from voice_dpki.stir.replay import ReplayCache
from voice_dpki.stir.several import numbers_of
from voice_dpki.stir.verdict import Step, VerificationFailed, told_trust
from voice_dpki.stir.verify import judge
from voice_dpki.wire.ledger.numbers import ask_number

LEDGER_STEPS: Final = (
    Step.LEDGER, Step.CERTIFICATE, Step.AUTHORITY, Step.CONSTRAINTS, Step.SIGNATURE, Step.KEY_MGMT, Step.SDP,
)  # fmt: skip
"""The steps that need the ledger, in their order."""
_AS_ONE: Final = {Step.COMPACT: Step.SIGNATURE, Step.FETCH: Step.LEDGER, Step.INFO_URL: Step.LEDGER}


@dataclass(slots=True)
class Told:
    """What is told of one Identity."""

    header: IdentityHeader | None = None
    jose: dict[str, Any] | None = None
    payload: dict[str, Any] | None = None
    problem: str = ""
    """Why there is no more to show."""
    steps: list[StepResult] = field(default_factory=list)
    signer: str = ""
    trust: str = ""
    """"list" for a signer outside the federation."""

    @property
    def failed(self) -> bool:
        """Whether a step failed, or the token could not be decoded."""
        return bool(self.problem) or any(step.finding is Finding.FAILED for step in self.steps)


Report = list[Told]


def decode(source: Source) -> Report:
    """Show the parts of each Identity."""
    return [_decoded(identity) for identity in source.identities]


def _decoded(identity: str) -> Told:
    told = Told()
    try:
        told.header = IdentityHeader.parse(identity)
        passport = Passport.parse(told.header.token)
        told.jose = dict(passport.header)
        told.payload = dict(canonical_json.decode_object(passport.payload_untrusted))
    except MalformedError as error:
        told.problem = str(error)
    return told


def explain(source: Source, now_s: float, policy: Policy = Policy()) -> Report:  # noqa: B008 - it is frozen
    """Run the steps that need no ledger on each Identity."""
    source = _unfolded(source)
    return [_explained(identity, source, policy, now_s)[0] for identity in source.identities]


def _unfolded(source: Source) -> Source:
    """Return a source whose tokens stand beside one another, if its call is known."""
    if source.call is None:
        return source
    call = unfold(source.call).call
    return Source(call.identities, call)


def _explained(identity: str, source: Source, policy: Policy, now_s: float) -> tuple[Told, Explained]:
    told = _decoded(identity)
    call = source.call
    if call is not None and call.time_s == 0:
        call = replace(call, time_s=int(now_s))
    found = explain_identity(call, identity, policy, now_s)
    told.steps, told.problem = found.results, ""
    return told, found


async def verify(source: Source, config: Path, now_s: float) -> Report:
    """Run all steps but E21, with policy and ledger of a verification server; raises LocalError."""
    setup, clock = load_setup(config), SystemClock()
    policy, report = setup.config.policy(), []
    source = _unfolded(source)
    async with AsyncExitStack() as opened:
        outside = None
        if setup.outside is not None:
            outside = await opened.enter_async_context(outside_signers(setup, clock, once=True))
            policy = outside.policy(policy)
        for identity in source.identities:
            if outside is not None:
                await outside.settled(str((_decoded(identity).jose or {}).get("x5u", "")))
            told, found = _explained(identity, source, policy, now_s)
            await _by_ledger(told, found, setup.ledger, outside, policy, now_s)
            report.append(told)
    return report


async def _by_ledger(
    told: Told,
    found: Explained,
    access: LedgerAccess,
    outside: OutsideSigners | None,
    policy: Policy,
    now_s: float,
) -> None:
    """Ask the ledger about the signer, and the list if it knows nothing; add the steps that need them."""
    examined = found.examined
    if examined is None:
        found.skip("a step before has failed, or was not run", *LEDGER_STEPS)
        return
    try:
        told.signer, told.trust = await _judged(examined, access, outside, policy, now_s)
    except VerificationFailed as failure:
        _add_failure(found, failure)
    else:
        found.results += [StepResult(step.label, Finding.PASSED) for step in LEDGER_STEPS]


async def _judged(
    examined: Examined, access: LedgerAccess, outside: OutsideSigners | None, policy: Policy, now_s: float
) -> tuple[str, str]:
    """Return the organisation of the signer, and what the trust stands on; raises VerificationFailed."""
    async with access.client(SystemClock(), keeps_trust=False) as client:
        try:
            recorded = (await client.resolve(examined.digest)).recorded
            for number in sorted(numbers_of([examined]).get(examined.digest, frozenset())):
                recorded = await ask_number(client, recorded, number)
        except InquiryError as error:
            raise VerificationFailed(Step.LEDGER, str(error)) from None
    vouched = recorded if outside is None else outside.vouch([examined], recorded)
    if isinstance(vouched, VerificationFailed):
        raise vouched
    verdict = judge(examined, vouched, policy, ReplayCache(1, 1), now_s)
    return verdict.signer, told_trust(verdict)


def _add_failure(found: Explained, failure: VerificationFailed) -> None:
    """Add the steps before the one that failed, itself, and those after it."""
    at = LEDGER_STEPS.index(_AS_ONE.get(failure.step, failure.step))
    found.results += [StepResult(step.label, Finding.PASSED) for step in LEDGER_STEPS[:at]]
    step = failure.step
    found.results.append(StepResult(step.label, Finding.FAILED, step.reasoncode, str(failure)))
    found.skip("a step before has failed", *LEDGER_STEPS[at + 1 :])


def as_json(report: Report) -> str:
    """Write a report as JSON."""
    return msgspec.json.format(msgspec.json.encode({"identities": [_members(told) for told in report]})).decode()


def _members(told: Told) -> dict[str, Any]:
    header = told.header
    shown = {"info": header.info, "alg": header.alg, "ppt": header.ppt} if header is not None else None
    members = {
        "parameters": shown,
        "header": told.jose,
        "payload": told.payload,
        "problem": told.problem,
        "signer": told.signer,
        "trust": told.trust,
        "steps": [_step(step) for step in told.steps],
    }
    return {name: value for name, value in members.items() if value}


def _step(step: StepResult) -> dict[str, Any]:
    members = {
        "step": step.step, "finding": step.finding, "reasoncode": step.reasoncode, "sentence": step.sentence,
    }  # fmt: skip
    return {name: value for name, value in members.items() if value}


def as_text(report: Report) -> str:
    """Write a report for people. Whatever came from outside is shown escaped, for it may steer a terminal."""
    blocks = []
    for number, told in enumerate(report, 1):
        lines = [f"Identity {number} of {len(report)}", *_parts(told)]
        lines += [_line(step) for step in told.steps]
        lines += [f"  signer      {told.signer}"] if told.signer else []
        lines += ["  trust       this operator's list of authorities"] if told.trust else []
        blocks.append("\n".join(lines))
    return "\n\n".join(blocks)


def _parts(told: Told) -> list[str]:
    header = told.header
    shown = [("info", header.info), ("alg", header.alg), ("ppt", header.ppt)] if header is not None else []
    parts = [*shown, ("header", told.jose), ("payload", told.payload), ("problem", told.problem or None)]
    return [f"  {name:<11} {_escaped(value)}" for name, value in parts if value is not None]


def _escaped(value: object) -> str:
    text = value if isinstance(value, str) else msgspec.json.encode(value).decode()
    return "".join(character if character.isprintable() else ascii(character)[1:-1] for character in text)


def _line(step: StepResult) -> str:
    code = f" {step.reasoncode}" if step.reasoncode else ""
    sentence = f": {step.sentence}" if step.sentence else ""
    return f"  {step.step:<18} {step.finding}{code}{sentence}"
