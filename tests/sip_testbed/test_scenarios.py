import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from authn_server.config import load_setup as load_authn
from ledger_node.command.config import load as load_ledger
from sip_testbed import path, proxy_config, user_agent_config
from sip_testbed.network_config import path_config, service_configs
from sip_testbed.network_config import user_agent_config as user_agent_sections
from sip_testbed.placing import CODECS, SRTP_PROFILES
from sip_testbed.provision import ADDRESSES, CALLEE, CALLER, OPERATORS, Site
from sip_testbed.scenarios import DEFAULT, PLAIN, SCENARIOS, Key, Scenario
from voice_dpki.effects import SystemClock, SystemRandom
from voice_dpki.shell.config import load_config
from voice_dpki.stage.addresses import Addresses
from voice_dpki.stir.verdict import Step

ATTACKS = [scenario for scenario in SCENARIOS.values() if scenario.attack]
ON_THE_PATH = [scenario for scenario in ATTACKS if scenario.attack and scenario.attack.mode]


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    addresses = Addresses(ADDRESSES)
    yield Site(tmp_path, addresses, SystemClock(), SystemRandom())
    addresses.close()


class TestTable:
    def test_the_attacks_that_were_asked_for_are_there(self) -> None:
        wanted = "number-outside-range identity-replayed sdp-changed signer-not-recorded signer-revoked stale-date"
        wanted += " key-mgmt-stripped mikey-changed no-identity"
        assert {scenario.name for scenario in ATTACKS} >= set(wanted.split())

    @pytest.mark.parametrize("scenario", SCENARIOS.values(), ids=list(SCENARIOS))
    def test_each_says_in_one_line_what_it_shows(self, scenario: Scenario) -> None:
        assert re.fullmatch(r"[a-z]+(-[a-z]+)*", scenario.name)
        assert re.fullmatch(r"[^\t\n]{20,120}\.", scenario.shows)
        assert scenario.expected.sentence.endswith(".")

    @pytest.mark.parametrize("scenario", ATTACKS, ids=lambda scenario: scenario.name)
    def test_each_attack_names_the_step_that_refuses(self, scenario: Scenario) -> None:
        steps = {step.label: (step.reasoncode, step.verstat) for step in Step}
        expected = scenario.expected
        assert expected.refused_by
        if expected.refused_by in steps:
            assert steps[expected.refused_by] == (expected.reasoncode, expected.verstat)

    def test_the_good_calls_are_no_attacks(self) -> None:
        assert [name for name, scenario in SCENARIOS.items() if not scenario.attack] == [DEFAULT, PLAIN]


class TestConfigurations:
    """What the testbed writes is what the programs read: each file goes through its own program's loader."""

    @pytest.mark.parametrize("scenario", ON_THE_PATH, ids=lambda scenario: scenario.name)
    def test_of_the_attacker(self, scenario: Scenario, site: Site) -> None:
        assert scenario.attack is not None
        file = site.config("path", path_config(site, scenario.attack, site.signer))
        config = load_config(file, path.PathConfig)
        attack = path.make_attack(config, file, SystemClock(), SystemRandom())
        assert (scenario.attack.key is Key.NONE) == (config.resign is None)
        assert attack is not None

    @pytest.mark.parametrize("protected", [True, False])
    def test_of_the_proxies(self, protected: bool, site: Site) -> None:
        configs = service_configs(site, protected=protected)
        a, b = (
            proxy_config.load_setup(site.config(actor, configs[actor])).config for actor in ("proxy-a", "proxy-b")
        )
        assert (a.signing is not None, b.verification is not None) == (protected, protected)
        assert (a.require_registration, a.allow_md5) == (True, False)

    def test_of_the_services(self, site: Site) -> None:
        configs = service_configs(site)
        files = {actor: site.config(actor, sections) for actor, sections in configs.items()}
        assert load_authn(files["authn-a"], SystemClock()).credential.value.profile.organization == "Operator A"
        assert load_ledger(files["engine"]).engine is not None
        assert [load_ledger(files[f"ledger-{letter}"]).follow is not None for letter in "ab"] == [True, True]

    @pytest.mark.parametrize("codec", CODECS)
    @pytest.mark.parametrize("srtp", [*SRTP_PROFILES, None])
    def test_of_the_telephones(self, codec: str, srtp: str | None, site: Site) -> None:
        say = Path("sip_testbed/speech/caller.wav").resolve()
        for role, number, target in (("caller", CALLER, f"sip:+{CALLEE}@b.example"), ("callee", CALLEE, None)):
            sections = user_agent_sections(
                site, role, number=number, codec=CODECS[codec], srtp=srtp, say=say, out=site.folder, target=target
            )
            setup = user_agent_config.load_setup(site.config(role, sections))
            assert (setup.codec.name, setup.call and setup.call.target) == (CODECS[codec], target)
            assert (setup.credentials is not None) == (srtp is not None)

    def test_operators_are_two(self) -> None:
        assert [operator.letter for operator in OPERATORS] == ["a", "b"]
