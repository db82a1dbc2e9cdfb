import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from voice_dpki.errors import MalformedError
from voice_dpki.stir.tn import canonical_tn, canonical_uri, is_canonical_tn, tn_in_uri


@pytest.mark.parametrize(
    ("written", "canonical"),
    [
        ("+49 30 231250 01".replace(" ", "-"), "493023125001"),
        ("+49(30)231250.01", "493023125001"),
        ("12155551212", "12155551212"),
        ("*21#", "*21#"),
        ("112", "112"),
    ],
)
def test_canonical_tn(written: str, canonical: str) -> None:
    assert canonical_tn(written) == canonical


@pytest.mark.parametrize(
    "written", ["", "+", "-", "4930 231", "49+30", "++4930", "alice", "1" * 33, "٤٩", "1\n", "1" * 1000]
)
def test_no_telephone_number(written: str) -> None:
    with pytest.raises(MalformedError) as refused:
        canonical_tn(written)
    assert len(written) < 3 or written not in str(refused.value)


@given(st.text(max_size=60))
def test_any_text_is_a_canonical_tn_or_malformed(text: str) -> None:
    with contextlib.suppress(MalformedError):
        assert is_canonical_tn(canonical_tn(text))


@given(st.text("0123456789#*", min_size=1, max_size=32))
def test_a_canonical_number_stays_as_it_is(text: str) -> None:
    assert canonical_tn(text) == text


@pytest.mark.parametrize(
    ("written", "canonical"),
    [
        ("sip:Alice@Example.COM", "sip:alice@example.com"),
        ("SIPS:alice:secret@example.com:5061;transport=tls?subject=x", "sips:alice@example.com"),
        ("sip:%61lice%2f@example.com", "sip:alice%2f@example.com"),
        ("sip:alice@[2001:DB8::1]:5060", "sip:alice@[2001:db8::1]"),
        ("URN:Service:sos.Police", "urn:service:sos.police"),
    ],
)
def test_canonical_uri(written: str, canonical: str) -> None:
    assert canonical_uri(written) == canonical


@pytest.mark.parametrize(
    "written",
    [
        "",
        "sip:\u212aate@b.example",
        "sip:k\xe4te@b.example",
        "sip:kate@b.example;x=\u212a",
        "tel:+4930",
        "sip:example.com",
        "sip:@x",
        "sip:a b@x",
        "sip:a@b@c",
        "sip:" + "a" * 300 + "@b",
    ],
)
def test_no_sip_uri(written: str) -> None:
    with pytest.raises(MalformedError):
        canonical_uri(written)


@given(
    st.text(max_size=60)
    | st.from_regex(r"sips?:[a-zA-Z%0-9]{1,9}(:x)?@[a-zA-Z.]{1,9}(:[0-9]{1,3})?(;[a-z]+)?", fullmatch=True)
)
def test_canonical_uris_stay_as_they_are(text: str) -> None:
    with contextlib.suppress(MalformedError):
        once = canonical_uri(text)
        assert canonical_uri(once) == once


@pytest.mark.parametrize(
    ("uri", "number"),
    [
        ("sip:+4930231250@a.example;user=phone", "4930231250"),
        ("sip:+4930231250;isub=12@a.example:5060;transport=tcp;User=Phone?subject=x", "4930231250"),
        ("sip:231250;phone-context=+4930@a.example;user=phone", None),
        ("sip:231250;isub=1;Phone-Context=a.example@a.example;user=phone", None),
        ("sip:231250;phone%2Dcontext=a.example@a.example;user=phone", None),
        ("sip:231250;p%68one-context=a.example@a.example;user=phone", None),
        ("sip:+4930231250:secret@a.example;user=phone", None),
        ("sip:+4930231250@a.example?subject=x;user=phone", None),
        ("sip:+4930231250@a.example;transport=tcp?x=1;user=phone", None),
        ("sip:+4930231250@a.example;user=phones", None),
        ("sip:+4930231250@a.example", None),
    ],
)
def test_a_number_in_a_uri(uri: str, number: str | None) -> None:
    assert tn_in_uri(uri) == number
