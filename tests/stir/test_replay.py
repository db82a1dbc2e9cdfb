import pytest
from hypothesis import given
from hypothesis import strategies as st

from voice_dpki.stir.passport import Passport
from voice_dpki.stir.replay import MAX_TIMES, ReplayCache, Sighting, TokenUse, call_digest, replay_key


def use(key: bytes, call: bytes = b"c1", signer: str = "", iat_s: int = 1000) -> TokenUse:
    return TokenUse(key, call, signer, iat_s)


def test_remembers_for_its_time_and_not_longer() -> None:
    cache = ReplayCache(10, 120)
    assert cache.claim(use(b"a"), 1000) is Sighting.NEW
    assert cache.look(use(b"a"), 1000) is Sighting.SAME_CALL
    assert cache.look(use(b"a"), 1120) is Sighting.SAME_CALL
    assert cache.look(use(b"a"), 1120.5) is Sighting.NEW
    assert cache.look(use(b"b"), 1000) is Sighting.NEW


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        (b"c1", b"c1", Sighting.SAME_CALL),
        (b"c1", b"c2", Sighting.OTHER_CALL),
        (b"c1", b"", Sighting.REPEATED),
        (b"", b"c1", Sighting.REPEATED),
        (b"", b"", Sighting.REPEATED),
    ],
)
def test_the_call_id_tells_calls_apart(first: bytes, second: bytes, expected: Sighting) -> None:
    cache = ReplayCache(10, 120)
    cache.claim(use(b"a", first), 1000)
    assert cache.claim(use(b"a", second), 1001) is expected
    assert cache.claim(use(b"a", second), 1002) is expected, "what was refused changes nothing"


def test_a_call_forks_to_so_many_branches_and_no_more() -> None:
    cache = ReplayCache(10, 120)
    told = [cache.claim(use(b"a"), 1000) for _ in range(MAX_TIMES + 2)]
    assert told == [Sighting.NEW, *[Sighting.SAME_CALL] * (MAX_TIMES - 1), *[Sighting.TOO_OFTEN] * 2]


def test_what_is_older_than_the_memory_is_not_known() -> None:
    cache = ReplayCache(10, 120, since_s=1000)
    assert cache.claim(use(b"a", iat_s=999), 0) is Sighting.UNKNOWN
    assert cache.claim(use(b"a", iat_s=1000), 0) is Sighting.NEW
    assert cache.claim(use(b"a", iat_s=1000), 0) is Sighting.SAME_CALL


def test_any_call_id_has_a_digest() -> None:
    assert call_digest("") == b""
    assert len({call_digest(text) for text in ("a@b", "A@b", "\ud800")}) == 3
    assert {len(call_digest(text)) for text in ("a@b", "x" * 10_000)} == {16}


def test_a_full_cache_forgets_nothing_early() -> None:
    cache = ReplayCache(2, 120)
    cache.claim(use(b"a"), 1000)
    cache.claim(use(b"b"), 1010)
    assert cache.claim(use(b"c"), 1120) is Sighting.FULL
    assert cache.look(use(b"a"), 1120) is Sighting.SAME_CALL
    assert cache.look(use(b"c"), 1121) is Sighting.NEW
    assert len(cache) == 1


def fill(cache: ReplayCache, signer: str, tries: int, now_s: float = 1000) -> int:
    """Have a signer take what it gets; returns how much that is."""
    told = [cache.claim(use(f"{signer} {n}".encode(), signer=signer), now_s) for n in range(tries)]
    return told.count(Sighting.NEW)


def test_who_floods_the_memory_leaves_room_for_all_others() -> None:
    cache = ReplayCache(1000, 120)
    assert fill(cache, "flooder", 2000) == 501
    assert fill(cache, "second flooder", 2000) == 250
    assert fill(cache, "third flooder", 2000) == 125
    for n in range(50):
        assert fill(cache, f"other {n}", 2) == 2
    assert fill(cache, "flooder", 2000) == 0
    assert len(cache) <= 1000


def test_a_share_is_free_again_when_its_time_is_up() -> None:
    cache = ReplayCache(1000, 120)
    assert fill(cache, "flooder", 2000) == 501
    assert cache.look(use(b"x", signer="flooder"), 1120) is Sighting.FULL
    assert fill(cache, "flooder", 2000, now_s=1121) == 501


def test_a_share_is_what_is_held_now() -> None:
    """Some of it ends, and what is left still counts."""
    cache = ReplayCache(100, 120)
    assert fill(cache, "flooder", 30, now_s=1000) == 30
    assert [cache.claim(use(b"%d" % n, signer="flooder"), 1060) for n in range(21)] == [Sighting.NEW] * 21
    assert cache.claim(use(b"21", signer="flooder"), 1060) is Sighting.FULL
    assert [cache.claim(use(b"%d" % n, signer="flooder"), 1121) for n in range(21, 52)].count(Sighting.NEW) == 30


def test_nothing_is_left_of_signers_that_are_gone() -> None:
    cache = ReplayCache(1000, 120)
    for n in range(20):
        fill(cache, f"signer {n}", 2)
    cache.look(use(b"x", signer="none"), 1121)
    assert not cache._held
    assert not len(cache)


def test_the_last_place_is_taken_and_not_one_more() -> None:
    cache = ReplayCache(2, 120)
    assert [cache.claim(use(b"%d" % n, signer=str(n)), 1000) for n in range(3)] == [
        Sighting.NEW, Sighting.NEW, Sighting.FULL,
    ]  # fmt: skip


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 30)), max_size=40))
def test_never_holds_more_than_its_bound(events: list[tuple[int, int]]) -> None:
    cache, now_s = ReplayCache(3, 60), 0
    for key, passed_s in events:
        now_s += passed_s
        cache.claim(use(bytes([key])), now_s)
        assert len(cache) <= 3


def test_the_other_signature_that_anyone_can_make_has_the_same_key() -> None:
    order = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
    r, s = 7, 9
    one = Passport(b"e30.e30", {}, b"", r.to_bytes(32, "big") + s.to_bytes(32, "big"))
    other = Passport(b"e30.e30", {}, b"", r.to_bytes(32, "big") + (order - s).to_bytes(32, "big"))
    assert replay_key(one) == replay_key(other)
    assert replay_key(one) != replay_key(Passport(b"e30.e31", {}, b"", one.signature))
    assert replay_key(one) != replay_key(Passport(b"e30.e30", {}, b"", bytes(64)))
