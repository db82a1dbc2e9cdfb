"""Light client: from one trusted point, usually genesis, to any header that the validators committed to.

It follows CometBFT's light client specification (docs/spec/light-client/verification). A header is trusted if
validators with more than two thirds of its own set's power signed it, and if either the trusted header before it
named that set, or more than a third of a trusted set's power signed the header as well. This client is stricter
than CometBFT's own in two points. It checks every vote for the block, not only as many as are needed. And a header
must not contradict any other trusted one (same height, link by hash to the next, order of times): if it does, that
is evidence of a fork, and nothing is trusted any more. A vote whose signature does not verify is not counted
(docs/adr/0006).

A header that passes becomes trusted. The same header with the same commit is not checked again, so answers at an
unchanged height cost no signature check.

docs/spec/answers.md#headers specifies it.
"""

from collections.abc import Callable, Generator, Iterable
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from voice_dpki.errors import MalformedError, PeerError
from voice_dpki.ledger.header import (
    ABSENT,
    ADDRESS_BYTES,
    BLOCK_PROTOCOL,
    BlockIdFlag,
    CommitSig,
    Header,
    SignedHeader,
    ValidatorSet,
)
from voice_dpki.ledger.rules import is_readable, needs

TRUSTING_PERIOD_S = 14 * 86_400
"""Time for which a trusted header vouches for later ones; after it, keys of former validators may have leaked."""

MAX_CLOCK_DRIFT_S = 10.0
"""How far a header's time may be ahead of our clock (CometBFT light/client.go, defaultMaxClockDrift)."""

MAX_TRUSTED = 64
"""Trusted headers kept in memory; the oldest are dropped."""

MAX_APPROACH_STEPS = 256
"""Steps to verify one header: enough for ten complete changes of validators in a million blocks."""


class LightCode(StrEnum):
    """Why a header is refused."""

    WRONG_CHAIN = "wrong-chain"
    WRONG_FORM = "wrong-form"
    NEWER_RULES = "newer-rules"
    WENT_BACK = "went-back"
    BEFORE_TRUST = "before-trust"
    TRUST_EXPIRED = "trust-expired"
    VALIDATORS_NEEDED = "validators-needed"
    WRONG_VALIDATORS = "wrong-validators"
    TIME_ORDER = "time-order"
    FUTURE = "future"
    TOO_LITTLE_POWER = "too-little-power"
    TOO_LITTLE_TRUST = "too-little-trust"
    FORK = "fork"


class LightError(PeerError):
    """A header cannot be trusted; `code` says why in a word.

    VALIDATORS_NEEDED does not mean that the header is bad: call again with the validators of that height.
    """

    def __init__(self, code: LightCode, message: str) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True, slots=True)
class LightBlock:
    """A signed header and the validators of its height; a trusted one is saved in this form for a restart."""

    signed_header: SignedHeader
    validators: ValidatorSet

    @property
    def height(self) -> int:
        """Height of the header."""
        return self.signed_header.header.height

    def to_json(self) -> dict[str, Any]:
        """Return both, in the RPC's forms."""
        return {"signed_header": self.signed_header.to_json(), **self.validators.to_json()}

    @classmethod
    def from_json(cls, value: object) -> "LightBlock":
        """Read the form of `to_json`, already decoded from JSON; raises MalformedError on anything else."""
        match value:
            case {"signed_header": signed_header, "validators": validators}:
                form = {"validators": validators}
                return cls(SignedHeader.from_json(signed_header), ValidatorSet.from_json(form))
        raise MalformedError("light block: not a signed header and validators")


@dataclass(frozen=True, slots=True)
class Fork:
    """Evidence that validators committed to two histories: two headers that cannot both be of one chain.

    The commits hold only votes that verify, so that a forged vote cannot accuse a validator.
    """

    trusted: SignedHeader
    conflicting: SignedHeader
    validators: ValidatorSet

    @property
    def double_signers(self) -> tuple[bytes, ...]:
        """Addresses of the validators that signed both blocks at one height and round, which proves misbehaviour.

        This is empty if the commits are of different heights or rounds, although validators with more than a third
        of the power broke the protocol then too.
        """
        if _place(self.trusted) != _place(self.conflicting):
            return ()
        first = {vote.validator_address for vote in _votes(self.trusted)}
        return tuple(vote.validator_address for vote in _votes(self.conflicting) if vote.validator_address in first)

    def to_json(self) -> dict[str, Any]:
        """Return both signed headers, the conflicting one's validators and the double signers, as in the RPC."""
        return {
            "trusted": self.trusted.to_json(),
            "conflicting": self.conflicting.to_json(),
            **self.validators.to_json(),
            "double_signers": [address.hex().upper() for address in self.double_signers],
        }


class ForkError(LightError):
    """A properly signed header contradicts a trusted one; `evidence` holds both."""

    def __init__(self, evidence: Fork) -> None:
        height = evidence.conflicting.header.height
        super().__init__(
            LightCode.FORK, f"the header of height {height} contradicts a trusted one: the chain forked"
        )
        self.evidence = evidence


@dataclass(frozen=True, slots=True)
class TrustPoint:
    """A height whose validators and next validators are trusted. Make one with `genesis` or `at`."""

    height: int
    time_ns: int
    validators: ValidatorSet
    next_validators_hash: bytes
    signed_header: SignedHeader | None

    @classmethod
    def genesis(cls, validators: ValidatorSet, time_ns: int, initial_height: int = 1) -> "TrustPoint":
        """Trust the validators of a genesis file, which precedes the first header."""
        return cls(initial_height - 1, time_ns, validators, validators.hash(), None)

    @property
    def light_block(self) -> LightBlock | None:
        """The trusted header with its validators; None for a genesis."""
        return LightBlock(self.signed_header, self.validators) if self.signed_header else None

    @classmethod
    def at(cls, signed_header: SignedHeader, validators: ValidatorSet) -> "TrustPoint":
        """Trust a header that was verified before or came from a trusted source, and its validators.

        Raises LightError if these are not the header's validators.
        """
        header = signed_header.header
        _check_validators(header, validators)
        return cls(header.height, header.time_ns, validators, header.next_validators_hash, signed_header)


class LightClient:
    """Trusted headers of one chain, and the verification of further headers.

    To continue after a restart, save `latest.light_block` and build the next client on `TrustPoint.at`.
    """

    def __init__(
        self,
        chain_id: str,
        trust: TrustPoint,
        *,
        trusting_period_s: float = TRUSTING_PERIOD_S,
        max_clock_drift_s: float = MAX_CLOCK_DRIFT_S,
    ) -> None:
        self._chain_id = chain_id
        self._trusting_period_s = trusting_period_s
        self._max_clock_drift_s = max_clock_drift_s
        self._points = {trust.height: trust}
        self._verified = {trust.signed_header: None} if trust.signed_header else {}
        self.fork: Fork | None = None
        """Evidence of a fork, if one was found; from then on every header is refused."""

    @property
    def latest(self) -> TrustPoint:
        """The highest trusted point."""
        return self._points[max(self._points)]

    def age_s(self, now_s: float) -> float:
        """Return the seconds since the time of the latest trusted point."""
        return now_s - self.latest.time_ns / 1e9

    def verify(
        self,
        signed: SignedHeader,
        validators: ValidatorSet | None,
        now_s: float,
        *,
        min_height: int | None = None,
    ) -> Header:
        """Verify a header, trust it from now on, and return it.

        `validators` are those of the header's height; None if they are expected to be a set that is known already.
        The height must be at least `min_height`, by default that of `latest`. A caller with several requests in
        flight passes the height that was the latest when it sent the request.

        Raises LightError, or ForkError with the evidence if the chain has forked. After a fork every call raises
        ForkError, because only people can find out which history is the true one. The caller judges the header's
        age (Header.age_s).
        """
        header = signed.header
        if self.fork is not None:
            raise ForkError(self.fork)
        if header.height < (self.latest.height if min_height is None else min_height):
            raise LightError(LightCode.WENT_BACK, f"height {header.height} was passed already: an old answer")
        if signed in self._verified:
            self._check_not_future(header, now_s)
            return header
        _check_form(signed, self._chain_id)
        known = self._known_validators(header, validators)
        _check_places(signed, known)
        _check_power(signed, known)
        counted = self._counted(signed, known, now_s)
        self._check_fork(counted, known)
        self._check_not_future(header, now_s)
        self._trust(counted, known)
        self._remember(signed)
        return header

    def verify_before(self, signed: SignedHeader, after: Header) -> Header:
        """Return a header that the trusted header `after` names as its predecessor, without checking its votes.

        This is for a follower that takes every block in turn and meets a commit with too few votes that verify here
        (docs/adr/0006). Raises LightError.
        """
        _check_form(signed, self._chain_id)
        if not self._is_trusted(after) or after.height != signed.header.height + 1:
            raise LightError(LightCode.BEFORE_TRUST, "the header after it is not trusted")
        if after.last_block_id != signed.commit.block_id:
            raise LightError(LightCode.WRONG_FORM, "the trusted header after it names another block")
        return signed.header

    def approach(
        self, signed: SignedHeader, now_s: float, *, min_height: int | None = None
    ) -> Generator[int, LightBlock, Header]:
        """Verify a header as `verify` does, if necessary by way of intermediate headers (bisection).

        This generator yields the height of each light block that the caller must send in, and returns the header.
        Raises LightError, also if it needs more than MAX_APPROACH_STEPS.
        """
        pending: list[tuple[SignedHeader, ValidatorSet | None]] = [(signed, None)]
        for _ in range(MAX_APPROACH_STEPS):
            target, validators = pending[-1]
            height = target.header.height
            try:
                header = self.verify(target, validators, now_s, min_height=min_height if len(pending) == 1 else 0)
            except LightError as error:
                if error.code is LightCode.VALIDATORS_NEEDED:
                    pending[-1] = target, (yield height).validators
                elif error.code is LightCode.TOO_LITTLE_TRUST:
                    middle = (self._below(height).height + height) // 2
                    block = yield middle
                    if block.height != middle:
                        raise LightError(
                            LightCode.WRONG_FORM, "a header of another height than asked for"
                        ) from None
                    pending.append((block.signed_header, block.validators))
                else:
                    raise
            else:
                pending.pop()
                if not pending:
                    return header
        raise LightError(LightCode.TOO_LITTLE_TRUST, f"more than {MAX_APPROACH_STEPS} headers lie on the way")

    def _counted(self, signed: SignedHeader, known: ValidatorSet, now_s: float) -> SignedHeader:
        """Check votes, time and trust; return the header with only the votes that verify.

        The votes of trusted validators are checked first, so that a forged commit costs few signature checks.
        """
        if self._is_trusted(signed.header):
            signed = _without_forged(signed, known, lambda _: True)
        else:
            below = self._below(signed.header.height)
            self._check_time(signed.header, below, now_s)
            _check_trust(signed, below)
            trusted = frozenset(below.validators.addresses)
            signed = _without_forged(signed, known, lambda address: address in trusted)
            _check_trust(signed, below)
            signed = _without_forged(signed, known, lambda address: address not in trusted)
        _check_power(signed, known)
        return signed

    def _is_trusted(self, header: Header) -> bool:
        """Return whether this header is trusted already, for instance with another commit."""
        point = self._points.get(header.height)
        return point is not None and point.signed_header is not None and point.signed_header.header == header

    def _below(self, height: int) -> TrustPoint:
        """Return the highest trusted point below a height; raises LightError if there is none."""
        below = max((known for known in self._points if known < height), default=None)
        if below is None:
            raise LightError(LightCode.BEFORE_TRUST, f"height {height} lies before all that is trusted here")
        return self._points[below]

    def _known_validators(self, header: Header, validators: ValidatorSet | None) -> ValidatorSet:
        """Return the set that the header names, if possible the known object, so that each set is kept once.

        Raises LightError if `validators` is another set, or is None and the set is not known.
        """
        if validators is not None:
            _check_validators(header, validators)
        for point in self._points.values():
            if point.validators.hash() == header.validators_hash:
                return point.validators
        if validators is None:
            raise LightError(
                LightCode.VALIDATORS_NEEDED, f"the validators of height {header.height} are not known yet"
            )
        return validators

    def _check_time(self, header: Header, below: TrustPoint, now_s: float) -> None:
        """Check that the time is later than that of the trusted point below, and that this point is not too old.

        The first header may have the same time as the genesis.
        """
        earliest = below.time_ns if below.signed_header is None else below.time_ns + 1
        if header.time_ns < earliest:
            raise LightError(
                LightCode.TIME_ORDER, f"height {header.height} is not later than the trusted height {below.height}"
            )
        if now_s - below.time_ns / 1e9 >= self._trusting_period_s:
            raise LightError(
                LightCode.TRUST_EXPIRED,
                f"the last trusted header, of height {below.height}, is older than the trusting period of "
                f"{self._trusting_period_s:.0f} s: put a newer one into the trust file, which is what "
                "/ledger/v1/headers/HEIGHT gives at a node that you trust",
            )

    def _check_not_future(self, header: Header, now_s: float) -> None:
        """Check that the header is not from the future.

        This is the last check, because only validators, and no attacker on the path, may make us doubt our clock.
        """
        if header.age_s(now_s) < -self._max_clock_drift_s:
            raise LightError(
                LightCode.FUTURE,
                f"the header's time is {-header.age_s(now_s):.0f} s ahead of our clock, at most "
                f"{self._max_clock_drift_s:.0f} s is taken for drift",
            )

    def _check_fork(self, signed: SignedHeader, validators: ValidatorSet) -> None:
        """Check that a properly signed header contradicts no trusted one; otherwise keep the evidence and raise."""
        for point in self._points.values():
            trusted = point.signed_header
            if trusted and _contradict(trusted.header, signed.header):
                self.fork = Fork(trusted, signed, validators)
                raise ForkError(self.fork)

    def _trust(self, signed: SignedHeader, validators: ValidatorSet) -> None:
        self._points[signed.header.height] = TrustPoint.at(signed, validators)
        if len(self._points) > MAX_TRUSTED:
            del self._points[min(self._points)]

    def _remember(self, signed: SignedHeader) -> None:
        self._verified[signed] = None
        if len(self._verified) > MAX_TRUSTED:
            del self._verified[next(iter(self._verified))]


def _check_form(signed: SignedHeader, chain_id: str) -> None:
    header, commit = signed.header, signed.commit
    if header.chain_id != chain_id:
        raise LightError(LightCode.WRONG_CHAIN, "the header is of another chain")
    if header.version_block != BLOCK_PROTOCOL:
        raise LightError(LightCode.WRONG_FORM, f"the block format is {header.version_block}, not {BLOCK_PROTOCOL}")
    if not is_readable(header.version_app):
        raise LightError(LightCode.NEWER_RULES, needs(header.version_app))
    if len(header.proposer_address) != ADDRESS_BYTES:
        raise LightError(LightCode.WRONG_FORM, "the header names no proposer")
    if commit.height != header.height or commit.block_id.hash != header.hash():
        raise LightError(LightCode.WRONG_FORM, "the commit is for another block than the header's")


def _check_validators(header: Header, validators: ValidatorSet) -> None:
    if validators.hash() != header.validators_hash:
        raise LightError(LightCode.WRONG_VALIDATORS, f"these are not the validators of height {header.height}")


def _check_places(signed: SignedHeader, validators: ValidatorSet) -> None:
    """Check that the commit has one entry for each validator, and each vote is in its validator's entry."""
    votes = signed.commit.signatures
    if len(votes) != len(validators.validators):
        raise LightError(LightCode.WRONG_FORM, "the commit has not one place for each validator")
    for vote, address in zip(votes, validators.addresses, strict=True):
        if vote.flag is not BlockIdFlag.ABSENT and vote.validator_address != address:
            raise LightError(LightCode.WRONG_FORM, "a vote in the commit stands in another validator's place")


def _check_power(signed: SignedHeader, validators: ValidatorSet) -> None:
    """Check that more than two thirds of the power of the header's own validators voted for it."""
    votes = zip(signed.commit.signatures, validators.validators, strict=True)
    power = sum(validator.power for vote, validator in votes if vote.flag is BlockIdFlag.COMMIT)
    if 3 * power <= 2 * validators.total_power:
        raise LightError(
            LightCode.TOO_LITTLE_POWER,
            f"validators with {power} of {validators.total_power} voted for the block, more than two thirds must",
        )


def _check_trust(signed: SignedHeader, below: TrustPoint) -> None:
    """Check that the header's validators follow from the trusted point below.

    At the next height, they must be those that the point names. At later ones, validators with more than a third of
    the point's power must have voted for the header.
    """
    header = signed.header
    if header.height == below.height + 1:
        if header.validators_hash != below.next_validators_hash:
            raise LightError(
                LightCode.WRONG_VALIDATORS, "the header's validators are not those that the one before it named"
            )
        return
    voters = {vote.validator_address for vote in _votes(signed)}
    trusted = below.validators
    power = sum(validator.power for validator in trusted.validators if validator.address in voters)
    if 3 * power <= trusted.total_power:
        raise LightError(
            LightCode.TOO_LITTLE_TRUST,
            f"trusted validators with {power} of {trusted.total_power} voted for it, more than a third must: "
            "verify a header between the two first",
        )


def _without_forged(
    signed: SignedHeader, validators: ValidatorSet, concerned: Callable[[bytes], bool]
) -> SignedHeader:
    """Replace by absent votes those that do not verify, among the votes of validators that are `concerned`."""
    votes = [
        ABSENT
        if vote.flag is BlockIdFlag.COMMIT
        and concerned(vote.validator_address)
        and not _verifies(signed, index, validators.validators[index].public_key)
        else vote
        for index, vote in enumerate(signed.commit.signatures)
    ]
    if all(vote is given for vote, given in zip(votes, signed.commit.signatures, strict=True)):
        return signed
    return replace(signed, commit=replace(signed.commit, signatures=tuple(votes)))


def _verifies(signed: SignedHeader, index: int, public_key: bytes) -> bool:
    commit = signed.commit
    message = commit.canonical_vote_bytes(signed.header.chain_id, index)
    try:
        Ed25519PublicKey.from_public_bytes(public_key).verify(commit.signatures[index].signature, message)
    except (InvalidSignature, ValueError):  # ValueError: the bytes are no point of the curve
        return False
    return True


def _contradict(one: Header, other: Header) -> bool:
    """Return whether two headers cannot be of one chain, as far as their heights allow a comparison."""
    if one.height == other.height:
        return one.hash() != other.hash()
    lower, upper = sorted((one, other), key=lambda header: header.height)
    if upper.time_ns <= lower.time_ns:
        return True
    if upper.height > lower.height + 1:
        return False
    return (upper.last_block_id.hash, upper.validators_hash) != (lower.hash(), lower.next_validators_hash)


def _votes(signed: SignedHeader) -> Iterable[CommitSig]:
    return (vote for vote in signed.commit.signatures if vote.flag is BlockIdFlag.COMMIT)


def _place(signed: SignedHeader) -> tuple[int, int]:
    return signed.commit.height, signed.commit.round
