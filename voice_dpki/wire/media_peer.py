"""Destinations and sources of a call's media: the addresses in the peer's SDP, and those learned from packets."""

from dataclasses import dataclass
from ipaddress import ip_address

from voice_dpki.errors import MalformedError
from voice_dpki.sip.hosts import host_text

HOLD_ADDRESSES = frozenset({"0.0.0.0", "::"})  # noqa: S104 - addresses in SDP, not to listen at
"""Addresses in the SDP of a peer on hold, to which neither RTP nor RTCP may be sent (RFC 3264 §8.4)."""


@dataclass(slots=True)
class MediaPeer:
    """The peer's addresses, each a host and a port."""

    remote: tuple[str, int]
    """The RTP address in the peer's SDP. Without keys, only packets from its host are accepted, and RTP only from
    this port and that of the first."""
    remote_control: tuple[str, int]
    """The RTCP address in the peer's SDP."""
    foreign_source: tuple[str, int] | None = None
    """Source of the first packet that is not the peer's."""
    source: tuple[str, int] | None = None
    """Where the peer's RTP comes from, and ours goes to: the source of its newest authentic packet."""
    control_source: tuple[str, int] | None = None
    """The same for RTCP."""
    left: tuple[str, int] | None = None
    """Where the peer's RTP came from before its newest SDP. In clear, late packets from there are still accepted,
    but ours do not go there."""

    def move(self, remote: tuple[str, int], remote_control: tuple[str, int]) -> None:
        """Take the addresses of a new SDP; where they are those of the last one, what was learned is kept."""
        if (remote, remote_control) != (self.remote, self.remote_control):
            self.left = self.source
            self.remote, self.remote_control = remote, remote_control
            self.source = self.control_source = None

    def stop(self) -> None:
        """Take the port 0 of a new SDP, by which the stream is over until another SDP names a port."""
        self.remote = self.remote_control = self.remote[0], 0
        self.source = self.control_source = None

    @property
    def is_stopped(self) -> bool:
        """Whether the newest SDP has ended the stream (RFC 3264 §8.2)."""
        return self.remote[1] == 0

    @property
    def foreign_from(self) -> str | None:
        """Source of the first packet that is not the peer's, as "host:port"; None if there was none."""
        source = self.foreign_source
        return None if source is None else f"{host_text(source[0])}:{source[1]}"

    def is_foreign(self, source: tuple[str, int], is_control: bool) -> bool:
        """Return whether a packet in clear from `source` is not the peer's, as far as its source shows."""
        is_other = self.source is not None and source not in (self.source, self.remote, self.left)
        return source[0] != self.remote[0] or (not is_control and is_other)

    def has_left(self, source: tuple[str, int]) -> bool:
        """Return whether the peer was at `source` and its newest SDP names another address."""
        return source == self.left != self.remote

    def destination(self, is_control: bool) -> tuple[str, int]:
        """Return where our packets go."""
        return (self.control_source or self.remote_control) if is_control else self.source or self.remote

    @property
    def is_on_hold(self) -> bool:
        """Whether the peer's SDP names no address or no port, so that nothing may be sent (RFC 3264 §8.2, §8.4)."""
        return self.remote[0] in HOLD_ADDRESSES or self.is_stopped

    @property
    def is_multiplexed(self) -> bool:
        """Whether RTCP shares the port of RTP."""
        return self.remote == self.remote_control


def check_address(own: str, host: str, port: int) -> None:
    """Raise MalformedError for an address in the peer's SDP that our socket cannot send to.

    That is a host name, an address of the other family or of many hosts, or a port that does not exist.
    """
    try:
        address = ip_address(host)
    except ValueError:
        raise MalformedError("the peer's media address is no numeric address") from None
    if (":" in own) != (":" in host):
        raise MalformedError("the peer's media address is not of the family that ours is of, IPv4 or IPv6")
    if address.is_multicast or host == "255.255.255.255":
        raise MalformedError("the peer's media address is not that of one host")
    if not 0 < port < 65_536:
        raise MalformedError("the peer's media port leaves none above it for RTCP, or there is no such port")
