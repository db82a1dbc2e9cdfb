"""The server's side of DTLS before there is a connection: cookies (RFC 6347 §4.2.1).

A ClientHello without a cookie is answered with a cookie, in fewer octets than it has, and no state is kept. Only a
source that returns the cookie of its address gets a connection, so a forged source takes no place and is sent no
handshake.
"""

import hmac
from collections.abc import Sequence
from typing import Final

from OpenSSL import SSL

from voice_dpki.effects import SystemRandom
from voice_dpki.sip.dtls_sdp import Fingerprint
from voice_dpki.wire.dtls import DtlsIdentity, DtlsSrtp
from voice_dpki.wire.early import Address

_SECRET_BYTES: Final = 32
_HANDSHAKE: Final = b"\x16"
"""First octet of a record of the handshake (RFC 6347 §4.3.1)."""


class DtlsListener:
    """Answers ClientHellos. Each listener has its own cookie secret, so other calls' cookies are invalid."""

    def __init__(self, identity: DtlsIdentity, fingerprints: Sequence[Fingerprint]) -> None:
        self._identity, self._fingerprints = identity, fingerprints
        self._secret = SystemRandom().token(_SECRET_BYTES)
        self._context = identity.context()
        self._context.set_cookie_generate_callback(self._cookie)
        self._context.set_cookie_verify_callback(lambda of, shown: hmac.compare_digest(shown, self._cookie(of)))

    def receive(self, datagram: bytes, source: Address) -> tuple[DtlsSrtp | None, list[bytes]]:
        """Take a datagram of a source without a connection, and return what to send back.

        If it is a ClientHello with the cookie of `source`, there is also a connection, which is to be started.
        """
        if not datagram.startswith(_HANDSHAKE):
            return None, []
        connection = DtlsSrtp(self._identity, self._fingerprints, client=False, context=self._context)
        answer = connection.greet(datagram, source)
        return (connection if connection.greeted else None), answer

    def _cookie(self, connection: SSL.Connection) -> bytes:
        return hmac.digest(self._secret, repr(connection.get_app_data()).encode(), "sha256")
