"""One transaction: what is kept of it, by which key it is found, and the requests that go with an INVITE."""

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
"""How each request that we send begins."""


@dataclass(slots=True)
class Transaction:
    """What is kept of a request that was sent or received, and of its answer."""

    key: TransactionKey
    machine: Machine
    hop: Hop
    branch: str
    sequence: int
    request: Request | None
    """None once nothing can be built from it any more: an answered transaction lingers, and may be one of many."""
    wire: bytes = b""
    """What is sent again: a client's request or its ACK, a server's latest response."""
    fallback: Hop | None = None
    state: State = State.TERMINATED
    cost: int = 1
    """How many places it takes (see `cost_of`)."""
    timers: TimersOf = field(init=False)
    source: str = ""
    """Whose share a server transaction is part of."""
    interval_s: float = 0.0
    opened_s: float = 0.0
    """When it began, by the layer's clock."""
    cancelling: bool = False
    reasons: tuple[str, ...] = ()
    quiet: bool = False
    """Whether the transaction user is told nothing: a CANCEL that the layer sends itself."""
    plain_hop: Hop | None = None
    """The UDP hop that was meant, when only size made it TCP (RFC 3261 §18.1.1)."""

    @property
    def is_unanswered(self) -> bool:
        """Whether this is a request that was sent and has had no response at all."""
        return self.state in (State.CALLING, State.TRYING) and self.machine in (INVITE_CLIENT, CLIENT)

    def __post_init__(self) -> None:
        self.timers = TimersOf(self.key)


def input_of(status: int) -> Input:
    """Return the input that a response with `status` is."""
    if status < 200:
        return Input.PROVISIONAL
    return Input.SUCCESS if status < 300 else Input.FAILURE


def client_key(branch: str, method: str) -> TransactionKey:
    """Return the key of a request that was sent (RFC 3261 §17.1.3)."""
    return TransactionKey(f"client {branch} {method}")


def server_key(envelope: Envelope, method: str) -> TransactionKey:
    """Return the key by branch and sent-by, or for elements older than RFC 3261 by what §17.2.3 lists."""
    via = envelope.via
    if via.branch.startswith(MAGIC_COOKIE) and via.branch != MAGIC_COOKIE:
        return TransactionKey(f"server {via.branch} {via.sent_by} {method}")
    return TransactionKey(
        f"server {envelope.call_id} {envelope.from_tag} {envelope.sequence} {via.sent_by} {method}"
    )


def quoted_key(data: bytes) -> TransactionKey | None:
    """Return the key of the request of ours that begins with `data`, or None where too little of it is there."""
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
