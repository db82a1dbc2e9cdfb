"""The registrar of a domain, which accepts REGISTER only from authenticated users (RFC 3261 §10.3)."""

from collections.abc import Callable, Sequence

from sip_testbed.proxy_rules import RequestRefusal
from voice_dpki.names import Tn
from voice_dpki.sip.digest import Authenticator, DigestRefusedError
from voice_dpki.sip.location import (
    Binding,
    IntervalTooBriefError,
    Location,
    NoFirstHopError,
    OutOfOrderError,
    supports_outbound,
)
from voice_dpki.sip.message import parse_address, required_header
from voice_dpki.sip.proxy import Arrival
from voice_dpki.stir.tn import canonical_tn
from voice_dpki.wire.sip.invite import number_of

Headers = tuple[tuple[str, str], ...]


class Registrar:
    """Maintains the location service of the domain's users."""

    def __init__(self, authenticator: Authenticator, location: Location) -> None:
        self._authenticator = authenticator
        self._location = location

    def register(self, arrival: Arrival, now_s: float, on_authenticated: Callable[[Arrival], None]) -> Headers:
        """Apply a REGISTER and return the header fields of its 200; raises RequestRefusal or MalformedError.

        `on_authenticated` is called once the credentials are accepted, even if the request is refused later.
        """
        user = self._user(arrival, now_s, on_authenticated)
        envelope = arrival.envelope
        try:
            self._location.register(
                user, arrival.request, envelope.call_id, envelope.sequence, arrival.source, now_s
            )
        except IntervalTooBriefError:
            raise RequestRefusal(423, None, (("Min-Expires", str(self._location.bounds.least)),)) from None
        except OutOfOrderError as error:
            raise RequestRefusal(500, f"Server Internal Error: {error}") from None
        except NoFirstHopError as error:
            raise RequestRefusal(439, f"First Hop Lacks Outbound Support: {error}") from None
        bindings = self._location.find(user, now_s)
        contacts = tuple(("Contact", f"{b.contact};expires={round(b.expires_s - now_s)}") for b in bindings)
        return (*contacts, *_outbound(arrival, bindings))

    def _user(self, arrival: Arrival, now_s: float, on_authenticated: Callable[[Arrival], None]) -> Tn:
        """Return the number of the user that registers: the authenticated one; raises RequestRefusal."""
        aor = parse_address(required_header(arrival.request, "To")).uri
        values = arrival.request.headers.getlist("Authorization")
        try:
            username = self._authenticator.authenticate(values, "REGISTER", now_s)
        except DigestRefusedError as refused:
            challenge = self._authenticator.challenge(aor.user or "", now_s, stale=refused.stale)
            raise RequestRefusal(401, None, (("WWW-Authenticate", challenge),)) from None
        on_authenticated(arrival)
        user = canonical_tn(username)
        if number_of(aor) != user:
            raise RequestRefusal(403, "Forbidden: a user registers no other number")
        return user


def _outbound(arrival: Arrival, bindings: Sequence[Binding]) -> Headers:
    """Return the header field that confirms registration over a flow (RFC 5626 §6), if this REGISTER made one."""
    envelope = arrival.envelope
    made = any(b.reg_id and (b.call_id, b.sequence) == (envelope.call_id, envelope.sequence) for b in bindings)
    return (("Require", "outbound"),) if made and supports_outbound(arrival.request) else ()
