"""Context of the running task: its call and its request, for log lines and trace events.

Tasks inherit the context of the task that starts them. So the code that receives a request sets it once for all
code that it calls.
"""

from contextvars import ContextVar

_CALL: ContextVar[str] = ContextVar("call", default="")
_REQUEST: ContextVar[str] = ContextVar("request", default="")

MAX_CHARS = 256
"""Longest Call-ID in logs and traces. Strangers choose it, and lines are bounded."""


def work_on(call_id: str) -> None:
    """Set the Call-ID of this task's call from now on; "" if it is not known."""
    _CALL.set(call_id[:MAX_CHARS])


def current_call() -> str:
    """Return the Call-ID of this task's call, "" if it is not known."""
    return _CALL.get()


def work_for(request_id: str) -> None:
    """Set the X-RequestID of the request that this task answers from now on; "" for none."""
    _REQUEST.set(request_id)


def current_request() -> str:
    """Return the X-RequestID of the request that this task answers, "" if there is none."""
    return _REQUEST.get()
