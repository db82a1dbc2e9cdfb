"""MIKEY's error message (RFC 3830 §5.1.2), which any mode may answer an offer with."""

from collections.abc import Iterable

from voice_dpki.mikey.failures import MikeyError
from voice_dpki.mikey.message import Header, Message, serialize
from voice_dpki.mikey.payloads import Error, Timestamp
from voice_dpki.mikey.policy import SrtpProfile, policy_for
from voice_dpki.mikey.registry import DataType


def error_message(octets: bytes, error: MikeyError, profiles: Iterable[SrtpProfile]) -> bytes | None:
    """Write the error message that tells the Initiator the reason, and the policies that we support.

    It is not signed, since most errors occur before authentication; its receiver takes it as a hint only.
    Returns None if the Initiator's message is too broken to answer.
    """
    try:
        message = Message.parse(octets)
        timestamp = message.one(Timestamp)
    except MikeyError:
        return None
    header = Header(DataType.ERROR, message.header.csb_id, message.header.prf)
    policies = tuple(policy_for(profile, number) for number, profile in enumerate(profiles))
    return serialize(header, (timestamp, Error(error.number), *policies))
