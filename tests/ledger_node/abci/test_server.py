"""The socket server, spoken to as CometBFT speaks to it."""

import asyncio
import re
import socket
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger_node.abci import abci_pb2
from ledger_node.abci.abci_pb2 import CheckTx, Echo, Flush, Info, Request, Response
from ledger_node.abci.server import (
    Handlers,
    answer,
    encode,
    parse_request,
    serve_abci,
)
from ledger_node.order.framing import MAX_MESSAGE_BYTES, take_messages
from voice_dpki.codec.protowire import varint
from voice_dpki.errors import LocalError, MalformedError

ROOT = Path(abci_pb2.__file__).parent


def check_tx(request: CheckTx.Request) -> CheckTx.Response:
    if request.transaction == b"fault":
        raise LocalError("the store is gone")
    return CheckTx.Response(code=len(request.transaction))


HANDLERS: Handlers = {"check_tx": check_tx, "info": lambda _: Info.Response(data="ledger")}


class Client:
    """One connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    async def response(self) -> Response:
        size = shift = 0
        while True:
            octet = (await self.reader.readexactly(1))[0]
            size |= (octet & 0x7F) << shift
            shift += 7
            if octet < 0x80:
                return Response.FromString(await self.reader.readexactly(size))


async def connect(path: Path) -> Client:
    return Client(*await asyncio.open_unix_connection(str(path)))


async def test_answers_in_order_to_requests_sent_at_once(tmp_path: Path) -> None:
    async with serve_abci(HANDLERS, tmp_path / "s"):
        client = await connect(tmp_path / "s")
        requests = [Request(check_tx=CheckTx.Request(transaction=bytes(n))) for n in range(500)]
        client.writer.write(b"".join(map(encode, [*requests, Request(flush=Flush.Request())])))
        assert [(await client.response()).check_tx.code for _ in requests] == list(range(500))
        assert (await client.response()).WhichOneof("value") == "flush"
        client.writer.close()


async def test_four_connections_and_a_request_in_single_octets(tmp_path: Path) -> None:
    async with serve_abci(HANDLERS, tmp_path / "s"):
        clients = [await connect(tmp_path / "s") for _ in range(4)]
        for number, client in enumerate(clients):
            for octet in encode(Request(echo=Echo.Request(message=f"connection {number}"))):
                client.writer.write(bytes([octet]))
                await client.writer.drain()
        for number, client in enumerate(clients):
            assert (await client.response()).echo.message == f"connection {number}"
            client.writer.close()


async def test_failure_is_an_exception_and_ends_the_connection(tmp_path: Path) -> None:
    async with serve_abci(HANDLERS, tmp_path / "s") as failed:
        client = await connect(tmp_path / "s")
        requests = (Request(check_tx=CheckTx.Request(transaction=data)) for data in (b"1", b"fault", b"never"))
        client.writer.write(b"".join(map(encode, requests)))
        assert (await client.response()).check_tx.code == 1
        assert (await client.response()).exception.error == "the store is gone"
        assert await client.reader.read() == b""
        assert failed.is_set()
        client.writer.close()


@pytest.mark.parametrize(
    "data",
    [
        varint(MAX_MESSAGE_BYTES + 1),
        b"\xff" * 5,
        encode(Response(echo=Echo.Response(message="x")))[:1] + b"\xff" * 200,
        encode(Request()),
        encode(Request(list_snapshots={})),
    ],
    ids=["too long", "endless length", "not protobuf", "nothing", "not handled"],
)
async def test_what_is_no_request_is_refused(tmp_path: Path, data: bytes) -> None:
    async with serve_abci(HANDLERS, tmp_path / "s"):
        client = await connect(tmp_path / "s")
        client.writer.write(data)
        assert (await client.response()).exception.error
        assert await client.reader.read() == b""
        client.writer.close()


async def test_socket_is_private_replaced_and_removed(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(tmp_path / "s"))  # left by a node that was killed
    async with serve_abci(HANDLERS, tmp_path / "s"):
        assert (tmp_path / "s").stat().st_mode & 0o777 == 0o600
        with pytest.raises(LocalError, match="another program serves on this socket"):
            async with serve_abci(HANDLERS, tmp_path / "s"):
                pass
    assert not (tmp_path / "s").exists()
    with pytest.raises(LocalError, match="at most 107"):
        async with serve_abci(HANDLERS, tmp_path / ("long" * 30)):
            pass


@given(st.binary(max_size=100))
def test_any_bytes_are_answered_or_refused(data: bytes) -> None:
    with suppress(MalformedError, LocalError):
        assert answer(HANDLERS, *parse_request(data))


@given(st.lists(st.binary(max_size=300), max_size=8), st.integers(1, 50))
def test_messages_are_found_however_they_are_cut(messages: list[bytes], size: int) -> None:
    stream = b"".join(varint(len(message)) + message for message in messages)
    buffer, found = bytearray(), []
    for start in range(0, len(stream), size):
        buffer += stream[start : start + size]
        found += take_messages(buffer)
    assert found == messages
    assert not buffer


def test_stubs_are_those_of_the_proto_file() -> None:
    """Every field of the .proto has its number in the committed stubs, and there are no others."""
    text = (ROOT / "proto" / "abci.proto").read_text()
    written = re.findall(r"^\s*(?:repeated )?[\w.]+ (\w+) = (\d+);", text, re.MULTILINE)
    compiled = [
        (field.name, str(field.number))
        for message in _messages(list(abci_pb2.DESCRIPTOR.message_types_by_name.values()))
        for field in message.fields
    ]
    assert sorted(compiled) == sorted(written)


def _messages(messages: list) -> list:  # type: ignore[type-arg]
    return [found for message in messages for found in (message, *_messages(message.nested_types))]


async def test_where_no_socket_can_be_made_a_sentence_names_it(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for path, why in (
        (tmp_path, f"{tmp_path}: .*something else"),
        (tmp_path / "file" / "s", f"{tmp_path}/file: cannot make this folder"),
    ):
        with pytest.raises(LocalError, match=why):
            async with serve_abci(HANDLERS, path):
                pass
