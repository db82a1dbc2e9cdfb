import pytest
from hypothesis import given
from hypothesis import strategies as st

from voice_dpki.codec.telephone import host_in_uri, is_same_party, number_in_uri, split_sip_uri

NUMBER = "442079460123"


@pytest.mark.parametrize(
    "uri",
    [
        "sip:+442079460123@b.example",
        "sip:442079460123@b.example",
        "sip:+44-20-7946-0123@b.example",
        "SIPS:+442079460123@B.EXAMPLE:5061;user=phone",
        "sip:+442079460123@[2001:db8::1]:5060;transport=tcp?Subject=x",
    ],
)
def test_a_number_is_the_same_party_at_every_domain(uri: str) -> None:
    assert number_in_uri(uri) == NUMBER
    assert is_same_party(uri, "sip:+442079460123@a.example")
    assert is_same_party("sip:+442079460123@a.example", uri)


@pytest.mark.parametrize(
    "uri",
    [
        "sip:+442079460123:secret@b.example",
        "sip:+442079460123:@b.example",
        "sip:+442079460123;phone-context=b.example@b.example",
        "sip:+442079460123;npdi;rn=+4930@b.example",
        "sip:%2B442079460123@b.example",
        "sip:*442079460123@b.example",
        "sip:+4420794601231234@b.example",  # 16 digits
        "sip:+٤٤@b.example",
        "sip:alice@b.example",
        "sip:b.example",
        "sip:+442079460123@a.example@b.example",
        "tel:+442079460123",
        "https://b.example/+442079460123",
        "",
    ],
)
def test_what_is_no_number_alone_is_the_same_party_only_where_it_is_equal(uri: str) -> None:
    assert number_in_uri(uri) is None
    assert is_same_party(uri, uri)
    assert not is_same_party(uri, "sip:+442079460123@b.example")
    assert not is_same_party("sip:+442079460123@b.example", uri)
    assert not is_same_party(uri, f"{uri} ")


def test_other_numbers_are_other_parties() -> None:
    assert not is_same_party("sip:+442079460123@b.example", "sip:+442079460124@b.example")
    assert not is_same_party("sip:+42079460123@b.example", "sip:+442079460123@b.example")


@pytest.mark.parametrize(
    ("uri", "host"),
    [
        ("sip:+44@B.Example:5070;user=phone", "b.example"),
        ("sip:+44:secret@b.example", "b.example"),
        ("sip:+44@c.example;x=@b.example", "c.example"),
        ("sip:+44@c.example?x=sip:+44@b.example", "c.example"),
        ("sip:+44@c.example@b.example", None),
        ("sip:b.example", None),
        ("tel:+44", None),
        ("sip:+44@" + "b" * 300, None),
    ],
)
def test_the_host_is_what_follows_the_user(uri: str, host: str | None) -> None:
    assert host_in_uri(uri) == host


@given(st.text(max_size=80), st.sampled_from(["", "sip:", "sip:+44@", "sip:+44@b.example;"]))
def test_any_text_is_split_or_none(text: str, start: str) -> None:
    uri = split_sip_uri(start + text)
    assert uri is None or uri.number is None or (uri.number.isascii() and uri.number.isdigit())
