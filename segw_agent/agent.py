"""The agent's socket: judges certificates for an IKEv2 daemon on this machine, and notes the SAs that it admits."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from segw_agent.conversation import Conversations
from segw_agent.judge import Judge
from segw_agent.known import KnownCertificates
from segw_agent.live import LiveSas
from segw_agent.policy import Question, Side
from segw_agent.protocol import AgentAnswer, Operation, Request
from segw_agent.refusals import Refusals
from segw_agent.rules import PeerRefusedError, Step
from voice_dpki.errors import MalformedError
from voice_dpki.ikev2.events import SaName
from voice_dpki.ikev2.failures import IkeError
from voice_dpki.ikev2.identity import check_identity
from voice_dpki.shell.unix_socket import all_accepted, listen_at
from voice_dpki.wire.seldom import Seldom
from voice_dpki.x509.profile import digest_of
from voice_dpki.x509.recorded import CertificateRefused, Use, check_fitness

log = logging.getLogger(__name__)


BACKLOG = 128
"""Most connections that wait to be accepted (listen(2))."""

FINISH_S = 2.5
"""How long open connections are still answered at the end: the timeout of the daemon's plugin."""


@dataclass(frozen=True, slots=True)
class Own:
    """What the daemon's own side sends: a gateway a stapled answer, a device an integrity statement for an SA."""

    certificate: bytes
    ledger_answer: Callable[[], bytes | None] | None = None
    integrity_info: Callable[[SaName], bytes] | None = None


class Agent:
    """The server of one daemon."""

    def __init__(self, judge: Judge, live: LiveSas | None = None, own: Own | None = None) -> None:
        self._judge, self._live, self._own = judge, live, own
        self._known = KnownCertificates()
        self._conversations = Conversations(self._answer_to)
        self._refusals, self._malformed = Refusals(log, "refused"), Seldom(log)

    @asynccontextmanager
    async def serving(self, path: Path) -> AsyncIterator[None]:
        """Serve on a unix socket that the caller has claimed, while the context lasts; raises LocalError.

        At the end, requests on open connections are answered, within FINISH_S.
        """
        listening = listen_at(path, BACKLOG)
        server = await asyncio.get_running_loop().create_unix_server(self._conversations.begin, sock=listening)
        try:
            yield
        finally:
            with suppress(TimeoutError):
                async with asyncio.timeout(FINISH_S):
                    await all_accepted(listening)
                    server.close()
                    await self._conversations.finish()
            server.close()
            await self._conversations.give_up()

    async def _answer_to(self, body: bytes) -> tuple[bytes, bool]:
        """Answer a frame's body; tell also whether the client may ask again."""
        try:
            request = Request.parse(body)
        except MalformedError as error:
            self._malformed.warning("malformed request", reason=str(error))
            return AgentAnswer(yes=False, code="malformed", sentence=str(error)).serialize(), False
        return (await self.answer(request)).serialize(), True

    async def answer(self, request: Request) -> AgentAnswer:
        """Answer a request."""
        if request.operation is Operation.STATE:
            return self._state(request)
        fields = {"sa": str(request.sa), "connection": request.connection}
        try:
            question = await self._judged(request)
        except PeerRefusedError as refusal:
            fields |= {"code": refusal.code, "step": refusal.step, "reason": refusal.sentence}
            self._refusals.add(**fields)
            return AgentAnswer(yes=False, code=refusal.code, sentence=f"step {refusal.step}: {refusal.sentence}")
        # Not yet "attached": the daemon verifies AUTH only now. The ledger vouches for the certificate, no more.
        log.info("vouched for", extra={"fields": {"identity": question.identity, **fields}})
        if self._live is not None:
            self._live.add(question)
        return AgentAnswer(yes=True, code="vouched-for", sentence="the certificate is valid on the ledger")

    async def _judged(self, request: Request) -> Question:
        """Judge a certificate and return the question about it; raises PeerRefusedError."""
        question = _question(request, self._known)
        await self._judge.judge(question)
        self._known.keep(question.certificate)
        return question

    def _state(self, request: Request) -> AgentAnswer:
        own = self._own
        if own is None or digest_of(own.certificate) != digest_of(request.certificate):
            return AgentAnswer(
                yes=False, code="not-configured", sentence="the agent has no key for this certificate"
            )
        answer = own.ledger_answer() if own.ledger_answer and request.side is Side.GATEWAY else None
        content = own.integrity_info(request.sa) if own.integrity_info and request.side is Side.DEVICE else None
        if answer is None and content is None:
            return AgentAnswer(yes=False, code="nothing", sentence="there is nothing to state")
        sentence = "our own answer is stapled" if answer else "our integrity is stated"
        return AgentAnswer(yes=True, code="stated", sentence=sentence, integrity_info=content, ledger_answer=answer)


def _question(request: Request, known: KnownCertificates) -> Question:
    """Return the question that a request asks; raises PeerRefusedError if the certificate lacks the identity."""
    assert request.identification is not None
    try:
        profile = known.read(request.certificate)
        check_fitness(profile, Use.AUTHENTICATE)
        identity = check_identity(request.identification, profile)
    except CertificateRefused as refused:
        step = Step.CERTIFICATE.named(request.side)
        raise PeerRefusedError(str(refused.code), step, str(refused)) from None
    except IkeError as error:
        raise PeerRefusedError(error.code, Step.IDENTITY.named(request.side), error.sentence) from None
    return Question(
        request.side,
        request.sa,
        identity,
        profile,
        request.integrity_info,
        request.ledger_answer,
        request.policy,
        request.unique_id,
        request.connection,
    )
