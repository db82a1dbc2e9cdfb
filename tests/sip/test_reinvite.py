"""INVITEs within a dialog: which one may begin, and how long to wait after two have crossed (RFC 3261 §14)."""

import pytest

from voice_dpki.sip.reinvite import InviteProgress, glare_wait_s
from voice_dpki.sip.uas import RequestRefusedError


class Fixed:
    """Randomness that gives one octet again and again."""

    def __init__(self, octet: int) -> None:
        self._octet = octet

    def token(self, size: int) -> bytes:
        return bytes([self._octet] * size)


@pytest.mark.parametrize(
    ("progress", "status", "may_send"),
    [
        (InviteProgress(), None, True),
        (InviteProgress(sent=True), 491, False),
        (InviteProgress(received=True), 500, False),
        (InviteProgress(sent=True, received=True), 491, False),
        (InviteProgress(unacknowledged=True), None, False),
        (InviteProgress(unacknowledged=True, offered=True), 491, False),
    ],
)
def test_one_invite_at_a_time(progress: InviteProgress, status: int | None, may_send: bool) -> None:
    assert progress.may_send is may_send
    if status is None:
        progress.check_received(Fixed(0))
        return
    with pytest.raises(RequestRefusedError) as refused:
        progress.check_received(Fixed(0))
    assert refused.value.status == status


@pytest.mark.parametrize(("octet", "seconds"), [(0, "0"), (10, "10"), (11, "0"), (255, "2")])
def test_retry_after_is_from_0_to_10_s(octet: int, seconds: str) -> None:
    with pytest.raises(RequestRefusedError) as refused:
        InviteProgress(received=True).check_received(Fixed(octet))
    assert refused.value.headers == (("Retry-After", seconds),)


def test_the_waits_of_both_sides_do_not_meet() -> None:
    class Every:
        def __init__(self, number: int) -> None:
            self._number = number

        def token(self, size: int) -> bytes:
            return self._number.to_bytes(size, "big")

    owner = {glare_wait_s(Every(number), owns_call_id=True) for number in range(1000)}
    other = {glare_wait_s(Every(number), owns_call_id=False) for number in range(1000)}
    assert (min(owner), max(owner), len(owner)) == (2.1, 4.0, 191)
    assert (min(other), max(other), len(other)) == (0.0, 2.0, 201)
