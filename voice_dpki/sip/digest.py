"""Digest authentication for SIP (RFC 7616, RFC 8760): SHA-256, and MD5 only for users of older telephones.

The quality of protection is `auth`, which does not cover the body. A nonce is valid for a limited time, and each
nonce count for one request.
"""

import hashlib
import hmac
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from voice_dpki.codec import base64url
from voice_dpki.effects import Random
from voice_dpki.errors import MalformedError, PeerError
from voice_dpki.names import ascii_lower

SHA_256: Final = "SHA-256"
MD5: Final = "MD5"

NONCE_LIFETIME_S: Final = 300.0
MAX_NONCES: Final = 65_536
MAX_HEADER_CHARS: Final = 2_048

_KEY_BYTES: Final = 32
_MAC_BYTES: Final = 16
_RANDOM_BYTES: Final = 8
_TIME_BYTES: Final = 8
_PARAMETER = re.compile(r'(?a)\s*([A-Za-z0-9-]{1,32})\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s",]+))\s*(?:,|\Z)')
_ESCAPED = re.compile(r"\\(.)")
_COUNT = re.compile(r"[0-9a-fA-F]{8}\Z")
_HASHES: Final[Mapping[str, Callable[[bytes], str]]] = {
    SHA_256: lambda data: hashlib.sha256(data).hexdigest(),
    MD5: lambda data: hashlib.md5(data).hexdigest(),  # noqa: S324 - for older phones, where the operator allows it
}


class DigestRefusedError(PeerError):
    """The credentials do not authenticate the request; `stale` tells the client to retry with a new nonce."""

    def __init__(self, message: str, *, stale: bool = False) -> None:
        super().__init__(message)
        self.stale = stale


@dataclass(frozen=True, slots=True)
class Challenge:
    """One WWW-Authenticate or Proxy-Authenticate value (RFC 7616 §3.3)."""

    realm: str
    nonce: str
    algorithm: str
    opaque: str | None = None
    stale: bool = False
    """Whether only the last nonce was refused: the same password should be retried with this one."""

    @classmethod
    def parse(cls, text: str) -> "Challenge":
        """Parse a challenge that allows qop=auth; raises MalformedError."""
        parameters = _parameters(text)
        qop = [value.strip().lower() for value in parameters.get("qop", "auth").split(",")]
        if "auth" not in qop or not parameters.get("nonce"):
            raise MalformedError("the challenge offers no qop=auth, or no nonce")
        return cls(
            parameters.get("realm", ""),
            parameters["nonce"],
            _algorithm(parameters),
            parameters.get("opaque"),
            parameters.get("stale", "").lower() == "true",
        )

    def serialize(self) -> str:
        """Return the header value."""
        opaque = f', opaque="{_quote(self.opaque)}"' if self.opaque is not None else ""
        again = ", stale=true" if self.stale else ""
        return (
            f'Digest realm="{_quote(self.realm)}", nonce="{self.nonce}", algorithm={self.algorithm}, '
            f'qop="auth"{opaque}{again}'
        )


@dataclass(frozen=True, slots=True)
class Secret:
    """A user's secret as the server stores it: the password, or `ha1` = H(username:realm:password) in hexadecimal.

    `algorithm` is the only one that the user's telephone may use, so that nobody can downgrade it to MD5.
    """

    password: str | None = field(default=None, repr=False)
    ha1: str | None = field(default=None, repr=False)
    algorithm: str = SHA_256

    def ha1_for(self, username: str, realm: str) -> str:
        """Return HA1 in hexadecimal (RFC 7616 §3.4.2)."""
        if self.password is not None:
            return digest_ha1(self.algorithm, username, realm, self.password)
        return self.ha1 or ""


def digest_ha1(algorithm: str, username: str, realm: str, password: str) -> str:
    """Return H(username:realm:password) in hexadecimal (RFC 7616 §3.4.2)."""
    return _HASHES[algorithm](f"{username}:{realm}:{password}".encode())


def choose_challenge(values: Iterable[str], *, realm: str | None = None, allow_md5: bool = False) -> Challenge:
    """Return the topmost challenge that can be answered (RFC 8760 §2.4), of those for `realm` if it is given.

    Raises MalformedError if there is none.
    """
    for value in values:
        try:
            challenge = Challenge.parse(value)
        except MalformedError:
            continue
        if realm is not None and ascii_lower(challenge.realm) != ascii_lower(realm):
            continue
        if challenge.algorithm == SHA_256 or (allow_md5 and challenge.algorithm == MD5):
            return challenge
    raise MalformedError("no challenge that can be answered: SHA-256 with qop=auth is wanted")


def answer_challenge(
    challenge: Challenge,
    *,
    username: str,
    password: str,
    method: str,
    uri: str,
    count: int,
    cnonce: str,
) -> str:
    """Return the Authorization or Proxy-Authorization value; `count` numbers the uses of the nonce, from 1."""
    ha1 = digest_ha1(challenge.algorithm, username, challenge.realm, password)
    nc = f"{count:08x}"
    response = _response(challenge.algorithm, ha1, challenge.nonce, nc, cnonce, method, uri)
    opaque = f', opaque="{_quote(challenge.opaque)}"' if challenge.opaque is not None else ""
    fields = (
        f'username="{_quote(username)}"',
        f'realm="{_quote(challenge.realm)}"',
        f'nonce="{_quote(challenge.nonce)}"',
        f'uri="{uri}"',
        f'response="{response}"',
        f"algorithm={challenge.algorithm}",
        f'cnonce="{cnonce}"',
        f"qop=auth, nc={nc}{opaque}",
    )
    return "Digest " + ", ".join(fields)


_NOBODY: Final = Secret(password="")  # makes checking an unknown user take as long as a known one


class Authenticator:
    """Challenges requests for one realm and checks the credentials that answer.

    `lookup` returns the secret of a username, or None. A nonce carries its time of issue and an HMAC under a key of
    this object, so it is stored only once it is used. The counts of at most `max_nonces` used nonces are kept. When
    the oldest is removed, it and all nonces issued before it become stale, so a replay is never accepted. The key
    must not outlive the counts or the clock of the nonces: a restart makes all earlier nonces stale.
    """

    def __init__(
        self,
        realm: str,
        lookup: Callable[[str], Secret | None],
        *,
        random: Random,
        nonce_lifetime_s: float = NONCE_LIFETIME_S,
        max_nonces: int = MAX_NONCES,
    ) -> None:
        self.realm = realm
        self._key = random.token(_KEY_BYTES)
        self._lookup = lookup
        self._random = random
        self._lifetime_s = nonce_lifetime_s
        self._max_nonces = max_nonces
        self._counts: dict[str, int] = {}
        self._forgotten_ms = -1

    def challenge(self, username: str, now_s: float, *, stale: bool = False) -> str:
        """Return the challenge to send to a client that claims to be `username`."""
        head = int(now_s * 1000).to_bytes(_TIME_BYTES, "big") + self._random.token(_RANDOM_BYTES)
        nonce = base64url.encode(head + self._mac(head))
        secret = self._lookup(username)
        algorithm = secret.algorithm if secret else SHA_256
        return Challenge(self.realm, nonce, algorithm, stale=stale).serialize()

    def authenticate(self, values: Iterable[str], method: str, now_s: float) -> str:
        """Return the username that one of the header values proves for this realm.

        Raises DigestRefusedError, with `stale` if the nonce was not issued here, or if the password is right but
        the nonce is too old or its count was used. The uri in the credentials may differ from the request's, which
        proxies rewrite (RFC 8760 §2.6 item 6).
        """
        for value in values:
            try:
                parameters = _parameters(value)
            except MalformedError:
                continue
            if parameters.get("realm") == self.realm:
                return self._check(parameters, method, now_s)
        raise DigestRefusedError("the request has no credentials for this realm")

    def _check(self, parameters: Mapping[str, str], method: str, now_s: float) -> str:
        username, nonce = parameters.get("username", ""), parameters.get("nonce", "")
        nc, cnonce = parameters.get("nc", ""), parameters.get("cnonce", "")
        secret = self._lookup(username) or _NOBODY
        if parameters.get("qop") != "auth" or not cnonce or not _COUNT.match(nc):
            raise DigestRefusedError("the credentials are not for qop=auth with a nonce count")
        if _algorithm(parameters) != secret.algorithm:
            raise DigestRefusedError("the credentials use an algorithm that this user may not use")
        issued_ms = self._issued_ms(nonce)
        ha1 = secret.ha1_for(username, self.realm)
        expected = _response(secret.algorithm, ha1, nonce, nc, cnonce, method, parameters.get("uri", ""))
        given = parameters.get("response", "").lower()
        if not hmac.compare_digest(expected.encode(), given.encode()) or secret is _NOBODY:
            raise DigestRefusedError("the username or the password is wrong")
        self._use(nonce, issued_ms, int(nc, 16), now_s)
        return username

    def _issued_ms(self, nonce: str) -> int:
        try:
            data = base64url.decode(nonce)
        except MalformedError:
            data = b""
        head, mac = data[: _TIME_BYTES + _RANDOM_BYTES], data[_TIME_BYTES + _RANDOM_BYTES :]
        if not hmac.compare_digest(self._mac(head), mac):
            raise DigestRefusedError("the nonce was not issued here", stale=True)
        return int.from_bytes(head[:_TIME_BYTES], "big")

    def _use(self, nonce: str, issued_ms: int, count: int, now_s: float) -> None:
        age_ms = int(now_s * 1000) - issued_ms
        expired = issued_ms <= self._forgotten_ms or not 0 <= age_ms <= self._lifetime_s * 1000
        if expired or count <= self._counts.get(nonce, 0):
            raise DigestRefusedError("the nonce is too old, or was used with this count before", stale=True)
        self._counts[nonce] = count
        if len(self._counts) > self._max_nonces:
            oldest = next(iter(self._counts))
            del self._counts[oldest]
            self._forgotten_ms = max(self._forgotten_ms, self._issued_ms(oldest))

    def _mac(self, head: bytes) -> bytes:
        return hmac.digest(self._key, head + self.realm.encode(), "sha256")[:_MAC_BYTES]


def _response(algorithm: str, ha1: str, nonce: str, nc: str, cnonce: str, method: str, uri: str) -> str:
    """Return the response for qop=auth (RFC 7616 §3.4.1)."""
    digest = _HASHES[algorithm]
    ha2 = digest(f"{method}:{uri}".encode())
    return digest(f"{ha1}:{nonce}:{nc}:{cnonce}:auth:{ha2}".encode())


def _algorithm(parameters: Mapping[str, str]) -> str:
    return parameters.get("algorithm", MD5).upper()


def _parameters(text: str) -> dict[str, str]:
    """Parse a Digest header value into its parameters; raises MalformedError, also if a parameter is repeated."""
    scheme, _, rest = text.strip().partition(" ")
    if scheme.lower() != "digest" or len(text) > MAX_HEADER_CHARS:
        raise MalformedError(f"no Digest header value of at most {MAX_HEADER_CHARS} characters")
    parameters: dict[str, str] = {}
    at = 0
    while at < len(rest):
        match = _PARAMETER.match(rest, at)
        if match is None or match[1].lower() in parameters:
            raise MalformedError("the parameters of a Digest header field cannot be read (RFC 7616 §3.3)")
        quoted = match[2]
        parameters[match[1].lower()] = match[3] if quoted is None else _ESCAPED.sub(r"\1", quoted)
        at = match.end()
    return parameters


def _quote(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"')
