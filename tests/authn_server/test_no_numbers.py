"""No refusal of the authentication server tells a subscriber's number, in its answer, its trace or its log."""

import json
import logging
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from authn_server.config import load_setup
from authn_server.service import AuthnService
from authn_server.standing import Unfollowed
from authn_server.switching import Switch
from tests.no_numbers import NUMBER, asked, bent_members, logged, spoiled
from voice_dpki.effects import SystemClock
from voice_dpki.shell.config import Listen
from voice_dpki.shell.http import serve
from voice_dpki.shell.reload import Live
from voice_dpki.shell.stir_service import StirRoute
from voice_dpki.shell.trace import Tracer
from voice_dpki.wire.http_client import HttpClient

from .conftest import TOKEN, Site

PATH = "/stir/v1/signing"


def bodies(request: Callable[..., dict[str, Any]]) -> Iterator[bytes]:
    yield json.dumps(request(orig={"tn": NUMBER[:15]})).encode()
    for changes in ({"iat": 0}, {"iat": int(NUMBER)}, {"origid": NUMBER}, {"attest": NUMBER}):
        yield json.dumps(request(dest={"tn": [NUMBER]}, **changes)).encode()
    yield json.dumps(request(ppt="shaken", orig={"tn": NUMBER[:15]})).encode()
    sample = request()["signingRequest"]
    for members in (*bent_members(sample), *bent_members({**sample, "ppt": "shaken"})):
        yield json.dumps({"signingRequest": members}).encode()
    yield from spoiled(json.dumps(request()).encode())


def fault(answer: dict[str, Any]) -> str:
    """What was wrong, in either form."""
    if "error" in answer:
        return re.split("[.:]", answer["error"])[0]
    (error,) = answer["requestError"].values()
    return str(error["messageId"])


async def test_every_refusal(
    site: Site, signing_request: Callable[..., dict[str, Any]], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    tracer = Tracer(tmp_path / "trace", "authn-a")
    setup = load_setup(site.config, SystemClock())
    service = AuthnService(Switch(setup.credential, Unfollowed()), 60.0, SystemClock(), tracer)
    app = StirRoute("signing", PATH, Live((TOKEN,)), service.sign).app()
    headers = {"Authorization": f"Bearer {TOKEN}", "Content-Type": "application/json"}
    refused = set()
    async with serve(app, Listen(port=0)) as port:
        client = HttpClient(f"http://127.0.0.1:{port}", timeout_s=30, max_answer_bytes=1 << 16, headers=headers)
        for body, answer in await asked(client, PATH, bodies(signing_request)):
            assert NUMBER[:15].encode() not in answer.body, (body, answer.body)
            if answer.status != 200:
                refused.add(fault(json.loads(answer.body)))
        await client.aclose()
    tracer.close()
    assert {"POL4030", "POL4031", "SVC4001", "SVC4005", "SVC4006"} <= refused
    assert {
        "Missing mandatory parameter",
        "Invalid parameter value",
        "There is no signature for this call",
    } <= refused
    assert NUMBER[:15] not in logged(caplog.records)
    assert NUMBER[:15] not in (tmp_path / "trace").read_text()
