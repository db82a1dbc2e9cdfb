"""A private key in a token, by PKCS#11: `cryptography` uses it like any other key, and the token makes signatures.

Each thread that signs has a session of its own, in which the key was looked up once. A lost session is replaced,
once for each signature. If that fails, every signature fails at once for RETRY_S, so that no threads wait in vain
for a token that is gone. A refused PIN is not tried again, as tokens count refusals.
"""

import hashlib
import logging
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, NoReturn, Self
from weakref import WeakValueDictionary

from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_der_public_key
from pkcs11 import MGF, Attribute, KeyType, Mechanism, ObjectClass, PKCS11Error, Session
from pkcs11.exceptions import (
    KeySizeRange,
    KeyTypeInconsistent,
    MechanismInvalid,
    MultipleObjectsReturned,
    MultipleTokensReturned,
    NoSuchKey,
    NoSuchToken,
)
from pkcs11.util.ec import encode_ec_public_key

from voice_dpki.effects import Clock, SystemClock
from voice_dpki.errors import HarmfulAgainError, LocalError, PeerError
from voice_dpki.metrics import counters, follow, gauge
from voice_dpki.shell.interrupts import IN_LOOP_S, interruptibly
from voice_dpki.shell.token_module import TokenModule, close_quietly, module_at
from voice_dpki.shell.token_uri import TokenUri
from voice_dpki.shortfalls import SHORTFALLS
from voice_dpki.x509.keys import KeyElsewhere, KeyUnavailableError, LocalSigner, PinRefusedError, PublicKey

log = logging.getLogger(__name__)

RETRY_S: Final = 1.0
"""Pause in seconds before a key that cannot be used is tried again."""

MAX_IDLE_SESSIONS: Final = 64
"""Most idle sessions of a key that are kept."""

SIGNATURES = counters("token_signatures", "Signatures of keys in tokens.", outcome=("made", "failed"))
USABLE = gauge("token_keys_usable", "1 while all keys in tokens can be used, else 0.", together="livemin")

_RSA_NUMBERS: Final = (Attribute.PUBLIC_EXPONENT, Attribute.MODULUS)
_PSS: Final = (Mechanism.SHA256, MGF.SHA256, 32)
_MEANINGS: Final[Mapping[type[PKCS11Error], str]] = {
    NoSuchToken: "there is no such token",
    MultipleTokensReturned: "there are several such tokens",
    NoSuchKey: "the token has no such key, or no public key beside it, or needs a PIN (pin-source=) to show it",
    MultipleObjectsReturned: "the token has several such keys",
    PKCS11Error: "the token's module does not work",
}
"""Text of each error that anybody may read; the last is for errors without a class, such as of C_Initialize."""

_NOT_LOST: Final = (NoSuchKey, MultipleObjectsReturned, KeySizeRange, KeyTypeInconsistent, MechanismInvalid)
"""Errors of a token that is present: a restart of the module would only end the sessions of its other keys."""


@dataclass(slots=True)
class _Opened:
    """A session with the key, and the generation of the module in which it was opened."""

    session: Session
    key: Any
    generation: int


class TokenKey:
    """A key in a token, used by several threads."""

    def __init__(self, uri: TokenUri, clock: Clock | None = None) -> None:
        """Look the key up; raises KeyUnavailableError, and LocalError if it can never be used."""
        self.uri = uri
        self._module: TokenModule = module_at(uri.module)
        self._clock = clock or SystemClock()
        self._idle: deque[_Opened] = deque()
        self._fault: KeyUnavailableError | None = None
        self._retry_at_s = 0.0
        self.public_key = self._use(_public_key)
        SHORTFALLS.watch(self)

    def sign(self, mechanism: Mechanism, data: bytes, parameter: object = None) -> bytes:
        """Have the token sign; raises KeyUnavailableError."""
        try:
            signature = self._use(
                lambda opened: opened.key.sign(data, mechanism=mechanism, mechanism_param=parameter)
            )
        except KeyUnavailableError:
            SIGNATURES.labels("failed").inc()
            raise
        SIGNATURES.labels("made").inc()
        return bytes(signature)

    def probe(self) -> None:
        """Ask the token for the key's label, to learn whether it is still there; raises KeyUnavailableError."""
        self._use(lambda opened: opened.key[Attribute.LABEL])

    def shortfall(self) -> str:
        """Return why the key cannot be used now; empty if it can, as far as is known.

        Anybody may read it, so it names no key: the log has the key and the details.
        """
        return f"a key in a token cannot be used: {self._fault.told}" if self._fault else ""

    def close(self) -> None:
        """Close the idle sessions."""
        while self._idle:
            opened = self._idle.pop()
            if opened.generation == self._module.generation:
                close_quietly(opened.session)

    def __del__(self) -> None:
        """Retire the idle sessions, not closed here: the thread that drops the key must not wait for the token."""
        for opened in getattr(self, "_idle", ()):
            self._module.retire(opened.session, opened.generation)

    def _use(self, work: Callable[[_Opened], Any]) -> Any:
        """Run `work` with the key; a command can be interrupted meanwhile. Raises KeyUnavailableError."""
        try:
            return interruptibly(lambda: self._use_here(work))
        except TimeoutError:
            fault = KeyUnavailableError("the token does not answer", f"within {IN_LOOP_S:g} s")
            self.fail(fault)
            raise fault from None

    def _use_here(self, work: Callable[[_Opened], Any]) -> Any:
        """Run `work` with the key: in an idle session, else in a new one, else after a restart of the module."""
        if (known := self._fault) and self._clock.steady_s() < self._retry_at_s:
            raise KeyUnavailableError(known.told, known.detail)
        try:
            result = self._attempts(work)
        except KeyUnavailableError as error:
            self.fail(error)
            raise
        except PKCS11Error as error:
            self.fail(fault := _meaning(error))
            raise fault from None
        self._recover()
        return result

    def _attempts(self, work: Callable[[_Opened], Any]) -> Any:
        generation = self._module.generation
        try:
            return self._attempt(work)
        except PKCS11Error:
            self.close()
        try:
            return self._attempt(work)
        except _NOT_LOST:
            raise
        except PKCS11Error:
            self._module.restart(generation)
        return self._attempt(work)

    def _attempt(self, work: Callable[[_Opened], Any]) -> Any:
        with self._module.using() as generation:
            opened = self._taken(generation) or self._open(generation)
            try:
                result = work(opened)
            except BaseException:
                close_quietly(opened.session)
                raise
            if len(self._idle) < MAX_IDLE_SESSIONS:
                self._idle.append(opened)
            else:
                close_quietly(opened.session)
        return result

    def _taken(self, generation: int) -> _Opened | None:
        """Return an idle session that is of this generation, if there is one."""
        while True:
            try:
                opened = self._idle.pop()
            except IndexError:
                return None
            if opened.generation == generation:
                return opened

    def _open(self, generation: int) -> _Opened:
        session = self._module.open(self.uri)
        try:
            key = _find(session, ObjectClass.PRIVATE_KEY, self.uri.label, self.uri.key_id)
        except BaseException:
            close_quietly(session)
            raise
        return _Opened(session, key, generation)

    def fail(self, why: KeyUnavailableError) -> None:
        """Note that the key cannot be used; it is tried again after a pause."""
        if self._fault is None or str(why) != str(self._fault):
            log.error("a key cannot be used", extra={"fields": {"key": str(self.uri), "reason": str(why)}})
        self._retry_at_s = self._clock.steady_s() + RETRY_S
        self._fault = KeyUnavailableError(why.told, why.detail)  # without the traceback, and what that refers to

    def _recover(self) -> None:
        if self._fault:
            log.info("a key can be used again", extra={"fields": {"key": str(self.uri)}})
            self._fault = None


class _Unexportable(KeyElsewhere):
    """A key in a token: it cannot be exported, and a copy of it is the key itself."""

    def __init__(self, token_key: TokenKey) -> None:
        self.token_key = token_key

    def fault(self) -> str:
        """Return why the key cannot be used now; empty if it can, as far as is known."""
        return self.token_key.shortfall()

    def probe(self) -> None:
        """Ask the token for the key; raises KeyUnavailableError."""
        self.token_key.probe()

    def fail(self, why: KeyUnavailableError) -> None:
        """Note that the key cannot be used."""
        self.token_key.fail(why)

    def private_bytes(self, *_arguments: object) -> NoReturn:
        """Refuse to be exported."""
        raise LocalError(f"the {self.token_key.uri} does not leave its token")

    private_numbers = private_bytes

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, _memo: object) -> Self:
        return self


class TokenEcKey(_Unexportable, ec.EllipticCurvePrivateKey):
    """A key on P-256 in a token."""

    def public_key(self) -> ec.EllipticCurvePublicKey:
        """Return the public key."""
        key = self.token_key.public_key
        assert isinstance(key, ec.EllipticCurvePublicKey)
        return key

    @property
    def curve(self) -> ec.EllipticCurve:
        """Return the curve."""
        return self.public_key().curve

    @property
    def key_size(self) -> int:
        """Return the bits of the curve's order."""
        return self.curve.key_size

    def exchange(self, *_arguments: object) -> NoReturn:
        """Refuse key agreement: the token's key only signs."""
        raise LocalError(f"the {self.token_key.uri} is for signatures only")

    def sign(self, data: object, signature_algorithm: ec.EllipticCurveSignatureAlgorithm) -> bytes:
        """Sign with ECDSA and SHA-256, in DER; raises KeyUnavailableError."""
        if not isinstance(signature_algorithm.algorithm, SHA256):
            raise LocalError("a key in a token signs with SHA-256")
        raw = self.token_key.sign(Mechanism.ECDSA, hashlib.sha256(_octets(data)).digest())
        half = len(raw) // 2
        return encode_dss_signature(int.from_bytes(raw[:half], "big"), int.from_bytes(raw[half:], "big"))


class TokenRsaKey(_Unexportable, rsa.RSAPrivateKey):
    """An RSA key in a token."""

    def public_key(self) -> rsa.RSAPublicKey:
        """Return the public key."""
        key = self.token_key.public_key
        assert isinstance(key, rsa.RSAPublicKey)
        return key

    @property
    def key_size(self) -> int:
        """Return the bits of the modulus."""
        return self.public_key().key_size

    def decrypt(self, *_arguments: object) -> NoReturn:
        """Refuse to decrypt: the token's key only signs."""
        raise LocalError(f"the {self.token_key.uri} is for signatures only")

    def sign(self, data: object, padding: padding.AsymmetricPadding, algorithm: object) -> bytes:
        """Sign with SHA-256, by RSASSA-PKCS1-v1_5 or PSS with a salt of 32 bytes; raises KeyUnavailableError."""
        if not isinstance(algorithm, SHA256):
            raise LocalError("a key in a token signs with SHA-256")
        if padding.name == "EMSA-PSS":
            return self.token_key.sign(Mechanism.SHA256_RSA_PKCS_PSS, _octets(data), _PSS)
        return self.token_key.sign(Mechanism.SHA256_RSA_PKCS, _octets(data))


def signer_in_token(uri: TokenUri) -> LocalSigner:
    """Return the signer whose key is in a token; the same URI gives the same sessions.

    Raises LocalError that names the key and says why it cannot be used; HarmfulAgainError if its PIN is refused.
    """
    try:
        token_key = _KEYS.get(uri) or TokenKey(uri)
        _KEYS[uri] = token_key
        key: Any = TokenEcKey if isinstance(token_key.public_key, ec.EllipticCurvePublicKey) else TokenRsaKey
        return LocalSigner(key(token_key))
    except PinRefusedError as error:
        raise HarmfulAgainError(f"{uri}: {error}") from None
    except (LocalError, PeerError) as error:
        raise LocalError(f"{uri}: {error}") from None


_KEYS: "WeakValueDictionary[TokenUri, TokenKey]" = WeakValueDictionary()
"""The keys that are in use, so that a reload opens no sessions beside the existing ones."""

follow(USABLE, lambda: float(not any(key.shortfall() for key in list(_KEYS.values()))))


def _public_key(opened: _Opened) -> PublicKey:
    """Return the public key that the token has beside the private one."""
    private = opened.key
    found = _find(opened.session, ObjectClass.PUBLIC_KEY, private[Attribute.LABEL], private[Attribute.ID])
    if found.key_type == KeyType.RSA:
        exponent, modulus = (int.from_bytes(found[each], "big") for each in _RSA_NUMBERS)
        return rsa.RSAPublicNumbers(exponent, modulus).public_key()
    if found.key_type == KeyType.EC:
        key = load_der_public_key(encode_ec_public_key(found))
        if isinstance(key, ec.EllipticCurvePublicKey):
            return key
    raise LocalError("the key is neither ECDSA nor RSA")


def _find(session: Session, kind: ObjectClass, label: str | None, key_id: bytes | None) -> Any:
    """Return the one key with this label and id; raises NoSuchKey and MultipleObjectsReturned.

    The library's own `get_key` leaves its search open where it finds two.
    """
    asked = {Attribute.CLASS: kind, Attribute.LABEL: label, Attribute.ID: key_id}
    found = list(session.get_objects({name: value for name, value in asked.items() if value is not None}))
    if len(found) != 1:
        raise MultipleObjectsReturned if found else NoSuchKey
    return found[0]


def _octets(data: object) -> bytes:
    return bytes(memoryview(data))  # type: ignore[arg-type]  # `cryptography` gives what has a buffer


def _meaning(error: PKCS11Error) -> KeyUnavailableError:
    told = _MEANINGS.get(type(error)) or f"the token answers {type(error).__name__}"
    return KeyUnavailableError(told, str(error))
