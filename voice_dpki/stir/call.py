"""A call as the proxy describes it to the signer and to the verifier."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from voice_dpki.names import Tn
from voice_dpki.stir.passport import Destinations

DEFAULT_PPT = "shaken"
"""The kind that a request asks for if it names none (3GPP TS 24.229 Annex V)."""


@dataclass(frozen=True, slots=True)
class Source:
    """Where a call comes from, for the operator's rules; each member is "" where it is not known."""

    peer: str = ""
    """The client of the service, by the name that its token has in the server's configuration."""
    trunk: str = ""
    """The trunk or route by which the call reached the client, as the client names it."""
    user: str = ""
    """The user that the client has authenticated, as the client names it."""
    bypass: str = ""
    """The operator that could not sign the call, by the name of its bypass token in the server's configuration."""


NO_CALLER_NUMBER: Final = Tn("")
"""The calling number of a call that names none. No PASSporT names it, and no pattern covers it."""


@dataclass(frozen=True, slots=True)
class Call:
    """What the signalling says about the call, in canonical form; Identity header fields are as received."""

    orig: Tn
    """The calling number, or NO_CALLER_NUMBER."""
    dest: Destinations
    time_s: int
    """The SIP Date, or the time of receipt where there was none."""
    identities: tuple[str, ...]
    """The Identity header fields; each is verified by itself."""
    key_mgmt: tuple[str, ...] | None = None
    """Raw `a=key-mgmt` values of the SDP, in order; None if the proxy did not send them."""
    sdp: bytes | None = None
    """Digest of the INVITE's body (`voice_dpki.stir.body`); None if the proxy did not send it."""
    target: Destinations | None = None
    """The current target, from the Request-URI; `dest` includes it. None if it is not given separately."""
    resource_priority: frozenset[str] | None = None
    """The values of Resource-Priority in lower case, such as "ets.0"; None if the proxy did not send them."""
    priority: str | None = None
    """The value of Priority in lower case; None if the proxy did not send it."""
    source: Source = Source()
    call_id: str = ""
    """The Call-ID of the INVITE; "" if the proxy did not send it."""
    is_answer: bool = False
    """Whether this is the answer to the call; the number to prove is then that of the called party."""


@dataclass(frozen=True, slots=True)
class SigningRequest:
    """A proxy's request to sign one call."""

    attest: str
    """Empty for a kind that attests nothing."""
    orig: Tn
    dest: Destinations
    iat_s: int
    origid: str
    """Empty for a kind without one."""
    key_mgmt: tuple[str, ...] = ()
    """Raw values of `a=key-mgmt` in the call's SDP, in order."""
    sdp: bytes | None = None
    """Digest of the INVITE's body (`voice_dpki.stir.body`); None if the body is not to be signed."""
    ppt: str = DEFAULT_PPT
    own: Mapping[str, object] = field(default_factory=dict)
    """Members of this kind alone, as read by `Kind.members` and `Kind.options`, except attest and origid."""
    source: Source = Source()
    call_id: str = ""
    """The Call-ID of the INVITE, for logs and traces; "" if the proxy did not send it."""
