"""Telephones that fail themselves while they key a call: the other side gets its answer, and the log the reason."""

import asyncio
import json
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest

from sip_testbed.credentials import Credentials
from sip_testbed.enciphered_keying import ReverseKeying
from sip_testbed.keying import Keying
from sip_testbed.session import ChangeRefusedError
from tests.sip_testbed.test_forks import SRTP, Ledger
from tests.sip_testbed.test_keying import CLOCK, RANDOM, party
from tests.sip_testbed.test_phones import CALLEE, CALLER, TIMEOUT_S, Domain
from tests.sip_testbed.test_phones import domain as domain  # a fixture
from tests.sip_testbed.test_session import Begin, End, end_of, leg_of
from tests.sip_testbed.test_session import begin as begin  # a fixture
from voice_dpki.errors import LocalError
from voice_dpki.mikey.policy import SrtpProfile
from voice_dpki.wire import media_ports
from voice_dpki.x509.encipherment import LocalDecrypter
from voice_dpki.x509.profile import digest_of

GONE = "the token in slot 7 is gone"


class Token:
    """A key in a token, which may be pulled out; then neither signing nor decrypting works."""

    def __init__(self, key: Any, *, is_gone: bool) -> None:
        self.algorithm, self.public_key_der = key.algorithm, key.public_key_der
        self._key = key
        self._decrypter = LocalDecrypter.of(key)
        self._is_gone = is_gone

    def sign(self, data: bytes) -> bytes:
        if self._is_gone:
            raise LocalError(GONE)
        return bytes(self._key.sign(data))

    def decrypt(self, algorithm: str, data: bytes) -> bytes:
        raise LocalError(GONE)


def keyed(ledger: Ledger, end: End, number: str, *, is_gone: bool, kind: Any = Keying) -> None:
    """Give a telephone keys in a token."""
    own = party(f"sip:+{number}@a.example")
    ledger.held[digest_of(own.certificate)] = own.certificate
    token = Token(own.signer, is_gone=is_gone)
    mode = "rsa-r" if kind is ReverseKeying else "dh-sign"
    own = replace(own, signer=cast(Any, token))
    credentials = Credentials(
        own, SrtpProfile(SRTP), cast(Any, ledger), mode=cast(Any, mode), decrypter=cast(Any, token)
    )
    telephone = end.telephone
    telephone._keying = telephone._keyings = kind(credentials, telephone._tracer, CLOCK, RANDOM)


async def ends(domain: Domain, folder: Path, *, gone: str, kind: Any = Keying) -> dict[str, End]:
    ledger, found = Ledger(), {}
    for name, number in (("caller", CALLER), ("callee", CALLEE)):
        found[name] = await end_of(domain, folder, name, srtp=SRTP, spoken_s=0.5)
        keyed(ledger, found[name], number, is_gone=name == gone, kind=kind)
    return found


async def place(caller: End) -> Any:
    return await asyncio.wait_for(caller.telephone.call(f"sip:+{CALLEE}@a.example"), TIMEOUT_S)


async def result_of(end: End) -> Any:
    file = end.folder / f"{end.name}.json"
    async with asyncio.timeout(TIMEOUT_S):
        while not file.exists():
            await asyncio.sleep(0.01)
    return json.loads(file.read_text())


async def test_a_callee_that_cannot_sign_says_that_it_has_failed(domain: Domain, tmp_path: Path) -> None:
    found = await ends(domain, tmp_path, gone="callee")
    result = await place(found["caller"])
    assert (result.status, result.established) == (500, False)
    assert "this telephone has failed" in result.reason
    assert "slot" not in result.reason, "what we run is nobody else's business"
    refused = await result_of(found["callee"])
    assert (refused["status"], refused["refused_by"], refused["reason"]) == (500, "local", GONE)


async def test_a_caller_that_cannot_sign_calls_nobody(domain: Domain, tmp_path: Path) -> None:
    found = await ends(domain, tmp_path, gone="caller")
    with pytest.raises(LocalError, match=GONE):
        await place(found["caller"])
    refused = await result_of(found["caller"])
    assert (refused["status"], refused["refused_by"], refused["reason"]) == (None, "local", GONE)
    assert not found["callee"].events


async def test_a_caller_that_cannot_open_the_answer_hangs_up(
    domain: Domain, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """By RSA-R the answer is encrypted to the caller's key, which signed the offer."""
    found = await ends(domain, tmp_path, gone="", kind=ReverseKeying)
    result = await place(found["caller"])
    assert (result.status, result.established, result.refused_by) == (200, False, "local")
    assert any(getattr(record, "fields", {}).get("reason") == GONE for record in caplog.records)
    left = await result_of(found["callee"])
    assert left["established"] is False
    assert "this telephone has failed" in left["reason"]


async def test_a_callee_without_a_port_for_media_says_that_it_has_failed(
    domain: Domain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = await ends(domain, tmp_path, gone="")
    open_media = found["callee"].telephone._open_media

    async def without_ports() -> Any:
        monkeypatch.setattr(media_ports, "MAX_PORT_TRIES", 0)
        return await open_media()

    monkeypatch.setattr(found["callee"].telephone, "_open_media", without_ports)
    result = await place(found["caller"])
    assert (result.status, result.established) == (500, False)
    assert (await result_of(found["callee"]))["refused_by"] == "local"


def fails(*given: object, **options: object) -> Any:
    raise LocalError(GONE)


async def test_new_keys_that_we_cannot_answer_leave_the_call(begin: Begin, monkeypatch: pytest.MonkeyPatch) -> None:
    talk = await begin()
    monkeypatch.setattr(talk.callee._keying, "accept", fails)
    assert talk.caller._keying is not None
    talk.caller._keying.updating.forget()
    with pytest.raises(ChangeRefusedError, match="500 "):
        await talk.caller.rekey()
    await talk.flows("caller", "callee")


async def test_new_keys_that_we_cannot_take_end_the_call(begin: Begin, monkeypatch: pytest.MonkeyPatch) -> None:
    """The other side has gone over to them with its 200, so nothing of it would be heard any more."""
    talk = await begin()
    monkeypatch.setattr(talk.callee._keying, "confirm", fails)
    with pytest.raises(ChangeRefusedError, match=GONE):
        await talk.callee.rekey()
    assert leg_of(talk.callee).ended.is_set()
    result = await asyncio.wait_for(talk.call, TIMEOUT_S)
    assert result.established is False
    assert "this telephone has failed" in result.reason
