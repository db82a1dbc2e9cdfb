import contextlib
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from voice_dpki.errors import MalformedError
from voice_dpki.stir.identity import MAX_IDENTITY_LENGTH, IdentityHeader
from voice_dpki.stir.passport import MAX_TOKEN_LENGTH

WHOLE = IdentityHeader("eyJ.eyJ.c2ln", "https://c.example/ab.der", "ES256", "shaken")


def test_serializes_as_peers_read_it() -> None:
    assert WHOLE.serialize() == "eyJ.eyJ.c2ln;info=<https://c.example/ab.der>;alg=ES256;ppt=shaken"


@pytest.mark.parametrize(
    "written",
    [
        "eyJ.eyJ.c2ln;info=<https://c.example/ab.der>;alg=ES256;ppt=shaken",
        ' eyJ.eyJ.c2ln ; info = <https://c.example/ab.der> ; alg = ES256 ; ppt = "shaken" ',
        "eyJ.eyJ.c2ln;\r\n info=<https://c.example/ab.der>\r\n\t;\n alg=ES256;ppt=shaken\r\n",
        'eyJ.eyJ.c2ln;PPT="shaken";ALG="ES256";Info=<https://c.example/ab.der>;later=<x>;flag',
    ],
)
def test_reads_the_spellings_in_use(written: str) -> None:
    assert IdentityHeader.parse(written) == WHOLE


def test_parameters_may_be_missing() -> None:
    assert IdentityHeader.parse("..c2ln") == IdentityHeader("..c2ln", None, None, None)
    assert IdentityHeader.parse("a.b.c;info=<>").info == ""


def test_a_uri_may_hold_semicolons_and_commas() -> None:
    assert IdentityHeader.parse("a.b.c;info=<https://x/a;b,c=d>").info == "https://x/a;b,c=d"


@pytest.mark.parametrize(
    "written",
    [
        "",
        ";info=<x>",
        "a b;info=<x>",
        "a.b.c;info=https://x",
        "a.b.c;info=<x",
        "a.b.c;info=<x>;info=<y>",
        "a.b.c;alg=ES256;ALG=none",
        "a.b.c;=x",
        "a.b.c;info=<x>,d.e.f;info=<y>",
        "a.b.c;info=<x>\r\nX-Header: y",
        "a.b.c;info=<x\r\n>",
        "a.b.c" + "".join(f";p{n}=1" for n in range(17)),
        "a" * (MAX_TOKEN_LENGTH + 1),
        "a.b.c;p=" + "a" * MAX_IDENTITY_LENGTH,
    ],
)
def test_refuses(written: str) -> None:
    with pytest.raises(MalformedError):
        IdentityHeader.parse(written)


@given(st.text(max_size=100) | st.text('ab.;=<>" \tinfoalgppt', max_size=60).map("a.b.c;".__add__))
def test_any_text_parses_or_is_malformed(text: str) -> None:
    with contextlib.suppress(MalformedError):
        assert IdentityHeader.parse(text).token


@given(
    st.text("abcXYZ019-_.", min_size=1),
    st.none() | st.text("abc:/?#[]@!$&'()*+,;=%20", min_size=1),
    st.none() | st.just("ES256"),
    st.none() | st.sampled_from(["shaken", "div"]),
)
def test_parse_gives_back_what_serialize_wrote(
    token: str, info: str | None, alg: str | None, ppt: str | None
) -> None:
    header = IdentityHeader(token, info, alg, ppt)
    assert IdentityHeader.parse(header.serialize()) == header


_TOKENS = st.text("abcXYZ019-_.=+", max_size=12) | st.just("a" * (MAX_TOKEN_LENGTH + 1))


@given(
    _TOKENS,
    st.text("abc:/?#@!;=<> \u00e9\n", max_size=10),
    st.sampled_from(["ES256", "es256", ""]),
    st.text('shaken-div\u017f;"A1', max_size=8),
    st.sampled_from(["", "\n", " ", ";x"]),
)
def test_the_usual_form_means_the_same_by_the_whole_grammar(
    token: str, info: str, alg: str, ppt: str, end: str
) -> None:
    def read(parse: Callable[[str], IdentityHeader]) -> object:
        try:
            return parse(f"{token};info=<{info}>;alg={alg};ppt={ppt}{end}")
        except MalformedError as error:
            return type(error), str(error)

    assert read(IdentityHeader.parse) == read(IdentityHeader._parse_any)


@pytest.mark.parametrize(
    ("written", "has_others"),
    [
        ("a.b.c", False),
        ("a.b.c;info=<x>", False),
        ("a.b.c;info=<x>;ppt=shaken;alg=ES256", False),
        ("a.b.c;info=<x>;alg=ES256;ppt=shaken", False),
        ("a.b.c;canon=x", True),
        ("a.b.c;info=<x>;alg=ES256;ppt=shaken;canon=x", True),
    ],
)
def test_whether_there_are_other_parameters(written: str, has_others: bool) -> None:
    assert IdentityHeader.parse(written).has_others is has_others


def test_the_length_of_a_token_does_not_count_what_stands_behind_it() -> None:
    longest = "a" * 8192
    for space in ("", " ", "\t "):
        assert IdentityHeader.parse(f"{longest}{space};info=<x>").token == longest
    with pytest.raises(MalformedError, match="more than 8192"):
        IdentityHeader.parse(f"{longest}a;info=<x>")


def test_the_bounds_of_a_header_field() -> None:
    longest = "a.b.c;info=<" + "x" * (10_240 - 13) + ">"
    assert len(longest) == 10_240
    assert IdentityHeader.parse(longest).token == "a.b.c"
    with pytest.raises(MalformedError, match="more than 10240"):
        IdentityHeader.parse(f"{longest} ")
    most = "a.b.c" + "".join(f";x{n}" for n in range(16))
    assert IdentityHeader.parse(most).has_others
    for parameters in (f"{most};x16", "a.b.c;ppt=x;PPT=x"):
        with pytest.raises(MalformedError, match="twice, or too many"):
            IdentityHeader.parse(parameters)
    assert not IdentityHeader("a.b.c", None, None, None).has_others
