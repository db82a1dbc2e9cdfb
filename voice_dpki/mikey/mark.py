"""The mark that messages of the modern mode bear (docs/mikey-modern.md)."""

from typing import Final

from voice_dpki.mikey.failures import Failure, MikeyError
from voice_dpki.mikey.message import Message
from voice_dpki.mikey.payloads import GeneralExtension
from voice_dpki.mikey.registry import ExtensionType

VENDOR: Final = b"vDPKI"
"""Begins the data of the General extension that marks our messages, of whatever version."""

MARK: Final = GeneralExtension(ExtensionType.VENDOR_ID, VENDOR + b"\x01")
"""Marks the messages of this version: private numbers mean something else to others."""


def check_mark(message: Message) -> None:
    """Check that the message is marked as ours, and as one of this version."""
    marks = [
        extension
        for extension in message.all(GeneralExtension)
        if extension.ext_type == ExtensionType.VENDOR_ID and extension.data.startswith(VENDOR)
    ]
    if marks != [MARK]:
        raise MikeyError(Failure.VERSION, "the message is not marked as one of version 1 of the modern mode")
