"""The answers to one placed call: early ones, whose media are heard before the call is answered, and the final one.

A proxy can let several telephones ring (RFC 3261 §16.7). Each answers our offer with keys of its own: one crypto
session bundle for each. The telephone of the first valid answer is heard until one is picked up. From then on only
the media of the one that was picked up are accepted.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from sip_testbed import remarks
from sip_testbed.keying import AnyOffer, KeyAgreement
from sip_testbed.media_policy import FAILED, Refusal, check_protected, payload_type_of
from sip_testbed.rivals import Party
from sip_testbed.session import Agreed
from voice_dpki.errors import PeerError
from voice_dpki.media.codecs import Codec
from voice_dpki.mikey.keys import SrtpKeys
from voice_dpki.shell.trace import Tracer
from voice_dpki.sip.offer_answer import check_answer
from voice_dpki.sip.sdp import SessionDescription
from voice_dpki.wire.sip.early_dialogs import EarlyAnswer
from voice_dpki.wire.sip.user_agent import Call, FinalAnswer

log = logging.getLogger(__name__)

ANSWER_TIMEOUT_S = 60.0
"""A call that is not answered within this time is cancelled."""

UNANSWERED = "nobody answered in time, so we cancelled the call"
"""Why such a call is not established. If an answer crosses the CANCEL, the call is ended at once."""


@dataclass(frozen=True, slots=True)
class Taken:
    """A valid answer: its section in use, what was agreed, and the keys, None in clear."""

    described: SessionDescription
    agreed: Agreed
    keys: SrtpKeys | None
    answered: SessionDescription
    """The whole answer."""
    remarks: tuple[str, ...] = ()


class Answers:
    """The answers to one call.

    `verify` checks an answer, given the host of its sender and the description, and agrees on keys; it raises one
    of FAILED. `start` starts the media of the first answer, and `replace` puts those of another in their place.
    """

    def __init__(
        self,
        verify: Callable[[str, bytes], Awaitable[Taken]],
        start: Callable[[Taken], None],
        replace: Callable[[Taken], None],
        tracer: Tracer,
    ) -> None:
        self.is_heard = False
        """Whether media began before the final answer."""
        self._verify = verify
        self._start = start
        self._replace = replace
        self._tracer = tracer
        self._early: list[EarlyAnswer] = []
        self._heard: EarlyAnswer | None = None
        self._taken: Taken | None = None
        self._listening: asyncio.Task[None] | None = None
        self._is_over = False

    def early(self, answer: EarlyAnswer) -> None:
        """Take an answer that came before the final one; call it at most once for each telephone."""
        if self._is_over:
            return
        self._early.append(answer)
        if self._listening is None or self._listening.done():
            self._listening = asyncio.get_running_loop().create_task(self._listen())

    async def _listen(self) -> None:
        """Start the media of the first valid early answer. Other telephones are not played, and get no media."""
        while self._taken is None and self._early:
            answer = self._early.pop(0)
            try:
                taken = await self._verify(answer.host, answer.sdp)
                self._start(taken)
            except FAILED as error:
                self._tracer.note(f"early media not played: {error}", step="early media", ok=False)
                log.info("early answer refused", extra={"fields": {"reason": str(error)}})
            else:
                self._heard, self._taken, self.is_heard = answer, taken, True
                self._tracer.note("early media: heard before the call is answered", step="early media", ok=True)

    async def final(self, tag: str, host: str, sdp: bytes) -> Taken:
        """Take the final answer, by the telephone of this `tag`; raises one of FAILED.

        If that telephone is already heard, its media go on.
        """
        await self.close()
        before = self._taken
        if before is not None and self._heard is not None and self._heard.tag == tag:
            return before
        taken = await self._verify(host, sdp)
        if before is None:
            self._start(taken)
            return taken
        if taken.keys is not None and before.keys is not None and taken.keys.send.tek == before.keys.send.tek:
            raise Refusal("MIKEY fork", "two telephones of one call answer with the same keys")
        self._replace(taken)
        self._tracer.note("another telephone has answered: its own keys", step="early media", ok=True)
        return taken

    async def close(self) -> None:
        """Take no more early answers, and wait for one that is being verified."""
        self._is_over = True
        self._early.clear()
        if self._listening is not None:
            with suppress(PeerError):
                await self._listening


async def agree(
    keying: KeyAgreement[Any] | None,
    codec: Codec,
    answer: tuple[str, bytes],
    offered: tuple[SessionDescription, AnyOffer | None],
    party: Party,
) -> Taken:
    """Check an `answer` by the `party`, given its host and body, to what we `offered`, and agree on keys.

    Raises one of FAILED.
    """
    (host, body), (sdp, offer) = answer, offered
    answered = SessionDescription.parse(body)
    check_answer(sdp, answered)
    described = answered.narrowed(0)
    check_protected(described, keyed=keying is not None)
    payload_type_of(described, codec)  # refuses before keys are agreed
    values = described.audio_key_mgmt
    keys = await keying.confirm(offer, values) if keying and offer else None
    elsewhere = remarks.media_elsewhere(party, described.audio_address, host)
    return Taken(described, Agreed(sdp, 0, codec, sdp.key_mgmt, values), keys, answered, tuple(elsewhere))


async def final_answer(call: Call) -> FinalAnswer:
    """Wait for the answer; cancel the call after ANSWER_TIMEOUT_S, or if this task is cancelled."""
    try:
        return await asyncio.wait_for(call.answered(), ANSWER_TIMEOUT_S)
    except TimeoutError:
        call.cancel()
        return await call.answered()
    except asyncio.CancelledError:
        call.cancel()
        raise


def why(answer: FinalAnswer) -> str:
    """Return why a call was refused, with the text of Reason or Warning if there is any."""
    return remarks.refusal(answer.status, answer.reason, answer.headers)
