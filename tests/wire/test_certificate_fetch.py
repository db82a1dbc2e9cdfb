"""Fetching from URLs that strangers choose: what is never asked, and what hostile servers cannot do."""

import socket
import ssl
from collections.abc import Iterator
from ipaddress import ip_address, ip_network
from pathlib import Path

import pytest

from tests.repository import Repository, endless, raw, reply, slow
from voice_dpki.errors import MalformedError
from voice_dpki.wire.certificate_fetch import (
    CertificateFetcher,
    Fetched,
    FetchError,
    NotAllowedError,
    Reach,
    kept_s,
)

LOOPBACK = (ip_network("127.0.0.0/8"),)
BODY = b"-----BEGIN CERTIFICATE-----\n"


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Repository]:
    with Repository(tmp_path_factory.mktemp("repository")) as running:
        yield running


def reach(repository: Repository, **changes: object) -> Reach:
    given = {"hosts": ("localhost",), "networks": LOOPBACK, "ports": frozenset({repository.port})}
    return Reach(**{**given, **changes})  # type: ignore[arg-type]


async def fetch(
    repository: Repository,
    url: str | None = None,
    to: Reach | None = None,
    *,
    timeout_s: float = 30,
    tls: ssl.SSLContext | None = None,
) -> Fetched:
    context = tls or repository.tls()
    fetcher = CertificateFetcher(to or reach(repository), timeout_s=timeout_s, max_bytes=1000, tls=context)
    return await fetcher.fetch(url or repository.url())


async def test_a_certificate_is_fetched(repository: Repository) -> None:
    repository.replies["/shaken.pem"] = reply(BODY, Cache_Control="public, max-age=7200")
    assert await fetch(repository) == Fetched(BODY, 7200)
    repository.replies["/shaken.pem"] = reply(BODY, "text/plain; charset=utf-8")
    assert await fetch(repository) == Fetched(BODY, None)


async def test_as_large_as_allowed_and_no_larger(repository: Repository) -> None:
    repository.replies["/shaken.pem"] = reply(b"x" * 1000)
    assert len((await fetch(repository)).body) == 1000
    repository.replies["/shaken.pem"] = reply(b"x" * 1001)
    with pytest.raises(FetchError, match="more than 1000 bytes"):
        await fetch(repository)


HOSTILE = {
    "endless": (endless, "more than 1000 bytes"),
    "a page": (reply(b"<html>", "text/html"), "not of a type"),
    "not found": (reply(BODY, status=404), "the answer is 404"),
    "a redirect": (reply(b"", status=302, Location="https://localhost/other.pem"), "the answer is 302"),
    "broken off": (raw(b"HTTP/1.1 200 OK\r\nContent-Length: 900\r\n\r\nx"), "broke before"),
    "no HTTP": (raw(b"SSH-2.0-x\r\n"), "not HTTP|no connection"),
    "nothing": (raw(b""), "no connection"),
    "a long head": (raw(b"HTTP/1.1 200 OK\r\nX: " + b"x" * 20_000 + b"\r\n\r\n"), "not HTTP|no connection"),
    "packed": (raw(b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Encoding: gzip\r\n\r\n"), ""),
}


@pytest.mark.parametrize("case", HOSTILE)
async def test_hostile_servers(repository: Repository, case: str) -> None:
    repository.replies["/shaken.pem"], match = HOSTILE[case]
    if not match:  # what is packed is not unpacked, so it cannot grow
        assert (await fetch(repository)).body == b""
        return
    with pytest.raises(FetchError, match=match):
        await fetch(repository)


async def test_a_redirect_is_not_followed(repository: Repository) -> None:
    repository.replies["/shaken.pem"] = reply(b"", status=301, Location=repository.url("/other.pem"))
    repository.asked.clear()
    with pytest.raises(FetchError, match="301"):
        await fetch(repository)
    assert repository.asked == ["/shaken.pem"]


async def test_a_slow_server_takes_no_longer_than_allowed(repository: Repository) -> None:
    repository.replies["/shaken.pem"] = slow
    with pytest.raises(FetchError, match="no answer in time"):
        await fetch(repository, timeout_s=0.5)


async def test_a_server_that_says_nothing(repository: Repository) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        to = reach(repository, ports=frozenset({port}))
        with pytest.raises(FetchError, match="no answer in time"):
            await fetch(repository, f"https://localhost:{port}/x", to, timeout_s=0.3)


async def test_the_servers_certificate_must_be_good(repository: Repository) -> None:
    with pytest.raises(FetchError, match="none of those that are trusted"):
        await fetch(repository, tls=ssl.create_default_context())


PRIVATE = ("localhost", "127.0.0.1", "[::1]", "2130706433")


@pytest.mark.parametrize("url", [f"https://{host}:{{port}}/x" for host in PRIVATE])
async def test_nothing_private_is_asked_unless_it_is_configured(repository: Repository, url: str) -> None:
    to = reach(repository, hosts=("*",), networks=())
    repository.asked.clear()
    with pytest.raises(FetchError, match=r"is not public|not known|names no host"):
        await fetch(repository, url.format(port=repository.port), to)
    assert not repository.asked


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1", "10.0.0.1", "172.16.3.4", "192.168.1.1", "169.254.169.254", "100.64.0.1", "0.0.0.0",
        "224.0.0.1", "255.255.255.255", "192.0.2.1", "::1", "::", "fe80::1", "fc00::1", "ff02::1",
        "::ffff:127.0.0.1", "::ffff:10.0.0.1", "64:ff9b::a00:1", "64:ff9b:1::a00:1", "2002:7f00:1::1",
        "2001:db8::1", "2001:0:4136:e378:8000:63bf:3fff:fdd2",
    ],
)  # fmt: skip
def test_addresses_that_are_not_public(address: str) -> None:
    with pytest.raises(OSError, match="not public"):
        Reach().check_address(ip_address(address))


@pytest.mark.parametrize("address", ["8.8.8.8", "2606:4700::1111", "::ffff:8.8.8.8"])
def test_public_addresses(address: str) -> None:
    Reach().check_address(ip_address(address))


def test_a_configured_network_is_reached() -> None:
    ours = Reach(networks=(ip_network("10.1.0.0/16"), ip_network("fd00::/8")))
    for address in ("10.1.2.3", "::ffff:10.1.2.3", "fd00::1"):
        ours.check_address(ip_address(address))
    with pytest.raises(OSError, match="not public"):
        ours.check_address(ip_address("10.2.0.1"))


GOOD_URLS = [
    "https://certs.carrier.example/shaken.pem",
    "https://CERTS.Carrier.example:8443/a/b_c-d~e/x.pem",
    "https://certs.carrier.example:443/",
    "https://a.sti.example/x",
]


@pytest.mark.parametrize("url", GOOD_URLS)
def test_urls_that_are_admitted(url: str) -> None:
    Reach(("certs.carrier.example", "*.sti.example")).check_url(url)
    Reach(("*",)).check_url(url)


@pytest.mark.parametrize(
    "url",
    [
        "http://certs.carrier.example/x", "https://certs.carrier.example", "https://certs.carrier.example/x?y",
        "https://certs.carrier.example/x#y", "https://u@certs.carrier.example/x",
        "https://certs.carrier.example/x y",
        "https://certs.carrier.example/\n", "https:///x", "https://-x/x", "https://x-/x", "file:///etc/passwd",
        "https://certs.carrier.example/" + "x" * 500, "https://cert\u017f.example/x", "https://[::1%eth0]/x",
        "https://certs.carrier.example:/x", "https://certs.carrier.example\\@y/x", "",
        "https://a.example/%0d%0aX: y",
    ],
)  # fmt: skip
def test_urls_that_shaken_has_not(url: str) -> None:
    with pytest.raises(MalformedError):
        Reach(("*",)).check_url(url)


@pytest.mark.parametrize(
    "url",
    [
        "https://other.example/x", "https://certs.carrier.example.evil.example/x", "https://sti.example/x",
        "https://xsti.example/x", "https://certs.carrier.example:8080/x", "https://certs.carrier.example:22/x",
    ],
)  # fmt: skip
def test_urls_that_the_operator_does_not_admit(url: str) -> None:
    with pytest.raises(NotAllowedError):
        Reach(("certs.carrier.example", "*.sti.example")).check_url(url)


@pytest.mark.parametrize(
    ("values", "kept"),
    [
        ([], None), (["max-age=60"], 60), (["public, max-age=3600, immutable"], 3600), (["no-store"], 0),
        (["max-age=60, no-cache"], 0), (["no-cache"], 0), (["s-maxage=60"], None), (["max-age=soon"], None),
        (["private", "max-age=5"], 5), (['max-age="5"'], 5), (["x-no-store"], None),
        (["max-age=99999999999"], None),
        (["MAX-AGE=7"], 7),
    ],
)  # fmt: skip
def test_for_how_long_an_answer_is_kept(values: list[str], kept: int | None) -> None:
    assert kept_s(values) == kept


async def test_a_url_is_checked_again_before_it_is_asked(repository: Repository, tmp_path: Path) -> None:
    repository.asked.clear()
    with pytest.raises(NotAllowedError):
        await fetch(repository, "http://localhost/x")
    assert not repository.asked
