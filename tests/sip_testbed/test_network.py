import asyncio
import signal
import stat
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from sip_testbed.network import Testbed
from sip_testbed.network_config import service_configs
from sip_testbed.provision import (
    ADDRESSES,
    CALLEES,
    CALLER,
    FEDERATION,
    OPERATORS,
    LedgerKind,
    Site,
)
from voice_dpki.effects import SystemClock, SystemRandom
from voice_dpki.errors import LocalError
from voice_dpki.ledger.genesis import load_genesis
from voice_dpki.shell.config import to_toml
from voice_dpki.stage.addresses import Addresses
from voice_dpki.stage.processes import ProcessError
from voice_dpki.stage.site import Credential
from voice_dpki.wire.ledger.client import LedgerClient
from voice_dpki.x509.profile import read_profile


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    addresses = Addresses(ADDRESSES)
    yield Site(tmp_path, addresses, SystemClock(), SystemRandom())
    addresses.close()


class TestSite:
    def test_genesis_names_both_operators_and_nobody_else(self, site: Site) -> None:
        genesis = load_genesis(site.genesis.read_bytes())
        assert [member.organization for member in genesis.members] == ["Operator A", "Operator B"]
        assert len(genesis.validators.validators) == 2

    def test_certificates_say_what_their_holders_may(self, site: Site) -> None:
        signer, caller, callee = (read_profile(held.der) for held in (site.signer, site.caller, site.callee))
        assert signer.tn_auth_list is not None
        assert signer.tn_auth_list.covers(CALLER)
        assert signer.key_algorithm == "ES256"
        assert caller.uris == (f"sip:+{CALLER}@a.example",)
        assert callee.uris == tuple(f"sip:+{number}@b.example" for number in CALLEES)
        assert {caller.key_algorithm, callee.key_algorithm} == {"ES256"}
        standard = [read_profile(held.der) for held in (site.standard_caller, site.standard_callee)]
        assert [held.key_algorithm for held in standard] == ["PS256"] * 2
        assert [held.uris for held in standard] == [caller.uris, callee.uris]

    def test_nobody_else_can_read_what_is_written(self, site: Site) -> None:
        service_configs(site)
        files = [path for path in site.folder.rglob("*") if path.is_file()]
        assert len(files) > 12
        assert {stat.S_IMODE(path.stat().st_mode) for path in files} == {0o600}

    def test_secrets_are_made_afresh(self, site: Site, tmp_path: Path) -> None:
        other = Site(tmp_path / "other", site.addresses, SystemClock(), SystemRandom())
        assert len({*site.tokens.values(), *other.tokens.values()}) == 12
        assert site.passwords["a"] != site.passwords["b"]


class TestFederation:
    @pytest.fixture
    def site(self, tmp_path: Path) -> Iterator[Site]:
        addresses = Addresses(ADDRESSES)
        yield Site(tmp_path, addresses, SystemClock(), SystemRandom(), LedgerKind.FEDERATION)
        addresses.close()

    def test_each_of_four_operators_has_a_validator_with_a_key_and_an_address_of_its_own(self, site: Site) -> None:
        genesis = load_genesis(site.genesis.read_bytes())
        assert [member.organization for member in genesis.members] == [each.organization for each in FEDERATION]
        assert {key for member in genesis.members for key in member.validators} == {
            validator.public_key for validator in genesis.validators.validators
        }
        assert len({site.addresses[f"validator-{operator.letter}"].host for operator in FEDERATION}) == 4

    def test_each_validator_knows_its_three_peers_and_no_key_but_its_own(self, site: Site) -> None:
        configs = service_configs(site)
        assert "engine" not in configs
        for operator in FEDERATION:
            settings = tomllib.loads(to_toml(configs[f"validator-{operator.letter}"]))["cometbft"]
            others = {each.letter for each in FEDERATION} - {operator.letter}
            expected = {f"{site.node_ids[other]}@{site.addresses[f'cometbft-p2p-{other}']}" for other in others}
            assert set(settings["peers"]) == expected
            assert settings["validator_key"] == f"{operator.letter}/validator.pem"

    def test_nobody_else_can_read_what_is_written(self, site: Site) -> None:
        assert len(list(site.folder.glob("cometbft-?/config/node_key.json"))) == 4
        files = [path for path in site.folder.rglob("*") if path.is_file()]
        assert {stat.S_IMODE(path.stat().st_mode) for path in files} == {0o600}

    def test_each_operator_asks_and_submits_at_its_own_validator(self, site: Site) -> None:
        configs = service_configs(site)
        urls = [configs[f"ledger-{operator.letter}"]["follow"] for operator in OPERATORS]
        assert urls == [{"url": f"http://{site.addresses[f'validator-{each.letter}']}"} for each in OPERATORS]

    def test_the_verifier_holds_headers_to_every_other_operators_node(self, site: Site) -> None:
        config = service_configs(site)["verify-b"]
        others = [f"http://{site.addresses[f'validator-{letter}']}" for letter in "acd"]
        assert (config["witnesses"], config["trust_file"]) == (others, "trust-verify-b.json")


@pytest.fixture(scope="module")
def testbed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Testbed]:
    with Testbed(tmp_path_factory.mktemp("logs")) as testbed:
        testbed.start()
        testbed.record_all()
        yield testbed


def status(testbed: Testbed, credential: Credential, letter: str = "b") -> str:
    async def ask() -> str:
        genesis = load_genesis(testbed.site.genesis.read_bytes())
        url = f"http://{testbed.addresses[f'ledger-{letter}']}"
        async with LedgerClient.of_genesis(url, genesis) as ledger:
            return (await ledger.resolve(credential.digest)).status.value

    return asyncio.run(ask())


class TestNetwork:
    def test_everything_listens(self, testbed: Testbed) -> None:
        assert set(testbed.running) == set(service_configs(testbed.site))
        assert all(running.status is None for running in testbed.running.values())

    def test_certificates_are_recorded_where_the_other_operator_asks(self, testbed: Testbed) -> None:
        site = testbed.site
        telephones = site.caller, site.callee, site.standard_caller, site.standard_callee
        assert [status(testbed, held) for held in (site.signer, *telephones)] == ["valid"] * 5
        assert status(testbed, site.callee, "a") == "valid"

    def test_a_revocation_is_known_to_both_once_it_returns(self, testbed: Testbed) -> None:
        stolen = testbed.site.signing_credential("stolen")
        assert status(testbed, stolen) == "unknown"
        recorded = testbed.record({"a": (stolen,)})
        assert status(testbed, stolen) == "valid"
        assert testbed.revoke(stolen) > recorded
        assert [status(testbed, stolen, operator.letter) for operator in OPERATORS] == ["revoked"] * 2

    def test_memory_is_measured(self, testbed: Testbed) -> None:
        memory = testbed.memory_mb()
        assert all(5 < size < 120 for size in memory.values())

    def test_an_actor_runs_once(self, testbed: Testbed) -> None:
        with pytest.raises(LocalError, match="runs already"):
            testbed.launch("proxy-a", {})


def test_recording_ends_with_the_node_that_died(tmp_path: Path) -> None:
    """The submission node lives, and would say for long that it is busy."""
    with Testbed(tmp_path) as testbed:
        testbed.start()
        testbed.running["engine"].send(signal.SIGKILL)
        with pytest.raises(ProcessError, match=r"engine ended with status -9, and is still needed .*; its log "):
            testbed.record({"a": (testbed.site.signing_credential("late"),)})
        assert testbed.running["ledger-a"].status is None
