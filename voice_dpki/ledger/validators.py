"""The validator sets in the state: that of the next block, and that of the block after it.

    SHA-256("voice-dpki/validators/v1" ‖ 00) -> ["validators", [* [Ed25519 key, power]], [* [Ed25519 key, power]]]

A block can change only the set for the block after the next one, because its own header already names the set of
the next one. That is CometBFT's rule, and the embedded engine follows it. New keys have the power 1. Up to version
3 of the rules an operator's weight is therefore the number of validators that it runs. From version 4 on this holds
once they have signed enough blocks (`voice_dpki.ledger.probation`).

docs/spec/encodings.md#leaves specifies it.
"""

import hashlib
from collections.abc import Mapping

from voice_dpki.codec import cbor
from voice_dpki.codec.cbor import Cbor
from voice_dpki.errors import LocalError
from voice_dpki.ledger.draft import Draft
from voice_dpki.ledger.header import Validator, ValidatorSet
from voice_dpki.ledger.leaf import Leaf
from voice_dpki.ledger.view import StateView

VALIDATORS_KEY = hashlib.sha256(b"voice-dpki/validators/v1\0").digest()

POWER = 1
"""Power of a new key."""

_DAMAGED = "the ledger's state is damaged: its validators are not such"

_Powers = dict[bytes, int]


def begin(draft: Draft, validators: ValidatorSet) -> None:
    """Write the first set of validators of a ledger."""
    powers = {validator.public_key: validator.power for validator in validators.validators}
    _write(draft, powers, powers)


def validator_sets(view: StateView) -> tuple[ValidatorSet, ValidatorSet]:
    """Return the validators of the next block, and of the one after it."""
    following, later = _read(view)
    return _set(following), _set(later)


def parse_validators(data: bytes) -> tuple[ValidatorSet, ValidatorSet]:
    """Parse the value of the leaf to the next set and the one after it; raises LocalError."""
    following, later = _parse(data)
    return _set(following), _set(later)


VALIDATORS_LEAF = Leaf(kind="validators", key=lambda: VALIDATORS_KEY, parse=parse_validators)


def validator_keys(view: StateView) -> frozenset[bytes]:
    """Return the keys of the later set, that of the block after the next one."""
    return frozenset(_read(view)[1])


def powers(view: StateView) -> Mapping[bytes, int]:
    """Return the power of each key in the later set."""
    return _read(view)[1]


def advance(draft: Draft) -> None:
    """Begin a block: the later set becomes the next one."""
    following, later = _read(draft)
    if following != later:
        _write(draft, later, later)


def replace_keys(draft: Draft, gone: frozenset[bytes], come: frozenset[bytes]) -> None:
    """Remove and add keys in the set for the block after the next one."""
    following, later = _read(draft)
    kept = {key: power for key, power in later.items() if key not in gone}
    _write(draft, following, kept | dict.fromkeys(sorted(come - kept.keys()), POWER))


def set_powers(draft: Draft, powers: Mapping[bytes, int]) -> None:
    """Set the power of present keys in the set for the block after the next one."""
    following, later = _read(draft)
    _write(draft, following, later | dict(powers))


def updates(before: StateView, after: StateView) -> tuple[tuple[bytes, int], ...]:
    """Return the keys whose power a block changes, sorted, with the new power: 0 for a removed key."""
    old, new = _read(before)[1], _read(after)[1]
    return tuple((key, new.get(key, 0)) for key in sorted(old.keys() | new.keys()) if old.get(key) != new.get(key))


def _set(powers: Mapping[bytes, int]) -> ValidatorSet:
    return ValidatorSet.of(Validator(key, power) for key, power in powers.items())


def _read(view: StateView) -> tuple[_Powers, _Powers]:
    return _parse(view.leaf(VALIDATORS_KEY) or b"")


def _parse(data: bytes) -> tuple[_Powers, _Powers]:
    match cbor.decode(data, "validators"):
        case ["validators", list(following), list(later)]:
            return _powers(following), _powers(later)
    raise LocalError(_DAMAGED)


def _powers(items: list[Cbor]) -> _Powers:
    return dict(items)  # type: ignore[arg-type]  # pairs of key and power, written by this module alone


def _write(draft: Draft, following: _Powers, later: _Powers) -> None:
    sets: list[Cbor] = [[[key, power] for key, power in sorted(each.items())] for each in (following, later)]
    draft.put(VALIDATORS_KEY, ["validators", *sets])
