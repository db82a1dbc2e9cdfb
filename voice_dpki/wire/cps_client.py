"""A client of call placement services: publishes and retrieves PASSporTs of calls whose path loses them."""

import ssl
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from voice_dpki.effects import Clock, Random
from voice_dpki.errors import MalformedError, PeerError
from voice_dpki.stir.access import AccessAction, Place, sign_access
from voice_dpki.stir.cps import MAX_ANSWER_BYTES, passports_body, path_of, read_passports
from voice_dpki.stir.sign import Credential
from voice_dpki.wire.http_client import HttpAnswer, HttpClient, HttpError, HttpTimeoutError

OUTCOMES: Final = ("timeout", "unreachable", "refused", "unreadable")
"""Values of `CpsError.outcome`."""


class CpsError(PeerError):
    """A request to a service failed; `outcome` is one of OUTCOMES."""

    def __init__(self, outcome: str, message: str) -> None:
        super().__init__(message)
        self.outcome = outcome


@dataclass(frozen=True, slots=True)
class Kept:
    """PASSporTs of one call, for a service to keep."""

    tokens: tuple[str, ...]
    lifetime_s: int


class CpsClient:
    """A client of the service at one URL. Close it with `aclose`."""

    def __init__(
        self,
        url: str,
        *,
        timeout_s: float,
        clock: Clock,
        random: Random,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        """Raises LocalError for a URL that cannot be used (`HttpClient`)."""
        self._http = HttpClient(url, timeout_s=timeout_s, max_answer_bytes=MAX_ANSWER_BYTES, tls=tls)
        self._audience = urlsplit(url).hostname or ""
        self._clock, self._random = clock, random

    async def publish(self, credential: Credential, place: Place, kept: Kept) -> None:
        """Publish PASSporTs of a call; raises CpsError."""
        access = self._access(credential, AccessAction.PUBLISH, place, kept)
        headers = {"Authorization": f"Bearer {access}", "Content-Type": "application/json"}
        answer = await self._asked("POST", place, headers, passports_body(kept.tokens))
        if answer.status not in (200, 201, 202, 204):
            raise _refusal(answer)

    async def retrieve(self, credential: Credential, place: Place) -> tuple[str, ...]:
        """Return the PASSporTs that the service keeps for a call, perhaps none; raises CpsError."""
        access = self._access(credential, AccessAction.RETRIEVE, place, Kept((), 0))
        answer = await self._asked("GET", place, {"Authorization": f"Bearer {access}"})
        if answer.status == 404:
            return ()
        if answer.status != 200:
            raise _refusal(answer)
        try:
            return read_passports(answer.body, MAX_ANSWER_BYTES)
        except MalformedError as error:
            raise CpsError("unreadable", f"the service's answer cannot be read: {error}") from None

    async def aclose(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    def _access(self, credential: Credential, action: AccessAction, place: Place, kept: Kept) -> str:
        return sign_access(
            credential,
            action,
            place,
            self._audience,
            self._clock.now_s(),
            self._random,
            passports=kept.tokens,
            lifetime_s=kept.lifetime_s,
        )

    async def _asked(self, method: str, place: Place, headers: dict[str, str], body: bytes = b"") -> HttpAnswer:
        try:
            return await self._http.request(method, path_of(place), body, headers=headers)
        except HttpTimeoutError as error:
            raise CpsError("timeout", str(error)) from None
        except HttpError as error:
            raise CpsError("unreachable", str(error)) from None


def _refusal(answer: HttpAnswer) -> CpsError:
    return CpsError("refused", f"the service refuses it: HTTP {answer.status}")
