"""TLS of SIP elements, which are server and client at once, from certificates that a reload may replace."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from voice_dpki.shell.config import Config
from voice_dpki.shell.reload import Live, Options
from voice_dpki.shell.tls import PeerTls, ServerSide, client_context, server_side
from voice_dpki.wire.sip.transport import Tls

C = TypeVar("C", bound=Config)


@dataclass(frozen=True, slots=True)
class PeerSide:
    """Both sides of an element: for its transport, and what is known of its own certificate."""

    tls: Tls
    server: ServerSide


def peer_side(config_path: Path, section: PeerTls) -> PeerSide:
    """Read an element's section; raises LocalError that names the file that cannot be used."""
    server = server_side(config_path, section.server, interface="sip")
    tls = Tls(client_context(config_path, section.client), server.context, section.port, server.listed)
    return PeerSide(tls, server)


def live_peer_side(
    config_path: Path, options: Options[C], section_of: Callable[[C], PeerTls | None]
) -> Live[PeerSide] | None:
    """Read an element's section now and at each reload, None without one; raises LocalError.

    A section that comes or goes, and another port, need a restart; a reload then leaves things as they are.
    """
    if section_of(options.config) is None:
        return None

    def read(config: C) -> PeerSide:
        section = section_of(config)
        assert section is not None, "a reload neither adds nor removes a section"
        return peer_side(config_path, section)

    return options.live(read)
