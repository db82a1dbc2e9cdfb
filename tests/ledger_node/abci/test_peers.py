"""Which nodes CometBFT may be connected to: what is asked in its own words, and what is answered."""

import asyncio
import ipaddress
import logging
import subprocess
import sys
from pathlib import Path

import pytest

from ledger_node.abci import peers as module
from ledger_node.abci.cometbft import CometbftSection
from ledger_node.abci.peers import REFUSED, Network, Peers, firewall, read_admitted
from voice_dpki.errors import LocalError
from voice_dpki.shell.config import Listen, load_config

A, B, C = "a" * 40, "b" * 40, "c" * 40


def addr(address: str) -> str:
    """The path of CometBFT's question about a connection (node/setup.go, createTransport)."""
    return f"/p2p/filter/addr/{address}"


def node(name: str) -> str:
    """The path of its question about a node that has proved its id."""
    return f"/p2p/filter/id/{name}"


async def listed(*peers: str, file: Path | None = None) -> Peers:
    made = Peers(peers, file)
    await made.resolve()
    return made


async def test_listed_nodes_come_from_their_addresses() -> None:
    peers = await listed(f"{A}@192.0.2.1:26656", f"{B}@[2001:db8::1]:26656")
    for path in (
        addr("192.0.2.1:50000"),
        addr("[2001:db8::1]:50000"),
        addr("[2001:db8::1%eth0]:50000"),
        addr("[::ffff:192.0.2.1]:50000"),
        node(A),
        node(B),
    ):
        assert peers.refusal(path) == "", path


@pytest.mark.parametrize(
    "path",
    [
        addr("192.0.2.2:50000"),
        addr("[2001:db8::2]:50000"),
        addr("192.0.2.1"),
        addr("@"),
        addr(""),
        addr("192.0.2.1:1/../id"),
        node(C),
        node(""),
        node(A.upper()),
        node(A + "a"),
        "/p2p/filter/",
        "/p2p/filter/name/" + A,
        "/p2p/filter/id",
        "/p2p/filter/addr/" + "9" * 100_000,
    ],
)
async def test_everybody_else_is_refused(path: str) -> None:
    peers = await listed(f"{A}@192.0.2.1:26656")
    assert peers.refusal(path) == "this node is not listed here"


async def test_where_nobody_is_listed_nobody_is_admitted() -> None:
    assert (await listed()).refusal(node(A))


async def test_a_peer_on_this_machine_connects_from_its_first_loopback_address() -> None:
    peers = await listed(f"{A}@127.0.5.2:26656")
    assert not any(map(peers.refusal, (addr("127.0.0.1:1"), addr("127.0.5.2:26656"))))
    assert peers.refusal(addr("127.0.5.3:1"))


async def test_names_are_looked_up_and_one_that_is_gone_keeps_its_addresses(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    peers = await listed(f"{A}@localhost:26656")
    assert not peers.refusal(addr("127.0.0.1:1"))

    async def fails(_: str) -> list[object]:
        raise OSError("no such host")

    monkeypatch.setattr(module, "_addresses", fails)
    await peers.resolve()
    assert not peers.refusal(addr("127.0.0.1:1"))


@pytest.mark.parametrize("name", ["a..example", f"{'a' * 64}.example", "\u00ad.example"])
async def test_a_name_that_cannot_be_one_is_not_found(name: str, caplog: pytest.LogCaptureFixture) -> None:
    """IDNA refuses to encode it, before any name server is asked."""
    peers = await listed(f"{A}@192.0.2.1:26656", f"{B}@{name}:26656")
    assert [record.message for record in caplog.records] == ["peer-not-found"]
    assert not peers.refusal(addr("192.0.2.1:1"))


async def test_a_mapped_address_is_the_ipv4_address(tmp_path: Path) -> None:
    file = tmp_path / "admitted"
    file.write_text(f"{A}@::ffff:192.0.2.1\n{B}@[::ffff:198.51.100.0/120]\n")
    peers = await listed(f"{A}@[::ffff:203.0.113.5]:26656", f"{A}@[fe80::1%eth0]:26656", file=file)
    for known in ("192.0.2.1:1", "198.51.100.7:1", "203.0.113.5:1", "[::ffff:192.0.2.1]:1", "[fe80::1%eth1]:1"):
        assert not peers.refusal(addr(known))
    assert all(map(peers.refusal, (addr("192.0.2.2:1"), addr("198.51.101.1:1"), addr("203.0.113.6:1"))))


async def test_a_name_server_that_does_not_answer_holds_up_no_node(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Looked up in vain, it is tried again soon, and others are admitted meanwhile."""
    known = module._addresses
    asked = asyncio.Event()

    async def hangs(host: str) -> list[Network]:
        if host != "c.example":
            return await known(host)
        if not asked.is_set():
            asked.set()
            await asyncio.sleep(3600)
        return [ipaddress.ip_network("192.0.2.3")]

    monkeypatch.setattr(module, "_addresses", hangs)
    monkeypatch.setattr(module, "RESOLVE_TIMEOUT_S", 0.05)
    monkeypatch.setattr(module, "RETRY_S", 0.0)
    peers = await listed(f"{A}@192.0.2.1:26656", f"{B}@c.example:26656")
    assert [record.message for record in caplog.records] == ["peer-not-found"]
    assert not peers.refusal(addr("192.0.2.1:1"))
    assert peers.refusal(addr("192.0.2.3:1"))
    running = asyncio.create_task(peers.run())
    while peers.refusal(addr("192.0.2.3:1")):
        await asyncio.sleep(0.01)
    running.cancel()


async def test_a_node_is_admitted_without_a_restart_and_goes_as_it_came(tmp_path: Path) -> None:
    file = tmp_path / "admitted"
    file.write_text("# nobody yet\n\n")
    peers = await listed(file=file)
    assert peers.refusal(node(A))
    file.write_text(f"{A}@198.51.100.0/24  # behind a NAT\n{B}@2001:db8::/32\n")
    assert not any(map(peers.refusal, (node(A), addr("198.51.100.7:1"), addr("[2001:db8:1::1]:1"))))
    assert peers.refusal(addr("198.51.101.7:1"))
    file.write_text(f"{B}@2001:db8::/32\n")
    assert peers.refusal(node(A))


@pytest.mark.parametrize(
    "text", [f"{A}@192.0.2.1\n{B}\n", f"{A}@c.example\n", f"{A}@192.0.2.1/24\n", f"{A}@fe80::1%eth0\n", "\xff"]
)
async def test_a_list_that_cannot_be_read_admits_nobody_and_says_which_line(
    tmp_path: Path, text: str, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "admitted"
    file.write_text(f"{A}@192.0.2.1\n")
    peers = await listed(file=file)
    assert not peers.refusal(node(A))
    file.write_text(text)
    with caplog.at_level(logging.ERROR):
        assert peers.refusal(node(A))
    (record,) = caplog.records
    assert "line" in record.__dict__["fields"]["reason"]
    with pytest.raises(LocalError, match="line"):
        Peers((), file)


def test_lists_have_an_end(tmp_path: Path) -> None:
    file = tmp_path / "admitted"
    file.write_text("".join(f"{number:040x}@192.0.2.1\n" for number in range(1001)))
    with pytest.raises(LocalError, match="more than 1000"):
        read_admitted(file)


async def test_a_flood_of_strangers_is_counted_and_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    peers = await listed(f"{A}@192.0.2.1:26656")
    before = REFUSED.labels("addr")._value.get()
    with caplog.at_level(logging.WARNING):
        for number in range(1000):
            peers.refusal(addr(f"203.0.113.9:{number}"))
    assert REFUSED.labels("addr")._value.get() - before == 1000
    assert len(caplog.records) == 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (f'peers = ["{A}@192.0.2.1:1", "{B}@192.0.2.1:2"]', "two nodes are at 192.0.2.1"),
        ('rpc = { host = "192.0.2.9", port = 26657 }', "others can reach 192.0.2.9"),
        ('rpc = { host = "0.0.0.0", port = 26657 }', "others can reach 0.0.0.0"),
    ],
)
def test_what_would_be_open_or_not_connect_is_refused_before_a_socket_is_bound(
    tmp_path: Path, text: str, message: str
) -> None:
    config = tmp_path / "section.toml"
    config.write_text(f'home = "h"\n{text}\n')
    with pytest.raises(LocalError, match=message):
        load_config(config, CometbftSection)
    knowingly = text.replace("port = 26657", "port = 26657, insecure = true")
    config.write_text(f'home = "h"\nallow_duplicate_ip = true\n{knowingly}\n')
    load_config(config, CometbftSection)


@pytest.mark.netns
@pytest.mark.peer("nft")
@pytest.mark.parametrize("peers", [[], [f"{A}@192.0.2.1:1"], [f"{A}@192.0.2.1:1", f"{B}@[2001:db8::1]:1"]])
async def test_nft_takes_the_rules_whole_and_again(peers: list[str]) -> None:
    ports = [Listen(host="192.0.2.9", port=26656), Listen(host="::", port=26656), Listen(host="c.example", port=1)]
    rules = firewall((await listed(*peers)).admitted, ports)
    command = ["unshare", "--net", "sh", "-c", "cat > $0; nft -f $0 && nft -f $0 && nft list ruleset", "/dev/shm/r"]
    command[-1] = f"/dev/shm/rules-{id(rules)}"
    try:
        done = subprocess.run(command, input=rules, capture_output=True, text=True, check=False)
    finally:
        Path(command[-1]).unlink(missing_ok=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("table inet voice_dpki") == 1
    assert done.stdout.count("jump from_members") == 3
    assert ("192.0.2.1 }" in done.stdout) == bool(peers)


def test_the_command_names_listed_nodes(tmp_path: Path) -> None:
    (tmp_path / "admitted").write_text(f"{B}@198.51.100.0/24\n")
    (tmp_path / "node.toml").write_text(
        '[node]\nname = "a"\ndata_dir = "d"\ngenesis = "g"\n[listen]\nport = 0\n[cometbft]\nhome = "h"\n'
        f'p2p = {{ host = "192.0.2.9", port = 26656 }}\npeers = ["{A}@192.0.2.1:26656"]\nadmitted = "admitted"\n'
    )
    command = [sys.executable, "-m", "ledger_node", "firewall", "--config", str(tmp_path / "node.toml")]
    rules = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert "elements = { 192.0.2.1/32, 198.51.100.0/24 }" in rules
    assert rules.count("jump from_members") == 1, "the RPC is on loopback, where nobody else comes"
