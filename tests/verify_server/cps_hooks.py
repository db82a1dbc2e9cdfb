"""Hooks for schemathesis: each request to a call placement service gets an access token for just that request."""

import os
import time
from pathlib import Path
from typing import Any

import schemathesis

from voice_dpki.effects import SystemRandom
from voice_dpki.names import Tn
from voice_dpki.shell.credentials import read_certificate, read_signer
from voice_dpki.stir.access import AccessAction, Place, sign_access
from voice_dpki.stir.sign import make_credential

FOLDER = Path(os.environ["CPS_FOLDER"])
CREDENTIAL = make_credential(
    read_signer(FOLDER / "sti.pem"),
    read_certificate(FOLDER / "sti.der"),
    "https://c.example/{digest}.der",
    time.time(),
)


@schemathesis.hook
def before_call(_context: object, case: Any, _kwargs: object) -> None:
    """Sign for the path and the body as they are."""
    told = {name: str(value) for name, value in (case.path_parameters or {}).items()}
    action = AccessAction.PUBLISH if case.method == "POST" else AccessAction.RETRIEVE
    tokens = case.body.get("passports") if isinstance(case.body, dict) else None
    passports = [each for each in tokens if isinstance(each, str)] if isinstance(tokens, list) else []
    place = Place(Tn(told.get("orig", "")), Tn(told.get("dest", "")), told.get("spc", ""))
    access = sign_access(
        CREDENTIAL, action, place, "cps.b.example", time.time(), SystemRandom(), passports=passports, lifetime_s=15
    )
    case.headers = {**(case.headers or {}), "Authorization": f"Bearer {access}"}
