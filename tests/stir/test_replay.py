from hypothesis import given
from hypothesis import strategies as st

from voice_dpki.stir.passport import Passport
from voice_dpki.stir.replay import ReplayCache, replay_key


def test_remembers_for_its_time_and_not_longer() -> None:
    cache = ReplayCache(10, 120)
    cache.add(b"a", 1000)
    assert cache.seen(b"a", 1000)
    assert cache.seen(b"a", 1120)
    assert not cache.seen(b"a", 1120.5)
    assert not cache.seen(b"b", 1000)


def test_a_full_cache_forgets_nothing_early() -> None:
    cache = ReplayCache(2, 120)
    cache.add(b"a", 1000)
    cache.add(b"b", 1010)
    assert cache.full(1120)
    assert cache.seen(b"a", 1120)
    assert not cache.full(1121)
    assert len(cache) == 1


def fill(cache: ReplayCache, signer: str, tries: int, now_s: float = 1000) -> int:
    """Have a signer take what it gets; returns how much that is."""
    taken = 0
    for _ in range(tries):
        if not cache.full(now_s, signer):
            cache.add(f"{signer} {taken}".encode(), now_s, signer)
            taken += 1
    return taken


def test_who_floods_the_memory_leaves_room_for_all_others() -> None:
    cache = ReplayCache(1000, 120)
    assert fill(cache, "flooder", 2000) == 501
    assert fill(cache, "second flooder", 2000) == 250
    assert fill(cache, "third flooder", 2000) == 125
    for n in range(50):
        assert fill(cache, f"other {n}", 2) == 2
    assert fill(cache, "flooder", 10) == 0
    assert len(cache) <= 1000


def test_a_share_is_free_again_when_its_time_is_up() -> None:
    cache = ReplayCache(1000, 120)
    assert fill(cache, "flooder", 2000) == 501
    assert cache.full(1120, "flooder")
    assert fill(cache, "flooder", 2000, now_s=1121) == 501


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 30)), max_size=40))
def test_never_holds_more_than_its_bound(events: list[tuple[int, int]]) -> None:
    cache, now_s = ReplayCache(3, 60), 0
    for key, passed_s in events:
        now_s += passed_s
        name = bytes([key])
        if not cache.seen(name, now_s) and not cache.full(now_s):
            cache.add(name, now_s)
        assert len(cache) <= 3


def test_the_other_signature_that_anyone_can_make_has_the_same_key() -> None:
    order = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
    r, s = 7, 9
    one = Passport(b"e30.e30", {}, b"", r.to_bytes(32, "big") + s.to_bytes(32, "big"))
    other = Passport(b"e30.e30", {}, b"", r.to_bytes(32, "big") + (order - s).to_bytes(32, "big"))
    assert replay_key(one) == replay_key(other)
    assert replay_key(one) != replay_key(Passport(b"e30.e31", {}, b"", one.signature))
    assert replay_key(one) != replay_key(Passport(b"e30.e30", {}, b"", bytes(64)))
