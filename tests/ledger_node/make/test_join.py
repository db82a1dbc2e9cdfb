"""`ledger-node join`: what it makes, and what it refuses; joining for real is in tests/e2e/test_federation.py."""

import asyncio
import gzip
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from ledger_node.abci.cometbft import StateSync, node_id, node_id_of
from ledger_node.command import config as configuration
from ledger_node.command.main import main
from ledger_node.make.join import MAX_ANSWER_BYTES, join, trusted_header
from ledger_node.make.keys import KeyKind, make_key, read_ed25519_public
from tests.present import present
from voice_dpki.errors import LocalError
from voice_dpki.ledger.block import NextBlock
from voice_dpki.ledger.genesis import dump_genesis, load_genesis
from voice_dpki.ledger.header import SignedHeader, Validator
from voice_dpki.ledger.members import Member, MemberKind
from voice_dpki.shell.config import Listen
from voice_dpki.shell.http import HttpApp, Request, Response, Route, json_response, serve
from voice_dpki.x509.public import read_public_pem

PEER = "0123456789abcdef0123456789abcdef01234567@127.0.1.1:26656"


def test_a_node_has_its_own_keys_and_a_configuration_that_loads(
    network: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "joiner"
    arguments = ["join", "--genesis", str(network.folder / "genesis.json"), "--name", "operator-c"]
    assert main([*arguments, "--host", "127.0.1.9", "--peer", PEER, "--out", str(out)]) == 0
    config = configuration.load(out / "operator-c.toml")
    assert config.cometbft is not None
    assert (config.cometbft.peers, config.cometbft.state_sync) == ((PEER,), None)
    assert configuration.read_genesis(out / "operator-c.toml", config) == network.genesis
    key = configuration.read_validator_key(out / str(config.cometbft.validator_key))
    printed = capsys.readouterr().out
    node = node_id(configuration.read_node_key(out / "operator-c.toml", config.cometbft))
    assert f"{node}@127.0.1.9:26656" in printed
    public = read_public_pem((out / "keys" / "validator-operator-c.pub.pem").read_bytes())
    assert f"validator key  {out / 'keys' / 'validator-operator-c.pub.pem'}\n" in printed
    assert public == key.public_key()
    assert "It waits until the other nodes list it" in printed
    assert "it fetches all blocks" in printed
    assert (out / "keys" / "validator-operator-c.pem").stat().st_mode & 0o777 == 0o600
    assert key.public_key().public_bytes_raw() not in {
        item.public_key for item in network.genesis.validators.validators
    }
    assert main(["id", "--config", str(out / "operator-c.toml")]) == 0
    assert capsys.readouterr().out.strip() == node


def test_cometbfts_rpc_is_for_the_machine_alone(network: Any, tmp_path: Path) -> None:
    for host, rpc in (("192.0.2.3", "127.0.0.1"), ("127.0.1.9", "127.0.1.9"), ("c.example", "127.0.0.1")):
        options: Any = {"name": "x", "host": host, "peers": [PEER], "rpc_servers": []}
        made = join(network.folder / "genesis.json", tmp_path / host, **options)
        config = configuration.load(made.config)
        assert config.cometbft is not None
        assert (config.listen.host, config.cometbft.p2p.host, config.cometbft.rpc.host) == (host, host, rpc)


def test_a_node_joins_with_a_key_that_the_others_have_admitted(network: Any, tmp_path: Path) -> None:
    """Or the RPC that it asks for a header would not be open to it yet."""
    public = make_key(KeyKind.NODE, tmp_path / "own" / "node.pem")
    options: Any = {"name": "x", "host": "127.0.1.9", "peers": [PEER], "rpc_servers": []}
    genesis = network.folder / "genesis.json"
    made = join(genesis, tmp_path / "new", **options, node_key=tmp_path / "own" / "node.pem")
    config = configuration.load(made.config)
    own = configuration.read_node_key(made.config, present(config.cometbft))
    assert own.public_key() == read_ed25519_public(public)
    assert made.peer == f"{node_id_of(own.public_key().public_bytes_raw())}@127.0.1.9:26656"
    assert [path.name for path in (tmp_path / "new" / "keys").glob("node-*")] == []
    make_key(KeyKind.ENDORSING, tmp_path / "own" / "endorsing.pem")
    with pytest.raises(LocalError, match="a node's key must be Ed25519"):
        join(genesis, tmp_path / "other", **options, node_key=tmp_path / "own" / "endorsing.pem")
    assert not (tmp_path / "other").exists()


def test_a_node_that_joins_keeps_its_data_where_it_is_told_to(network: Any, tmp_path: Path) -> None:
    options: Any = {"name": "x", "host": "127.0.1.9", "peers": [PEER], "rpc_servers": []}
    made = join(network.folder / "genesis.json", tmp_path / "new", **options, state=tmp_path / "state")
    config = configuration.load(made.config)
    home = present(config.cometbft).home
    assert (config.node.data_dir, home) == (str(tmp_path / "state" / "data"), str(tmp_path / "state" / "cometbft"))


def test_what_cannot_be_is_refused(network: Any, tmp_path: Path) -> None:
    genesis = network.folder / "genesis.json"
    options: Any = {"name": "x", "host": "127.0.1.9", "peers": [PEER], "rpc_servers": []}
    with pytest.raises(LocalError, match="something in it already"):
        join(genesis, network.folder, **options)
    with pytest.raises(LocalError, match="small letters"):
        join(genesis, tmp_path / "new", **{**options, "name": "../x"})
    with pytest.raises(LocalError, match="genesis"):
        join(network.folder / "tokens", tmp_path / "new", **options)
    with pytest.raises(LocalError, match="no header there that the genesis proves"):
        join(genesis, tmp_path / "new", **{**options, "rpc_servers": ["http://127.0.0.1:9"]})
    assert not (tmp_path / "new").exists()
    with pytest.raises(LocalError, match="no header there"):
        trusted_header(load_genesis(genesis.read_bytes()), "not a url")


class Rpc:
    """Answers `/commit` as a node's CometBFT does, with the headers of a chain that is made here."""

    def __init__(self, network: Any) -> None:
        maker = network.maker()
        self.headers = [maker.take(maker.block()).tip for _ in range(3)]

    async def commit(self, request: Request) -> Response:
        height = int(request.query["height"])
        if height > len(self.headers):
            return json_response(500, {"error": {"message": "height must be less"}})
        return json_response(200, {"result": {"signed_header": self.headers[height - 1].to_json()}})


async def test_a_checkpoint_is_where_the_node_begins(
    network: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rpc = Rpc(network)
    good = rpc.headers[1].header.hash().hex()
    genesis = network.folder / "genesis.json"
    async with serve(HttpApp([Route("GET", "/commit", rpc.commit)]), Listen(port=0)) as port:
        options: Any = {"name": "x", "host": "127.0.1.9", "peers": [PEER]}
        options["rpc_servers"] = [f"http://127.0.0.1:{port}", "http://127.0.0.1:9"]

        async def joined(checkpoint: str) -> StateSync | None:
            made = await asyncio.to_thread(join, genesis, tmp_path / "x", **options, checkpoint=checkpoint)
            section = configuration.load(made.config).cometbft
            assert section is not None
            return section.state_sync

        for checkpoint, why in (
            (f"2:{'00' * 32}", "is not the checkpoint's"),
            (f"1:{good}", "is not the checkpoint's"),
            (f"9:{good}", "no such header"),
            ("2:beef", "a checkpoint is a height"),
        ):
            with pytest.raises(LocalError, match=why):
                await joined(checkpoint)
        state_sync = await joined(f"2:{good.upper()}")
        assert state_sync is not None
        assert (state_sync.trust_height, state_sync.trust_hash) == (2, good)
        rpcs = [word for url in options["rpc_servers"] for word in ("--rpc", url)]
        words = ["--genesis", str(genesis), "--name", "x", "--host", "127.0.1.9", "--peer", PEER, *rpcs]
        words += ["--checkpoint", f"2:{good}", "--out", str(tmp_path / "z")]
        assert await asyncio.to_thread(main, ["join", *words]) == 0
        assert "The ledger has 2 blocks, so there may be none yet" in capsys.readouterr().out
    with pytest.raises(LocalError, match="give --rpc"):
        join(genesis, tmp_path / "y", **{**options, "rpc_servers": []}, checkpoint=f"2:{good}")


def public(key: Ed25519PrivateKey) -> bytes:
    return key.public_key().public_bytes_raw()


class Many:
    """Answers as the CometBFT of a ledger with many validators does, in pages of 100."""

    def __init__(self, number: int) -> None:
        self.keys = [Ed25519PrivateKey.generate() for _ in range(number)]
        listed = tuple(map(public, self.keys))
        operator = Member("Operator A", MemberKind.OPERATOR, validators=listed)
        self.genesis = load_genesis(dump_genesis("many-1", time.time_ns() - 10**10, [operator]))
        self.asked: list[str] = []

    def header(self) -> SignedHeader:
        known = self.genesis.validators
        first = NextBlock(
            chain_id="many-1",
            previous=None,
            time_ns=time.time_ns(),
            transactions=(),
            app_hash=bytes(32),
            last_results=[],
            validators=known,
            next_validators=known,
            consensus_hash=self.genesis.consensus_hash(),
        )
        return first.seal({Validator(public(key), 1).address: key.sign for key in self.keys})

    async def commit(self, _: Request) -> Response:
        return json_response(200, {"result": {"signed_header": self.header().to_json()}})

    async def validators(self, request: Request) -> Response:
        self.asked.append(page := request.query["page"])
        listed = self.genesis.validators.to_json()["validators"]
        if len(listed) <= 100 * (int(page) - 1):
            return json_response(500, {"error": {"message": "page should be within the range"}})
        part = listed[100 * (int(page) - 1) : 100 * int(page)]
        told = {"validators": part, "count": str(len(part)), "total": str(len(listed))}
        return json_response(200, {"result": told})


@pytest.mark.parametrize(("number", "pages"), [(100, ["1"]), (101, ["1", "2"]), (200, ["1", "2"])])
async def test_a_federation_may_have_as_many_validators_as_the_ledger_allows(number: int, pages: list[str]) -> None:
    rpc = Many(number)
    routes = [Route("GET", "/commit", rpc.commit), Route("GET", "/validators", rpc.validators)]
    async with serve(HttpApp(routes), Listen(port=0)) as port:
        found = await asyncio.to_thread(trusted_header, rpc.genesis, f"http://127.0.0.1:{port}")
    assert found.height == 1
    assert rpc.asked == pages


async def test_more_validators_than_the_ledger_allows_are_not_read(network: Any) -> None:
    rpc = Many(100)

    async def endless(request: Request) -> Response:
        rpc.asked.append(request.query["page"])
        return json_response(200, {"result": {"validators": [{}] * 100, "total": "100000"}})

    routes = [Route("GET", "/commit", rpc.commit), Route("GET", "/validators", endless)]
    async with serve(HttpApp(routes), Listen(port=0)) as port:
        with pytest.raises(LocalError, match="more than 200 validators"):
            await asyncio.to_thread(trusted_header, rpc.genesis, f"http://127.0.0.1:{port}")
    assert rpc.asked == ["1", "2"]


PACKED = gzip.compress(b'{"result":{"signed_header":{}}}')


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n" + b" " * (MAX_ANSWER_BYTES + 1),
        b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(PACKED) + PACKED,
    ],
)
async def test_an_rpc_that_sends_too_much_is_read_no_further(network: Any, tmp_path: Path, answer: bytes) -> None:
    closed = asyncio.Event()

    async def serve_it(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            await reader.readuntil(b"\r\n\r\n")
            writer.write(answer)
            await reader.read()
        writer.close()
        closed.set()

    async with await asyncio.start_server(serve_it, "127.0.0.1", 0) as server:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        with pytest.raises(LocalError, match=r"more than was asked for|malformed"):
            await asyncio.to_thread(trusted_header, network.genesis, url)
        await closed.wait()
