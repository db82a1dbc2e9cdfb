"""Telling a HEP collector: where to, what of, and what happens if it is not there; calls in lines of the log."""

import asyncio
import base64
import json
import logging
from pathlib import Path

import pytest

from tests.e2e.collector import CORRELATION, NAME, PAYLOAD, TYPE, Collector
from voice_dpki.errors import LocalError
from voice_dpki.shell import hep as hep_module
from voice_dpki.shell.current import MAX_CHARS, current_call, work_on
from voice_dpki.shell.hep import HepTarget
from voice_dpki.shell.log import JsonFormatter
from voice_dpki.shell.trace import CallTraceConfig, Tracer, TraceTo

INVITE = b"INVITE sip:b SIP/2.0\r\nVia: x\r\ni:  a@b \r\nContent-Length: 0\r\n\r\nCall-ID: of the body\r\n"


def read(tmp_path: Path, text: str) -> TraceTo:
    from voice_dpki.shell.config import Config, load_config

    class Whole(Config, frozen=True, kw_only=True):
        trace: CallTraceConfig = CallTraceConfig()

    (tmp_path / "c.toml").write_text(text)
    return load_config(tmp_path / "c.toml", Whole).trace.read(tmp_path / "c.toml")


def test_where_events_go(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("secret\n")
    assert read(tmp_path, "") == TraceTo()
    assert read(tmp_path, '[trace]\nfile = "t"\n') == TraceTo(tmp_path / "t")
    assert read(tmp_path, "[trace.hep]\n") == TraceTo(None, HepTarget("127.0.0.1", 9060, 2001))
    text = '[trace.hep]\nhost = "::1"\nport = 9\nagent = 7\nkey = "key"\n'
    assert read(tmp_path, text) == TraceTo(None, HepTarget("::1", 9, 7, b"secret"))
    text = '[trace.hep]\nhost = "192.0.2.1"\ninsecure = true\n'
    assert read(tmp_path, text) == TraceTo(None, HepTarget("192.0.2.1", 9060))


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ('host = "homer.example"', "trace.hep.host: homer.example is no numeric address"),
        ('host = "192.0.2.1"', "on the way to 192.0.2.1 others could read the calls' messages"),
        ("port = 0", "trace.hep.port: Expected `int` >= 1"),
        ("agent = 4294967296", "trace.hep.agent: Expected `int` <= 4294967295"),
        ('key = "none"', "none: cannot read"),
    ],
)
def test_a_collector_that_cannot_be_told_is_said(tmp_path: Path, text: str, sentence: str) -> None:
    with pytest.raises(LocalError, match=sentence):
        read(tmp_path, f"[trace.hep]\n{text}\n")


def test_messages_and_decisions_are_told_with_the_call_and_rows_without_a_call_are_not() -> None:
    with Collector() as collector:
        tracer = Tracer(None, "proxy-a", hep=HepTarget("127.0.0.1", collector.port, 3, b"k"))
        assert tracer.on
        tracer.sip("udp", "127.0.0.2:5060", "127.0.0.3:5060", INVITE)
        tracer.sip("tcp", "[::1]:5060", "[::1%eth0]:5061", INVITE.replace(b"i:  a@b \r\n", b""))
        tracer.rtp("127.0.0.2:1", "127.0.0.3:1", b"ciphertext", b"speech")
        tracer.note("about no call")
        work_on("c@d")
        tracer.note("signed", ok=True)
        work_on("")
        tracer.close()
        tracer.note("too late")
    sip, nameless, note = collector.told
    assert (sip[TYPE], sip[CORRELATION], sip[PAYLOAD], sip[NAME]) == (b"\x01", b"a@b", INVITE, b"proxy-a")
    assert (sip[3], sip[4], sip[7], sip[8]) == (b"\x7f\0\0\x02", b"\x7f\0\0\x03", b"\x13\xc4", b"\x13\xc4")
    assert (sip[12], sip[14]) == (b"\0\0\0\x03", b"k")
    assert (nameless[CORRELATION], nameless[5], nameless[2]) == (b"", bytes(15) + b"\x01", b"\x06")
    assert (note[TYPE], note[CORRELATION]) == (b"\x64", b"c@d")
    assert json.loads(note[PAYLOAD]) == {"text": "signed", "ok": True}


def test_keys_and_bypasses_are_told_as_stars_in_packets_and_files(tmp_path: Path) -> None:
    key = b"WVNfX19zZW1jdGwgKCkgewkyMjA7fQp9CnVubGVz"
    lines = b"a=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:%s|2^20|1:4\r\na=CRYPTO:2 F8 INLINE:%s;inline:%s FEC\r\n"
    head = INVITE.partition(b"\r\n\r\n")[0] + b"\r\nP-Identity-Bypass: " + key
    message = head + b"\r\n\r\n" + lines % (key, key, key)
    with Collector() as collector:
        tracer = Tracer(tmp_path / "a.jsonl", "a", hep=HepTarget("127.0.0.1", collector.port))
        tracer.sip("tls", "127.0.0.2:5061", "127.0.0.3:5061", message)
        tracer.close()
    written = base64.b64decode(json.loads((tmp_path / "a.jsonl").read_text())["data"])
    assert written == collector.told[0][PAYLOAD] == message.replace(key, b"*" * len(key))


def test_what_cannot_be_told_is_counted_said_once_and_stops_nothing(caplog: pytest.LogCaptureFixture) -> None:
    with Collector() as collector:
        port = collector.port
    tracer = Tracer(None, "a", hep=HepTarget("127.0.0.1", port))
    before = hep_module.LOST._value.get()
    for _ in range(10):
        tracer.sip("udp", "127.0.0.2:5060", "127.0.0.3:5060", INVITE)
    tracer.sip("tcp", "127.0.0.2:5060", "127.0.0.3:5060", INVITE + bytes(65_535))
    tracer.close()
    assert hep_module.LOST._value.get() - before >= 6  # the system tells of one refusal at the next packet
    assert [record.message for record in caplog.records] == ["a packet for the HEP collector is lost"]


async def test_a_task_and_those_that_it_starts_work_on_one_call() -> None:
    async def below() -> str:
        await asyncio.sleep(0)
        return current_call()

    async def about(call_id: str) -> str:
        work_on(call_id)
        return await asyncio.create_task(below())

    assert await asyncio.gather(*(about(each) for each in ("a", "b", "x" * 999))) == ["a", "b", "x" * MAX_CHARS]
    assert current_call() == ""


def test_a_line_of_the_log_names_the_call() -> None:
    record = logging.LogRecord("voice", logging.INFO, __file__, 1, "call refused", None, None)
    line = JsonFormatter("authn-server").format
    assert "call" not in json.loads(line(record))
    work_on("a@b\r\n")
    try:
        assert json.loads(line(record))["call"] == "a@b\r\n"
        assert "\n" not in line(record)
    finally:
        work_on("")
