"""The failure of an exchange: an error with a stable code, the failed step, a notify for the peer, and a sentence.

Steps are numbered as in the flow of a device at its security gateway (SeGW): 4 is the device's IKE_AUTH, 5.1 to 5.4
the inquiry, 6 the gateway's check of N(INTEGRITY_INFO), 7 its answer, 8 the device's verdict on the gateway.
"""

from enum import StrEnum

from voice_dpki.errors import PeerError
from voice_dpki.ikev2.registry import NotifyType


class Failure(StrEnum):
    """Stable codes of protocol failures; a verdict that refuses a certificate has its own code."""

    MALFORMED = "malformed"
    VERSION = "version"
    CRITICAL_PAYLOAD = "critical-payload"
    PAYLOADS = "payloads"
    PROPOSAL = "proposal"
    KE_GROUP = "ke-group"
    KE_VALUE = "ke-value"
    PROTECTION = "protection"
    FRAGMENT = "fragment"
    CERTIFICATE = "certificate"
    IDENTITY = "identity"
    AUTH_METHOD = "auth-method"
    SIGNATURE = "signature"
    JUDGED = "judged"
    CHILD = "child"
    PEER_REFUSED = "peer-refused"
    TIMEOUT = "timeout"
    BUSY = "busy"


_NOTIFY: dict[Failure, NotifyType] = {
    Failure.MALFORMED: NotifyType.INVALID_SYNTAX,
    Failure.VERSION: NotifyType.INVALID_MAJOR_VERSION,
    Failure.CRITICAL_PAYLOAD: NotifyType.UNSUPPORTED_CRITICAL_PAYLOAD,
    Failure.PAYLOADS: NotifyType.INVALID_SYNTAX,
    Failure.PROPOSAL: NotifyType.NO_PROPOSAL_CHOSEN,
    Failure.KE_GROUP: NotifyType.INVALID_KE_PAYLOAD,
    Failure.KE_VALUE: NotifyType.INVALID_SYNTAX,
    Failure.FRAGMENT: NotifyType.INVALID_SYNTAX,
    Failure.CHILD: NotifyType.TS_UNACCEPTABLE,
}
"""The notify for the peer by failure; AUTHENTICATION_FAILED for any other."""


class IkeError(PeerError):
    """The peer's message or certificate is refused. `data` is the notify's data (RFC 7296 §3.10.1)."""

    def __init__(
        self, failure: Failure, sentence: str, *, step: str = "", code: str = "", data: bytes = b""
    ) -> None:
        self.failure = failure
        self.code = code or str(failure)
        self.step = step
        self.sentence = sentence
        self.notify = _NOTIFY.get(failure, NotifyType.AUTHENTICATION_FAILED)
        self.data = data
        super().__init__(f"step {step}: {sentence}" if step else sentence)
