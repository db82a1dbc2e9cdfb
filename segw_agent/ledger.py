"""The ledger as a judge asks it: cached and still current, stapled by the peer, or from an inquiry node.

Whatever its way, an answer is used only after its proof was verified against the genesis validators.
"""

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from time import perf_counter

from segw_agent.metrics import INQUIRIES
from segw_agent.tracer import IkeTracer
from segw_agent.watch import Watch
from voice_dpki.effects import Clock
from voice_dpki.ledger.answers import AnswerVerifier, InquiryCode, InquiryError, Resolution
from voice_dpki.ledger.client import LedgerClient, light_client
from voice_dpki.ledger.genesis import Genesis
from voice_dpki.names import CertDigest


@dataclass(frozen=True, slots=True)
class Found:
    """What the ledger proves, and where the answer came from: "cache", "stapled" or "inquiry"."""

    resolution: Resolution
    source: str


class Ledger:
    """Asks; close it with `aclose`."""

    def __init__(
        self,
        urls: Sequence[str],
        genesis: Genesis,
        clock: Clock,
        tracer: IkeTracer,
        *,
        max_age_s: float,
        timeout_s: float,
        watch: Watch | None = None,
        cache_entries: int = 0,
    ) -> None:
        """Answers are cached only while `watch` tells what changes."""
        self._clients = [
            LedgerClient.of_genesis(url, genesis, clock=clock, max_age_s=max_age_s, timeout_s=timeout_s)
            for url in urls
        ]
        self._addresses = [url.partition("://")[2].rstrip("/") for url in urls]
        self._verifier = AnswerVerifier(light_client(genesis), max_age_s=max_age_s)
        self._clock, self._tracer, self._watch = clock, tracer, watch
        self._cache: OrderedDict[CertDigest, Resolution] = OrderedDict()
        self._cache_entries = cache_entries

    async def aclose(self) -> None:
        """Close the connections."""
        for client in self._clients:
            await client.aclose()

    async def find(self, digest: CertDigest, *, step: str, stapled: bytes | None = None) -> Found:
        """Find out about a certificate; `step` numbers the inquiry in traces. Raises InquiryError.

        A stapled answer that does not hold is passed over where there are nodes to ask.
        """
        cached = self._cached(digest)
        if cached is not None:
            return self._found(cached, "cache", step)
        if stapled is not None:
            try:
                return self._found(self._verify(digest, stapled), "stapled", step)
            except InquiryError as error:
                INQUIRIES.labels("stapled", error.code).inc()
                self._tracer.note(f"{step} the stapled answer does not hold: {error}", ok=False)
                if not self._clients:
                    raise
        return self._found(await self.ask(digest, step=step), "inquiry", step)

    async def ask(self, digest: CertDigest, *, step: str = "") -> Resolution:
        """Ask the inquiry nodes in their order, until one gives an answer that holds; raises InquiryError."""
        problem = InquiryError(
            InquiryCode.UNREACHABLE, "there is no inquiry node to ask, and no answer was stapled"
        )
        for client, address in zip(self._clients, self._addresses, strict=True):
            began_s = perf_counter()
            self._tracer.ask(address, _numbered(step, 1, "CERT_Status Request"), digest=digest.hex())
            try:
                resolution = await client.resolve(digest, with_certificate=False)
            except InquiryError as error:
                INQUIRIES.labels("inquiry", error.code).inc()
                self._tracer.note(f"{_numbered(step, 3, 'no answer')}: {error}", ok=False, ms=_ms(began_s))
                problem = error
                continue
            facts = {"status": str(resolution.status), "height": resolution.height, "ms": _ms(began_s)}
            self._tracer.answer(address, _numbered(step, 3, "CERT_Status Response"), digest=digest.hex(), **facts)
            self._keep(resolution)
            return resolution
        raise problem

    def _verify(self, digest: CertDigest, stapled: bytes) -> Resolution:
        now_s, least = self._clock.now_s(), self._verifier.latest_height
        return self._verifier.verify(stapled, digest, now_s, min_height=least, with_certificate=False)

    def _found(self, resolution: Resolution, source: str, step: str) -> Found:
        INQUIRIES.labels(source, resolution.status).inc()
        whose = {"cache": "known and unchanged", "stapled": "stapled by the SeGW, proof verified"}.get(source)
        if whose is not None:
            text = f"{_numbered(step, 3, resolution.status)}, height {resolution.height}: {whose}"
            self._tracer.note(text, source=source, height=resolution.height)
        return Found(resolution, source)

    def _cached(self, digest: CertDigest) -> Resolution | None:
        resolution = self._cache.get(digest)
        if resolution is None or self._watch is None or not self._watch.is_fresh():
            return None
        if not self._watch.changes.unchanged_since(digest, resolution.height):
            del self._cache[digest]
            return None
        self._cache.move_to_end(digest)
        return resolution

    def _keep(self, resolution: Resolution) -> None:
        if self._watch is not None and self._cache_entries:
            self._cache[resolution.digest] = resolution
            while len(self._cache) > self._cache_entries:
                self._cache.popitem(last=False)


def _numbered(step: str, part: int, text: str) -> str:
    """The inquiry's parts have numbers of their own in the flow: 5.1 to 5.4."""
    return f"5.{part} {text}" if step == "5" else f"{step} {text}".strip()


def _ms(began_s: float) -> float:
    return round((perf_counter() - began_s) * 1000, 2)
