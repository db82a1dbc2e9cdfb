"""The key-mgmt attribute as text."""

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from voice_dpki.mikey.failures import Failure, MikeyError
from voice_dpki.mikey.sdp import MAX_VALUES, key_mgmt_value, mikey_message, protocol_ids


@given(st.binary(min_size=1, max_size=200))
def test_what_is_written_is_read_again(message: bytes) -> None:
    value = key_mgmt_value(message)
    assert mikey_message([value]) == message
    assert mikey_message([" " + value, "keyp1 QUJD"]) == message


def test_protocols_keep_their_order() -> None:
    assert protocol_ids(["keyp1 QUJD", "mikey QUJD"]) == ("keyp1", "mikey")


@pytest.mark.parametrize(
    "values",
    [
        [],
        ["keyp1 QUJD"],
        ["MIKEY QUJD"],
        ["mikey QUJD", "mikey QUJD"],
        ["mikey"],
        ["mikey  QUJD"],
        ["mikey QUJD "],
        ["mikey QUJ"],
        ["mikey QQ="],
        ["mikey QR=="],
        ["mikey QUJD\n"],
        ["mikey " + "A" * 40_000],
        ["mikey QUJD"] * (MAX_VALUES + 1),
    ],
)
def test_refusals(values: list[str]) -> None:
    with pytest.raises(MikeyError) as caught:
        mikey_message(values)
    assert caught.value.failure is Failure.KEY_MGMT


@given(st.lists(st.text(max_size=40), max_size=3))
def test_any_text_is_read_or_refused(values: list[str]) -> None:
    with suppress(MikeyError):
        mikey_message(values)
