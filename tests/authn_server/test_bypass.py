"""What a call gets instead of an Identity when it is the signer that is at fault (P-Identity-Bypass of the MAN)."""

import json
import time
from collections.abc import Callable
from typing import Any

import pytest
from prometheus_client import REGISTRY

from authn_server.config import EXAMPLE, load_setup
from authn_server.service import AuthnService
from authn_server.standing import UnknownStanding
from authn_server.switching import Switch
from tests.clocks import SettableClock
from voice_dpki.effects import SystemClock
from voice_dpki.errors import LocalError
from voice_dpki.shell.reload import Live
from voice_dpki.shell.trace import Tracer
from voice_dpki.stir.faults import RequestError
from voice_dpki.stir.sign import SigningRefused
from voice_dpki.x509.profile import CertificateProfile

from .conftest import Site

MakeRequest = Callable[..., dict[str, Any]]
TOKEN = "a-disengagement"


class Revoked(UnknownStanding):
    """The standing of a certificate that verifiers refuse."""

    is_good = False

    async def check(self) -> None:
        raise SigningRefused("not-on-ledger", "this server's certificate was revoked on the ledger")


class Registry:
    """A ledger on which a certificate is good or not."""

    def __init__(self, made: Callable[[], UnknownStanding]) -> None:
        self._made = made

    async def vouch(self, profile: CertificateProfile) -> None:
        """Refuse nothing."""

    def standing(self, profile: CertificateProfile) -> Any:
        return self._made()


def service(
    site: Site, standing: type[UnknownStanding] = Revoked, token: str = TOKEN, at_s: float = 0
) -> AuthnService:
    setup = load_setup(site.config, SystemClock())
    clock = SettableClock(at_s or time.time())
    switch = Switch(setup.credential, Registry(standing))
    return AuthnService(switch, 60.0, clock, Tracer(None, "a"), bypass=Live(token))


async def refusal(service: AuthnService, request: dict[str, Any]) -> dict[str, Any]:
    async def sign() -> None:
        answer = service.sign(json.dumps(request).encode())
        if not isinstance(answer, bytes):
            await answer

    with pytest.raises(RequestError) as refused:
        await sign()
    told: dict[str, Any] = json.loads(refused.value.body())
    return told


async def test_a_signer_at_fault_gives_its_token(site: Site, signing_request: MakeRequest) -> None:
    before = REGISTRY.get_sample_value("voice_dpki_bypasses_total") or 0
    told = await refusal(service(site), signing_request())
    assert (told["requestError"]["policyException"]["messageId"], told["bypass"]) == ("POL4033", TOKEN)
    in_3gpp_form = await refusal(service(site), signing_request(ppt="shaken"))
    assert in_3gpp_form["error"].startswith("There is no signature with this server's certificate")
    assert in_3gpp_form["bypass"] == TOKEN
    assert REGISTRY.get_sample_value("voice_dpki_bypasses_total") == before + 2


async def test_a_certificate_that_is_over_is_the_signers_fault(site: Site, signing_request: MakeRequest) -> None:
    later_s = int(time.time()) + 7200
    told = await refusal(service(site, UnknownStanding, at_s=later_s), signing_request(iat=later_s))
    assert (told["requestError"]["policyException"]["messageId"], told["bypass"]) == ("POL4032", TOKEN)


@pytest.mark.parametrize(
    ("changes", "message_id"),
    [({"orig": {"tn": "442079460001"}}, "POL4030"), ({"iat": 1}, "POL4031"), ({"attest": "D"}, "SVC4005")],
)
async def test_what_is_the_calls_fault_gets_none(
    site: Site, signing_request: MakeRequest, changes: dict[str, Any], message_id: str
) -> None:
    told = await refusal(service(site, UnknownStanding), signing_request(**changes))
    assert message_id in json.dumps(told)
    assert "bypass" not in told


async def test_without_a_token_there_is_none(site: Site, signing_request: MakeRequest) -> None:
    assert "bypass" not in await refusal(service(site, token=""), signing_request())


def test_the_token_is_configured_by_file(site: Site) -> None:
    site.write(EXAMPLE.replace("# bypass", "bypass"))
    (site.folder / "bypass.token").write_text(f"{TOKEN}\n")
    assert load_setup(site.config, SystemClock()).bypass.value == TOKEN
    (site.folder / "bypass.token").write_text("two words\n")
    with pytest.raises(LocalError, match=r"bypass.token: a token has"):
        load_setup(site.config, SystemClock())
