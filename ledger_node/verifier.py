"""A process beside the node that verifies certificates before the node's own process looks at them.

Verifying is most of what a new certificate costs. The node's process has to serve consensus in the meantime, which
waits for nobody; so what comes into the mempool is verified here first, on another core where there is one, and
after everything else where there is none. A verdict depends on the bytes of the certificate alone: the node keeps
it and decides by it, as if it had come to it by itself.

Both ways, messages go behind their length as a varint: transactions in, a MessagePack list of judgements out.
"""

import asyncio
import hashlib
import os
import signal
import sys
from collections import deque
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager, suppress
from typing import cast

import msgspec

from ledger_node.abci.framing import encode_message, take_messages
from voice_dpki.ledger.admission import judge, remember
from voice_dpki.ledger.refusals import Refused
from voice_dpki.ledger.transactions import Transaction, certificates_in
from voice_dpki.x509.profile import CertificateProfile

NICENESS = 10
"""Verifying ahead gives way to everything that the node is asked for now."""

_AHEAD = 4
"""Transactions that the process has before it at a time."""

_MAX_REFUSED = 10_000
"""As many as CometBFT's mempool could hold, twice."""

_CHUNK_BYTES = 1 << 16

_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(list[tuple[bytes, CertificateProfile | str]])


class Verifier(asyncio.SubprocessProtocol):
    """The node's end. Without the process that `running_verifier` gives it, nothing is verified ahead."""

    def __init__(self) -> None:
        self.ended = asyncio.Event()
        """Set when the process is gone."""
        self._buffer = bytearray()
        self._queued: dict[bytes, bytes] = {}
        """Transactions by their SHA-256, in the order in which they came."""
        self._sent: deque[bytes] = deque()
        self._waiting: dict[bytes, asyncio.Future[None]] = {}
        """Done when a transaction's verdicts are known; of all that are queued or sent."""
        self._refused: dict[bytes, None] = {}
        self._input: asyncio.WriteTransport | None = None

    @property
    def backlog(self) -> int:
        """How many transactions wait to be verified."""
        return len(self._waiting)

    def schedule(self, raw: bytes) -> asyncio.Future[None] | None:
        """Have the certificates in a transaction verified; returns what is done when they are.

        None where there is nothing to wait for; without a process, who looks at a certificate verifies it.
        """
        key = hashlib.sha256(raw).digest()
        if done := self._waiting.get(key):
            return done
        if self._input is None or self.ended.is_set() or not _certificates(raw):
            return None
        done = self._waiting[key] = asyncio.get_running_loop().create_future()
        self._queued[key] = raw
        self._feed()
        return done

    async def verify(self, raw: bytes) -> None:
        """Do so, and wait until the verdicts are known here."""
        if done := self.schedule(raw):
            await asyncio.shield(done)

    def vetted(self, raw: bytes) -> bool | None:
        """Tell whether the certificates in a transaction are sound; None while they wait to be verified."""
        key = hashlib.sha256(raw).digest()
        return None if key in self._waiting else key not in self._refused

    def forget(self, transactions: Iterable[bytes]) -> None:
        """Verify no more what a block has decided."""
        for raw in transactions:
            key = hashlib.sha256(raw).digest()
            self._refused.pop(key, None)
            if self._queued.pop(key, None) is not None:
                self._settle(key)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        subprocess = cast(asyncio.SubprocessTransport, transport)
        self._input = cast(asyncio.WriteTransport, subprocess.get_pipe_transport(0))

    def pipe_data_received(self, fd: int, data: bytes) -> None:
        """Take over judgements, which come in the order of the transactions."""
        self._buffer += data
        for message in take_messages(self._buffer):
            key, judgements = self._sent.popleft(), _decoder.decode(message)
            for der, judgement in judgements:
                remember(der, judgement)
            if any(isinstance(judgement, str) for _, judgement in judgements):
                self._refuse(key)
            self._settle(key)
        self._feed()

    def process_exited(self) -> None:
        """Let nobody wait any more."""
        self.ended.set()
        self._queued.clear()
        for key in tuple(self._waiting):
            self._settle(key)

    def _feed(self) -> None:
        """Keep the process busy, with little that could not be taken back."""
        assert self._input is not None
        while self._queued and len(self._sent) < _AHEAD:
            key = next(iter(self._queued))
            self._sent.append(key)
            self._input.write(encode_message(self._queued.pop(key)))

    def _refuse(self, key: bytes) -> None:
        while len(self._refused) >= _MAX_REFUSED:
            del self._refused[next(iter(self._refused))]
        self._refused[key] = None

    def _settle(self, key: bytes) -> None:
        self._waiting.pop(key).set_result(None)


@asynccontextmanager
async def running_verifier(verifier: Verifier) -> AsyncIterator[int]:
    """Run the process for `verifier` until the context ends; yields its id.

    Where the node is killed, the process ends because its input does.
    """
    transport, _ = await asyncio.get_running_loop().subprocess_exec(
        lambda: verifier, sys.executable, "-m", __name__, stderr=None, start_new_session=True
    )
    try:
        yield transport.get_pid()
    finally:
        with suppress(ProcessLookupError):
            transport.terminate()
        await verifier.ended.wait()
        transport.close()


def main() -> None:
    """Judge what stands in the transactions on standard input until it ends."""
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as the node, which says so
    os.nice(NICENESS)
    buffer = bytearray()
    while data := os.read(0, _CHUNK_BYTES):
        buffer += data
        for raw in take_messages(buffer):
            sys.stdout.buffer.write(encode_message(_encoder.encode(_judgements(raw))))
            sys.stdout.buffer.flush()


def _judgements(raw: bytes) -> Sequence[tuple[bytes, CertificateProfile | str]]:
    return [(der, judge(der)) for der in _certificates(raw)]


def _certificates(raw: bytes) -> tuple[bytes, ...]:
    try:
        return certificates_in(Transaction.parse(raw).body)
    except Refused:
        return ()


if __name__ == "__main__":
    main()
