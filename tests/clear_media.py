"""A telephone that forgets to encrypt one packet of a call, and is honest about it in its trace.

python -m tests.clear_media goodbye sip_testbed.main user-agent --config caller.toml
"""

import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Any

from voice_dpki.media.rtcp import is_rtcp
from voice_dpki.wire.rtp_session import RtpSession

IN_SPEECH = 20
"""Which packet of the speech is not encrypted."""


def _is_goodbye(number: int, clear: bytes) -> bool:
    return is_rtcp(clear) and b"\x81\xcb\x00\x01" in clear


def _is_speech(number: int, clear: bytes) -> bool:
    return not is_rtcp(clear) and number == IN_SPEECH


def _is_report(number: int, clear: bytes) -> bool:
    return is_rtcp(clear) and not _is_goodbye(number, clear)


FORGOTTEN: dict[str, Callable[[int, bytes], bool]] = {
    "goodbye": _is_goodbye,
    "speech": _is_speech,
    "report": _is_report,
}


def main(arguments: Sequence[str]) -> int:
    """Run a program whose RTP sessions send some packets as they were before they were encrypted."""
    what, module, *rest = arguments
    send, sent = RtpSession._send, 0

    def forget(self: RtpSession[Any], packet: tuple[bytes, bytes], *, is_control: bool) -> None:
        nonlocal sent
        clear, wire = packet
        sent += not is_control
        send(self, (clear, clear if FORGOTTEN[what](sent, clear) else wire), is_control=is_control)

    RtpSession._send = forget  # type: ignore[method-assign]
    return int(import_module(module).main(rest))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
