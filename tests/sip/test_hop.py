"""Hops and numeric hosts: each bound of an address, and who can be whom."""

import pytest
from sipmessage import URI, Parameters

from voice_dpki.errors import MalformedError
from voice_dpki.sip.hop import (
    Hop,
    check_quotes,
    is_numeric_host,
    plain_ipv6,
    read_number,
    read_port,
    source_of,
    uri_hop,
)
from voice_dpki.sip.hosts import bare_host, host_text, is_ipv6


@pytest.mark.parametrize(
    ("host", "numeric"),
    [
        ("0.0.0.0", True),
        ("255.255.255.255", True),
        ("192.0.2.001", True),
        ("256.0.0.1", False),
        ("192.0.2.0001", False),
        ("192.0.2", False),
        ("192.0.2.1.1", False),
        ("192.0.2.", False),
        ("192.0.2.x", False),
        ("192.0.2.\N{SUPERSCRIPT ONE}", False),
        ("192.0.2.\N{ARABIC-INDIC DIGIT ONE}", False),
        ("a.b.c.d", False),
        ("2001:db8::1", True),
        ("[2001:db8::1]", False),
        ("2001:db8::1%eth0", False),
        ("2001:db8::g", False),
        ("", False),
    ],
)
def test_a_numeric_host_is_four_octets_or_ipv6(host: str, numeric: bool) -> None:
    assert is_numeric_host(host) is numeric
    assert is_ipv6(host) is (numeric and ":" in host)


@pytest.mark.parametrize(
    ("text", "bare"),
    [
        ("[2001:DB8:0::1]", "2001:db8::1"),
        ("2001:DB8:0::1", "2001:db8::1"),
        ("[2001:db8::12", "[2001:db8::12"),
        ("2001:db8::12]", "2001:db8::12]"),
        ("[2001:db8::g]", "[2001:db8::g]"),
        ("[192.0.2.1]", "[192.0.2.1]"),
        ("B.example", "B.example"),
    ],
)
def test_a_host_without_brackets_is_in_one_form(text: str, bare: str) -> None:
    assert bare_host(text) == bare


@pytest.mark.parametrize(
    ("host", "text"),
    [("2001:db8::1", "[2001:db8::1]"), ("[2001:db8::1]", "[2001:db8::1]"), ("b.example", "b.example")],
)
def test_a_host_before_a_port_has_brackets_once(host: str, text: str) -> None:
    assert host_text(host) == text


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ("sip:a@[::ffff:192.0.2.1]:5060", "sip:a@[::ffff:c000:201]:5060"),
        ("sip:a@[2001:db8:::192.0.2.1]", "sip:a@[2001:db8::c000:201]"),  # as the grammar of RFC 3261 has it
        ("[:::192.0.2.1] and [::1:192.0.2.2]", "[::c000:201] and [::1:c000:202]"),
        ("[::ffff:192.0.2.256]", "[::ffff:192.0.2.256]"),
        ("[2001:db8::1]", "[2001:db8::1]"),
        ("::ffff:192.0.2.1", "::ffff:192.0.2.1"),
    ],
)
def test_ipv6_that_ends_in_ipv4_is_rewritten(text: str, plain: str) -> None:
    assert plain_ipv6(text) == plain


def test_a_hop_has_a_port_up_to_65535() -> None:
    assert Hop.parse("udp:192.0.2.1:65535") == Hop("udp", "192.0.2.1", 65_535)
    with pytest.raises(MalformedError):
        Hop.parse("udp:192.0.2.1:65536")


def test_the_flow_does_not_tell_hops_apart() -> None:
    assert Hop("tcp", "192.0.2.1", 5060, flow=7) == Hop("tcp", "192.0.2.1", 5060)
    assert len({Hop("tcp", "192.0.2.1", 5060, flow=7), Hop("tcp", "192.0.2.1", 5060)}) == 1


@pytest.mark.parametrize(("transport", "reliable"), [("udp", False), ("tcp", True), ("tls", True)])
def test_which_transports_retransmit_by_themselves(transport: str, reliable: bool) -> None:
    assert Hop(transport, "192.0.2.1", 5060).reliable is reliable


@pytest.mark.parametrize(
    ("source", "peer", "can_be"),
    [
        ("udp", "udp", True),
        ("udp", "tcp", False),
        ("udp", "tls", False),
        ("tcp", "udp", True),
        ("tcp", "tcp", True),
        ("tcp", "tls", False),
        ("tls", "tcp", True),
        ("tls", "tls", True),
    ],
)
def test_a_source_counts_over_transports_no_easier_to_forge(source: str, peer: str, can_be: bool) -> None:
    host = "".join(["192.0.2", ".1"])  # equal, and another object
    assert Hop(source, host, 4444).is_from(Hop(peer, "192.0.2.1", 5060)) is can_be
    assert not Hop(source, "192.0.2.9", 5060).is_from(Hop(peer, "192.0.2.1", 5060))


@pytest.mark.parametrize(
    ("host", "source"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2:ffff:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:3::1", "2001:db8:1:3::/64"),
        ("no:address", "no:address"),
    ],
)
def test_what_an_address_counts_as(host: str, source: str) -> None:
    assert source_of(host) == source


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("0", 0),
        ("70", 70),
        ("00070", 70),
        ("255", 255),
        ("256", None),
        ("1000", None),
        ("9" * 5_000, None),
        ("", None),
        ("-1", None),
        ("+1", None),
        ("1 ", None),
        ("\N{ARABIC-INDIC DIGIT ONE}", None),
        ("\N{SUPERSCRIPT ONE}", None),
    ],
)
def test_a_number_has_decimal_digits_up_to_a_bound(text: str, number: int | None) -> None:
    assert read_number(text, 255) == number


def test_a_port_is_from_1_to_65535() -> None:
    assert (read_port("1"), read_port("65535")) == (1, 65_535)
    for text in ("0", "65536", "x", ""):
        with pytest.raises(MalformedError, match="1 to 65535"):
            read_port(text)


def test_an_honest_sender_needs_32_quotes_at_most() -> None:
    check_quotes('"' * 32, "it")
    with pytest.raises(MalformedError, match="it has more than 32 quotes"):
        check_quotes('"' * 33, "it")


@pytest.mark.parametrize(
    ("uri", "hop"),
    [
        (URI("sip", "192.0.2.1"), Hop("udp", "192.0.2.1", 5060)),
        (URI("sip", "192.0.2.1", port=1), Hop("udp", "192.0.2.1", 1)),
        (URI("sip", "192.0.2.1", parameters=Parameters(transport="TCP")), Hop("tcp", "192.0.2.1", 5060)),
        (URI("sip", "192.0.2.1", parameters=Parameters(transport="tls")), Hop("tls", "192.0.2.1", 5061)),
        (URI("sips", "192.0.2.1", parameters=Parameters(transport="udp")), Hop("tls", "192.0.2.1", 5061)),
        (URI("sips", "192.0.2.1", port=5070), Hop("tls", "192.0.2.1", 5070)),
        (URI("sip", "192.0.2.1", parameters=Parameters(transport="sctp")), None),
        (URI("sip", "192.0.2.1", port=65_535), Hop("udp", "192.0.2.1", 65_535)),
        (URI("sip", "192.0.2.1", port=65_536), None),
        (URI("sip", "192.0.2.1", port=65_537), None),
        (URI("sip", "192.0.2.1", port=-1), None),
        (URI("tel", "192.0.2.1"), None),
        (URI("sip", "b.example"), None),
    ],
)
def test_the_hop_that_a_uri_names(uri: URI, hop: Hop | None) -> None:
    assert uri_hop(uri) == hop
