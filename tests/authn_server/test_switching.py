"""Another certificate takes the place of the one in use, once the ledger vouches for it."""

import logging
from pathlib import Path

import pytest

from authn_server.config import AuthnSetup, FollowConfig, load_setup
from authn_server.standing import LedgerRegistry, Unfollowed
from authn_server.switching import Switch
from voice_dpki.effects import SystemClock
from voice_dpki.ledger.answers import Resolution
from voice_dpki.ledger.records import CertStatus
from voice_dpki.names import CertDigest
from voice_dpki.shell.reload import reload_all

from .conftest import Site
from .test_standing import ToldLedger

FOLLOW = FollowConfig(url="http://127.0.0.1:1", genesis="genesis.json")


class Ledger:
    """Says the same of every certificate that a test has told it about, and that it has no other."""

    def __init__(self) -> None:
        self.told: dict[CertDigest, ToldLedger] = {}

    def tell(self, setup: AuthnSetup, status: CertStatus = CertStatus.VALID) -> None:
        profile = setup.credential.value.profile
        self.told[profile.digest] = told = ToldLedger(profile)
        told.status = status

    async def look_up(self, digest: CertDigest) -> Resolution:
        return await self.told[digest].look_up(digest)


class Server:
    """A server whose certificate is recorded."""

    def __init__(self, site: Site) -> None:
        self.site, self.ledger = site, Ledger()
        self.setup = load_setup(site.config, SystemClock())
        self.ledger.tell(self.setup)
        self.switch = Switch(self.setup.credential, LedgerRegistry(self.ledger, FOLLOW, SystemClock()))

    @property
    def digest(self) -> str:
        return self.switch.current.credential.profile.digest.hex()

    def replace(self) -> None:
        """Put other files in their place, and have the configuration read again."""
        self.site.write()
        assert reload_all()


@pytest.fixture
def server(site: Site) -> Server:
    return Server(site)


async def test_it_is_taken_when_the_ledger_vouches_for_it(server: Server, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "authn_server.switching")
    before = server.digest
    await server.switch.step()
    server.replace()
    server.ledger.tell(server.setup, CertStatus.UNKNOWN)
    for _ in range(3):
        await server.switch.step()
    assert server.digest == before
    assert "not used yet: this server's certificate is not recorded" in server.switch.shortfall()
    assert server.switch.current.standing.is_good
    server.ledger.tell(server.setup)
    await server.switch.step()
    assert server.digest == server.setup.credential.value.profile.digest.hex() != before
    assert server.switch.shortfall() == ""
    said = [record.message for record in caplog.records if record.name == "authn_server.switching"]
    assert said == ["the new certificate is not used", "signing with another certificate"]


async def test_the_one_in_use_is_followed_while_another_waits(server: Server) -> None:
    old = server.ledger.told[server.setup.credential.value.profile.digest]
    server.replace()
    server.ledger.tell(server.setup, CertStatus.SUSPENDED)
    old.status = CertStatus.REVOKED
    await server.switch.step()
    assert not server.switch.current.standing.is_good
    assert "was revoked" in server.switch.current.standing.health().facts["reason"]
    server.ledger.tell(server.setup)
    await server.switch.step()
    assert server.switch.current.standing.is_good


async def test_a_silent_ledger_vouches_for_nothing(server: Server) -> None:
    before = server.digest
    server.replace()
    server.ledger.tell(server.setup)
    server.ledger.told[server.setup.credential.value.profile.digest].silent = True
    await server.switch.step()
    assert server.digest == before
    assert "does not answer" in server.switch.shortfall()


async def test_without_a_ledger_it_is_taken_at_once(site: Site) -> None:
    setup = load_setup(site.config, SystemClock())
    switch = Switch(setup.credential, Unfollowed())
    site.write()
    assert reload_all()
    await switch.step()
    assert switch.current.credential is setup.credential.value


async def test_the_same_certificate_changes_nothing(server: Server) -> None:
    current = server.switch.current
    assert reload_all()
    await server.switch.step()
    assert server.switch.current is current


def test_files_that_do_not_belong_together_are_refused(server: Server, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (server.site.folder / "authn.pem").write_bytes((Site(other).write().folder / "authn.pem").read_bytes())
    before = server.setup.credential.value
    assert reload_all()
    assert server.setup.credential.value is before


async def test_a_fault_of_our_own_does_not_end_the_following(
    server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    server.replace()  # the ledger was told nothing of this one, and raises KeyError
    await server.switch.step()
    assert "could not be followed" in caplog.text
    server.ledger.tell(server.setup)
    await server.switch.step()
    assert server.digest == server.setup.credential.value.profile.digest.hex()
