"""A separate process that verifies certificates before the node's own process needs the verdict.

Verification is most of a new certificate's cost, and the node's process must serve consensus, which does not wait.
So transactions in the mempool are verified here first: on another core if there is one, otherwise at low priority.
A verdict depends on the certificate's bytes alone, so the node keeps it and relies on it as on its own.

In both directions each message is preceded by its length as a varint: transactions in, MessagePack lists of
judgements out.
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

from ledger_node.order.framing import encode_message, take_messages
from voice_dpki.ledger.admission import judge, remember
from voice_dpki.ledger.refusals import Refused
from voice_dpki.ledger.transactions import Transaction, certificates_in
from voice_dpki.x509.profile import CertificateProfile

NICENESS = 10
"""Nice value of the process: verifying ahead gives way to the node's present requests."""

_AHEAD = 4
"""Most transactions handed to the process at a time."""

_MAX_REFUSED = 10_000
"""Most refused transactions remembered: twice as many as CometBFT's mempool holds."""

_CHUNK_BYTES = 1 << 16

_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(list[tuple[bytes, CertificateProfile | str]])


class Verifier(asyncio.SubprocessProtocol):
    """The node's side. Nothing is verified ahead until `running_verifier` has started the process."""

    def __init__(self) -> None:
        self.ended = asyncio.Event()
        """Set when the process has ended."""
        self._buffer = bytearray()
        self._queued: dict[bytes, bytes] = {}
        """Transactions not yet sent, by their SHA-256, in order of arrival."""
        self._sent: deque[bytes] = deque()
        self._waiting: dict[bytes, asyncio.Future[None]] = {}
        """For each transaction queued or sent, a future that is done when its verdicts are known."""
        self._refused: dict[bytes, None] = {}
        self._input: asyncio.WriteTransport | None = None

    @property
    def backlog(self) -> int:
        """Number of transactions that wait to be verified."""
        return len(self._waiting)

    def schedule(self, raw: bytes) -> asyncio.Future[None] | None:
        """Have a transaction's certificates verified; return a future that is done when they are.

        Returns None if it has no certificates, or if no process runs: whoever needs a verdict then verifies.
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
        """Have a transaction's certificates verified, and wait until the verdicts are known here."""
        if done := self.schedule(raw):
            await asyncio.shield(done)

    def is_waiting(self, raw: bytes) -> bool:
        """Tell whether a transaction's certificates are still to be verified."""
        return hashlib.sha256(raw).digest() in self._waiting

    def has_refused(self, raw: bytes) -> bool:
        """Tell whether a certificate in a transaction was refused, until a block decides the transaction.

        A transaction that was not refused need not be verified: without the process, nothing is refused here.
        """
        return hashlib.sha256(raw).digest() in self._refused

    def forget(self, transactions: Iterable[bytes]) -> None:
        """Drop transactions that a block has decided, from the queue and from the refused ones."""
        for raw in transactions:
            key = hashlib.sha256(raw).digest()
            self._refused.pop(key, None)
            if self._queued.pop(key, None) is not None:
                self._settle(key)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the pipe to the process's standard input."""
        subprocess = cast(asyncio.SubprocessTransport, transport)
        self._input = cast(asyncio.WriteTransport, subprocess.get_pipe_transport(0))

    def pipe_data_received(self, fd: int, data: bytes) -> None:
        """Store the judgements, which arrive in the order of the transactions."""
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
        """Settle all waiting transactions, so that nobody waits for a process that has ended."""
        self.ended.set()
        self._queued.clear()
        for key in tuple(self._waiting):
            self._settle(key)

    def _feed(self) -> None:
        """Send transactions while the process has fewer than _AHEAD: those not sent can still be dropped."""
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
    """Run the process for `verifier` until the context ends; yield its process id.

    If the node is killed, the process ends because its standard input does.
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
    """Judge the certificates of the transactions on standard input until it ends."""
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # SIGHUP is for the node, which survives it too
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
