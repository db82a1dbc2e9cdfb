"""Writing and reading MIKEY's error message (RFC 3830 §5.1.2), which can answer an offer of any mode.

It is not signed, because most errors occur before authentication. Its receiver takes it only as a hint, and does
not act on it.
"""

from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass

from voice_dpki.mikey.failures import Failure, MikeyError
from voice_dpki.mikey.message import Header, Message, serialize
from voice_dpki.mikey.payloads import Error, SecurityPolicy, Timestamp
from voice_dpki.mikey.policy import SrtpProfile, policy_for, profile_of
from voice_dpki.mikey.registry import DataType, ErrorNumber

_NUMBERS = {int(number): number for number in ErrorNumber}


@dataclass(frozen=True, slots=True)
class Hint:
    """Unauthenticated content of an error: registered errors, and the SRTP profiles that its sender takes."""

    errors: tuple[ErrorNumber, ...]
    profiles: tuple[SrtpProfile, ...]

    def __str__(self) -> str:
        told = ", ".join(error.about for error in self.errors)
        if ErrorNumber.INVALID_SPPAR in self.errors and self.profiles:
            told += f" (only {', '.join(self.profiles)})"
        return told


def error_message(octets: bytes, error: MikeyError, profiles: Iterable[SrtpProfile]) -> bytes | None:
    """Write the error message that tells the Initiator the reason, and the policies that we support.

    Returns None if the Initiator's message is too broken to answer, or is an error message itself.
    """
    try:
        message = Message.parse(octets)
        timestamp = message.one(Timestamp)
    except MikeyError:
        return None
    if message.header.data_type == DataType.ERROR:
        return None
    header = Header(DataType.ERROR, message.header.csb_id, message.header.prf)
    policies = tuple(policy_for(profile, number) for number, profile in enumerate(profiles))
    return serialize(header, (timestamp, Error(error.number), *policies))


def read_error(octets: bytes, sent: bytes) -> Hint:
    """Read an error message that answers our message `sent`; raises MikeyError for anything else.

    Numbers that the registry does not have are left out, and so are policies of other profiles than ours.
    """
    message, ours = Message.parse(octets), Message.parse(sent)
    if message.header.data_type != DataType.ERROR:
        raise MikeyError(Failure.DATA_TYPE, f"data type {message.header.data_type} is no error message")
    if message.header.csb_id != ours.header.csb_id or message.one(Timestamp) != ours.one(Timestamp):
        raise MikeyError(Failure.CSB_ID, "the error message does not answer ours")
    errors = [_NUMBERS[each.number] for each in message.all(Error) if each.number in _NUMBERS]
    if not errors:
        raise MikeyError(Failure.PAYLOAD, "the error message has no error that the registry knows")
    profiles: list[SrtpProfile] = []
    for policy in message.all(SecurityPolicy):
        with suppress(MikeyError):
            profiles.append(profile_of(policy))
    return Hint(tuple(dict.fromkeys(errors)), tuple(dict.fromkeys(profiles)))
