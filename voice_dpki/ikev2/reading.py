"""Readers of a message's mandatory payloads and of the peer's refusal (RFC 7296 §2.21)."""

from collections.abc import Sequence
from typing import TypeVar

from voice_dpki.ikev2.failures import Failure, IkeError
from voice_dpki.ikev2.payloads import Notify, Payload, Unknown
from voice_dpki.ikev2.registry import FIRST_STATUS, NotifyType, name_of

P = TypeVar("P")


def only(payloads: Sequence[Payload], kind: type[P]) -> P:
    """Return the one payload of a class; raises IkeError with PAYLOADS unless there is exactly one."""
    found = [payload for payload in payloads if isinstance(payload, kind)]
    if len(found) != 1:
        raise IkeError(Failure.PAYLOADS, f"the message has {len(found)} {kind.__name__} payloads, and needs one")
    return found[0]


def check_critical(payloads: Sequence[Payload]) -> None:
    """Check that no payload is both critical and unknown (§2.5); raises IkeError with the type of the first."""
    for each in payloads:
        if isinstance(each, Unknown) and each.critical:
            raise IkeError(Failure.CRITICAL_PAYLOAD, "a critical payload is not known", data=bytes((each.kind,)))


def peer_error(payloads: Sequence[Payload]) -> Notify | None:
    """Return the first error notify, None if there is none."""
    errors = (each for each in payloads if isinstance(each, Notify) and each.type < FIRST_STATUS)
    return next(errors, None)


def refused_by_peer(notify: Notify) -> IkeError:
    """Return the error for the peer's notify."""
    name = name_of(NotifyType, notify.type)
    return IkeError(Failure.PEER_REFUSED, f"the peer answers {name}", code=f"peer-{name.lower().replace('_', '-')}")


def check_not_refused(payloads: Sequence[Payload]) -> None:
    """Raise IkeError if the peer's answer is a refusal."""
    refusal = peer_error(payloads)
    if refusal is not None:
        raise refused_by_peer(refusal)
