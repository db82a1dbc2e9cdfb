"""DTLS-SRTP on OpenSSL: the handshake that keys media, over datagrams in memory (RFC 5763, RFC 5764, RFC 6347).

Both sides present self-signed certificates: the handshake is valid only if the peer's certificate matches every
fingerprint in its SDP. OpenSSL has its own randomness and clock, so this is no core, but it does no I/O.
"""

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from OpenSSL import SSL

from voice_dpki.errors import PeerError
from voice_dpki.sip.dtls_sdp import Fingerprint

MAX_HANDSHAKE_BYTES: Final = 65_536
"""Most bytes that a peer may send before its handshake is done; one with a large RSA certificate takes 4,000."""

MTU_BYTES: Final = 1_200

_HASHES: Final[Mapping[str, hashes.HashAlgorithm]] = {
    "sha-256": hashes.SHA256(),
    "sha-384": hashes.SHA384(),
    "sha-512": hashes.SHA512(),
}
_LABEL: Final = b"EXTRACTOR-dtls_srtp"
_RECORD_HEADER_BYTES: Final = 13
_CIPHERS: Final = b"ECDHE+AESGCM:ECDHE+CHACHA20:!PSK"


@dataclass(frozen=True, slots=True)
class _Suite:
    name: str
    openssl: bytes
    key_bytes: int
    salt_bytes: int


_SUITES: Final = (
    _Suite("AEAD_AES_128_GCM", b"SRTP_AEAD_AES_128_GCM", 16, 12),
    _Suite("AEAD_AES_256_GCM", b"SRTP_AEAD_AES_256_GCM", 32, 12),
    _Suite("AES_CM_128_HMAC_SHA1_80", b"SRTP_AES128_CM_SHA1_80", 16, 14),
)
"""The suites offered, the preferred first: name in SDP, and in OpenSSL (RFC 5764 §4.1.2, RFC 7714 §14.2)."""


class DtlsError(PeerError):
    """The handshake failed, or the peer's certificate is not the one in its SDP."""


class WrongPeerError(DtlsError):
    """The handshake is done, but with another certificate than the SDP's, or without a suite. No forged record can
    cause this."""


@dataclass(frozen=True, slots=True, repr=False)
class DtlsKeys:
    """The keys of both directions, each master key and salt, and the suite's name in SDP. Not shown by repr."""

    suite: str
    send: bytes
    receive: bytes


class DtlsIdentity:
    """Our certificate for DTLS: P-256, self-signed, and new for each run of the program."""

    def __init__(self) -> None:
        self.key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "media")])
        now = datetime.now(UTC)
        self.certificate = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(self.key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(days=1))
            .not_valid_after(now + timedelta(days=366))
            .sign(self.key, hashes.SHA256())
        )

    @property
    def fingerprint(self) -> Fingerprint:
        """The certificate's fingerprint, for our SDP."""
        return Fingerprint("sha-256", self.certificate.fingerprint(hashes.SHA256()))

    def context(self) -> SSL.Context:
        """Return the settings of a connection: the peer's certificate is asked for, and judged later."""
        context = SSL.Context(SSL.DTLS_METHOD)
        context.set_options(SSL.OP_NO_TICKET | SSL.OP_NO_QUERY_MTU | SSL.OP_NO_RENEGOTIATION)
        context.set_verify(SSL.VERIFY_PEER | SSL.VERIFY_FAIL_IF_NO_PEER_CERT, lambda *_: True)
        context.use_certificate(self.certificate)
        context.use_privatekey(self.key)
        context.set_cipher_list(_CIPHERS)
        context.set_tlsext_use_srtp(b":".join(suite.openssl for suite in _SUITES))
        return context


class DtlsSrtp:
    """One connection. Pass the peer's datagrams to `receive`, and send the peer the datagrams that it returns.

    `keys` is None until the handshake is done and the peer's certificate matches `fingerprints`, of which there is
    at least one. All methods raise DtlsError, after which the connection is of no use.
    """

    def __init__(
        self,
        identity: DtlsIdentity,
        fingerprints: Sequence[Fingerprint],
        *,
        client: bool,
        context: SSL.Context | None = None,
    ) -> None:
        self.keys: DtlsKeys | None = None
        self.closed = False
        """Whether the peer has ended the connection."""
        self.greeted = False
        """Whether the peer has shown by a cookie that it receives at its address; see `greet`."""
        self._fingerprints = tuple(fingerprints)
        self._client = client
        self._taken = 0
        self._connection = SSL.Connection(context or identity.context(), None)
        self._connection.set_ciphertext_mtu(MTU_BYTES)
        if client:
            self._connection.set_connect_state()
        else:
            self._connection.set_accept_state()

    def start(self) -> list[bytes]:
        """Return a client's first datagrams; a server has none."""
        return self._step()

    def greet(self, hello: bytes, source: tuple[str, int]) -> list[bytes]:
        """Take the first datagram of a client at `source`; our context makes cookies of the connection's app data.

        With the right cookie, the connection is `greeted`; start it next. Otherwise discard it: a returned datagram
        is a HelloVerifyRequest (RFC 6347 §4.2.1).
        """
        self._taken += len(hello)
        self._connection.set_app_data(source)
        self._connection.bio_write(hello)
        try:
            self._connection.DTLSv1_listen()
        except SSL.Error:  # also that there is no cookie yet
            return self._refused()
        self.greeted = True
        return []

    def _refused(self) -> list[bytes]:
        answer = self._output()
        with contextlib.suppress(SSL.Error):
            self._connection.do_handshake()  # empties OpenSSL's error queue, lest the next failure report these
        return answer

    def receive(self, datagram: bytes) -> list[bytes]:
        """Take a datagram of the peer."""
        if self.keys is None:
            self._taken += len(datagram)
            if self._taken > MAX_HANDSHAKE_BYTES:
                raise DtlsError(f"the DTLS handshake takes more than {MAX_HANDSHAKE_BYTES} bytes")
        if not datagram:
            return []
        self._connection.bio_write(datagram)
        return self._step()

    def timeout_s(self) -> float | None:
        """Return the seconds until `handle_timeout` is due; None if nothing waits."""
        return self._connection.DTLSv1_get_timeout() if self.keys is None else None

    def handle_timeout(self) -> list[bytes]:
        """Return the datagrams to retransmit after a timeout (RFC 6347 §4.2.4)."""
        try:
            self._connection.DTLSv1_handle_timeout()
        except SSL.Error as error:
            raise DtlsError(f"the DTLS handshake is not answered: {_told(error)}") from None
        return self._output()

    def close(self) -> list[bytes]:
        """Close the connection, and return the datagrams with the close_notify for the peer."""
        try:
            self._connection.shutdown()
        except SSL.Error:
            return []  # the handshake is not done
        return self._output()

    def _step(self) -> list[bytes]:
        try:
            if self.keys is None:
                self._connection.do_handshake()
                self._check_peer()
                self.keys = self._exported()
            while (
                True
            ):  # application data is ignored, but must be read: alerts and a repeated last flight come after it
                self._connection.recv(2048)
        except SSL.WantReadError:
            pass
        except SSL.ZeroReturnError:
            self.closed = True
        except SSL.Error as error:
            raise DtlsError(f"the DTLS handshake failed: {_told(error)}") from None
        return self._output()

    def _check_peer(self) -> None:
        """Check the peer's certificate against all fingerprints of its SDP (RFC 5763 §5); raises DtlsError."""
        shown = self._connection.get_peer_certificate(as_cryptography=True)
        if shown is None or not self._fingerprints:
            raise WrongPeerError("the peer shows no certificate, or its SDP names none")
        for wanted in self._fingerprints:
            if shown.fingerprint(_HASHES[wanted.hash_name]) != wanted.digest:
                raise WrongPeerError(
                    "the certificate of the DTLS handshake is not that of the SDP's fingerprint (RFC 5763)"
                )

    def _exported(self) -> DtlsKeys:
        """Return the keys (RFC 5764 §4.2); raises DtlsError if no suite was agreed."""
        chosen = self._connection.get_selected_srtp_profile()
        suite = next((each for each in _SUITES if each.openssl == chosen), None)
        if suite is None:
            raise WrongPeerError("the DTLS handshake agreed no SRTP suite (RFC 5764 §4.1)")
        size = 2 * (suite.key_bytes + suite.salt_bytes)
        made = self._connection.export_keying_material(_LABEL, size)
        salts = 2 * suite.key_bytes
        client, server = (
            made[at * suite.key_bytes : (at + 1) * suite.key_bytes]
            + made[salts + at * suite.salt_bytes : salts + (at + 1) * suite.salt_bytes]
            for at in (0, 1)
        )
        own, other = (client, server) if self._client else (server, client)
        return DtlsKeys(suite.name, send=own, receive=other)

    def _output(self) -> list[bytes]:
        """Return the datagrams that OpenSSL has written, each with as many records as fit (RFC 6347 §4.1.1)."""
        written = b""
        while True:
            try:
                written += self._connection.bio_read(65_536)
            except SSL.WantReadError:
                return _datagrams(written)


def _datagrams(written: bytes) -> list[bytes]:
    datagrams: list[bytes] = []
    while written:
        size = _RECORD_HEADER_BYTES + int.from_bytes(written[11:13], "big")
        record, written = written[:size], written[size:]
        if datagrams and len(datagrams[-1]) + len(record) <= MTU_BYTES:
            datagrams[-1] += record
        else:
            datagrams.append(record)
    return datagrams


def _told(error: SSL.Error) -> str:
    reasons = error.args[0] if error.args and isinstance(error.args[0], list) else []
    return ", ".join(str(reason[-1]) for reason in reasons) or "the connection is broken"
