"""Retrieval of PASSporTs from the operator's call placement service, for calls without an Identity.

A call waits for it at most `timeout_s`, and never fails because of it: without a PASSporT it stays as it was.
"""

import asyncio
import logging
import ssl
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final

import msgspec

from voice_dpki.effects import Clock, Random, SystemClock, SystemRandom
from voice_dpki.errors import LocalError, MalformedError
from voice_dpki.metrics import counters
from voice_dpki.names import Tn
from voice_dpki.shell.config import Config, PositiveSeconds, resolve
from voice_dpki.shell.credentials import read_certificate, read_signer
from voice_dpki.shell.rule_file import Listed
from voice_dpki.shell.tls import ClientTls, optional_client_context
from voice_dpki.stir.access import Place
from voice_dpki.stir.call import Call
from voice_dpki.stir.cps import MAX_PASSPORTS, identity_of
from voice_dpki.stir.kinds import KINDS
from voice_dpki.stir.sign import Credential, make_credential
from voice_dpki.wire.cps_client import OUTCOMES, CpsClient, CpsError
from voice_dpki.wire.seldom import Seldom

log = logging.getLogger(__name__)
_SAID = Seldom(log)

REST_S: Final = 1.0
"""After a failed retrieval, no call waits for the service for this long."""

RETRIEVALS = counters(
    "oob_retrievals",
    "Calls without an Identity whose PASSporTs were asked for, by what came of it.",
    outcome=("found", "none", "full", "resting", *OUTCOMES),
)


class OobConfig(Config, frozen=True, kw_only=True):
    """`[oob]`: retrieving out of band."""

    url: str
    """The operator's call placement service."""
    certificate: str
    """On the ledger, of the operator that holds the called numbers; it signs the access tokens."""
    key: str
    info_url: str
    peers: Listed | None = None
    """Clients by name; without them, calls of all."""
    trunks: Listed | None = None
    timeout_s: PositiveSeconds = 0.5
    """How long a call waits at most; proxies wait 2 s for a verdict."""
    wait_s: Annotated[float, msgspec.Meta(ge=0)] = 0.0
    """How long retrieval is retried while the service has nothing yet, within `timeout_s`."""
    again_s: Annotated[float, msgspec.Meta(ge=0.01)] = 0.1
    max_waiting: Annotated[int, msgspec.Meta(ge=1, le=10_000)] = 200
    """Most calls that wait at the same time; further ones go on without retrieval."""
    tls: ClientTls | None = None


@dataclass(frozen=True, slots=True)
class OobSetup:
    """A checked section."""

    config: OobConfig
    credential: Credential
    tls: ssl.SSLContext | None

    @classmethod
    def configured(cls, path: Path, config: OobConfig) -> "OobSetup":
        """Check the section of the configuration at `path`, and read its files; raises LocalError."""
        profile = read_certificate(resolve(path, config.certificate))
        signer = read_signer(resolve(path, config.key))
        credential = make_credential(signer, profile, config.info_url, SystemClock().now_s())
        setup = cls(config, credential, optional_client_context(path, config.tls))
        try:
            setup.client(SystemClock(), SystemRandom())
        except LocalError as error:
            raise LocalError(f"{path}: oob.url: {error}") from None
        return setup

    def __str__(self) -> str:
        """Say in a few words what is asked."""
        return (
            f"asked at {self.config.url} about calls without an Identity, for {self.config.timeout_s:g} s at most"
        )

    def client(self, clock: Clock, random: Random) -> CpsClient:
        """Return a client of the service; raises LocalError for a URL that cannot be used."""
        return CpsClient(self.config.url, timeout_s=self.config.timeout_s, clock=clock, random=random, tls=self.tls)


class Retriever:
    """Asks one service about calls without an Identity."""

    def __init__(self, setup: OobSetup, client: CpsClient, clock: Clock) -> None:
        self._config, self._credential = setup.config, setup.credential
        self._client, self._clock = client, clock
        self._waiting = 0
        self._rests_until_s = 0.0

    def wants(self, call: Call) -> bool:
        """Tell whether a call is one to ask about."""
        peers, trunks = self._config.peers, self._config.trunks
        if call.identities or call.is_answer or (peers and call.source.peer not in peers):
            return False
        return not (trunks and call.source.trunk not in trunks)

    async def identities(self, call: Call) -> list[tuple[str, ...]]:
        """Return what may be the Identities of a call, the newest first: one of a caller with those of diversions.

        Never raises; the list is empty where nothing is kept or known in time.
        """
        number = _called(call)
        if number is None:
            return []
        outcome, tokens = await self._retrieved(Place(call.orig, number))
        RETRIEVALS.labels(outcome).inc()
        return _candidates(tokens)

    async def _retrieved(self, place: Place) -> tuple[str, Sequence[str]]:
        if self._clock.steady_s() < self._rests_until_s:
            return "resting", ()
        if self._waiting >= self._config.max_waiting:
            _SAID.warning("a call was not asked about out of band", reason="too many calls wait")
            return "full", ()
        self._waiting += 1
        try:
            async with asyncio.timeout(self._config.timeout_s):
                tokens = await self._asked(place)
        except (CpsError, TimeoutError) as error:
            outcome = error.outcome if isinstance(error, CpsError) else "timeout"
            if outcome in ("timeout", "unreachable"):
                self._rests_until_s = self._clock.steady_s() + REST_S
            _SAID.warning("the call placement service could not be asked", outcome=outcome, reason=str(error))
            return outcome, ()
        finally:
            self._waiting -= 1
        return ("found", tokens) if tokens else ("none", ())

    async def _asked(self, place: Place) -> Sequence[str]:
        end_s = self._clock.steady_s() + min(self._config.wait_s, self._config.timeout_s)
        while True:
            tokens = await self._client.retrieve(self._credential, place)
            if tokens or self._clock.steady_s() + self._config.again_s >= end_s:
                return tokens
            await asyncio.sleep(self._config.again_s)


def _called(call: Call) -> Tn | None:
    numbers = call.target.tns if call.target is not None and call.target.tns else call.dest.tns
    return numbers[0] if numbers else None


def _candidates(tokens: Sequence[str]) -> list[tuple[str, ...]]:
    """Combine each token that can prove the caller with all that cannot, such as diversions."""
    identities = []
    for token in tokens[:MAX_PASSPORTS]:
        try:
            identities.append(identity_of(token))
        except MalformedError as error:
            _SAID.warning("a PASSporT out of band cannot be read", reason=str(error))
    proving = [each for each in identities if KINDS.may_prove_caller(each)]
    others = tuple(each for each in identities if each not in proving)
    return [(each, *others) for each in proving]


@asynccontextmanager
async def retrieving(setup: OobSetup, clock: Clock) -> AsyncIterator[Retriever]:
    """Retrieve while the context lasts."""
    client = setup.client(clock, SystemRandom())
    try:
        yield Retriever(setup, client, clock)
    finally:
        await client.aclose()
