"""Which call the running code works on, and for which request, for lines of the log and events of the trace.

A task keeps what was told in it, and hands it to the tasks that it starts. So whoever takes up a request says once
whose it is, and everything below it need not.
"""

from contextvars import ContextVar

_CALL: ContextVar[str] = ContextVar("call", default="")
_REQUEST: ContextVar[str] = ContextVar("request", default="")

MAX_CHARS = 256
"""Longest Call-ID in logs and traces. Strangers choose it, and lines are bounded."""


def work_on(call_id: str) -> None:
    """Say that what follows in this task is about the call of that Call-ID, "" for one without a known one."""
    _CALL.set(call_id[:MAX_CHARS])


def current_call() -> str:
    """Return the Call-ID of the call that is worked on, "" where that is not known."""
    return _CALL.get()


def work_for(request_id: str) -> None:
    """Say that what follows in this task answers the request of that X-RequestID, "" for none."""
    _REQUEST.set(request_id)


def current_request() -> str:
    """Return the X-RequestID of the request that is answered, "" where there is none."""
    return _REQUEST.get()
