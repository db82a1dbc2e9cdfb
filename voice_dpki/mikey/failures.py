"""Why a MIKEY message is refused: one error, with a stable code, the step that failed and a sentence."""

from enum import StrEnum

from voice_dpki.errors import PeerError
from voice_dpki.mikey.registry import ErrorNumber


class Failure(StrEnum):
    """Stable codes of refusals; tests, results and reports compare these."""

    MALFORMED = "malformed"
    PAYLOAD = "payload"
    VERSION = "version"
    DATA_TYPE = "data-type"
    PRF = "prf"
    CSB_ID = "csb-id"
    CRYPTO_SESSIONS = "crypto-sessions"
    TIMESTAMP_TYPE = "timestamp-type"
    TIMESTAMP = "timestamp"
    TIMESTAMP_ECHO = "timestamp-echo"
    REPLAY = "replay"
    RAND = "rand"
    SDP_IDS = "sdp-ids"
    CERTIFICATE = "certificate"
    LEDGER = "ledger"
    PIN = "pin"
    IDENTITY = "identity"
    SIGNATURE_TYPE = "signature-type"
    SIGNATURE = "signature"
    DH_GROUP = "dh-group"
    STRENGTH = "strength"
    DH_VALUE = "dh-value"
    DH_ECHO = "dh-echo"
    POLICY = "policy"
    HASH = "hash"
    MAC = "mac"
    ENCRYPTION = "encryption"
    PEER_ERROR = "peer-error"
    KEY_MGMT = "key-mgmt"


_STEP_AND_NUMBER: dict[Failure, tuple[str, ErrorNumber]] = {
    Failure.MALFORMED: ("parse", ErrorNumber.UNSPECIFIED),
    Failure.PAYLOAD: ("payloads", ErrorNumber.UNSUPPORTED_MESSAGE),
    Failure.VERSION: ("HDR", ErrorNumber.UNSUPPORTED_MESSAGE),
    Failure.DATA_TYPE: ("HDR", ErrorNumber.INVALID_DT),
    Failure.PRF: ("HDR", ErrorNumber.INVALID_PRF),
    Failure.CSB_ID: ("HDR", ErrorNumber.UNSPECIFIED),
    Failure.CRYPTO_SESSIONS: ("HDR", ErrorNumber.UNSPECIFIED),
    Failure.TIMESTAMP_TYPE: ("T", ErrorNumber.INVALID_TS),
    Failure.TIMESTAMP: ("T", ErrorNumber.INVALID_TS),
    Failure.TIMESTAMP_ECHO: ("T", ErrorNumber.INVALID_TS),
    Failure.REPLAY: ("T", ErrorNumber.INVALID_TS),
    Failure.RAND: ("RAND", ErrorNumber.UNSPECIFIED),
    Failure.SDP_IDS: ("SDP IDs", ErrorNumber.UNSPECIFIED),
    Failure.CERTIFICATE: ("CERT", ErrorNumber.INVALID_CERT),
    Failure.LEDGER: ("ledger", ErrorNumber.INVALID_CERT),
    Failure.PIN: ("pin", ErrorNumber.INVALID_CERT),
    Failure.IDENTITY: ("ID", ErrorNumber.INVALID_ID),
    Failure.SIGNATURE_TYPE: ("SIGN", ErrorNumber.AUTH_FAILURE),
    Failure.SIGNATURE: ("SIGN", ErrorNumber.AUTH_FAILURE),
    Failure.DH_GROUP: ("DH", ErrorNumber.INVALID_DH),
    Failure.STRENGTH: ("DH", ErrorNumber.INVALID_DH),
    Failure.DH_VALUE: ("DH", ErrorNumber.UNSPECIFIED),
    Failure.DH_ECHO: ("DH", ErrorNumber.UNSPECIFIED),
    Failure.POLICY: ("SP", ErrorNumber.INVALID_SPPAR),
    Failure.HASH: ("CHASH", ErrorNumber.INVALID_HA),
    Failure.MAC: ("MAC", ErrorNumber.AUTH_FAILURE),
    Failure.ENCRYPTION: ("KEMAC", ErrorNumber.INVALID_EA),
    Failure.PEER_ERROR: ("ERR", ErrorNumber.UNSPECIFIED),
    Failure.KEY_MGMT: ("key-mgmt", ErrorNumber.UNSPECIFIED),
}


class MikeyError(PeerError):
    """A message is refused. `str()` gives "step SIGN: the signature of the Responder's message does not verify".

    `failure` is the code, `step` the step that failed, `number` the error number for an ERR payload, and `sentence`
    the reason for people. A missing key and a wrong one have the same number, AUTH_FAILURE, so that a peer that is
    not authenticated cannot tell them apart.
    """

    def __init__(self, failure: Failure, sentence: str, number: ErrorNumber | None = None) -> None:
        self.failure = failure
        self.step, usual = _STEP_AND_NUMBER[failure]
        self.number = usual if number is None else number
        self.sentence = sentence
        super().__init__(f"step {self.step}: {sentence}")
