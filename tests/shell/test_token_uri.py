"""URIs of RFC 7512, as the examples of its §3 have them, and what is refused."""

from pathlib import Path

import pytest

from voice_dpki.errors import LocalError
from voice_dpki.shell.token_uri import MAX_URI_CHARACTERS, TokenUri, key_place

HERE = Path("/etc/voice-dpki")
MODULE = "module-path=/usr/lib/p11.so"


def place(text: str) -> TokenUri:
    found = key_place(text, HERE)
    assert isinstance(found, TokenUri)
    return found


def test_what_is_no_uri_is_a_file_beside_the_configuration() -> None:
    assert key_place("authn.pem", HERE) == HERE / "authn.pem"
    assert key_place("/keys/authn.pem", HERE) == Path("/keys/authn.pem")


def test_a_key_by_label_and_id_with_its_pin_in_a_file() -> None:
    """RFC 7512 §3: `id` holds escaped octets, `pin-source` a file: URI."""
    uri = place(
        "pkcs11:token=Software%20PKCS%2311%20softtoken;object=my-certificate;type=private;id=%69%95%3E%5C%F4%BD%EC%91"
        f"?pin-source=file:/etc/token_pin&{MODULE}"
    )
    assert (uri.token, uri.label) == ("Software PKCS#11 softtoken", "my-certificate")
    assert uri.key_id == bytes.fromhex("69953e5cf4bdec91")
    assert (uri.pin_file, uri.module) == (Path("/etc/token_pin"), Path("/usr/lib/p11.so"))


@pytest.mark.parametrize("source", ["pin", "file:///etc/voice-dpki/pin", "file:/etc/voice-dpki/pin"])
def test_the_pins_file_may_be_relative(source: str) -> None:
    assert place(f"pkcs11:serial=1;object=a?{MODULE}&pin-source={source}").pin_file == HERE / "pin"


def test_a_token_without_a_pin() -> None:
    assert place(f"pkcs11:token=a;object=b?{MODULE}").pin_file is None


@pytest.mark.parametrize(
    ("uri", "why"),
    [
        (f"pkcs11:token=a;object=b?{MODULE}&pin-value=1234", "must not hold the PIN"),
        (f"pkcs11:token=a;object=b;pin-value=1234?{MODULE}", "must not hold the PIN"),
        (f"pkcs11:token=a;object=b?{MODULE}&pin-source=|/bin/echo", "escaped"),
        (f"pkcs11:token=a;object=b?{MODULE}&pin-source=%7C/bin/echo", "is not run"),
        (f"pkcs11:token=a?{MODULE}", "names a token"),
        (f"pkcs11:object=a?{MODULE}", "names a token"),
        (f"pkcs11:token=a;object=b;type=cert?{MODULE}", "type=private"),
        (f"pkcs11:token=a;object=b;slot-id=3?{MODULE}", "'slot-id' is not understood"),
        (f"pkcs11:token=a;token=b;object=c?{MODULE}", "token twice"),
        (f"pkcs11:token=;object=c?{MODULE}", "empty"),
        (f"pkcs11:token=a b;object=c?{MODULE}", "escaped"),
        (f"pkcs11:token=%zz;object=c?{MODULE}", "escaped"),
        (f"pkcs11:token=%FF;object=c?{MODULE}", "not UTF-8"),
        ("pkcs11:token=a;object=b", "whole path"),
        ("pkcs11:token=a;object=b?module-path=p11.so", "whole path"),
        (f"pkcs11:token={'a' * MAX_URI_CHARACTERS};object=b?{MODULE}", "characters"),
    ],
)
def test_uris_that_cannot_be_used(uri: str, why: str) -> None:
    with pytest.raises(LocalError, match=why) as refused:
        key_place(uri, HERE)
    assert "1234" not in str(refused.value)
