"""The SDP attribute that carries MIKEY, as text: `a=key-mgmt:mikey <base64>` (RFC 4567 §3.1).

A value here is the text behind "key-mgmt:". The caller finds the attributes in the SDP, decides between session and
media level, and passes all values that apply to a stream, in the order of the SDP.
"""

import base64
import binascii
import re
from collections.abc import Sequence

from voice_dpki.mikey.failures import Failure, MikeyError
from voice_dpki.mikey.message import MAX_MESSAGE_BYTES

PROTOCOL = "mikey"
"""MIKEY's protocol identifier, which is case sensitive (RFC 4567 §3, §7)."""

MAX_VALUES = 8
"""Most key-mgmt attributes that one SDP may have."""

_VALUE = re.compile(r" *(?P<protocol>[A-Za-z0-9]{1,32}) (?P<data>[A-Za-z0-9+/]+={0,2})")


def key_mgmt_value(message: bytes) -> str:
    """Return the value of the attribute that carries `message`."""
    return f"{PROTOCOL} {base64.b64encode(message).decode('ascii')}"


def protocol_ids(values: Sequence[str]) -> tuple[str, ...]:
    """Return the protocol identifiers that `values` offer, in order; SDP IDs must list the same (§4.1.4).

    Raises MikeyError for a value that does not follow the grammar, and for too many values.
    """
    if len(values) > MAX_VALUES:
        raise MikeyError(Failure.KEY_MGMT, f"the SDP has more than {MAX_VALUES} key-mgmt attributes")
    return tuple(_match(value)["protocol"] for value in values)


def mikey_message(values: Sequence[str]) -> bytes:
    """Return the MIKEY message that `values` carry.

    Raises MikeyError if there is none or more than one, or if it is not canonical base64.
    """
    found = [value for value, protocol in zip(values, protocol_ids(values), strict=True) if protocol == PROTOCOL]
    if len(found) != 1:
        raise MikeyError(Failure.KEY_MGMT, f"the SDP must carry one key-mgmt:mikey, and carries {len(found)}")
    return _decode(_match(found[0])["data"])


def _match(value: str) -> re.Match[str]:
    match = _VALUE.fullmatch(value)
    if match is None:
        raise MikeyError(Failure.KEY_MGMT, "a key-mgmt attribute is not 'protocol base64' (RFC 4567 §3.1)")
    return match


def _decode(text: str) -> bytes:
    if len(text) > MAX_MESSAGE_BYTES * 4 // 3 + 4:
        raise MikeyError(Failure.KEY_MGMT, f"the MIKEY message is longer than {MAX_MESSAGE_BYTES} bytes")
    try:
        message = base64.b64decode(text, validate=True)
    except binascii.Error:
        raise MikeyError(Failure.KEY_MGMT, "the key-mgmt data is not base64") from None
    if base64.b64encode(message).decode("ascii") != text:
        raise MikeyError(Failure.KEY_MGMT, "the key-mgmt data is not canonical base64")
    return message
