"""The result of each step of a verification, for people who look for the fault in a call (RFC 8224 §6.2).

`voice_dpki.stir.examine` ends at the first step that fails. Here the others run as well, if their input could be
read.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from functools import partial
from typing import Any, TypeVar

from voice_dpki.errors import MalformedError
from voice_dpki.names import CertDigest
from voice_dpki.stir.call import Call
from voice_dpki.stir.examine import (
    Examined,
    Policy,
    check_alg,
    check_caller,
    check_critical,
    check_destination,
    check_iat,
    check_parameters,
    check_ppt_parameter,
    check_side,
    check_time,
    check_typ,
    opened_token,
    read_certificate,
    read_claims,
    read_form,
    read_header,
    read_info,
    read_info_url,
    read_kind,
)
from voice_dpki.stir.identity import IdentityHeader
from voice_dpki.stir.kind import Kind
from voice_dpki.stir.passport import Claims, Passport
from voice_dpki.stir.several import Found, examine_all
from voice_dpki.stir.verdict import Step, VerificationFailed

_T = TypeVar("_T")


class Finding(StrEnum):
    """The result of a step."""

    PASSED = "passed"
    FAILED = "failed"
    NOT_RUN = "not run"


@dataclass(frozen=True, slots=True)
class StepResult:
    """One step and its result."""

    step: str
    finding: Finding
    reasoncode: int | None = None
    sentence: str = ""
    """Why it failed, or was not run; empty if it passed."""


@dataclass(slots=True)
class Explained:
    """The results of the steps that need no ledger, and the parts of the Identity that could be read."""

    results: list[StepResult] = field(default_factory=list)
    header: IdentityHeader | None = None
    passport: Passport | None = None
    kind: Kind[Any] | None = None
    claims: Claims | None = None
    digest: CertDigest | None = None
    """H(CERT) of the signer."""
    call: Call | None = None

    def run(self, name: str, work: Callable[[], _T]) -> _T | None:
        """Run the step `name` and record its result; returns what it read, None if it failed."""
        try:
            read = work()
        except VerificationFailed as failure:
            step = failure.step
            self.results.append(StepResult(step.label, Finding.FAILED, step.reasoncode, str(failure)))
            return None
        self.results.append(StepResult(name, Finding.PASSED))
        return read

    def skip(self, why: str, *steps: Step) -> None:
        """Record `steps` as not run, except those that already have a result."""
        known = {result.step for result in self.results}
        left = [step.label for step in steps if step.label not in known]
        self.results += [StepResult(label, Finding.NOT_RUN, sentence=why) for label in left]

    @property
    def examined(self) -> Examined | None:
        """The input of the steps that need the ledger; None unless all other steps have passed."""
        if any(result.finding is not Finding.PASSED for result in self.results):
            return None
        call, kind, passport, claims, digest = self.call, self.kind, self.passport, self.claims, self.digest
        if call is None or kind is None or passport is None or claims is None or digest is None:
            return None
        return Examined(call, kind, passport, claims, digest)


_OF_TOKEN = (
    Step.HEADER, Step.CRITICAL, Step.X5U, Step.TYP, Step.ALG, Step.PPT, Step.CLAIMS, Step.IAT, Step.NUMBERS,
)  # fmt: skip
"""The steps that need the token, in their order."""


def explain_identity(call: Call | None, identity: str, policy: Policy, now_s: float) -> Explained:
    """Run the steps that need no ledger on one `identity` of the call; without a `call`, those that need none."""
    found = Explained(call=call)
    if call is None:
        found.skip("nothing tells the call's Date", Step.TIME)
    else:
        found.run(Step.TIME.label, lambda: check_time(call.time_s, policy, now_s))
    header = found.header = found.run(Step.FORM.label, lambda: read_form(identity, policy.kinds))
    if header is None:
        if found.results[-1].step == Step.INFO.label:  # the form is good but for info
            found.results.insert(-1, StepResult(Step.FORM.label, Finding.PASSED))
        found.skip("the Identity cannot be read", Step.PPT_PARAMETER, Step.INFO, Step.INFO_URL, *_OF_TOKEN)
        return found
    opened = opened_token(header, call)
    named = _parameters(found, header, opened, policy)
    passport = found.passport = found.run(Step.HEADER.label, lambda: read_header(opened, header, policy.kinds))
    if passport is None:
        found.skip("the token cannot be decoded", *_OF_TOKEN[1:])
        return found
    kind = found.kind = _jose(found, header, passport, named, policy)
    if kind is None:
        found.skip("the type of the token is not known", Step.CLAIMS, Step.IAT, Step.NUMBERS)
        return found
    _payload(found, identity, kind, policy, now_s)
    return found


def _parameters(
    found: Explained, header: IdentityHeader, opened: Passport | MalformedError, policy: Policy
) -> CertDigest | None:
    """Run the steps about the parameters, and return the certificate that info names."""
    if policy.profile.needs_parameters:
        found.run(f"parameters of {policy.profile}", lambda: check_parameters(header, policy))
    found.run(Step.PPT_PARAMETER.label, lambda: check_ppt_parameter(header, policy.kinds))
    info = found.run(Step.INFO.label, lambda: read_info(header, opened))
    if info is None:
        found.skip("there is no info", Step.INFO_URL)
        return None
    return found.run(Step.INFO_URL.label, lambda: read_info_url(info, opened, policy))


def _jose(
    found: Explained, header: IdentityHeader, passport: Passport, named: CertDigest | None, policy: Policy
) -> Kind[Any] | None:
    found.run(Step.CRITICAL.label, lambda: check_critical(passport))
    found.digest = found.run(Step.X5U.label, lambda: read_certificate(passport, header, named))
    found.run(Step.TYP.label, lambda: check_typ(passport))
    found.run(Step.ALG.label, lambda: check_alg(passport, header))
    return found.run(Step.PPT.label, lambda: _kind(found.call, passport, header, policy))


def _kind(call: Call | None, passport: Passport, header: IdentityHeader, policy: Policy) -> Kind[Any]:
    kind = read_kind(passport, header, policy.kinds)
    if call is not None:
        check_side(kind, call)
    return kind


def _payload(found: Explained, identity: str, kind: Kind[Any], policy: Policy, now_s: float) -> None:
    passport, call = found.passport, found.call
    assert passport is not None, "its kind was read from it"
    claims = found.claims = found.run(Step.CLAIMS.label, lambda: read_claims(passport, kind))
    if claims is None:
        found.skip("the claims cannot be read", Step.IAT, Step.NUMBERS)
        return
    found.run(Step.IAT.label, lambda: check_iat(claims.iat_s, policy, now_s))
    if call is None:
        found.skip("nothing tells who calls whom", Step.NUMBERS)
        return
    beside = examine_all(call, policy, now_s)[call.identities.index(identity)]
    _callee(found, call, kind, claims, beside)
    for check in kind.checks:
        found.run(f"{kind.ppt}'s own", partial(check, claims, call))


def _callee(found: Explained, call: Call, kind: Kind[Any], claims: Claims, beside: Found) -> None:
    """Run E16; `beside` is the result for this Identity together with the call's others, which can divert it."""

    def check() -> None:
        check_caller(claims, call)
        if isinstance(beside, VerificationFailed) and beside.step in (Step.NUMBERS, Step.DIVERSION):
            raise beside
        if isinstance(beside, VerificationFailed) and kind.diverts is None and len(call.identities) == 1:
            check_destination(claims, call)

    found.run(Step.NUMBERS.label, check)
