"""The interface between a call and its user agent, and the final answer to an INVITE."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from sipmessage import Headers, Request, Response

from voice_dpki.errors import MalformedError
from voice_dpki.sip import reliable, session_timer
from voice_dpki.sip.account import Account
from voice_dpki.sip.message import Hop, parse_address, split_values
from voice_dpki.wire.sip.exchange import Exchange

if TYPE_CHECKING:
    from voice_dpki.wire.sip.call import Leg

ALLOW: Final = "INVITE,ACK,CANCEL,BYE,OPTIONS,PRACK,UPDATE"
"""The methods of calls, without spaces: an INVITE must be short."""
SUPPORTED: Final = f"{session_timer.OPTION},{reliable.OPTION}"
"""Extensions that our INVITEs support."""
MAX_TRIES: Final = 3
"""Most times that one request is sent, including retries with credentials and after a 491."""
_VERSTAT: Final = "verstat="


@dataclass(frozen=True, slots=True)
class FinalAnswer:
    """The final answer to an INVITE; `setup_ms` is the time since it was first sent."""

    status: int
    reason: str
    sdp: bytes = b""
    headers: Headers = field(default_factory=Headers)
    setup_ms: float = 0.0
    tag: str = ""
    """The tag of the telephone that has answered, as in `EarlyAnswer`."""

    @property
    def reasons(self) -> list[str]:
        """The values of the Reason header field (RFC 3326)."""
        return split_values(self.headers.getlist("Reason"))

    @property
    def verstat(self) -> str | None:
        """Our domain's verdict on the number that has answered, such as "TN-Validation-Passed", or None.

        It can be trusted, because the telephone accepts answers from its own proxy only.
        """
        values = split_values(self.headers.getlist("P-Asserted-Identity"))
        try:
            return verstat_in(str(parse_address(values[0]).uri)) if values else None
        except MalformedError:
            return None


@dataclass(frozen=True, slots=True)
class Line:
    """What a call needs from its user agent.

    `opened` is called when a call gets its dialog, `closed` when the call ends.
    """

    account: Account
    exchange: Exchange
    proxy: Hop
    contact: str
    opened: Callable[["Leg"], None]
    closed: Callable[["Leg"], None]
    session_s: int | None = None
    """The session interval that our calls ask for (RFC 4028); without it none is asked for."""
    allow: str = ALLOW
    """The methods that we take within calls."""


def verstat_in(uri: str) -> str | None:
    """Return the verdict that an asserted URI holds as parameter verstat (3GPP TS 24.229), or None."""
    fields = uri.replace("@", ";").split(";")
    return next((field.removeprefix(_VERSTAT) for field in fields if field.startswith(_VERSTAT)), None)


def answer_of(response: Response) -> FinalAnswer:
    """Return a response as the final answer to an INVITE."""
    return FinalAnswer(response.code, response.phrase, response.body, response.headers)


def set_headers(message: Request | Response, headers: Iterable[tuple[str, str]]) -> None:
    """Set header fields of a message, replacing those of the same names."""
    for name, value in headers:
        message.headers.set(name, value)
