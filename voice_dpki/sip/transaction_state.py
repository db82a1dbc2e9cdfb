"""The state of one transaction, its key, and the ACK and CANCEL that belong to an INVITE."""

import re
from dataclasses import dataclass, field

from sipmessage import Request

from voice_dpki.sip.events import TransactionKey
from voice_dpki.sip.hop import Hop
from voice_dpki.sip.machines import CLIENT, INVITE_CLIENT, Input, Machine, State
from voice_dpki.sip.message import MAGIC_COOKIE, Envelope, header_values, set_header_values
from voice_dpki.sip.timers import TimersOf

_QUOTED = re.compile(
    rb"([A-Za-z0-9.!%*_+`'~-]{1,64}) [!-~]{1,512} SIP/2\.0\r\n"
    rb"Via: SIP/2\.0/UDP [!-:<-~]{1,300};branch=([A-Za-z0-9.!%*_+`'~-]{1,128})[;\r]"
)
"""Beginning of every request that we send over UDP."""


@dataclass(slots=True)
class Transaction:
    """The state of a request that was sent or received, and of its answer."""

    key: TransactionKey
    machine: Machine
    hop: Hop
    branch: str
    sequence: int
    request: Request | None
    """None once it is no longer needed, to save memory: many answered transactions may linger."""
    wire: bytes = b""
    """The message to retransmit: a client's request or its ACK, a server's latest response."""
    fallback: Hop | None = None
    state: State = State.TERMINATED
    cost: int = 1
    """Number of places that the transaction takes (see `cost_of`)."""
    timers: TimersOf = field(init=False)
    source: str = ""
    """The source in whose share a server transaction counts."""
    interval_s: float = 0.0
    opened_s: float = 0.0
    """When it began, by the layer's clock."""
    cancelling: bool = False
    reasons: tuple[str, ...] = ()
    quiet: bool = False
    """Whether the transaction user gets no events of it: true for a CANCEL that the layer sends itself."""
    plain_hop: Hop | None = None
    """The UDP hop that was asked for, if the request goes over TCP only for its size (RFC 3261 §18.1.1)."""

    @property
    def is_unanswered(self) -> bool:
        """Whether this is a sent request that has had no response at all."""
        return self.state in (State.CALLING, State.TRYING) and self.machine in (INVITE_CLIENT, CLIENT)

    def __post_init__(self) -> None:
        self.timers = TimersOf(self.key)


def input_of(status: int) -> Input:
    """Return the state machine's input for a response with `status`."""
    if status < 200:
        return Input.PROVISIONAL
    return Input.SUCCESS if status < 300 else Input.FAILURE


def client_key(branch: str, method: str) -> TransactionKey:
    """Return the key of a client transaction (RFC 3261 §17.1.3)."""
    return TransactionKey(f"client {branch} {method}")


def server_key(envelope: Envelope, method: str) -> TransactionKey:
    """Return the key of a server transaction (RFC 3261 §17.2.3).

    It is made of branch and sent-by, or of the fields that the section lists for clients older than RFC 3261.
    """
    via = envelope.via
    if via.branch.startswith(MAGIC_COOKIE) and via.branch != MAGIC_COOKIE:
        return TransactionKey(f"server {via.branch} {via.sent_by} {method}")
    return TransactionKey(
        f"server {envelope.call_id} {envelope.from_tag} {envelope.sequence} {via.sent_by} {method}"
    )


def quoted_key(data: bytes) -> TransactionKey | None:
    """Return the key of our own request that begins with `data`, or None if `data` holds too little of it."""
    match = _QUOTED.match(data)
    return client_key(match[2].decode(), match[1].decode()) if match else None


def sibling(invite: Request, method: str, sequence: int, to: str) -> Request:
    """Build the CANCEL or the ACK that belongs to an INVITE (RFC 3261 §9.1, §17.1.1.3)."""
    request = Request(method, invite.uri)
    set_header_values(request, "Via", header_values(invite, "Via")[:1])
    set_header_values(request, "Route", invite.headers.getlist("Route"))
    request.headers.set("Max-Forwards", "70")
    set_header_values(request, "From", invite.headers.getlist("From"))
    request.headers.set("To", to)
    set_header_values(request, "Call-ID", invite.headers.getlist("Call-ID"))
    request.headers.set("CSeq", f"{sequence} {method}")
    return request
