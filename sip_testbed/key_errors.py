"""MIKEY's error messages in SIP: in the session description of a 488, beside its Reason and Warning.

RFC 3830 §5.1.2 wants errors reported, and RFC 3261 §21.4.26 lets a 488 describe what its sender can do; a port of
zero stands for no media. An error message only adds a clause to the report, as it is not signed.
"""

from typing import Any

from sip_testbed.keying import KeyAgreement
from sip_testbed.user_agent_config import TelephoneSetup
from voice_dpki.effects import Random
from voice_dpki.errors import MalformedError, VoiceDpkiError
from voice_dpki.mikey.failures import MikeyError
from voice_dpki.mikey.refusal import error_message, read_error
from voice_dpki.mikey.sdp import key_mgmt_value, mikey_message
from voice_dpki.sip.sdp import RtpMap, SessionDescription, audio_description


def refusal_body(
    offer: bytes, error: VoiceDpkiError, keying: KeyAgreement[Any] | None, setup: TelephoneSetup, random: Random
) -> bytes:
    """Return the body of the 488 to an `offer` that was refused because of `error`: it has MIKEY's error message.

    It is empty for a refusal that is not MIKEY's, and where the offer has no message that could be answered.
    """
    if not isinstance(error, MikeyError) or keying is None:
        return b""
    try:
        octets = mikey_message(SessionDescription.parse(offer).audio_key_mgmt)
    except (MikeyError, MalformedError):
        return b""
    told = error_message(octets, error, [keying.profile])
    if told is None:
        return b""
    return audio_description(
        setup.listen.advertised,
        0,
        [RtpMap(setup.codec.payload_type, setup.codec.rtpmap)],
        session_id=int.from_bytes(random.token(4), "big"),
        key_mgmt=[key_mgmt_value(told)],
    ).serialize()


def told_error(body: bytes, sent: bytes | None) -> str:
    """Return a clause about the error message in the body of a 488 that answers our MIKEY message `sent`, or "".

    A body that holds no such message is passed over: it changes nothing about the refusal.
    """
    if not body or sent is None:
        return ""
    try:
        hint = read_error(mikey_message(SessionDescription.parse(body).key_mgmt), sent)
    except (MikeyError, MalformedError):
        return ""
    return f"; MIKEY error, which is not signed: {hint}"
