"""The files that a call of the testbed may write into its folder."""

from collections.abc import Mapping

WAV_HEADER_BYTES = 44
RECORDINGS = (
    *(f"{name}.{what}" for name in ("caller", "callee", "third") for what in ("said", "heard")),
    *(f"transferred-{name}.{what}" for name in ("callee", "third") for what in ("said", "heard")),
)
VIDEOS = ("caller.seen", "callee.seen")

FILES: Mapping[str, str] = {
    "report.html": "this report, in one file",
    "report.json": "its figures for programs; sip_testbed/report.schema.json describes them",
    "ladder.txt": "the ladder as text",
    "call.pcap": "every SIP message and RTP packet as sent, and HTTP; open it with Wireshark or sngrep",
    "call.decrypted.pcap": "the same with RTP in clear: Telephony, RTP, RTP Player plays it",
    "caller.said.wav": "what the caller said",
    "callee.heard.wav": "what arrived at the callee",
    "callee.said.wav": "what the callee said",
    "caller.heard.wav": "what arrived at the caller",
    "callee.seen.webm": "the pictures that the callee saw",
    "caller.seen.webm": "the pictures that the caller saw",
    "third.said.wav": "what the third one said, to whom the callee was passed on",
    "third.heard.wav": "what arrived there",
    "transferred-callee.said.wav": "what the callee said to the third one",
    "transferred-callee.heard.wav": "what arrived at the callee from there",
    "transferred-third.said.wav": "what the third one said to the callee after the consultation",
    "transferred-third.heard.wav": "what arrived there from the callee",
    "consultation-caller.said.wav": "what the caller said in the consultation",
    "consultation-caller.heard.wav": "what arrived at the caller in it",
}
"""Files that a call may write into its folder, with their uses."""
