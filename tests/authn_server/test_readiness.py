"""When a server that signs calls is ready."""

from typing import Any

import pytest

from authn_server.config import FollowConfig, load_setup
from authn_server.expiry import Expiry
from authn_server.readiness import AGAIN_S, KeyProbe, checks
from authn_server.service import AuthnService
from authn_server.standing import LedgerRegistry
from authn_server.switching import Switch
from tests.clocks import SettableClock
from voice_dpki.effects import SystemClock
from voice_dpki.errors import LocalError
from voice_dpki.ledger.records import CertStatus
from voice_dpki.shell.readiness import Finding
from voice_dpki.shell.trace import Tracer
from voice_dpki.x509.keys import generate_es256

from .conftest import Site
from .test_standing import ToldLedger


class Server:
    """A server on a ledger that says what it is told."""

    def __init__(self, site: Site, **options: Any) -> None:
        setup = load_setup(site.config, SystemClock())
        self.wanted = setup.credential
        profile = setup.credential.value.profile
        self.clock, self.ledger = SettableClock(profile.not_before_s), ToldLedger(profile)
        follow = FollowConfig(url="http://127.0.0.1:1", genesis="genesis.json", **options)
        self.switch = Switch(self.wanted, LedgerRegistry(self.ledger, follow, self.clock))
        self.profile = profile
        service = AuthnService(self.switch, 60.0, self.clock, Tracer(None, "a"))
        expiry = Expiry(lambda: self.switch.current.credential.profile, self.clock, 14.0)
        self.checks = checks(self.switch, service, expiry, self.clock)

    async def found(self, check: str) -> Finding:
        await self.switch.current.standing.ask()
        return self.checks[check]()


async def states(server: Server) -> dict[str, str]:
    await server.switch.current.standing.ask()
    return {name: check().state for name, check in server.checks.items()}


async def test_a_server_whose_certificate_is_recorded_is_ready(site: Site) -> None:
    assert await states(Server(site)) == {"certificate": "ok", "key": "ok", "ledger": "ok"}


async def test_a_certificate_that_verifiers_refuse_fails(site: Site) -> None:
    server = Server(site)
    server.ledger.status = CertStatus.SUSPENDED
    found = await server.found("certificate")
    assert (found.state, "suspended" in found.reason) == ("failed", True)
    server.ledger.status = CertStatus.VALID
    assert (await server.found("certificate")).state == "ok"


async def test_a_certificate_that_is_about_to_expire_warns_and_an_expired_one_fails(site: Site) -> None:
    server = Server(site)
    validity_s = server.profile.not_after_s - server.profile.not_before_s
    server.clock.elapse(0.9 * validity_s)
    found = await server.found("certificate")
    assert (found.state, "expires in" in found.reason) == ("warning", True)
    server.clock.elapse(0.2 * validity_s)
    assert (await server.found("certificate")).state == "failed"


@pytest.mark.parametrize(("when_unheard", "state"), [("sign", "warning"), ("refuse", "failed")])
async def test_a_silent_ledger_warns_and_fails_where_it_ends_signing(
    site: Site, when_unheard: str, state: str
) -> None:
    server = Server(site, when_unheard=when_unheard, max_age_s=30.0, max_unheard_s=300.0)
    assert server.checks["ledger"]().state == "warning"  # it was not asked yet
    assert (await server.found("ledger")).state == "ok"
    server.ledger.silent = True
    server.clock.elapse(29)
    assert (await server.found("ledger")).state == "ok"
    server.clock.elapse(2)
    found = await server.found("ledger")
    assert (found.state, "silent for 31 s" in found.reason) == ("warning", True)
    server.clock.elapse(300)
    assert (await server.found("ledger")).state == state
    server.ledger.silent = False
    assert (await server.found("ledger")).state == "ok"


class Broken:
    """A key that another machine holds, which does not answer until it is mended."""

    algorithm = "ES256"

    def __init__(self, own: Any) -> None:
        self._own, self.mended, self.asked = own, False, 0
        self.public_key_der = own.public_key_der

    def sign(self, data: bytes) -> bytes:
        self.asked += 1
        if not self.mended:
            raise LocalError("the token is not in its slot")
        return bytes(self._own.sign(data))


async def test_a_key_that_does_not_sign_fails_and_is_tried_again_after_a_while(site: Site) -> None:
    server = Server(site)
    credential = server.wanted.value
    broken = Broken(credential.signer)
    object.__setattr__(credential, "signer", broken)
    probe = KeyProbe(server.switch, server.clock)
    assert [probe.check().state for _ in range(5)] == ["failed"] * 5
    assert (broken.asked, "not in its slot" in probe.check().reason) == (1, True)
    broken.mended = True
    server.clock.elapse(AGAIN_S)
    assert (probe.check().state, broken.asked) == ("ok", 2)


async def test_a_key_of_another_certificate_fails(site: Site) -> None:
    server = Server(site)
    object.__setattr__(server.wanted.value, "signer", generate_es256())
    assert server.checks["key"]().state == "failed"
