"""Errors of the HTTP interface to the STIR services: identifiers, HTTP statuses and sentences (ATIS-1000082).

    {"requestError":{"serviceException"|"policyException":{messageId, text, variables}}}

SVC says that the service cannot process the request, POL that it will not. 3GPP TS 24.229 V.2.4.3 has the same
classes and statuses in another body (`voice_dpki.stir.ms`). POL4010 to POL4034, POL4080, POL4130, POL4290,
POL5030 and POL5031 are this project's own.
"""

from collections.abc import Callable, Mapping
from typing import Annotated, Self

import msgspec

from voice_dpki.errors import PeerError
from voice_dpki.stir.sign import SigningRefused

_FAULTS: Mapping[str, tuple[int, str]] = {
    "SVC4000": (400, "The request has no body."),
    "SVC4001": (400, "Mandatory parameter '%1' is missing."),
    "SVC4002": (406, "The answer is of type '%1', and the request's Accept does not admit it."),
    "SVC4003": (404, "There is no such resource."),
    "SVC4004": (415, "The body must be of type '%1'."),
    "SVC4005": (400, "Parameter '%1' has a value that cannot be used: %2."),
    "SVC4006": (400, "The request cannot be parsed: %1."),
    "SVC4007": (411, "Content-Length is missing."),
    "POL4010": (401, "The caller of this service is not known: send one of its bearer tokens in Authorization."),
    "POL4030": (403, "There is no signature for this call: %1."),
    "POL4031": (403, "There is no signature for a call that is not of now: %1."),
    "POL4032": (403, "There is no signature at this time: %1."),
    "POL4033": (403, "There is no signature with this server's certificate: %1."),
    "POL4034": (403, "There is no signature for this call by the rules of this server's operator: %1."),
    "POL4050": (405, "This resource has another method: %1."),
    "POL4080": (408, "The request took too long: %1."),
    "POL4130": (413, "The request is too large: %1."),
    "POL4290": (429, "This client asks for too much: %1."),
    "POL5000": (500, "This server failed; its log says why."),
    "POL5030": (503, "This server has no room now: %1."),
    "POL5031": (503, "There is no signature at this time, for the server cannot use its key: %1."),
}
"""Message identifier to HTTP status and text; %1 and %2 stand for the variables."""

MESSAGE_IDS = tuple(_FAULTS)
"""The message identifiers of all errors."""

STATUSES = tuple(sorted({status for status, _ in _FAULTS.values()}))
"""The HTTP statuses of all errors."""


def texts_of(status: int) -> list[str]:
    """Return identifier and text of every error with this HTTP status, for documents."""
    return [f"{message_id}: {text}" for message_id, (each, text) in _FAULTS.items() if each == status]


_OF_STATUS = {
    400: "SVC4006",
    404: "SVC4003",
    405: "POL4050",
    408: "POL4080",
    413: "POL4130",
    414: "POL4130",
    417: "SVC4006",
    429: "POL4290",
    431: "POL4130",
    500: "POL5000",
    501: "SVC4006",
    503: "POL5030",
    505: "SVC4006",
}

_OF_REFUSAL = {
    "no-authority": "POL4030",
    "claims": "POL4030",
    "stale-iat": "POL4031",
    "credential-not-valid": "POL4032",
    "not-on-ledger": "POL4033",
    "no-rule": "POL4034",
    "rule": "POL4034",
    "key-unavailable": "POL5031",
}


SIGNERS_FAULTS = frozenset({"credential-not-valid", "not-on-ledger", "key-unavailable"})
"""Codes of refusals with which the signer cannot sign any call, so that the fault is not the call's."""


class Fault(msgspec.Struct, frozen=True, rename="camel"):
    """What was wrong."""

    message_id: str
    text: str
    """A sentence in which %1 and %2 stand for the variables."""
    variables: tuple[str, ...]


class RequestErrorBody(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """Exactly one of the two is there: the service cannot process the request, or it will not."""

    service_exception: Fault | msgspec.UnsetType = msgspec.UNSET
    policy_exception: Fault | msgspec.UnsetType = msgspec.UNSET


Bypass = Annotated[
    str,
    msgspec.Meta(description="Own: what the INVITE is to have as P-Identity-Bypass, for the signer is at fault."),
]


class ErrorAnswer(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """The body of an error (ATIS-1000082)."""

    request_error: RequestErrorBody
    bypass: Bypass = ""


class RequestError(PeerError):
    """A request that is answered with an error of the interface."""

    def __init__(self, message_id: str, *variables: str) -> None:
        self.message_id = message_id
        self.bypass = ""
        """The value of P-Identity-Bypass that the INVITE is to have; "" for none."""
        self.status, self._text = _FAULTS[message_id]
        self._variables = variables
        self._write: Callable[[RequestError], bytes] = RequestError.exception
        super().__init__(self.sentence)

    @property
    def sentence(self) -> str:
        """The text with its variables filled in."""
        text = self._text
        for number, value in enumerate(self._variables, 1):
            text = text.replace(f"%{number}", value)
        return text

    def written_by(self, write: "Callable[[RequestError], bytes]") -> Self:
        """Set `write` as the encoder of this error, for another form of the interface; returns the error."""
        self._write = write
        return self

    def body(self) -> bytes:
        """Encode the error, for ATIS-1000082 if no other form was set."""
        return self._write(self)

    def exception(self) -> bytes:
        """Encode the error as ATIS-1000082 has it: SVC as a serviceException, POL as a policyException."""
        fault = Fault(self.message_id, self._text, self._variables)
        is_service = self.message_id.startswith("SVC")
        error = (
            RequestErrorBody(service_exception=fault) if is_service else RequestErrorBody(policy_exception=fault)
        )
        return msgspec.json.encode(ErrorAnswer(error, self.bypass))


def error_of_status(status: int, detail: str) -> RequestError:
    """Return the error for a request that was refused before it reached a service; `detail` is for people."""
    message_id = _OF_STATUS.get(status, "POL5000")
    return RequestError(message_id, *([detail] if "%1" in _FAULTS[message_id][1] else []))


def error_of_refusal(refusal: SigningRefused, bypass: str = "") -> RequestError:
    """Return the error for a call that gets no signature; it has `bypass` only if the signer is at fault."""
    error = RequestError(_OF_REFUSAL[refusal.code], str(refusal))
    error.bypass = bypass if refusal.code in SIGNERS_FAULTS else ""
    return error
