"""Signing with keys in this process, at once, or in a token, in threads.

A token answers in a fraction of a millisecond, in many, or never. So the work is done in threads, with a bounded
queue and a timeout.
"""

import asyncio
import logging
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from threading import BoundedSemaphore
from time import monotonic
from typing import Annotated, Any, Final, TypeVar

import msgspec

from voice_dpki.effects import Signer
from voice_dpki.shell.config import Config, PositiveSeconds
from voice_dpki.shell.interrupts import leave_behind
from voice_dpki.x509.keys import KeyElsewhere, KeyUnavailableError, LocalSigner, is_elsewhere

log = logging.getLogger(__name__)

T = TypeVar("T")


class HsmConfig(Config, frozen=True, kw_only=True):
    """`[hsm]`: how keys in tokens are used; it means nothing for keys in files."""

    threads: Annotated[int, msgspec.Meta(ge=1, le=64)] = 4
    """Signatures requested from the token at the same time; each has a session."""
    waiting: Annotated[int, msgspec.Meta(ge=0, le=10_000)] = 256
    """Most signatures that wait for a thread; further ones are refused at once."""
    timeout_s: PositiveSeconds = 2.0
    """How long a signature may take, including its wait."""


PROBE_S: Final = 5.0
"""How often a key in a token is probed while nothing is signed with it."""

ENDING_S: Final = 2.0
"""How long a program waits for a token at its end, when no caller needs the signatures any more."""

LEFT_BEHIND: Final = "a token does not answer, and the program ends without it"
"""What the log says then."""

_LOOK_S: Final = 0.02


class LateError(KeyUnavailableError):
    """A key in a token has not signed in time."""


class SigningThreads:
    """Threads for signing with keys in tokens."""

    def __init__(self, config: HsmConfig) -> None:
        """No thread is started before it is needed."""
        self._config = config
        self._room = BoundedSemaphore(config.threads + config.waiting)
        self._threads = ThreadPoolExecutor(config.threads, "signing")
        self._asked: set[Future[Any]] = set()
        """Work that waits for a thread or has one."""

    async def run(self, signer: Signer, work: Callable[[], T]) -> T:
        """Do work that signs with `signer`; raises what the work raises, and KeyUnavailableError."""
        if not is_elsewhere(signer):
            return work()
        return await self.wait_for(work)

    async def wait_for(self, work: Callable[[], T]) -> T:
        """Do work in a thread; raises what the work raises, and KeyUnavailableError."""
        if not self._room.acquire(blocking=False):
            raise KeyUnavailableError("too many signatures wait for the token")
        is_given_up = False

        def unless_given_up() -> T:
            if is_given_up:
                raise KeyUnavailableError("nobody waits for it any more")
            return work()

        future = self._threads.submit(unless_given_up)
        self._asked.add(future)
        future.add_done_callback(self._answered)
        try:
            async with asyncio.timeout(self._config.timeout_s):
                # Not cancelled with us: what waits for a thread keeps its place until it is taken.
                return await asyncio.shield(asyncio.wrap_future(future))
        except TimeoutError:
            raise LateError(f"the token has not signed within {self._config.timeout_s:g} s") from None
        finally:
            is_given_up = True

    def _answered(self, future: "Future[T]") -> None:
        self._asked.discard(future)
        self._room.release()

    def is_busy(self) -> bool:
        """Tell whether something waits for a token, or is with it."""
        return bool(self._asked)

    async def close(self) -> None:
        """Stop signing, and wait until the token has answered, for at most ENDING_S.

        A thread that waits longer cannot be stopped: this is logged, and the program exits without joining it.
        """
        self._threads.shutdown(wait=False, cancel_futures=True)
        leave_behind(self.is_busy)
        end_s = monotonic() + ENDING_S
        while self.is_busy() and monotonic() < end_s:  # noqa: ASYNC110 - threads set no asyncio.Event
            await asyncio.sleep(_LOOK_S)
        if self.is_busy():
            log.error(LEFT_BEHIND, extra={"fields": {"signatures": len(self._asked), "waited_s": ENDING_S}})

    async def watch(self, signer: Callable[[], Signer]) -> None:
        """Probe the token for the key of `signer` every PROBE_S, until cancelled; health shows the result."""
        while True:
            await asyncio.sleep(PROBE_S)
            now = signer()
            if isinstance(now, LocalSigner) and isinstance(now.private_key, KeyElsewhere):
                try:
                    await self.wait_for(now.private_key.probe)
                except LateError as error:
                    now.private_key.fail(error)
                except KeyUnavailableError:
                    pass  # the key knows it
