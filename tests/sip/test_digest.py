"""Digest authentication: RFC 7616's own example, and what an attacker may try with a nonce."""

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from voice_dpki.codec import base64url
from voice_dpki.effects import Random
from voice_dpki.errors import MalformedError
from voice_dpki.sip.account import Account
from voice_dpki.sip.digest import (
    MD5,
    SHA_256,
    Authenticator,
    Challenge,
    DigestRefusedError,
    Secret,
    answer_challenge,
    choose_challenge,
    digest_ha1,
)

NOW_S = 1000.0
USER = "+493023125001"
USERS = {USER: Secret("right")}


@pytest.fixture
def server(random: Random) -> Authenticator:
    return Authenticator("a.example", USERS.get, random=random)


def answer(
    challenge: str, password: str = "right", *, count: int = 1, method: str = "INVITE", user: str = "+493023125001"
) -> str:
    return answer_challenge(
        Challenge.parse(challenge),
        username=user,
        password=password,
        method=method,
        uri="sip:b.example",
        count=count,
        cnonce="0a4f113b",
    )


@pytest.mark.parametrize(
    ("algorithm", "response"),
    [
        (MD5, "8ca523f5e9506fed4657c9700eebdbec"),
        (SHA_256, "753927fa0e85d155564e2e272a28d1802ca10daf4496794697cf8db5856cb6c1"),
    ],
)
def test_the_example_of_rfc_7616(algorithm: str, response: str) -> None:
    challenge = Challenge(
        "http-auth@example.org",
        "7ypf/xlj9XXwfDPEoM4URrv/xwf94BcCAzFZH4GiTo0v",
        algorithm,
        "FQhe/qaU925kfnzjCev0ciny7QMkPqMAFRtzCUYo5tdS",
    )
    text = answer_challenge(
        Challenge.parse(challenge.serialize()),
        username="Mufasa",
        password="Circle of Life",
        method="GET",
        uri="/dir/index.html",
        count=1,
        cnonce="f2/wE4q74E6zIJEtWaHKaf5wv/H5QzzpXusqGemxURZJ",
    )
    assert f'response="{response}"' in text
    assert "nc=00000001" in text
    assert 'opaque="FQhe/qaU925kfnzjCev0ciny7QMkPqMAFRtzCUYo5tdS"' in text


def test_the_right_password_authenticates(server: Authenticator) -> None:
    challenge = server.challenge(USER, NOW_S)
    assert Challenge.parse(challenge).algorithm == SHA_256
    other = 'Digest realm="elsewhere", nonce="x"'
    values = [other, "Basic eA==", answer(challenge)]
    assert server.authenticate(values, "INVITE", NOW_S + 1) == "+493023125001"


def test_a_hash_serves_as_well_as_the_password(random: Random) -> None:
    secret = Secret(ha1=digest_ha1(SHA_256, USER, "a.example", "right"))
    server = Authenticator("a.example", lambda _: secret, random=random)
    challenge = server.challenge(USER, NOW_S)
    assert server.authenticate([answer(challenge)], "INVITE", NOW_S)


def test_what_is_printed_shows_no_secret() -> None:
    shown = repr(Secret("word")) + repr(Secret(ha1="c0ffee")) + repr(Account("sip:1@a.example", "alice", "word"))
    assert "word" not in shown.replace("password", "")
    assert "c0ffee" not in shown


@pytest.mark.parametrize(
    ("change", "stale"),
    [
        (lambda c: answer(c, "wrong"), False),
        (lambda c: answer(c, user="+493023125009"), False),
        (lambda c: answer(c, method="BYE"), False),
        (lambda c: answer(c).replace("qop=auth", "qop=auth-int"), False),
        (lambda c: answer(c).replace("qop=auth, ", ""), False),
        (lambda c: answer(c).replace("nc=00000001", "nc=1"), False),
        (lambda c: answer(c.replace("SHA-256", "MD5")), False),
        (lambda c: answer(c).replace("algorithm=SHA-256", "algorithm=MD5"), False),
        (lambda c: answer(c.replace('nonce="', 'nonce="A')), True),
        (lambda c: answer(Challenge("a.example", "!", SHA_256).serialize()), True),
        (lambda c: answer(Challenge("a.example", "AAAA", SHA_256).serialize()), True),
        (lambda c: answer(c).replace("a.example", "b.example"), False),
        (lambda c: answer(c) + ', realm="a.example"', False),
        (lambda c: "Digest", False),
    ],
)
def test_anything_else_does_not(server: Authenticator, change: Callable[[str], str], stale: bool) -> None:
    challenge = server.challenge(USER, NOW_S)
    with pytest.raises(DigestRefusedError) as refused:
        server.authenticate([change(challenge)], "INVITE", NOW_S + 1)
    assert refused.value.stale is stale


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("qop=auth", "qop=auth-int"),
        ("qop=auth, ", ""),
        ('cnonce="0a4f113b"', 'cnonce=""'),
        (', cnonce="0a4f113b"', ""),
        ("nc=00000001", "nc=1"),
        ("nc=00000001", "nc=000000001"),
        ("nc=00000001", "nc=0000000g"),
        (", nc=00000001", ""),
    ],
)
def test_credentials_are_for_qop_auth_with_a_count(server: Authenticator, old: str, new: str) -> None:
    right = answer(server.challenge(USER, NOW_S))
    assert old in right
    with pytest.raises(DigestRefusedError, match="not for qop=auth with a nonce count"):
        server.authenticate([right.replace(old, new)], "INVITE", NOW_S)


def test_a_nonce_lives_300_s_from_the_first_millisecond_of_the_clock(server: Authenticator) -> None:
    for issued_s in (0.0, NOW_S):
        challenge = server.challenge(USER, issued_s)
        assert server.authenticate([answer(challenge, count=1)], "INVITE", issued_s + 300) == USER
        for at_s in (issued_s + 300.001, issued_s - 0.001):
            with pytest.raises(DigestRefusedError, match="too old"):
                server.authenticate([answer(challenge, count=2)], "INVITE", at_s)


def test_a_nonce_has_32_octets_and_none_is_issued_twice(server: Authenticator) -> None:
    """Time, 8 random octets and a code over both, so that two of one millisecond differ."""
    nonces = {Challenge.parse(server.challenge(USER, NOW_S)).nonce for _ in range(20)}
    assert len(nonces) == 20
    assert {len(base64url.decode(nonce)) for nonce in nonces} == {32}


def test_a_nonce_is_good_once_for_each_count_and_for_a_time(server: Authenticator) -> None:
    challenge = server.challenge(USER, NOW_S)
    server.authenticate([answer(challenge)], "INVITE", NOW_S)
    server.authenticate([answer(challenge, count=3)], "INVITE", NOW_S)
    for count, at_s in ((1, NOW_S), (2, NOW_S), (3, NOW_S), (4, NOW_S + 301)):
        with pytest.raises(DigestRefusedError) as refused:
            server.authenticate([answer(challenge, count=count)], "INVITE", at_s)
        assert refused.value.stale


def test_credentials_do_not_outlive_the_process(random: Random) -> None:
    """After a restart the clock of the nonces begins anew, and no count is remembered: a new nonce is wanted."""
    before, after = (Authenticator("a.example", USERS.get, random=random) for _ in range(2))
    captured = answer(before.challenge(USER, NOW_S))
    assert before.authenticate([captured], "INVITE", NOW_S) == USER
    for at_s in (0.0, NOW_S, NOW_S + 1):
        with pytest.raises(DigestRefusedError) as refused:
            after.authenticate([captured], "INVITE", at_s)
        assert refused.value.stale
    assert after.authenticate([answer(after.challenge(USER, NOW_S))], "INVITE", NOW_S) == USER


def test_a_nonce_of_a_later_time_is_stale(server: Authenticator) -> None:
    early = answer(server.challenge(USER, NOW_S + 0.001))
    with pytest.raises(DigestRefusedError) as refused:
        server.authenticate([early], "INVITE", NOW_S)
    assert refused.value.stale


def test_a_forgotten_nonce_cannot_be_used_again(random: Random) -> None:
    server = Authenticator("a.example", USERS.get, random=random, max_nonces=2)
    challenges = [server.challenge(USER, NOW_S + second) for second in range(4)]
    for challenge in challenges[:3]:
        server.authenticate([answer(challenge)], "INVITE", NOW_S + 5)
    with pytest.raises(DigestRefusedError):
        server.authenticate([answer(challenges[0])], "INVITE", NOW_S + 5)
    server.authenticate([answer(challenges[3])], "INVITE", NOW_S + 5)
    assert len(server._counts) == 2


def test_md5_is_for_users_with_older_telephones_alone(random: Random) -> None:
    users = {**USERS, "old": Secret("right", algorithm=MD5)}
    server = Authenticator("a.example", users.get, random=random)
    challenge = server.challenge("old", NOW_S)
    assert Challenge.parse(challenge).algorithm == MD5
    assert server.authenticate([answer(challenge, user="old")], "INVITE", NOW_S) == "old"
    for value in (answer(challenge), answer(challenge.replace("MD5", "SHA-256"), user="old")):
        with pytest.raises(DigestRefusedError):
            server.authenticate([value], "INVITE", NOW_S)


def test_the_first_challenge_that_can_be_answered_is_chosen() -> None:
    mine, others = (Challenge(realm, "n", SHA_256).serialize() for realm in ("A.example", "b.example"))
    unreadable = 'Basic realm="a.example"'
    assert choose_challenge([unreadable, others, unreadable, mine], realm="a.example").realm == "A.example"
    assert choose_challenge([unreadable, others, mine]).realm == "b.example"
    for values in ([], [unreadable], [unreadable, others]):
        with pytest.raises(MalformedError, match="no challenge that can be answered"):
            choose_challenge(values, realm="a.example")


def test_a_header_field_of_digest_has_its_scheme_and_at_most_2048_characters() -> None:
    longest = 'DIGEST nonce="n", opaque="' + "o" * 2021 + '"'
    assert len(longest) == 2048
    assert Challenge.parse(longest).opaque == "o" * 2021
    for text in (longest.replace("oo", "ooo", 1), 'Basic nonce="n"', 'Negotiate nonce="n"'):
        with pytest.raises(MalformedError, match="no Digest header value of at most 2048 characters"):
            Challenge.parse(text)


def test_an_old_challenge_is_answered_only_where_that_is_allowed() -> None:
    challenges = [Challenge("r", "n", name).serialize() for name in ("SHA-512-256", MD5)]
    with pytest.raises(MalformedError):
        choose_challenge(challenges)
    assert choose_challenge(challenges, allow_md5=True).algorithm == MD5
    assert choose_challenge([*challenges, Challenge("r", "n", SHA_256).serialize()]).algorithm == SHA_256


def test_challenges_of_other_servers_are_read() -> None:
    text = (
        'Digest  realm="x, \\"y\\"" ,nonce = "n",qop="auth-int, auth", algorithm=sha-256 ,domain="a b", stale=TRUE'
    )
    challenge = Challenge.parse(text)
    assert (challenge.realm, challenge.nonce, challenge.algorithm) == ('x, "y"', "n", SHA_256)
    assert challenge.stale
    for text in ('Digest realm="x"', 'Digest nonce="n", qop="auth-int"', 'Basic realm="x"', 'Digest nonce="n', ""):
        with pytest.raises(MalformedError):
            Challenge.parse(text)


@given(st.text(max_size=200))
def test_any_text_is_a_challenge_or_none(text: str) -> None:
    for value in (text, "Digest " + text, 'Digest nonce="n", ' + text):
        try:
            assert Challenge.parse(value).nonce
        except MalformedError:
            continue
