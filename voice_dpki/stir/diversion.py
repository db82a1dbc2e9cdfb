"""Chains of diversions: how the tokens of one call lead from the party first called to the call's target.

Each diversion has a token of its own, whose `div` is among the `dest` of the token before it (RFC 8946 §4.2).
Header fields have no order, so a chain is found by the numbers. It begins with a token that is no diversion, and
its last `dest` is the target of the call. A chain is not compared with To, which elements on the path rewrite.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, TypeVar

from voice_dpki.stir.examine import Examined, check_destination
from voice_dpki.stir.verdict import Step, VerificationFailed

MAX_DIVERSIONS: Final = 5
"""Diversions of one call; national rules end a call at the sixth."""

T = TypeVar("T")
Tokens = Mapping[int, Examined]
"""The tokens of one call, by their index among its Identity header fields (their "place")."""
Way = tuple[int, ...]
"""The places of the diversions that follow a token, in the order of the call; empty if its dest is the target."""


@dataclass(frozen=True, slots=True)
class Ways:
    """The shortest ways through a call's tokens."""

    onward: Mapping[int, Way]
    """By place: the way from the token to the target; tokens without one are missing."""
    depths: Mapping[int, int]
    """By place: the number of diversions from a token that is no diversion to this one; missing without a way."""

    def check(self, place: int, tokens: Tokens) -> None:
        """E16: the token at `place` is on a way of at most five diversions to the target.

        A diversion must also follow a token from which the call was diverted. Raises VerificationFailed.
        """
        token, way, depth = tokens[place], self.onward.get(place), self.depths.get(place)
        if way is None and not any(each.kind.diverts is not None for each in tokens.values()):
            check_destination(token.claims, token.call)
        if way is None:
            raise _failed(
                "the signed destination is not the destination in the signalling, nor do diversions lead there"
            )
        if depth is None:
            raise _failed("the PASSporT from which this one diverts the call is not there")
        if depth + len(way) > MAX_DIVERSIONS:
            raise _failed(f"the call was diverted more than {MAX_DIVERSIONS} times")


def find_ways(tokens: Tokens) -> Ways:
    """Return the shortest ways between a call's tokens."""
    return Ways(_onward(tokens), _depths(tokens))


def _onward(tokens: Tokens) -> Mapping[int, Way]:
    arriving: dict[int, Way] = {place: () for place, token in tokens.items() if _arrives(token)}
    return _spread(arriving, tokens, lambda at, place: _leads(tokens, place, at), lambda at, way: (at, *way))


def _depths(tokens: Tokens) -> Mapping[int, int]:
    first = {place: 0 for place, token in tokens.items() if token.kind.diverts is None}
    return _spread(first, tokens, lambda at, place: _leads(tokens, at, place), lambda _, depth: depth + 1)


def _spread(
    known: dict[int, T], tokens: Tokens, joined: Callable[[int, int], bool], further: Callable[[int, T], T]
) -> dict[int, T]:
    """Search breadth first from the `known` places along `joined`; returns a value for each place reached.

    `further` computes the value of a place from its predecessor and the predecessor's value.
    """
    latest = list(known)
    while latest:
        found = {
            place: further(at, known[at])
            for at in latest
            for place in tokens
            if place not in known and joined(at, place)
        }
        known = known | found
        latest = list(found)
    return known


def _arrives(token: Examined) -> bool:
    """Tell whether a token's dest is the call's target; for a token of no diversion, To and Request-URI."""
    call = token.call
    wanted = call.dest if token.kind.diverts is None or call.target is None else call.target
    return token.claims.dest.includes(wanted)


def _leads(tokens: Tokens, first: int, second: int) -> bool:
    """Tell whether the second token diverts the call from a number in dest of the first (RFC 8946 §4.2)."""
    diverts = tokens[second].kind.diverts
    return (
        diverts is not None and first != second and diverts(tokens[second].claims) in tokens[first].claims.dest.tns
    )


def _failed(sentence: str) -> VerificationFailed:
    return VerificationFailed(Step.DIVERSION, sentence)
