"""Verification of all the Identities of one call, which depend on one another where the call was diverted.

`examine_all` runs the steps that need no ledger and tells which certificates to look up; `judge_all` runs the
others. Each Identity gets a verdict of its own. One that proves the caller's number does so only if every diversion
between it and the target has passed (RFC 8946 §4.2).
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress

from voice_dpki.names import CertDigest, Tn
from voice_dpki.stir.call import Call
from voice_dpki.stir.diversion import Way, find_ways
from voice_dpki.stir.examine import Examined, Policy, examine, examine_token
from voice_dpki.stir.replay import ReplayCache, Uses, settle
from voice_dpki.stir.verdict import Step, Verdict, VerificationFailed, verdict_of
from voice_dpki.stir.verify import Vouched, check_signed, prove, remember, share_of, trust_of
from voice_dpki.x509.recorded import RecordedCertificate

Found = Examined | VerificationFailed
"""The result of the steps without the ledger for one Identity."""
Examine = Callable[[Call, str, Policy, float], Examined]
Records = Mapping[CertDigest, Vouched | VerificationFailed]
"""What vouches for each signer, or why nothing does."""


def examine_all(call: Call, policy: Policy, now_s: float) -> list[Found]:
    """Run the steps that need no ledger on each Identity of the call, in their order. Never raises."""
    if len(call.identities) == 1:  # almost every call
        return [_tried(examine, call, call.identities[0], policy, now_s)]
    found = [_tried(examine_token, call, identity, policy, now_s) for identity in call.identities]
    tokens = {place: each for place, each in enumerate(found) if isinstance(each, Examined)}
    ways = find_ways(tokens)
    for place in tokens:
        try:
            ways.check(place, tokens)
        except VerificationFailed as failure:
            found[place] = failure
    return found


def _tried(examine: Examine, call: Call, identity: str, policy: Policy, now_s: float) -> Found:
    try:
        return examine(call, identity, policy, now_s)
    except VerificationFailed as failure:
        return failure


def numbers_of(found: Iterable[Found]) -> dict[CertDigest, frozenset[Tn]]:
    """Return by signer the numbers over which it needs authority; the ledger may have to be asked about them."""
    needed: dict[CertDigest, frozenset[Tn]] = {}
    for each in found:
        if isinstance(each, Examined) and (number := each.kind.authority.number) is not None:
            needed[each.digest] = needed.get(each.digest, frozenset()) | {number(each.claims)}
    return needed


def signed_numbers(found: Iterable[Found], recorded: RecordedCertificate, now_s: float) -> frozenset[Tn]:
    """Return the numbers over which a signer needs authority, from tokens with a valid signature only."""
    signed = []
    for each in found:
        if isinstance(each, Examined) and each.digest == recorded.digest:
            with suppress(VerificationFailed):
                check_signed(each, recorded, now_s)
                signed.append(each)
    return numbers_of(signed).get(recorded.digest, frozenset())


def judge_all(
    call: Call,
    found: Sequence[Found],
    records: Records,
    policy: Policy,
    replays: ReplayCache,
    now_s: float,
    steady_s: float,
) -> list[Verdict]:
    """Return the verdict on each Identity of the call, in their order; `replays` is in this process. Never raises.

    `records` has every signer that `found` names. The clocks are those of `voice_dpki.stir.verify.judge`.
    """
    return settle(judging(call, found, records, policy, now_s), replays, steady_s)


def judging(
    call: Call, found: Sequence[Found], records: Records, policy: Policy, now_s: float
) -> Uses[list[Verdict]]:
    """Do the work of `judge_all`, but yield to the caller each use to look up in the memory of used tokens."""
    case = _Case(call, found, records, policy)
    proven = [case.proven(place, now_s) for place in range(len(found))]
    passed = {
        place: each for place, each in enumerate(found) if isinstance(each, Examined) and not proven[place].step
    }
    onward = find_ways(passed).onward if len(found) > 1 else dict.fromkeys(passed, ())
    failures: dict[int, VerificationFailed] = {}
    for place in sorted(passed, key=lambda place: len(onward.get(place, ()))):
        try:
            _check_way(place, onward, failures)
            is_diverted = bool(onward[place])
            yield from remember(passed[place], share_of(proven[place]), policy, is_diverted=is_diverted)
        except VerificationFailed as failure:
            failures[place] = failure
            proven[place] = case.failed(place, failure)
    return proven


def _check_way(place: int, onward: Mapping[int, Way], failures: Mapping[int, VerificationFailed]) -> None:
    """Check that every diversion after a token has passed; raises VerificationFailed.

    If a diversion has failed E21, that failure is raised as it is.
    """
    if place not in onward:
        raise VerificationFailed(
            Step.DIVERSION, "a diversion of this call has not passed; its own verdict says why"
        )
    for at in onward[place]:
        if at in failures:
            raise failures[at]


class _Case:
    """The Identities of one call while they are judged."""

    def __init__(self, call: Call, found: Sequence[Found], records: Records, policy: Policy) -> None:
        self._call, self._found, self._records, self._policy = call, found, records, policy

    def proven(self, place: int, now_s: float) -> Verdict:
        """Return the verdict on one Identity, before E21 and the check of the diversions after it."""
        each = self._found[place]
        if isinstance(each, VerificationFailed):
            return self.failed(place, each)
        recorded = self._records[each.digest]
        try:
            if isinstance(recorded, VerificationFailed):
                raise recorded
            return prove(each, recorded, self._policy, now_s)
        except VerificationFailed as failure:
            return self.failed(place, failure)

    def failed(self, place: int, failure: VerificationFailed) -> Verdict:
        """Return the verdict for a failed step of one Identity."""
        each = self._found[place]
        if isinstance(each, VerificationFailed):
            may_prove = self._policy.kinds.may_prove_caller(self._call.identities[place])
            return verdict_of(failure, about_caller=may_prove or self._call.is_answer)
        recorded = self._records[each.digest]
        about_caller = each.kind.proves(self._call)
        if isinstance(recorded, VerificationFailed):
            return verdict_of(failure, "", each.digest, about_caller=about_caller)
        return verdict_of(
            failure, recorded.organization, each.digest, about_caller=about_caller, trust=trust_of(recorded)
        )
