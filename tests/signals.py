"""What a program that a test starts does with SIGINT, for `preexec_fn`.

A job that a shell without job control starts in the background ignores SIGINT, and so does every program below it.
Tests may run in such a job.
"""

import signal


def heed_interrupts() -> None:
    """Let SIGINT and SIGHUP end the program, as they do in the foreground: under nohup it would ignore SIGHUP."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


def ignore_interrupts() -> None:
    """Let the program ignore SIGINT, as it does in the background."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
