"""How every program ends: with an exit status and at most one line, whatever ended it.

A traceback is for unexpected errors. A full disk, a reader that has gone (`| head -1`), Ctrl-C and a folder that
cannot be written are expected.
"""

import errno
import os
import select
import sys
from collections.abc import Callable
from contextlib import suppress
from io import TextIOWrapper
from typing import TextIO

from voice_dpki.errors import HarmfulAgainError, VoiceDpkiError
from voice_dpki.shell.entry import EXIT_INTERRUPTED, program_name
from voice_dpki.shell.interrupts import is_left_behind, lost_ones_repeated

EXIT_USAGE = 2
"""Exit status when the configuration, the arguments or the system do not allow the program to start or go on."""

EXIT_HARMFUL_AGAIN = 3
"""Exit status when a restart would do harm, as after a token refused a PIN: supervisors must not restart."""

EXIT_NO_READER = 141
"""Exit status when nobody reads standard output any more, as in shells: 128 + SIGPIPE."""

FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
"""Error numbers that mean there is no room to write."""

SURROUNDINGS = FULL | {
    errno.EACCES,
    errno.EADDRINUSE,
    errno.EADDRNOTAVAIL,
    errno.EEXIST,
    errno.EIO,
    errno.EISDIR,
    errno.ELOOP,
    errno.EMFILE,
    errno.ENAMETOOLONG,
    errno.ENFILE,
    errno.ENODEV,
    errno.ENOENT,
    errno.ENOMEM,
    errno.ENOTDIR,
    errno.ENOTEMPTY,
    errno.EPERM,
    errno.EROFS,
}
"""Error numbers that the state of the system causes, and not a fault of the program."""


class _NoReaderError(Exception):
    """Nobody reads standard output any more."""


def guarded(work: Callable[[], int]) -> int:
    """Run a program's `work` and return its exit status; an expected error is printed as one line.

    SystemExit and unexpected exceptions pass through. Where a thread was left behind (`leave_behind`), the process
    ends here.
    """
    status = _guarded(work)
    if is_left_behind():
        os._exit(status)
    return status


def _guarded(work: Callable[[], int]) -> int:
    _print_what_can_be_printed()
    try:
        with lost_ones_repeated():
            return _flushed(work)
    except (Exception, KeyboardInterrupt) as error:
        ended = ending_of(error)
        if ended is None:
            raise
        sentence, status = ended
        with suppress(OSError, _NoReaderError):
            _flush()
        if sentence:
            say(sentence)
        return status


def _flushed(work: Callable[[], int]) -> int:
    try:
        status = work()
    except SystemExit as leaving:
        if isinstance(leaving.__context__, BrokenPipeError):  # Rich exits like this on a broken pipe
            return EXIT_NO_READER
        _flush()
        raise
    _flush()
    return status


def say(sentence: str) -> None:
    """Print a sentence for the person at the terminal, after the program's name."""
    with suppress(OSError):
        print(f"{program_name()}: {sentence}", file=sys.stderr, flush=True)


def sentence_of(error: OSError) -> str:
    """Describe an error of the operating system, with the file if it is known."""
    what = error.strerror or type(error).__name__
    hint = "; make room on the disk, and repeat the command" if error.errno in FULL else ""
    where = "a file or standard output" if error.filename is None else os.fsdecode(str(error.filename))
    return f"{where}: {what}{hint}"


def ending_of(error: BaseException) -> tuple[str, int] | None:
    """Return the sentence for `error` (empty: print nothing) and the exit status; None if it is unexpected."""
    if isinstance(error, BaseExceptionGroup):
        return next((ended for each in error.exceptions if (ended := ending_of(each))), None)
    if isinstance(error, VoiceDpkiError):
        return str(error), EXIT_HARMFUL_AGAIN if isinstance(error, HarmfulAgainError) else EXIT_USAGE
    if isinstance(error, KeyboardInterrupt):
        return "interrupted; what it started is stopped", EXIT_INTERRUPTED
    if isinstance(error, _NoReaderError) or (isinstance(error, BrokenPipeError) and _reader_is_gone()):
        return "", EXIT_NO_READER
    if isinstance(error, OSError) and error.errno in SURROUNDINGS:
        return sentence_of(error), EXIT_USAGE
    return None


def _flush() -> None:
    """Flush standard output. If that fails, drop the rest, or Python would report the error again at exit."""
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except BrokenPipeError:
        _drop(sys.stdout)
        raise _NoReaderError from None
    except OSError:
        _drop(sys.stdout)
        raise


def _drop(stream: TextIO) -> None:
    with suppress(OSError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)


def _reader_is_gone() -> bool:
    """Tell whether standard output or standard error is a pipe that nobody reads."""
    poll = select.poll()
    for number in (1, 2):
        poll.register(number, 0)
    return any(events & (select.POLLERR | select.POLLHUP) for _, events in poll.poll(0))


def _print_what_can_be_printed() -> None:
    """Escape characters that the terminal cannot show: a name from the network must not end the program."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
