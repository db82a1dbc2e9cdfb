"""The reader of requests: what is taken, what is refused, and the same results however the bytes are cut."""

import pytest

from tests.campaign import bent, campaign, rounds
from voice_dpki.codec.http1 import (
    MAX_CHUNKS,
    MAX_FIELDS,
    MAX_HEAD_BYTES,
    MAX_REQUEST_LINE_BYTES,
    HttpFault,
    RequestReader,
    encode_response,
)
from voice_dpki.errors import LocalError

MOST = 1000

GET = (
    b"GET /hello.txt HTTP/1.1\r\nUser-Agent: curl/7.64.1\r\nHost: www.example.com\r\n"
    b"Accept-Language: en, mi\r\n\r\n"
)
"""The example of RFC 9110 §3.9."""


def post(fields: bytes, body: bytes = b"") -> bytes:
    return b"POST /p HTTP/1.1\r\nHost: a\r\n" + fields + b"\r\n" + body


def chunked(body: bytes) -> bytes:
    return post(b"Transfer-Encoding: chunked\r\n", body)


Event = tuple[object, ...]


def events(*pieces: bytes) -> list[Event]:
    """Read what comes in pieces: (method, path, query, body) of each request, then the fault, if there is one."""
    reader, found, head = RequestReader(), list[Event](), None
    for piece in pieces:
        reader.feed(piece)
        try:
            while (head := head or reader.head()) is not None:
                body = reader.body(MOST)
                if body is None:
                    break
                found.append((head.method, head.path, head.query, body, tuple(head.headers.items())))
                head = None
        except HttpFault as fault:
            return [*found, (fault.status, str(fault))]
    return found


def status_of(octets: bytes) -> object:
    last = events(octets)[-1]
    return last[0]


TAKEN = {
    "the example of RFC 9110": (GET, b""),
    "a body": (post(b"Content-Length: 3\r\n", b"abc"), b"abc"),
    "leading zeros": (post(b"Content-Length: 003\r\n", b"abc"), b"abc"),
    "the example of RFC 9112 §7.1.3": (chunked(b"4\r\nWiki\r\n5\r\npedia\r\n0\r\n\r\n"), b"Wikipedia"),
    "chunk extensions": (chunked(b'3;a=b;c="d"\r\nabc\r\n0;x\r\n\r\n'), b"abc"),
    "white space before an extension": (chunked(b"3 ;a\r\nabc\r\n0\r\n\r\n"), b"abc"),
    "trailers are dropped": (chunked(b"3\r\nabc\r\n0\r\nContent-Length: 9\r\nX: y\r\n\r\n"), b"abc"),
    "chunked in capitals": (post(b"Transfer-Encoding: Chunked\r\n", b"1\r\nx\r\n0\r\n\r\n"), b"x"),
    "an empty line before": (b"\r\n" + GET, b""),
    "HTTP/1.0 without Host": (b"GET / HTTP/1.0\r\n\r\n", b""),
    "a later minor version": (b"GET / HTTP/1.2\r\nHost: a\r\n\r\n", b""),
    "white space around a value": (post(b"Content-Length: \t 3 \t\r\n", b"abc"), b"abc"),
    "an offer of HTTP/2": (post(b"Upgrade: h2c\r\nHTTP2-Settings: AAMA\r\nContent-Length: 3\r\n", b"abc"), b"abc"),
    "obs-text in a value": (post(b"X: \xe9\xff\r\n"), b""),
    "an empty Host": (b"GET / HTTP/1.1\r\nHost:\r\n\r\n", b""),
    "Host of IPv6": (b"GET / HTTP/1.1\r\nHost: [::1]:80\r\n\r\n", b""),
}


@pytest.mark.parametrize("name", TAKEN)
def test_requests_that_are_taken(name: str) -> None:
    octets, body = TAKEN[name]
    (found,) = events(octets)
    assert found[3] == body


REFUSED: dict[str, tuple[bytes, int]] = {
    "both lengths": (post(b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n", b"0\r\n\r\n"), 400),
    "both, the other way round": (post(b"Transfer-Encoding: chunked\r\nContent-Length: 3\r\n", b"0\r\n\r\n"), 400),
    "two lengths": (post(b"Content-Length: 3\r\nContent-Length: 4\r\n", b"abc"), 400),
    "one length twice": (post(b"Content-Length: 3\r\ncontent-length: 3\r\n", b"abc"), 400),
    "a list of lengths": (post(b"Content-Length: 3, 3\r\n", b"abc"), 400),
    "a length with a sign": (post(b"Content-Length: +3\r\n", b"abc"), 400),
    "a negative length": (post(b"Content-Length: -3\r\n", b"abc"), 400),
    "a length in hexadecimal": (post(b"Content-Length: 0x3\r\n", b"abc"), 400),
    "a length with an underscore": (post(b"Content-Length: 1_0\r\n", b"abc"), 400),
    "a length of other digits": (post("Content-Length: \u00b2\r\n".encode("latin-1"), b"abc"), 400),
    "no length": (post(b"Content-Length:\r\n", b"abc"), 400),
    "a huge length": (post(b"Content-Length: " + b"9" * 5000 + b"\r\n"), 413),
    "a length above the bound": (post(b"Content-Length: 1001\r\n"), 413),
    "a folded line": (post(b"X: a\r\n b\r\n"), 400),
    "a folded length": (post(b"Content-Length:\r\n 3\r\n", b"abc"), 400),
    "a line that begins with a tab": (post(b"X: a\r\n\tb: c\r\n"), 400),
    "space before a colon": (post(b"Content-Length : 3\r\n", b"abc"), 400),
    "space before the first field": (b"GET / HTTP/1.1\r\n Host: a\r\n\r\n", 400),
    "no colon": (post(b"Content-Length\r\n"), 400),
    "no name": (post(b": x\r\n"), 400),
    "a name of other letters": (post(b"Content\xadLength: 3\r\n"), 400),
    "bare LF after the request line": (b"GET / HTTP/1.1\nHost: a\r\n\r\n", 400),
    "bare LF between fields": (post(b"X: a\nContent-Length: 3\r\n", b"abc"), 400),
    "bare LF at the end": (b"GET / HTTP/1.1\r\nHost: a\r\n\n", 400),
    "bare CR in a value": (post(b"X: a\rContent-Length: 3\r\n"), 400),
    "CR CR LF": (post(b"X: a\r\r\n"), 400),
    "NUL in a value": (post(b"X: a\0b\r\n"), 400),
    "NUL in the target": (b"GET /\0 HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    "another control": (post(b"X: \x7f\r\n"), 400),
    "a second empty line": (b"\r\n\r\n" + GET, 400),
    "two spaces": (b"GET  / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    "a tab": (b"GET\t/ HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    "space in the target": (b"GET /a b HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    "an octet above 127 in the target": (b"GET /\xe9 HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    "space at the end": (b"GET / HTTP/1.1 \r\nHost: a\r\n\r\n", 400),
    "HTTP/0.9": (b"GET /\r\n\r\n", 400),
    "the version in small letters": (b"GET / http/1.1\r\nHost: a\r\n\r\n", 400),
    "a version of two digits": (b"GET / HTTP/1.11\r\nHost: a\r\n\r\n", 400),
    "the preface of HTTP/2": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
    "HTTP/3": (b"GET / HTTP/3.0\r\nHost: a\r\n\r\n", 505),
    "no Host": (b"GET / HTTP/1.1\r\n\r\n", 400),
    "two Hosts": (b"GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", 400),
    "two Hosts in HTTP/1.0": (b"GET / HTTP/1.0\r\nHost: a\r\nHost: b\r\n\r\n", 400),
    "a Host with a path": (b"GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", 400),
    "a list of Hosts": (b"GET / HTTP/1.1\r\nHost: a, b\r\n\r\n", 400),
    "two Content-Types": (post(b"Content-Type: a/b\r\nContent-Type: a/b\r\n"), 400),
    "two Authorizations": (post(b"Authorization: Bearer a\r\nAuthorization: Bearer b\r\n"), 400),
    "two transfer codings": (post(b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n"), 400),
    "another transfer coding": (post(b"Transfer-Encoding: gzip, chunked\r\n"), 501),
    "chunked twice": (post(b"Transfer-Encoding: chunked, chunked\r\n"), 501),
    "chunked and not": (post(b"Transfer-Encoding: chunked, identity\r\n"), 501),
    "a coding like chunked": (post(b"Transfer-Encoding: \x0bchunked\r\n"), 400),
    "chunked in HTTP/1.0": (b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
    "another expectation": (post(b"Expect: 200-ok\r\nContent-Length: 1\r\n"), 417),
    "a chunk size with a sign": (chunked(b"+3\r\nabc\r\n0\r\n\r\n"), 400),
    "a negative chunk size": (chunked(b"-3\r\nabc\r\n0\r\n\r\n"), 400),
    "a chunk size with 0x": (chunked(b"0x3\r\nabc\r\n0\r\n\r\n"), 400),
    "a chunk size of endless digits": (chunked(b"0" * 300), 400),
    "a chunk size above 32 bits": (chunked(b"100000003\r\nabc\r\n0\r\n\r\n"), 400),
    "no chunk size": (chunked(b"\r\nabc\r\n0\r\n\r\n"), 400),
    "space before a chunk size": (chunked(b" 3\r\nabc\r\n0\r\n\r\n"), 400),
    "space after a chunk size": (chunked(b"3 \r\nabc\r\n0\r\n\r\n"), 400),
    "a chunk that is longer than it says": (chunked(b"3\r\nabcd\r\n0\r\n\r\n"), 400),
    "bare LF after a chunk size": (chunked(b"3\nabc\r\n0\r\n\r\n"), 400),
    "bare LF after a chunk": (chunked(b"3\r\nabc\n0\r\n\r\n"), 400),
    "a control in a chunk extension": (chunked(b"3;a\0\r\nabc\r\n0\r\n\r\n"), 400),
    "bare LF in a chunk extension": (chunked(b"3;a\nb\r\nabc\r\n0\r\n\r\n"), 400),
    "a long chunk extension": (chunked(b"3;" + b"a" * 400 + b"\r\nabc\r\n0\r\n\r\n"), 400),
    "many chunk extensions": (
        chunked((b"1;" + b"a" * 200 + b"\r\nx\r\n") * 82),
        413,
    ),
    "a chunk above the bound": (chunked(b"3e9\r\n"), 413),
    "chunks above the bound": (chunked(b"3e8\r\n" + b"x" * 1000 + b"\r\n1\r\n"), 413),
    "long trailers": (chunked(b"0\r\n" + b"X: y\r\n" * 1000), 431),
    "a trailer that is no field": (chunked(b"0\r\nabc\r\n\r\n"), 400),
    "a bare LF in the trailers": (chunked(b"0\r\nX: y\nZ: a\r\n\r\n"), 400),
    "authority-form": (b"CONNECT a:443 HTTP/1.1\r\nHost: a\r\n\r\n", 501),
    "authority-form without CONNECT": (b"GET a:443 HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    "asterisk-form without OPTIONS": (b"GET * HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    "another scheme": (b"GET ftp://a/ HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    "a user in the target": (b"GET http://u@a/ HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    "a fragment": (b"GET /a#b HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    "TLS": (bytes.fromhex("16030100050100000100") + b"\r\n\r\n", 400),
    "a long target": (b"GET /" + b"a" * MAX_REQUEST_LINE_BYTES + b" HTTP/1.1\r\nHost: a\r\n\r\n", 414),
    "an endless target": (b"GET /" + b"a" * 100_000, 414),
    "a long head": (post(b"X: " + b"a" * MAX_HEAD_BYTES + b"\r\n"), 431),
    "an endless field": (b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"a" * 100_000, 431),
    "endless fields": (b"GET / HTTP/1.1\r\nHost: a\r\n" + b"a:b\r\n" * 100_000, 431),
    "too many fields": (post(b"a:b\r\n" * MAX_FIELDS), 431),
}


@pytest.mark.parametrize("name", REFUSED)
def test_requests_that_are_refused(name: str) -> None:
    octets, status = REFUSED[name]
    assert status_of(octets) == status


def test_chunks_are_counted_however_small_they_are() -> None:
    reader = RequestReader()
    reader.feed(chunked(b"1\r\nx\r\n" * (MAX_CHUNKS + 1)))
    assert reader.head() is not None
    with pytest.raises(HttpFault, match="too many chunks"):
        reader.body(1 << 20)


def test_absolute_targets_are_as_good_as_paths() -> None:
    octets = b"".join(
        b"GET %s HTTP/1.1\r\nHost: b\r\n\r\n" % target
        for target in (b"http://a:80/p/q?r=s", b"HTTPS://a", b"http://a?x=/", b"/p?q?r", b"//a/p")
    )
    assert [found[1:3] for found in events(octets)] == [
        ("/p/q", "r=s"),
        ("/", ""),
        ("/", "x=/"),
        ("/p", "q?r"),
        ("//a/p", ""),
    ]


def test_lines_of_a_list_are_one_list() -> None:
    (found,) = events(post(b"Accept: a/b\r\nX-Y: 1\r\naccept: c/d\r\n"))
    assert dict(found[4])["accept"] == "a/b, c/d"  # type: ignore[call-overload]


@pytest.mark.parametrize(
    ("octets", "keep_alive", "expects_continue"),
    [
        (GET, True, False),
        (post(b"Connection: close\r\n"), False, False),
        (post(b"Connection: TE , Close\r\n"), False, False),
        (post(b"Connection: closed\r\n"), True, False),
        (b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", False, False),
        (post(b"Expect: 100-Continue\r\nContent-Length: 3\r\n"), True, True),
        (post(b"Expect: 100-continue\r\n"), True, False),
        (b"POST / HTTP/1.0\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n", False, False),
    ],
)
def test_what_a_head_says_of_its_connection(octets: bytes, keep_alive: bool, expects_continue: bool) -> None:
    reader = RequestReader()
    reader.feed(octets)
    head = reader.head()
    assert head is not None
    assert (head.keep_alive, head.expects_continue) == (keep_alive, expects_continue)


SEEDS = [octets for octets, _ in TAKEN.values()] + [octets[:2000] for octets, _ in REFUSED.values()]
SEEDS.append(GET + chunked(b"4\r\nWiki\r\n0\r\nA: b\r\n\r\n") + post(b"Content-Length: 3\r\n", b"abc") + GET)


@pytest.mark.parametrize("octets", SEEDS)
def test_cut_anywhere_bytes_give_the_same_events(octets: bytes) -> None:
    whole = events(octets)
    assert events(*(octets[at : at + 1] for at in range(len(octets)))) == whole
    for at in range(1, len(octets)):
        assert events(octets[:at], octets[at:]) == whole


@pytest.mark.parametrize("name", [name for name, (octets, _) in REFUSED.items() if len(octets) > 2000])
def test_bounds_hold_however_long_heads_are_cut(name: str) -> None:
    octets, _ = REFUSED[name]
    whole = events(octets)
    for size in (511, 4096, 8191, 8192, 16_383, 16_384):
        assert events(*(octets[at : at + size] for at in range(0, len(octets), size))) == whole


@campaign
def test_any_bytes_are_requests_or_a_documented_fault(request: pytest.FixtureRequest) -> None:
    for chance in rounds(request):
        octets = b"".join(chance.choice(SEEDS) for _ in range(chance.randint(1, 4)))
        octets = bent(chance, octets, SEEDS) if chance.random() < 0.9 else chance.randbytes(chance.randint(1, 400))
        whole = events(octets)
        cuts = sorted(chance.randrange(len(octets) + 1) for _ in range(chance.randint(1, 8)))
        pieces = [octets[a:b] for a, b in zip([0, *cuts], [*cuts, len(octets)], strict=True)]
        assert events(*pieces) == whole
        for found in whole:
            assert len(found) == 2 or (isinstance(found[3], bytes) and len(found[3]) <= MOST)


def test_a_response_is_one_line_a_field() -> None:
    said = encode_response(
        404, "text/plain", b"no", (("Allow", "GET"),), b"Sun, 06 Nov 1994 08:49:37 GMT", close=True, head_only=False
    )
    assert said == (
        b"HTTP/1.1 404 Not Found\r\ncontent-type: text/plain\r\ndate: Sun, 06 Nov 1994 08:49:37 GMT\r\n"
        b"content-length: 2\r\nallow: GET\r\nconnection: close\r\n\r\nno"
    )
    for field in (("X", "a\r\nb: c"), ("X\r\n", "a"), ("X", "\u0100")):
        with pytest.raises(LocalError, match="cannot be sent"):
            encode_response(200, "a/b", b"", (field,), b"", close=False, head_only=False)


def test_a_response_to_head_tells_the_length_only() -> None:
    said = encode_response(200, "text/plain", b"body", (), b"x", close=False, head_only=True)
    assert said.endswith(b"content-length: 4\r\n\r\n")
