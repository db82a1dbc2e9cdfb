import time
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from voice_dpki.effects import SystemClock
from voice_dpki.errors import LocalError
from voice_dpki.ledger.genesis import dump_genesis
from voice_dpki.ledger.members import Member, MemberKind
from voice_dpki.shell.config import Listen
from voice_dpki.shell.http import HttpApp, Request, Response, Route, json_response, serve
from voice_dpki.shell.ledger import LedgerAccess, read_genesis
from voice_dpki.shell.reload import Live
from voice_dpki.shell.tls import ClientTls, ServerTls, make_certificate, server_side
from voice_dpki.x509.keys import generate_es256

pytestmark = pytest.mark.undescribed


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """A configuration's place, with the genesis of a ledger beside it."""
    member = Member(
        organization="Operator A",
        kind=MemberKind.OPERATOR,
        validators=(Ed25519PrivateKey.generate().public_key().public_bytes_raw(),),
        endorsing_keys=(generate_es256().public_key_der,),
    )
    (tmp_path / "genesis.json").write_bytes(dump_genesis("test", int(time.time() * 1e9), [member]))
    return tmp_path / "service.toml"


def access(config: Path, url: str, witness: str, tls: ClientTls | None = None) -> LedgerAccess:
    return LedgerAccess.configured(
        config, url=url, genesis="genesis.json", trust_file="trust.json", max_age_s=3, witnesses=(witness,), tls=tls
    )


async def node(_request: Request) -> Response:
    described = {"role": "validator", "chain_id": "test", "height": 7, "app_hash": "", "time": None, "age_s": None}
    return json_response(200, {"name": "a node", **described})


async def test_node_and_witness_are_asked_over_tls_where_that_is_configured(config: Path) -> None:
    for name in ("node", "us"):
        make_certificate(config.parent, name, "Operator A", 30)
    server = Live(server_side(config, ServerTls(certificate="node.pem", key="node-key.pem", clients=("us.pem",))))
    tls = ClientTls(certificate="us.pem", key="us-key.pem", servers=("node.pem",))
    app = HttpApp([Route("GET", "/ledger/v1/node", node)])
    async with serve(app, Listen(port=0), tls=server) as port:
        url = f"https://127.0.0.1:{port}"
        asked = access(config, url, url, tls)
        for client in (asked.client(SystemClock()), *asked.witness_clients(SystemClock())):
            async with client:
                assert (await client.node_info()).height == 7


@pytest.mark.parametrize(
    ("url", "witness", "message"),
    [
        ("127.0.0.1:26680", "http://127.0.0.1:1", r"127\.0\.0\.1:26680: no http or https URL"),
        ("http://127.0.0.1:1", "ftp://127.0.0.1", "ftp://127.0.0.1: no http or https URL"),
    ],
)
def test_what_is_no_url_is_said_before_anybody_is_asked(url: str, witness: str, message: str, config: Path) -> None:
    with pytest.raises(LocalError, match=message):
        access(config, url, witness)


def test_a_trust_file_that_is_none_is_said_before_anybody_is_asked(config: Path) -> None:
    config.with_name("trust.json").write_text("{}")
    with pytest.raises(LocalError, match=r"trust\.json: no trusted header"):
        access(config, "http://127.0.0.1:1", "http://127.0.0.1:2")


@pytest.mark.parametrize("data", [b"", b"{}", b"\xff", b"[" * 100_000])
def test_a_genesis_that_is_none_is_named_once(data: bytes, config: Path) -> None:
    path = config.with_name("genesis.json")
    path.write_bytes(data)
    with pytest.raises(LocalError) as error:
        read_genesis(path)
    assert str(error.value).count("genesis.json") == 1


def test_a_genesis_that_is_not_there_is_named_once(tmp_path: Path) -> None:
    path = tmp_path / "genesis.json"
    with pytest.raises(LocalError) as error:
        read_genesis(path)
    assert str(error.value) == f"{path}: cannot read this genesis file: No such file or directory"
