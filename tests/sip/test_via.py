"""The topmost Via: bounded, and answered also where the rest of a request cannot be read."""

import pytest

from voice_dpki.errors import MalformedError
from voice_dpki.sip.hop import Hop
from voice_dpki.sip.salvage import refuse_unread
from voice_dpki.sip.via import parse_via

SOURCE = Hop("udp", "192.0.2.9", 5070)


def long(size: int) -> str:
    begin = "SIP/2.0/UDP 192.0.2.1:5062;branch=z9hG4bK"
    return begin + "x" * (size - len(begin))


def test_a_via_has_at_most_1024_characters() -> None:
    assert len(long(1024)) == 1024
    assert parse_via(long(1024)).port == 5062
    with pytest.raises(MalformedError, match="longer than 1024 characters"):
        parse_via(long(1025))


def test_a_via_names_a_port_from_1_to_65535() -> None:
    assert parse_via("SIP/2.0/UDP 192.0.2.1:65535;branch=z9hG4bKa").port == 65_535
    for port in (0, 65_536):
        with pytest.raises(MalformedError):
            parse_via(f"SIP/2.0/UDP 192.0.2.1:{port};branch=z9hG4bKa")


def unread(via: str, start: str = "INVITE sip:a@b SIP/2.0") -> bytes:
    return f"{start}\r\nVia: {via}\r\nFrom: <sip:x@y>;tag=1\r\nTo: <sip:a@b>\r\nMax-Forwards: x\r\n\r\n".encode()


def test_a_request_that_cannot_be_read_is_answered_by_its_via() -> None:
    answered = refuse_unread(unread(long(80)), SOURCE, 400, "Bad Request", "t")
    assert answered is not None
    hop, data = answered
    assert (hop.host, hop.port) == ("192.0.2.9", 5062)
    assert data.startswith(b"SIP/2.0 400 Bad Request\r\nVia: " + long(80).encode() + b";received=192.0.2.9\r\n")
    assert b"To: <sip:a@b>;tag=t\r\n" in data


def answered(data: bytes) -> tuple[Hop, list[str]]:
    """Where an unread request is answered, and the answer's lines after the first."""
    found = refuse_unread(data, SOURCE, 400, "Bad Request", "t")
    assert found is not None
    return found[0], found[1].decode().split("\r\n")[1:-2]


@pytest.mark.parametrize(
    ("port", "answered_at"), [("", 5060), (":1", 1), (":65535", 65_535), (":65536", 5070), (":0", 5070)]
)
def test_an_unread_request_is_answered_at_the_port_of_its_via(port: str, answered_at: int) -> None:
    assert answered(unread(f"SIP/2.0/UDP 192.0.2.1{port};branch=z9hG4bKa"))[0].port == answered_at


def test_an_unread_request_has_all_its_vias_in_the_answer_and_one_of_the_others() -> None:
    via = "SIP/2.0/UDP 192.0.2.9;branch=z9hG4bK"
    data = (
        f"To : <sip:start@h>\r\nVia: {via}a, {via}b\r\nv: {via}c\r\nVia: {via}d\r\nf: <sip:x@y>;tag=1\r\n"
        "From: <sip:other@y>\r\nTo: <sip:a@b;tag=x>\r\nTo: <sip:c@d>;tag=y\r\ni: call\r\nCSeq: 1 X\r\nX: y\r\n\r\n"
    )
    assert answered(data.encode())[1] == [
        f"Via: {via}a, {via}b",
        f"Via: {via}c",
        f"Via: {via}d",
        "From: <sip:x@y>;tag=1",
        "To: <sip:a@b;tag=x>;tag=t",
        "Call-ID: call",
        "CSeq: 1 X",
        "Content-Length: 0",
    ]


def test_a_tag_of_an_unread_request_is_kept() -> None:
    data = unread(long(80)).replace(b"To: <sip:a@b>", b"To: <sip:a@b>;x=y; TAG =z")
    assert "To: <sip:a@b>;x=y; TAG =z" in answered(data)[1]


def test_an_answer_repeats_at_most_8192_characters() -> None:
    repeated = sum(map(len, answered(unread(long(80)))[1][:-1]))

    def padded(size: int) -> bytes:
        return unread(long(80)).replace(b";tag=1", b";tag=1" + b"x" * (size - repeated))

    assert sum(map(len, answered(padded(8_192))[1][:-1])) == 8_192
    assert refuse_unread(padded(8_193), SOURCE, 400, "Bad Request", "t") is None


@pytest.mark.parametrize(("size", "to"), [(16_384, "To: <sip:a@b>;tag=t"), (16_385, "To: <sip:a@b;tag=t")])
def test_16_kib_of_an_unread_request_are_read(size: int, to: str) -> None:
    begin, end = b"INVITE sip:a@b SIP/2.0\r\nVia: " + long(80).encode() + b"\r\n", b"\r\nTo: <sip:a@b>"
    filler = (b"X: " + b"y" * 8_000 + b"\r\nX: ").ljust(size - len(begin) - len(end), b"y")
    assert answered(begin + filler + end)[1][1] == to


def test_a_via_of_an_unread_request_has_at_most_32_quotes() -> None:
    quotes = '"a"' * 16
    assert answered(unread(long(80) + f";x={quotes}"))
    assert refuse_unread(unread(long(80) + f';x={quotes}"'), SOURCE, 400, "Bad Request", "t") is None


@pytest.mark.parametrize(
    "data",
    [
        unread(long(1025)),
        unread("nonsense"),
        unread(long(80), "ACK sip:a@b SIP/2.0"),
        unread(long(80), "SIP/2.0 200 OK"),
        unread(long(80), ""),
        b"INVITE sip:a@b SIP/2.0\r\n\r\n",
        b"",
    ],
)
def test_what_is_not_answered(data: bytes) -> None:
    assert refuse_unread(data, SOURCE, 400, "Bad Request", "t") is None


@pytest.mark.parametrize(("count", "answered"), [(128, True), (129, False)])
def test_no_more_than_128_header_fields_are_looked_at(count: int, answered: bool) -> None:
    data = unread(long(80) + "\r\nX: x" * (count - 4))  # the other four are Via, From, To and Max-Forwards
    assert (refuse_unread(data, SOURCE, 400, "Bad Request", "t") is not None) is answered


def repeated(last: int) -> list[str] | None:
    """The lines that are repeated of a request with seven long Vias and one of `last` characters, or None."""
    answered = refuse_unread(
        unread("\r\nVia: ".join([*[long(1024)] * 7, long(last)])), SOURCE, 400, "Bad Request", "t"
    )
    return None if answered is None else answered[1].decode().split("\r\n")[1:-3]


def test_no_more_than_8_kb_are_repeated() -> None:
    few = repeated(100)
    assert few is not None
    most = repeated(100 + 8192 - sum(map(len, few)))
    assert most is not None
    assert sum(map(len, most)) == 8192
    assert repeated(101 + 8192 - sum(map(len, few))) is None


def test_no_more_than_16_kb_are_read_and_empty_lines_before_are_skipped() -> None:
    plain = refuse_unread(unread(long(80)), SOURCE, 400, "Bad Request", "t")
    assert plain is not None
    assert refuse_unread(b"\r\n\r\n" + unread(long(80)), SOURCE, 400, "Bad Request", "t") == plain
    answered = refuse_unread(unread(long(80) + "\r\nX: " + "x" * 16_384), SOURCE, 400, "Bad Request", "t")
    assert answered is not None
    assert b"\r\nVia: " in answered[1]
    assert b"\r\nTo: " not in answered[1], "it stands behind what is read"
