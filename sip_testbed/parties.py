"""The other side of a call: its URI and its host."""

from voice_dpki.sip.message import parse_address
from voice_dpki.wire.sip.user_agent import IncomingCall, Leg


def caller_uri(call: IncomingCall) -> str:
    """Return the caller's URI: the number that our domain asserts, at the domain in From.

    Without an assertion (the domain may only label calls) the number is taken from From; MIKEY verifies it.
    """
    claimed = parse_address(call.from_).uri
    asserted = (call.asserted_identity or "").removeprefix("sip:").partition("@")[0].partition(";")[0]
    return f"sip:{asserted or claimed.user}@{claimed.host}"


def host_of(call: Leg) -> str:
    """Return the host of the other side's Contact."""
    assert call.dialog is not None
    return call.dialog.target.host
