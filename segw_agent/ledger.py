"""The judge's lookups on the ledger: a current cached answer, one stapled by the peer, or one from an inquiry node.

An answer from any source is used only after its proof was verified, by a chain of trust from the genesis.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

from segw_agent.gathering import Gathering
from segw_agent.metrics import INQUIRIES
from segw_agent.nodes import Nodes
from segw_agent.tracer import IkeTracer
from segw_agent.watch import Watch
from segw_agent.way import HELP, follow_way
from voice_dpki.ledger.answers import AnswerVerifier, HeaderUnknownError, InquiryCode, InquiryError, Resolution
from voice_dpki.ledger.clock import ClockError, LedgerClock
from voice_dpki.ledger.light import LightClient
from voice_dpki.names import CertDigest
from voice_dpki.shell.trace import ms_since
from voice_dpki.wire.ledger.client import DEFAULT_TIMEOUT_S, LedgerClient, save_trust


@dataclass(frozen=True, slots=True)
class Found:
    """What the ledger proves about a certificate, and the answer's source: "cache", "stapled" or "inquiry"."""

    resolution: Resolution
    source: str


class Ledger:
    """Lookups at the nodes of `clients`, in their order; `light` verifies what peers staple."""

    def __init__(
        self,
        clients: Mapping[str, LedgerClient],
        light: LightClient,
        clock: LedgerClock,
        tracer: IkeTracer,
        *,
        max_age_s: float,
        timeout_s: float = DEFAULT_TIMEOUT_S,
        watch: Watch | None = None,
        trust_file: Path | None = None,
    ) -> None:
        """Take `clients` by "host:port". Answers are cached only if a `watch` follows the ledger's changes.

        With a `trust_file`, headers that stapled answers proved are still trusted after a restart.
        """
        self._nodes = Nodes(clients, clock, timeout_s=timeout_s)
        self._gatherings = {address: Gathering(client) for address, client in clients.items()}
        self._light, self._verifier = light, AnswerVerifier(light, max_age_s=max_age_s)
        self._clock, self._tracer, self._watch, self._trust_file = clock, tracer, watch, trust_file

    async def aclose(self) -> None:
        """End the inquiries in progress."""
        for gathering in self._gatherings.values():
            await gathering.aclose()

    async def find(self, digest: CertDigest, *, step: str, stapled: bytes | None = None) -> Found:
        """Look up a certificate; `step` numbers the inquiry in traces. Raises InquiryError.

        An invalid stapled answer is skipped if there are nodes to ask.
        """
        cached = self._watch.held(digest) if self._watch else None
        if cached is not None:
            return self._found(cached, "cache", step)
        if stapled is not None:
            try:
                return self._found(self._verify(digest, stapled), "stapled", step)
            except InquiryError as error:
                INQUIRIES.labels("stapled", error.code).inc()
                self._tracer.note(f"{step} the stapled answer does not hold: {error}", ok=False)
                if not self._nodes:
                    raise
        return self._found(await self.ask(digest, step=step), "inquiry", step)

    async def ask(self, digest: CertDigest, *, step: str = "") -> Resolution:
        """Ask the inquiry nodes until one gives a valid answer, within the deadline for all of them.

        Raises the last node's InquiryError if none does.
        """
        began_s = perf_counter()

        async def ask(address: str, _: LedgerClient) -> Resolution:
            nonlocal began_s
            began_s = perf_counter()
            self._tracer.ask(address, _numbered(step, 1, "CERT_Status Request"), digest=digest.hex())
            resolution = await self._gatherings[address].resolve(digest)
            facts = {"status": str(resolution.status), "height": resolution.height, "ms": ms_since(began_s)}
            self._tracer.answer(address, _numbered(step, 3, "CERT_Status Response"), digest=digest.hex(), **facts)
            return resolution

        def failed(error: InquiryError) -> None:
            INQUIRIES.labels("inquiry", error.code).inc()
            self._tracer.note(f"{_numbered(step, 3, 'no answer')}: {error}", ok=False, ms=ms_since(began_s))

        resolution = await self._nodes.ask(ask, failed)
        if self._watch is not None:
            self._watch.hold(resolution)
        return resolution

    def _verify(self, digest: CertDigest, stapled: bytes) -> Resolution:
        now_s, least = self._now_s(), self._verifier.latest_height
        try:
            found = self._verifier.verify(stapled, digest, now_s, min_height=least, with_certificate=False)
        except HeaderUnknownError:
            follow_way(stapled, self._light, now_s)
            found = self._verified_by_way(digest, stapled, now_s)
        self._clock.heard(self._light.latest.time_ns / 1e9)
        block = self._light.latest.light_block
        if self._trust_file is not None and block is not None:
            save_trust(self._trust_file, block)
        return found

    def _now_s(self) -> float:
        try:
            return self._clock.checked_s()
        except ClockError as error:
            raise InquiryError(InquiryCode.CLOCK, str(error)) from None

    def _verified_by_way(self, digest: CertDigest, stapled: bytes, now_s: float) -> Resolution:
        least = self._verifier.latest_height
        try:
            return self._verifier.verify(stapled, digest, now_s, min_height=least, with_certificate=False)
        except HeaderUnknownError:
            raise InquiryError(InquiryCode.UNPROVEN, HELP) from None

    def _found(self, resolution: Resolution, source: str, step: str) -> Found:
        INQUIRIES.labels(source, resolution.status).inc()
        whose = {"cache": "known and unchanged", "stapled": "stapled by the SeGW, proof verified"}.get(source)
        if whose is not None:
            text = f"{_numbered(step, 3, resolution.status)}, height {resolution.height}: {whose}"
            self._tracer.note(text, source=source, height=resolution.height)
        return Found(resolution, source)


def _numbered(step: str, part: int, text: str) -> str:
    """Put the step before a text; the parts of an inquiry in step 5 are numbered 5.1 to 5.4 in the flow."""
    return f"5.{part} {text}" if step == "5" else f"{step} {text}".strip()
