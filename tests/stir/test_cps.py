"""What goes over a call placement service's interface: bodies, paths, and the Identity that a token came in."""

import json

import pytest

from voice_dpki.errors import MalformedError
from voice_dpki.names import Tn
from voice_dpki.stir.access import Place
from voice_dpki.stir.cps import identity_of, passports_body, path_of, read_passports, read_place

from .conftest import Operator

TOKEN = "e30.e30.AAAA"
LONGEST = f"e30.e30.{'A' * 8184}"
"""A token of 8192 characters."""
CALLER, CALLED = Tn("493023125001"), Tn("442079460001")


def body(*tokens: object) -> bytes:
    return json.dumps({"passports": tokens}).encode()


@pytest.mark.parametrize("tokens", [(TOKEN,), (TOKEN,) * 10, (LONGEST, "e30.e_-0.AB")])
def test_bodies(tokens: tuple[str, ...]) -> None:
    assert read_passports(body(*tokens)) == tokens
    assert json.loads(passports_body(tokens)) == {"passports": list(tokens)}


@pytest.mark.parametrize(
    ("given", "why"),
    [
        (b"[]", "object"),
        (b"{}", "1 to 10"),
        (body(), "1 to 10"),
        (body(*[TOKEN] * 11), "1 to 10"),
        (b'{"passports":"e30.e30.AAAA"}', "1 to 10"),
        (b'{"passports":{"0":"e30.e30.AAAA"}}', "1 to 10"),
        (b'{"passports":["e30.e30.AAAA"],"x":1}', "1 to 10"),
        (b'{"tokens":["e30.e30.AAAA"]}', "1 to 10"),
        (body(7), "three parts"),
        (body(TOKEN, 7), "three parts"),
        (body(TOKEN, "e30.e30"), "three parts"),
        (body("e30.e30.e30.e30"), "three parts"),
        (body("..AAAA"), "three parts"),
        (body(f"{TOKEN}\n"), "three parts"),
        (body(LONGEST + "A"), "8192"),
    ],
)
def test_what_is_no_body(given: bytes, why: str) -> None:
    with pytest.raises(MalformedError, match=why):
        read_passports(given)


@pytest.mark.parametrize(("bound", "most"), [((), 32_768), ((40,), 40)])
def test_the_size_of_a_body(bound: tuple[int, ...], most: int) -> None:
    given = body(TOKEN).ljust(most)
    assert read_passports(given, *bound) == (TOKEN,)
    with pytest.raises(MalformedError, match=f"more than {most} bytes"):
        read_passports(given + b" ", *bound)


def test_paths() -> None:
    assert path_of(Place(CALLER, CALLED)) == "/passports/442079460001/493023125001"
    assert path_of(Place(Tn("*1"), Tn("#2"), "A/B é")) == "/passports/A%2FB%20%C3%A9/%232/%2A1"
    assert read_place(CALLED, CALLER) == Place(CALLER, CALLED)
    assert read_place(CALLED, CALLER, "x" * 128) == Place(CALLER, CALLED, "x" * 128)


@pytest.mark.parametrize(
    ("segments", "why"),
    [
        (("alice", CALLER), "two numbers"),
        ((CALLED, "+493023125001"), "two numbers"),
        (("", ""), "two numbers"),
        ((CALLED, CALLER, "x" * 129), "more than 128"),
    ],
)
def test_what_is_no_path(segments: tuple[str, ...], why: str) -> None:
    with pytest.raises(MalformedError, match=why):
        read_place(*segments)


@pytest.mark.parametrize("ppt", ["shaken", ""])
def test_the_identity_of_a_token_is_the_one_that_it_came_in(operator: Operator, ppt: str) -> None:
    (identity,) = operator.call(ppt=ppt).identities
    assert identity_of(identity.partition(";")[0]) == identity
    with pytest.raises(MalformedError):
        identity_of("e30.e30")
