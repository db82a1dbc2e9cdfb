"""Linphone through the gateway, called, calling and holding, with SDES and with DTLS-SRTP."""

import time
from pathlib import Path
from typing import Any

import pytest

from sip_testbed.provision import CALLEE, CALLER, OPERATORS, aor
from tests.e2e.gateways import Site, assert_keyed_and_told, report
from tests.e2e.hearing import LONG_SPEECH_S, assert_heard_throughout, heard, heard_around_a_hold
from tests.e2e.linphone import PROGRAM, Linphone

CALLER_URI, CALLEE_URI = aor(CALLER, OPERATORS[0]), aor(CALLEE, OPERATORS[1])

pytestmark = [
    pytest.mark.long,
    pytest.mark.peer(PROGRAM),
    pytest.mark.parametrize("media", ["sdes", "dtls"]),
]


def test_linphone_is_called(site: Site, gateway: Any, spoken: Any, tmp_path: Path, media: str) -> None:
    gateway(media)
    ours, theirs, out = spoken("caller", LONG_SPEECH_S), spoken("callee"), tmp_path / "out"
    with Linphone.at(site, tmp_path / "linphone", theirs, media) as linphone:
        linphone.wait_until_registered()
        assert site.telephone(out, ours, CALLEE_URI).wait_end(60) == 0
        linphone.wait_until_over()
    assert_keyed_and_told(report(out))
    assert heard(theirs, (out / "caller.heard.wav").read_bytes()) > 0.95
    assert_heard_throughout(ours, linphone.heard())


def test_linphone_calls(site: Site, gateway: Any, spoken: Any, tmp_path: Path, media: str) -> None:
    """It offers codecs and suites that the gateway has not, beside those that are taken up."""
    gateway(media)
    ours, theirs, out = spoken("caller", LONG_SPEECH_S), spoken("callee"), tmp_path / "out"
    site.telephone(out, ours).wait_ready()
    with Linphone.at(site, tmp_path / "linphone", theirs, media) as linphone:
        linphone.wait_until_registered()
        linphone.command(f"call {CALLER_URI}")
        linphone.wait_until_over()
    assert_keyed_and_told(report(out))
    assert heard(theirs, (out / "caller.heard.wav").read_bytes()) > 0.95
    assert_heard_throughout(ours, linphone.heard())


def test_linphone_puts_us_on_hold_and_takes_us_up_again(
    site: Site, gateway: Any, spoken: Any, tmp_path: Path, media: str
) -> None:
    """It has all its codecs in each re-INVITE, and with SDES new keys. Its file is played from the start again."""
    gateway(media)
    ours, theirs, out = spoken("caller", LONG_SPEECH_S), spoken("callee"), tmp_path / "out"
    with Linphone.at(site, tmp_path / "linphone", theirs, media) as linphone:
        linphone.wait_until_registered()
        telephone = site.telephone(out, ours, CALLEE_URI)
        linphone.wait_until_keyed()
        time.sleep(0.5)
        linphone.command("pause")
        linphone.wait_for("to LinphoneCallPaused")
        linphone.command("resume")
        assert telephone.wait_end(60) == 0
        linphone.wait_until_over()
    found = report(out)
    assert found["changes"] == ["hold", "resume"]
    assert_keyed_and_told(found)
    assert heard(theirs, (out / "caller.heard.wav").read_bytes()) > 0.95
    assert_heard_throughout(ours, linphone.heard())


def test_linphone_is_put_on_hold_and_hears_us_again(
    site: Site, gateway: Any, spoken: Any, tmp_path: Path, media: str
) -> None:
    """With DTLS it goes on with its association, if the offer leaves it the choice of the side."""
    gateway(media)
    ours, theirs, out = spoken("caller"), spoken("callee"), tmp_path / "out"
    with Linphone.at(site, tmp_path / "linphone", theirs, media) as linphone:
        linphone.wait_until_registered()
        assert site.telephone(out, ours, CALLEE_URI, ("hold", "resume")).wait_end(60) == 0
        linphone.wait_until_over()
    found = report(out)
    assert found["changes"] == ["hold", "resume"]
    assert_keyed_and_told(found)
    assert heard_around_a_hold(ours, linphone.heard()) > 0.9


def test_linphone_takes_our_new_keys_and_another_codec(
    site: Site, gateway: Any, spoken: Any, tmp_path: Path, media: str
) -> None:
    """Its reports go on counting what it sent before, which is not lost in the streams that begin then."""
    gateway(media)
    ours, theirs, out = spoken("caller", LONG_SPEECH_S), spoken("callee", LONG_SPEECH_S), tmp_path / "out"
    with Linphone.at(site, tmp_path / "linphone", theirs, media) as linphone:
        linphone.wait_until_registered()
        assert site.telephone(out, ours, CALLEE_URI, ("rekey", "pcma")).wait_end(60) == 0
        linphone.wait_until_over()
    found = report(out)
    assert (found["changes"], found["media"]["codec"]) == (["rekey", "pcma"], "PCMA")
    assert_keyed_and_told(found)
    assert found["media"]["lost"] <= found["media"]["received"] // 20
    assert_heard_throughout(ours, linphone.heard())
