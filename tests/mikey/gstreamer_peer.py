"""GStreamer's MIKEY in a process of its own, for it reads some messages for ever: JSON lines in and out.

    {"caps": "application/x-srtp, ...", "csb_id": 1, "sessions": [[0, 1, 0]]}   makes a message: {"octets": hex}
    {"octets": hex}        reads one, and writes it again: {"octets": hex, "caps": "application/x-srtp, ..."}

Run it by any Python; the caps are GStreamer's description of keys and policies.
"""

import json
import sys
from ctypes import CDLL, POINTER, byref, c_char_p, c_int, c_size_t, c_uint8, c_uint32, c_void_p, string_at
from typing import Any

SDP, GST, GLIB = CDLL("libgstsdp-1.0.so.0"), CDLL("libgstreamer-1.0.so.0"), CDLL("libglib-2.0.so.0")
VERSION, PSK_INIT, MIKEY_1, SRTP_ID = 1, 0, 0, 0


def function(library: CDLL, name: str, result: Any, *arguments: Any) -> Any:
    found = getattr(library, name)
    found.restype, found.argtypes = result, arguments
    return found


caps_from_string = function(GST, "gst_caps_from_string", c_void_p, c_char_p)
caps_to_string = function(GST, "gst_caps_to_string", c_char_p, c_void_p)
caps_named = function(GST, "gst_caps_new_empty_simple", c_void_p, c_char_p)
message_of_caps = function(SDP, "gst_mikey_message_new_from_caps", c_void_p, c_void_p)
message_of_data = function(SDP, "gst_mikey_message_new_from_data", c_void_p, c_char_p, c_size_t, c_void_p, c_void_p)
set_info = function(
    SDP, "gst_mikey_message_set_info", c_int, c_void_p, c_uint8, c_int, c_int, c_int, c_uint32, c_int
)
add_session = function(SDP, "gst_mikey_message_add_cs_srtp", c_int, c_void_p, c_uint8, c_uint32, c_uint32)
message_to_caps = function(SDP, "gst_mikey_message_to_caps", c_int, c_void_p, c_void_p)
message_to_bytes = function(SDP, "gst_mikey_message_to_bytes", c_void_p, c_void_p, c_void_p, c_void_p)
bytes_data = function(GLIB, "g_bytes_get_data", c_void_p, c_void_p, POINTER(c_size_t))


def octets_of(message: int) -> str:
    size = c_size_t()
    data = bytes_data(message_to_bytes(message, None, None), byref(size))
    return string_at(data, size.value).hex()


def make(caps: str, csb_id: int, sessions: list[list[int]]) -> dict[str, str]:
    message = message_of_caps(caps_from_string(caps.encode()))
    set_info(message, VERSION, PSK_INIT, 1, MIKEY_1, csb_id, SRTP_ID)
    for session in sessions:
        add_session(message, *session)
    return {"octets": octets_of(message)}


def read(octets: str) -> dict[str, str]:
    data = bytes.fromhex(octets)
    message = message_of_data(data, len(data), None, None)
    if not message:
        return {"error": "GStreamer does not read it"}
    caps = caps_named(b"application/x-srtp")
    message_to_caps(message, caps)
    return {"octets": octets_of(message), "caps": caps_to_string(caps).decode()}


if __name__ == "__main__":
    GST.gst_init(None, None)
    for line in sys.stdin:
        told = json.loads(line)
        print(json.dumps(make(**told) if "caps" in told else read(**told)))
