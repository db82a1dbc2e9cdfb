import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from voice_dpki.errors import MalformedError
from voice_dpki.names import CertDigest
from voice_dpki.x509.reference import digest_in, url_for

DIGEST = CertDigest(bytes(range(32)))
HEX = DIGEST.hex()


@pytest.mark.parametrize(
    "url",
    [
        f"https://certs.a.example/{HEX}",
        f"https://certs.a.example/{HEX}.der",
        f"http://127.0.0.1:8080/a/b/{HEX.upper()}.PEM",
        f"https://certs.a.example//{HEX}",
    ],
)
def test_finds_the_digest(url: str) -> None:
    assert digest_in(url) == DIGEST


@pytest.mark.parametrize(
    "url",
    [
        "",
        HEX,
        f"https://{HEX}",
        f"file:///etc/{HEX}",
        f"https://certs.a.example/{HEX[:-1]}",
        f"https://certs.a.example/{HEX}0",
        f"https://certs.a.example/{HEX}.crt",
        f"https://certs.a.example/{HEX}/",
        f"https://certs.a.example/x?{HEX}",
        f"https://certs.a.example/x?/{HEX}",
        f"https://certs.a.example/x#/{HEX}",
        f"https://certs.a.example/{HEX}?x",
        f"https://certs.a.example/ /{HEX}",
        f"https://certs.a.example/{HEX}\n",
        f"https://certs.a.example/{'a' * 600}/{HEX}",
    ],
)
def test_other_urls_name_no_certificate(url: str) -> None:
    with pytest.raises(MalformedError):
        digest_in(url)


@given(st.text(max_size=80) | st.text("ab/.:0", max_size=500).map("https://a/".__add__))
def test_any_text_names_a_digest_or_is_malformed(text: str) -> None:
    with contextlib.suppress(MalformedError):
        assert len(digest_in(text)) == 32


def test_fills_a_template() -> None:
    assert url_for("https://certs.a.example/{digest}.der", DIGEST) == f"https://certs.a.example/{HEX}.der"
    for template in ("https://certs.a.example/cert.der", "https://certs.a.example/?{digest}"):
        with pytest.raises(MalformedError):
            url_for(template, DIGEST)
    with pytest.raises(MalformedError, match="another certificate"):
        url_for(f"https://certs.a.example/{{digest}}/{'0' * 64}", DIGEST)


def test_the_length_of_a_url() -> None:
    before, behind = "https://certs.a.example/", f"/{HEX}.der"
    longest = before + "a" * (512 - len(before) - len(behind)) + behind
    assert digest_in(longest) == DIGEST
    with pytest.raises(MalformedError):
        digest_in(longest.replace("/a", "/aa", 1))
