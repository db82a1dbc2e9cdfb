"""Keys in SDP, with octets from RFC 4568 and RFC 7714, and what is not taken."""

import base64
import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from voice_dpki.errors import MalformedError
from voice_dpki.sip.sdes import Crypto, CryptoSuite, NotSupportedError, check_crypto_answer, crypto_to_take

# RFC 4568 §10.1, the first attribute of its figure.
RFC_KEY = "d0RmdmcmVCspeEc3QGZiNWpVLFJhQX1cfHAwJSoj"
RFC_VALUE = f"1 AES_CM_128_HMAC_SHA1_80 inline:{RFC_KEY}|2^20|1:4"
KEY = bytes(range(30))


def value(suite: str = "AES_CM_128_HMAC_SHA1_80", key: bytes = KEY, *, tag: int = 1, after: str = "") -> str:
    return f"{tag} {suite} inline:{base64.b64encode(key).decode()}{after}"


def test_the_rfcs_example_without_its_mki() -> None:
    crypto = Crypto.parse(RFC_VALUE.removesuffix("|1:4"))
    assert (crypto.tag, crypto.suite) == (1, CryptoSuite.AES_CM_128_HMAC_SHA1_80)
    assert crypto.key == base64.b64decode(RFC_KEY)
    assert crypto.serialize() == RFC_VALUE.removesuffix("|2^20|1:4")


@pytest.mark.parametrize(("suite", "size"), [(suite, suite.key_bytes) for suite in CryptoSuite])
def test_each_suite_comes_back(suite: CryptoSuite, size: int) -> None:
    crypto = Crypto(7, suite, bytes(range(size)))
    assert Crypto.parse(crypto.serialize()) == crypto
    assert base64.b64encode(crypto.key).decode() not in repr(crypto)
    assert crypto.key.hex() not in repr(crypto)


def test_the_lengths_of_the_standards() -> None:
    # RFC 4568 §6.2: 128 and 112 bits; RFC 7714 §14.2: 128 or 256, and 96 bits.
    assert [suite.key_bytes for suite in CryptoSuite] == [30, 30, 28, 44]


def test_gcm_keys_are_read_with_and_without_padding() -> None:
    padded = value("AEAD_AES_128_GCM", bytes(28))
    assert padded.endswith("==")
    assert Crypto.parse(padded) == Crypto.parse(padded.rstrip("="))


@pytest.mark.parametrize(
    "asked",
    [
        RFC_VALUE,  # an MKI
        value(after=" UNENCRYPTED_SRTP"),
        value(after=" UNAUTHENTICATED_SRTP"),
        value(after=" KDR=1"),
        value(after=" WSH=64 UNENCRYPTED_SRTCP"),
        value(after=f";inline:{RFC_KEY}"),
        value("F8_128_HMAC_SHA1_80"),
    ],
)
def test_what_is_not_supported_is_passed_over_and_never_taken(asked: str) -> None:
    with pytest.raises(NotSupportedError):
        Crypto.parse(asked)
    good = value(tag=2, after=" WSH=64")
    assert crypto_to_take([asked, good], list(CryptoSuite)).tag == 2
    with pytest.raises(NotSupportedError):
        crypto_to_take([asked], list(CryptoSuite))


@pytest.mark.parametrize("key", [b"", bytes(29), bytes(31), bytes(28), bytes(44)])
def test_a_key_of_another_length_is_refused(key: bytes) -> None:
    with pytest.raises(MalformedError):
        Crypto.parse(value(key=key))


def test_a_key_that_is_no_base64_is_refused() -> None:
    """One digit of base64 beyond whole octets says nothing (RFC 4648 §4)."""
    with pytest.raises(MalformedError, match="is not base64"):
        Crypto.parse(f"1 AES_CM_128_HMAC_SHA1_80 inline:{RFC_KEY[:37]}")


def test_too_many_are_refused() -> None:
    with pytest.raises(MalformedError, match="more than 16"):
        crypto_to_take([value()] * 17, list(CryptoSuite))


def test_the_answer_takes_up_one_of_the_offer() -> None:
    ours = [Crypto(tag, suite, bytes(suite.key_bytes)) for tag, suite in enumerate(CryptoSuite, 1)]
    answer = value("AEAD_AES_256_GCM", bytes(range(44)), tag=4)
    taken, theirs = check_crypto_answer(ours, [answer])
    assert (taken, theirs.key) == (ours[3], bytes(range(44)))


@pytest.mark.parametrize(
    "answers",
    [
        [],
        [value(), value()],
        [value(tag=2)],  # the tag of another suite
        [value(tag=9)],
        [value(key=bytes(30))],  # our own key, sent back
    ],
)
def test_an_answer_that_is_none_is_refused(answers: list[str]) -> None:
    ours = [Crypto(tag, suite, bytes(suite.key_bytes)) for tag, suite in enumerate(CryptoSuite, 1)]
    with pytest.raises(MalformedError):
        check_crypto_answer(ours, answers)


@given(st.text(max_size=200) | st.from_regex(r"[0-9]{1,3} AES_CM_128_HMAC_SHA1_80 inline:[A-Za-z0-9+/|^=]{0,60}"))
def test_any_text_is_read_or_refused(text: str) -> None:
    with contextlib.suppress(MalformedError):
        assert len(Crypto.parse(text).key) in (28, 30, 44)
