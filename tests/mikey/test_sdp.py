"""The key-mgmt attribute as text."""

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from voice_dpki.mikey.failures import Failure, MikeyError
from voice_dpki.mikey.message import MAX_MESSAGE_BYTES
from voice_dpki.mikey.sdp import key_mgmt_value, mikey_message, protocol_ids


@given(st.binary(min_size=1, max_size=200))
def test_what_is_written_is_read_again(message: bytes) -> None:
    value = key_mgmt_value(message)
    assert mikey_message([value]) == message
    assert mikey_message([" " + value, "keyp1 QUJD"]) == message


def test_protocols_keep_their_order() -> None:
    assert protocol_ids(["keyp1 QUJD", "mikey QUJD"]) == ("keyp1", "mikey")


def test_the_bounds_of_the_attributes() -> None:
    most = ["keyp1 QUJD"] * 7 + ["mikey QUJD"]
    assert (len(protocol_ids(most)), mikey_message(most)) == (8, b"ABC")
    with pytest.raises(MikeyError, match="more than 8 key-mgmt attributes"):
        protocol_ids(["keyp1 QUJD"] * 9)
    longest = bytes(MAX_MESSAGE_BYTES)
    assert mikey_message([key_mgmt_value(longest)]) == longest
    with pytest.raises(MikeyError, match="longer than"):
        mikey_message([key_mgmt_value(longest + bytes(3))])
    name = "x" * 32
    assert protocol_ids([f"{name} QUJD"]) == (name,)
    with pytest.raises(MikeyError, match="not 'protocol base64'"):
        protocol_ids([f"{name}x QUJD"])


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
        ["mikey QUJD"] * 9,
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
