"""A proxy's client of its domain's STIR services, over HTTP (ATIS-1000082)."""

import asyncio
import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Final, TypeVar
from urllib.parse import urlsplit
from uuid import UUID

import msgspec

from sip_testbed.proxy_config import Access
from voice_dpki.codec import base64url
from voice_dpki.effects import Random
from voice_dpki.errors import PeerError
from voice_dpki.names import Tn
from voice_dpki.stir.rsp import RSP
from voice_dpki.stir.verdict import Verdict, Verstat
from voice_dpki.wire.http_client import HttpAnswer, HttpClient, HttpError, HttpTimeoutError

log = logging.getLogger(__name__)

MAX_ANSWER_BYTES: Final = 65_536
_NUMBER: Final = re.compile(r"\+?[0-9*#](?:[-(). ]?[0-9*#]){6,}")
WARM_UP_TRIES: Final = 50
WARM_UP_PAUSE_S: Final = 0.2

_T = TypeVar("_T")


class ServiceError(PeerError):
    """A STIR service refused, failed or did not answer in time; the message is a sentence for the trace."""


@dataclass(frozen=True, slots=True)
class CallFacts:
    """The facts of a call's INVITE that an Identity signs, in canonical form; `key_mgmt` is as in the SDP."""

    caller: Tn
    called: Tn
    time_s: int
    key_mgmt: tuple[str, ...]
    sdp: bytes | None = None
    """Digest of the INVITE's body (`voice_dpki.stir.body`); None if it is not signed."""
    call_id: str = ""


class _VerificationResponse(msgspec.Struct, frozen=True, kw_only=True):
    """A verificationResponse; members that only some services send have defaults."""

    verstat: str
    reasoncode: Annotated[int, msgspec.Meta(ge=400, le=699)] | None = None
    reasontext: str = ""
    reasondesc: str = ""
    step: str = ""
    signer: str = ""

    def verdict(self) -> Verdict:
        """Return the verdict, without telephone numbers; raises ValueError if `verstat` is not one."""
        return Verdict(
            Verstat(self.verstat),
            self.reasoncode,
            reasontext=_without_numbers(self.reasontext),
            reasondesc=_without_numbers(self.reasondesc),
            step=_without_numbers(self.step),
            signer=self.signer,
        )


class _VerificationAnswer(msgspec.Struct, frozen=True):
    response: _VerificationResponse = msgspec.field(name="verificationResponse")


class _Identity(msgspec.Struct, frozen=True):
    identity: Annotated[str, msgspec.Meta(pattern=r"^[!-~]+$", max_length=8000)]


class _IdentityMs(msgspec.Struct, frozen=True):
    identity: Annotated[str, msgspec.Meta(pattern=r"^[!-~]+$", max_length=8000)] = msgspec.field(
        name="identityHeader"
    )


class _SigningAnswerMs(msgspec.Struct, frozen=True):
    signing: _IdentityMs = msgspec.field(name="signingResponse")


class _SigningAnswer(msgspec.Struct, frozen=True):
    signing: _Identity = msgspec.field(name="signingResponse")


class _Fault(msgspec.Struct, frozen=True):
    text: str
    variables: tuple[str, ...] = ()


class _RequestError(msgspec.Struct, frozen=True):
    service: _Fault | None = msgspec.field(name="serviceException", default=None)
    policy: _Fault | None = msgspec.field(name="policyException", default=None)


class _ErrorAnswer(msgspec.Struct, frozen=True):
    error: _RequestError = msgspec.field(name="requestError")


class StirService:
    """A client of one STIR service at one URL, with persistent connections."""

    def __init__(self, name: str, url: str, access: Access, timeout_ms: int) -> None:
        self.name = name
        parts = urlsplit(url)
        self._target = parts._replace(scheme="", netloc="", path=parts.path or "/").geturl()
        headers = {
            "Authorization": f"Bearer {access.token}",
            "Content-Type": "application/json",
            "Accept": "application/json",
        }
        self._client = HttpClient(
            f"{parts.scheme}://{parts.netloc}",
            timeout_s=timeout_ms / 1000,
            max_answer_bytes=MAX_ANSWER_BYTES,
            headers=headers,
            tls=access.tls,
        )

    async def close(self) -> None:
        """Close the connections."""
        await self._client.aclose()

    async def warm_up(self) -> None:
        """Open a first connection, so that no call waits for its set-up.

        The service may start later than the proxy, so this retries. Any answer is enough: /healthz may be absent.
        """
        for _ in range(WARM_UP_TRIES):
            try:
                await self._client.request("GET", "/healthz")
                return
            except HttpError:
                await asyncio.sleep(WARM_UP_PAUSE_S)
        log.warning("STIR service not reached", extra={"fields": {"service": self.name}})

    async def sign(self, call: CallFacts, attest: str, random: Random) -> str:
        """Return the Identity value for a call; raises ServiceError."""
        request = {
            "attest": attest,
            "callId": call.call_id,
            "dest": {"tn": [call.called]},
            "iat": call.time_s,
            "keyMgmt": call.key_mgmt,
            "orig": {"tn": call.caller},
            "origid": str(UUID(bytes=random.token(16), version=4)),
            **_sdp_member(call),
        }
        return self._decode(await self._post({"signingRequest": request}), _SigningAnswer).signing.identity

    async def sign_answer(self, call: CallFacts) -> str:
        """Return the Identity value for the answer to a call (RFC 9970); raises ServiceError.

        `call.time_s` is the time of the answer. The request has 3GPP's form, which alone names a type of PASSporT.
        """
        request = {
            "callId": call.call_id,
            "dest": {"tn": [call.called]},
            "iat": call.time_s,
            "orig": {"tn": call.caller},
            "ppt": RSP.ppt,
        }
        return self._decode(await self._post({"signingRequest": request}), _SigningAnswerMs).signing.identity

    async def verify_answer(self, call: CallFacts, identity: str) -> Verdict:
        """Return the verdict on the Identity of a call's answer; raises ServiceError if there is none."""
        return await self.verify(call, identity, answer=True)

    async def verify(self, call: CallFacts, identity: str | None, **own: object) -> Verdict:
        """Return the verdict on one Identity value, or for None on a PASSporT that is found out of band.

        `own` are further members of the request. Raises ServiceError if there is no verdict.
        """
        told = {"outOfBand": True} if identity is None else {"identity": identity}
        request = {
            **own,
            "callId": call.call_id,
            "from": {"tn": call.caller},
            "keyMgmt": call.key_mgmt,
            "time": call.time_s,
            "to": {"tn": [call.called]},
            **told,
            **_sdp_member(call),
        }
        body = await self._post({"verificationRequest": request})
        response = self._decode(body, _VerificationAnswer).response
        try:
            return response.verdict()
        except ValueError:
            raise ServiceError(f"{self.name} gave a verdict that is none") from None

    async def _post(self, body: Mapping[str, object]) -> bytes:
        try:
            answer = await self._client.request("POST", self._target, msgspec.json.encode(body))
        except HttpTimeoutError:
            raise ServiceError(f"{self.name} did not answer in time") from None
        except HttpError:
            raise ServiceError(f"{self.name} cannot be reached") from None
        if answer.status != 200:
            raise ServiceError(f"{self.name} refused: {_sentence(answer)}")
        return answer.body

    def _decode(self, body: bytes, kind: type[_T]) -> _T:
        try:
            return msgspec.json.decode(body, type=kind)
        except ValueError:  # msgspec's errors, and bytes that are not UTF-8
            raise ServiceError(f"{self.name} gave an answer that cannot be read") from None


def _sdp_member(call: CallFacts) -> Mapping[str, object]:
    return {} if call.sdp is None else {"sdp": {"alg": "sha-256", "dig": base64url.encode(call.sdp)}}


def _sentence(answer: HttpAnswer) -> str:
    """Return the text of an error answer with its variables filled in, or else its status."""
    try:
        error = msgspec.json.decode(answer.body, type=_ErrorAnswer).error
    except ValueError:  # msgspec's errors, and bytes that are not UTF-8
        return f"HTTP {answer.status}"
    fault = error.policy or error.service
    if fault is None:
        return f"HTTP {answer.status}"
    return _filled(fault.text, fault.variables)


def _filled(text: str, variables: Sequence[str]) -> str:
    for number, value in enumerate(variables[:9], 1):
        text = text.replace(f"%{number}", value)
    return _without_numbers(text[:500])


def _without_numbers(text: str) -> str:
    """Remove telephone numbers from a service's text, which goes into the trace and to the other domain."""
    return _NUMBER.sub("(number)", text)
