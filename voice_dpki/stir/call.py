"""A call as the signalling tells of it: what a verifier compares an Identity with."""

from dataclasses import dataclass

from voice_dpki.names import Tn
from voice_dpki.stir.passport import Destinations


@dataclass(frozen=True, slots=True)
class Call:
    """What the signalling says about the call, in canonical form; Identity header fields are as received."""

    orig: Tn
    dest: Destinations
    time_s: int
    """The SIP Date, or the time of receipt where there was none."""
    identities: tuple[str, ...]
    """The Identity header fields; each is verified by itself."""
    key_mgmt: tuple[str, ...] | None = None
    """Raw `a=key-mgmt` values of the SDP, in order; None if the proxy did not send them."""
    sdp: bytes | None = None
    """Digest of the INVITE's body (`voice_dpki.stir.body`); None if the proxy did not send it."""
