"""Signing with keys that may be elsewhere: at once with a key of this process, otherwise in threads.

A token answers in a fraction of a millisecond or in many, or not at all. So the work is done beside the event loop,
what waits is bounded in number, and how long anybody waits is bounded in time.
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import BoundedSemaphore
from typing import Annotated, Final, TypeVar

import msgspec

from voice_dpki.effects import Signer
from voice_dpki.shell.config import Config, PositiveSeconds
from voice_dpki.x509.keys import KeyElsewhere, KeyUnavailableError, LocalSigner, is_elsewhere

T = TypeVar("T")


class HsmConfig(Config, frozen=True, kw_only=True):
    """`[hsm]`: how keys in tokens are used; it means nothing for keys in files."""

    threads: Annotated[int, msgspec.Meta(ge=1, le=64)] = 4
    """How many signatures the token is asked for at the same time; each has a session."""
    waiting: Annotated[int, msgspec.Meta(ge=0, le=10_000)] = 256
    """How many more may wait for a thread; beyond, signing is refused at once."""
    timeout_s: PositiveSeconds = 2.0
    """How long a signature may take, with its wait."""


PROBE_S: Final = 5.0
"""How often a key in a token is asked for while nothing is signed with it."""


class LateError(KeyUnavailableError):
    """A key that is elsewhere has not signed in time."""


class SigningThreads:
    """Threads for what signs with keys that are elsewhere."""

    def __init__(self, config: HsmConfig) -> None:
        """No thread is started before it is needed."""
        self._config = config
        self._room = BoundedSemaphore(config.threads + config.waiting)
        self._threads = ThreadPoolExecutor(config.threads, "signing")

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
        future.add_done_callback(lambda _: self._room.release())
        try:
            async with asyncio.timeout(self._config.timeout_s):
                # Not cancelled with us: what waits for a thread keeps its place until it is taken.
                return await asyncio.shield(asyncio.wrap_future(future))
        except TimeoutError:
            raise LateError(f"the token has not signed within {self._config.timeout_s:g} s") from None
        finally:
            is_given_up = True

    async def watch(self, signer: Callable[[], Signer]) -> None:
        """Ask a token now and then for the key of `signer`, until cancelled: health tells what it answers."""
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
