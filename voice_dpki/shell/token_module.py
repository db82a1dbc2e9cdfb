"""A PKCS#11 module in this process: loaded once for several threads, with one login for each token.

A module's state belongs to the process (PKCS #11 v2.40 §5.4): a login or logout applies to all sessions with the
token. So one session, which signs nothing, holds the login. A module that has lost its token, for instance after a
restart of the HSM, often finds it again only when it is initialised anew; no thread may use it meanwhile.
"""

import ctypes
import fcntl
import logging
from collections import deque
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import lru_cache
from pathlib import Path
from threading import Condition, Lock
from typing import Any, Final

from pkcs11 import PKCS11Error, Session, Token, TokenFlag
from pkcs11._pkcs11 import lib
from pkcs11.exceptions import (
    MultipleTokensReturned,
    NoSuchToken,
    PinExpired,
    PinIncorrect,
    PinInvalid,
    PinLenRange,
    PinLocked,
    UserPinNotInitialized,
)

from voice_dpki.errors import LocalError
from voice_dpki.shell.config import read_private_secret
from voice_dpki.shell.token_uri import TokenUri
from voice_dpki.x509.keys import KeyUnavailableError, PinRefusedError

log = logging.getLogger(__name__)

RESTART_WAIT_S: Final = 1.0
"""Timeout of a restart for the threads that use the module to leave it."""

_OS_LOCKING_OK: Final = 2
_ALREADY_INITIALIZED: Final = 0x191
_USER_STATES: Final = frozenset({1, 3})
"""CKS_RO_USER_FUNCTIONS and CKS_RW_USER_FUNCTIONS: the user is logged in."""

_REFUSALS: Final = (PinExpired, PinIncorrect, PinInvalid, PinLenRange, PinLocked, UserPinNotInitialized)
"""Errors of a token about a PIN that must not be tried again."""

_UNREAD: Final = "the PIN cannot be read"


class _Arguments(ctypes.Structure):
    """CK_C_INITIALIZE_ARGS: four mutex functions (null: the module uses the system's), flags, reserved."""

    _fields_ = (("mutexes", ctypes.c_void_p * 4), ("flags", ctypes.c_ulong), ("reserved", ctypes.c_void_p))


class _SessionInfo(ctypes.Structure):
    """CK_SESSION_INFO."""

    _fields_ = tuple((name, ctypes.c_ulong) for name in ("slot", "state", "flags", "error"))


class _FunctionList(ctypes.Structure):
    """The beginning of CK_FUNCTION_LIST: a version, then the functions in the order of pkcs11f.h."""

    _fields_ = (("version", ctypes.c_ubyte * 2), ("functions", ctypes.c_void_p * 16))


class _Functions:
    """Functions of a module that python-pkcs11 lacks: initialisation for threads, and the state of the login."""

    def __init__(self, path: str) -> None:
        table = ctypes.POINTER(_FunctionList)()
        ctypes.CDLL(path).C_GetFunctionList(ctypes.byref(table))
        functions, pointer = table.contents.functions, ctypes.c_void_p
        self._initialize = ctypes.CFUNCTYPE(ctypes.c_ulong, pointer)(functions[0])
        self._finalize = ctypes.CFUNCTYPE(ctypes.c_ulong, pointer)(functions[1])
        self._session_info = ctypes.CFUNCTYPE(ctypes.c_ulong, ctypes.c_ulong, pointer)(functions[15])

    def initialize(self) -> None:
        arguments = _Arguments(flags=_OS_LOCKING_OK)
        result = self._initialize(ctypes.addressof(arguments))
        if result not in (0, _ALREADY_INITIALIZED):
            raise PKCS11Error(f"C_Initialize failed with {result:#x}")

    def finalize(self) -> None:
        self._finalize(None)

    def is_logged_in(self, session: Session) -> bool:
        """Tell whether the user is logged in to the token of an open session."""
        info = _SessionInfo()
        handle = session.handle  # type: ignore[attr-defined]  # the type stub leaves it out
        return self._session_info(handle, ctypes.addressof(info)) == 0 and info.state in _USER_STATES


class _Library(lib):
    """python-pkcs11's library, initialised for several threads; its own C_Initialize(NULL) allows only one."""

    def initialize(self) -> None:
        """Initialise the module."""
        _Functions(self.so).initialize()


class TokenModule:
    """A loaded module. Sessions and keys of an earlier `generation` cannot be used."""

    def __init__(self, path: Path) -> None:
        """Load a module; raises LocalError."""
        try:
            self._library: Any = _Library(str(path))
            self._functions = _Functions(str(path))
        except (PKCS11Error, OSError) as error:
            raise LocalError(
                f"{path}: this PKCS#11 module cannot be loaded: {error or type(error).__name__}"
            ) from None
        self._changed, self._opening = Condition(), Lock()
        self._users, self._restarting = 0, False
        self._logins: dict[tuple[str, bytes], Session] = {}
        self._refused: dict[tuple[str, bytes], str] = {}
        """PINs that tokens have refused: a token counts them, and locks itself after a few."""
        self._retired: deque[tuple[Session, int]] = deque()
        """Sessions that are not used any more, with their generation; the next `open` closes them."""
        self.generation = 0
        """Number of times that the module was initialised anew."""

    @contextmanager
    def using(self) -> Iterator[int]:
        """Hold off restarts while the context lasts; yields the generation."""
        with self._changed:
            self._changed.wait_for(lambda: not self._restarting)
            self._users += 1
        try:
            yield self.generation
        finally:
            with self._changed:
                self._users -= 1
                self._changed.notify_all()

    def restart(self, generation: int) -> None:
        """Initialise the module anew, unless that was done since `generation`, or other threads stay too long.

        Raises PKCS11Error if the module refuses.
        """
        with self._changed:
            if self._restarting or self.generation != generation:
                return
            self._restarting = True
            try:
                if self._changed.wait_for(lambda: not self._users, RESTART_WAIT_S):
                    self._functions.finalize()
                    self._logins.clear()
                    self.generation += 1
                    self._functions.initialize()
            finally:
                self._restarting = False
                self._changed.notify_all()

    def open(self, uri: TokenUri) -> Session:
        """Open a session in which the user is logged in; raises PKCS11Error and KeyUnavailableError."""
        with self._opening:  # two threads must not log in at once
            self._close_retired()
            session = (token := self._find(uri)).open()
            try:
                if uri.pin_file is not None and not self._functions.is_logged_in(session):
                    self._log_in(token, uri.pin_file)
            except BaseException:
                close_quietly(session)
                raise
        return session

    def _find(self, uri: TokenUri) -> Token:
        """Return the one token that has all that the URI says of it (RFC 7512 §2.5)."""
        serial = None if uri.serial is None else uri.serial.encode("utf-8")
        tokens: list[Token] = [
            token
            for token in self._library.get_tokens(token_label=uri.token, token_serial=serial)
            if uri.manufacturer in (None, token.manufacturer_id) and uri.model in (None, token.model)
        ]
        if len(tokens) != 1:
            raise MultipleTokensReturned if tokens else NoSuchToken
        return tokens[0]

    def retire(self, session: Session, generation: int) -> None:
        """Take a session that is not used any more, to be closed by a thread that may wait for the token."""
        self._retired.append((session, generation))

    def _close_retired(self) -> None:
        while self._retired:
            session, generation = self._retired.popleft()
            if generation == self.generation:
                close_quietly(session)

    def _log_in(self, token: Token, pin_file: Path) -> None:
        pin, name = _read_pin(pin_file), (token.label, token.serial)
        if self._refused.get(name) == pin:
            raise PinRefusedError("the token has refused the PIN, which is not tried again", str(pin_file))
        with _one_process(pin_file):
            _check_tries_left(token.slot.get_token().flags, pin_file)
            try:
                self._logins[name] = token.open(user_pin=pin)
            except _REFUSALS as error:
                self._refused[name] = pin
                raise PinRefusedError("the token refuses the PIN", f"{pin_file}, {type(error).__name__}") from None


def _read_pin(pin_file: Path) -> str:
    """Read the PIN; raises KeyUnavailableError, as a failing disk may recover."""
    try:
        return read_private_secret(pin_file)
    except LocalError as error:
        raise KeyUnavailableError(_UNREAD, str(error)) from None


def _check_tries_left(flags: TokenFlag, pin_file: Path) -> None:
    """Raise PinRefusedError if the token is locked, or would be by one more refusal: a person must log in first."""
    if flags & TokenFlag.USER_PIN_LOCKED:
        raise PinRefusedError("the token is locked, so the PIN is not tried", str(pin_file))
    if flags & TokenFlag.USER_PIN_FINAL_TRY:
        raise PinRefusedError("the token has one try left, so the PIN is not tried", f"{pin_file}; log in by hand")


@contextmanager
def _one_process(pin_file: Path) -> Iterator[None]:
    """Let one process at a time try a PIN: several workers that start together would spend all tries."""
    with ExitStack() as opened:
        try:
            fcntl.flock(opened.enter_context(pin_file.open("rb")), fcntl.LOCK_EX)
        except OSError as error:
            raise KeyUnavailableError(_UNREAD, f"{pin_file}: {error.strerror}") from None
        yield


@lru_cache(maxsize=16)
def module_at(path: Path) -> TokenModule:
    """Return the module of this process at `path`, loaded at the first call; raises LocalError."""
    return TokenModule(path)


def close_quietly(session: Session) -> None:
    """Close a session that may have ended already."""
    with suppress(PKCS11Error):
        session.close()
