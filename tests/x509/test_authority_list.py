"""Lists of authorities, in PEM and in the form of a policy administrator's signed list."""

import base64
import json
from typing import Any

import pytest

from tests.pki import der_of, pem_of, root
from voice_dpki.codec import base64url
from voice_dpki.errors import MalformedError
from voice_dpki.x509.authority_list import authorities_of, read_authorities
from voice_dpki.x509.keys import LocalSigner, generate_es256, generate_rsa

NOW_S = 1_790_000_000
ONE, TWO = (root(name, NOW_S).certificate for name in ("One CA", "Two CA"))
ADMINISTRATOR = generate_es256()
TRUST_LIST = [pem_of(ONE).decode(), base64.b64encode(der_of(TWO)).decode()]


def signed(payload: Any, signer: LocalSigner = ADMINISTRATOR, **header: Any) -> bytes:
    parts = {"alg": "ES256", "typ": "JWT", "x5u": "https://pa.example/list.pem", **header}, payload
    text = ".".join(base64url.encode(json.dumps(part).encode()) for part in parts)
    return f"{text}.{base64url.encode(signer.sign(text.encode()))}".encode()


def test_pem() -> None:
    assert read_authorities(b"# ours\n" + pem_of(ONE, TWO))[0] == [ONE, TWO]


@pytest.mark.parametrize("key", [None, ADMINISTRATOR.public_key_der], ids=["any key", "its key"])
def test_the_signed_list(key: bytes | None) -> None:
    listed = signed({"version": "1.0", "sequence": 7, "exp": NOW_S, "trustList": TRUST_LIST})
    assert read_authorities(listed + b"\n", key) == ([ONE, TWO], NOW_S)
    assert read_authorities(json.dumps({"status": "success", "caList": listed.decode()}).encode(), key)[0] == [
        ONE,
        TWO,
    ]


def test_a_list_may_have_no_end() -> None:
    certificates, until_s = read_authorities(signed({"trustList": TRUST_LIST}))
    assert certificates == [ONE, TWO]
    assert until_s > 1 << 40


GOOD = {"trustList": TRUST_LIST}


@pytest.mark.parametrize(
    ("data", "match"),
    [
        (b"", "neither PEM nor"),
        (b"\xff\xfe", "neither PEM nor"),
        (b"{}", "caList"),
        (b"a.b", "neither PEM nor"),
        (pem_of(ONE)[:-40], "something else"),
        (signed({}), "trustList"),
        (signed({"trustList": []}), "trustList"),
        (signed({"trustList": TRUST_LIST * 501}), "1 to 1000"),
        (signed({"trustList": ["x"]}), "something else"),
        (signed({"trustList": [7]}), "something else"),
        (signed({"trustList": ["\n".join((TRUST_LIST[1][:8], TRUST_LIST[1][8:]))]}), "something else"),
        (signed({**GOOD, "exp": "soon"}), "exp"),
        (signed({**GOOD, "exp": True}), "exp"),
        (b"x" * ((1 << 22) + 1), "at most"),
    ],
)
def test_malformed_lists(data: bytes, match: str) -> None:
    with pytest.raises(MalformedError, match=match):
        read_authorities(data)


@pytest.mark.parametrize(
    ("data", "match"),
    [
        (pem_of(ONE), "is not signed"),
        (signed(GOOD, generate_es256()), "does not verify"),
        (signed(GOOD, alg="none"), "ES256"),
        (signed(GOOD, crit=["b64"]), "ES256"),
        (signed(GOOD)[:-6] + b"AAAAAA", "does not verify"),
    ],
)
def test_only_the_configured_signers_list_counts(data: bytes, match: str) -> None:
    with pytest.raises(MalformedError, match=match):
        read_authorities(data, ADMINISTRATOR.public_key_der)


def test_a_signer_has_a_key_for_es256() -> None:
    with pytest.raises(MalformedError, match="does not verify"):
        read_authorities(signed(GOOD), generate_rsa().public_key_der)


def test_lists_are_joined_and_end_with_the_first() -> None:
    joined = authorities_of([([ONE, TWO], 1 << 48), ([TWO], NOW_S)])
    assert (len(joined), joined.until_s) == (2, NOW_S)
