"""The routes of a proxy: its Record-Route values, which name a call and a flow, and the same values in Route.

Each value carries a token over the Call-ID and the tag of the INVITE's sender, so that the proxy relays only
requests of calls that it has admitted. If a telephone is reached on its flow, the value for its side carries the
flow, too (RFC 5626 §5.1).
"""

import hmac
from collections.abc import Callable, Sequence
from typing import Final

from sipmessage import URI, Request

from voice_dpki.codec import base64url
from voice_dpki.names import ascii_lower
from voice_dpki.sip.hop import SIP_PORT, SIPS_PORT
from voice_dpki.sip.hosts import bare_host, host_text
from voice_dpki.sip.location import Target
from voice_dpki.sip.message import Envelope, Hop, header_values, parse_address, set_header_values, uri_hop
from voice_dpki.sip.transaction import TransactionLayer

_CALL_PARAMETER: Final = "call"
_FLOW_PARAMETER: Final = "flow"
_MAX_FLOW_CHARS: Final = 160
_TOKEN_BYTES: Final = 12


class ProxyRoutes:
    """The routes of one proxy, whose addresses are its layer's; the arguments are as in `ProxyCore`."""

    def __init__(
        self, layer: TransactionLayer, secret: bytes, resolve: Callable[[URI], Hop | None], own_names: Sequence[str]
    ) -> None:
        self._layer = layer
        self._secret = secret
        self._resolve = resolve
        self._own_names = frozenset(ascii_lower(name) for name in own_names)

    def records(self, envelope: Envelope, *sides: tuple[str, Hop | None]) -> list[str]:
        """Return the Record-Route values for both sides of the proxy; one value if they are equal (RFC 5658).

        A side is its transport and, if a telephone is reached on its flow, the hop with that flow. Requests towards
        a side arrive with that side's value as the last of the proxy's own.
        """
        values = []
        call_id, token = envelope.call_id, self._token(envelope.call_id, envelope.from_tag)
        for transport, hop in sides:
            flow = "" if hop is None or hop.flow is None else f";{_FLOW_PARAMETER}={self._flow_token(call_id, hop)}"
            own = f"sips:{self._layer.tls_sent_by}" if transport == "tls" else f"sip:{self._layer.sent_by}"
            end = ";transport=tcp" if transport == "tcp" else ""
            values.append(f"<{own};lr;{_CALL_PARAMETER}={token}{flow}{end}>")
        return list(dict.fromkeys(values))

    def take_own(self, request: Request, envelope: Envelope) -> tuple[bool, Hop | None]:
        """Remove the Route values that name this proxy (§16.4).

        Returns whether they carry this dialog's token, and the flow on which the other side is reached, if any.
        """
        routes = header_values(request, "Route")
        if routes and self._is_own(request.uri) and _CALL_PARAMETER in request.uri.parameters:
            routes.insert(0, f"<{request.uri}>")  # a strict router moved our Route into the Request-URI
            request.uri = parse_address(routes.pop()).uri
        tokens, flow = [], None
        while routes and self._is_own(uri := parse_address(routes[0]).uri):
            if _CALL_PARAMETER in uri.parameters:  # a preloaded Route has no token and proves nothing
                tokens.append(uri.parameters.get(_CALL_PARAMETER) or "")
                flow = self._read_flow(envelope.call_id, uri.parameters.get(_FLOW_PARAMETER))
            del routes[0]
        set_header_values(request, "Route", routes)
        known = bool(tokens and envelope.to_tag) and all(self._is_token_of(envelope, token) for token in tokens)
        return known, flow if known else None

    def _is_token_of(self, envelope: Envelope, token: str) -> bool:
        """Whether this proxy made `token` for this dialog; either end of it may have sent the INVITE."""
        wanted = [self._token(envelope.call_id, tag) for tag in (envelope.from_tag, envelope.to_tag)]
        return any(hmac.compare_digest(token.encode(), each.encode()) for each in wanted)

    def next_hop(self, request: Request, flow: Hop | None) -> Target | None:
        """Return the target of a request in a dialog, None if unknown; `flow` is the one that its Route named."""
        routes = header_values(request, "Route")
        named = uri_hop(parse_address(routes[0]).uri if routes else request.uri)
        if not routes and flow is not None:
            only_there = "ob" in request.uri.parameters or named is None or named.transport != flow.transport
            return Target(flow, None if only_there or not flow.reliable else named)
        hop = named if routes else named or self._resolve(request.uri)
        return Target(hop) if hop else None

    def _is_own(self, uri: URI) -> bool:
        host = bare_host(uri.host)
        address = f"{host_text(host)}:{uri.port or (SIPS_PORT if uri.scheme == 'sips' else SIP_PORT)}"
        return address in self.addresses or ascii_lower(uri.host) in self._own_names

    @property
    def addresses(self) -> tuple[str, str]:
        """The addresses of the proxy: for UDP and TCP, and for TLS."""
        return self._layer.sent_by, self._layer.tls_sent_by

    def _token(self, call_id: str, tag: str) -> str:
        text = f"call {len(call_id)} {call_id} {tag}"
        return base64url.encode(hmac.digest(self._secret, text.encode(), "sha256")[:_TOKEN_BYTES])

    def _flow_token(self, call_id: str, hop: Hop) -> str:
        text = f"{hop.transport} {hop.host} {hop.port} {hop.flow}"
        return base64url.encode(self._flow_mac(call_id, text) + text.encode())

    def _read_flow(self, call_id: str, token: str | None) -> Hop | None:
        """Return the flow in `token`, or None if this proxy did not make the token for this call."""
        if not token or len(token) > _MAX_FLOW_CHARS:
            return None
        data = base64url.decode(token)
        mac, text = data[:_TOKEN_BYTES], data[_TOKEN_BYTES:].decode("ascii", "replace")
        if not hmac.compare_digest(mac, self._flow_mac(call_id, text)):
            return None
        transport, host, port, flow = text.split(" ")
        return Hop(transport, host, int(port), int(flow))

    def _flow_mac(self, call_id: str, text: str) -> bytes:
        return hmac.digest(self._secret, f"flow {text} {call_id}".encode(), "sha256")[:_TOKEN_BYTES]
