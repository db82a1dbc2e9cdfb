"""Configurations: the examples in the help are valid, and what is wrong is refused before a socket is bound."""

import tomllib
from pathlib import Path

import msgspec
import pytest

from segw_agent import config, main
from segw_agent.attachment.site import DEVICE_NAME, GATEWAY_NAME, OPERATOR, VENDOR, Site
from segw_agent.bridge import config as bridge
from segw_agent.config import AgentConfig, DeviceConfig, GatewayConfig
from tests.reloaded import takes_level
from voice_dpki.effects import SystemClock, SystemRandom
from voice_dpki.errors import LocalError
from voice_dpki.ikev2.identity import fqdn


@pytest.mark.parametrize(
    ("example", "kind"),
    [
        (config.AGENT_EXAMPLE, AgentConfig),
        (config.GATEWAY_EXAMPLE, GatewayConfig),
        (config.DEVICE_EXAMPLE, DeviceConfig),
    ],
)
def test_examples(example: str, kind: type[msgspec.Struct]) -> None:
    msgspec.convert(tomllib.loads(example), kind)


@pytest.mark.parametrize(
    ("example", "kind"), [(config.AGENT_EXAMPLE, AgentConfig), (config.GATEWAY_EXAMPLE, GatewayConfig)]
)
def test_sighup_reads_the_level_of_logs(
    example: str, kind: type[AgentConfig] | type[GatewayConfig], tmp_path: Path
) -> None:
    path = tmp_path / "segw.toml"
    path.write_text(example)
    policy = config.live_policy(path, kind)
    assert takes_level(path)
    assert policy.value.organizations


def test_sighup_reads_the_level_of_the_bridge_s_logs(tmp_path: Path) -> None:
    path = tmp_path / "bridge.toml"
    path.write_text(bridge.EXAMPLE)
    options = bridge.Bridge.load(path).options()
    assert takes_level(path)
    assert options.config.log.level == "info"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    made = Site(tmp_path_factory.mktemp("site"), SystemClock(), SystemRandom())
    made.credential("segw", GATEWAY_NAME, OPERATOR)
    made.credential("enb1", DEVICE_NAME, VENDOR)
    return made


def gateway(site: Site, **changes: object) -> Path:
    sections: dict[str, object] = {
        "host": "127.0.0.1",
        "pool": "10.9.0.0/24",
        "inner": "10.8.0.0/16",
        "own": {"certificate": "segw.der", "key": "segw.pem"},
        "ledger": {"genesis": "genesis.json"},
        "policy": {"organizations": [VENDOR], "allow": ["*"]},
    }
    return site.config("gateway", sections | changes)


def test_gateway(site: Site) -> None:
    _, setup = config.load_gateway(gateway(site))
    assert setup.party
    assert setup.party.identification == fqdn(GATEWAY_NAME)
    own = {"certificate": "segw.der", "key": "segw.pem", "identity": "subject"}
    _, setup = config.load_gateway(gateway(site, own=own))
    assert setup.party
    assert setup.party.identification.id_type == 9


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"pool": "10.9.0.1/24"}, "no IPv4 network"),
        ({"colour": "red"}, "unknown field"),
        ({"integrity_notify": 100}, "40960"),
        ({"own": {"certificate": "segw.der", "key": "enb1.pem"}}, "not for the signing key"),
        ({"own": {"certificate": "genesis.json", "key": "segw.pem"}}, "malformed|DER"),
        ({"own": {"certificate": "segw.der", "key": "segw.pem", "identity": "x.example"}}, "not the certificate's"),
        ({"ledger": {"genesis": "segw.der"}}, "genesis"),
        ({"policy": {"organizations": [VENDOR]}}, "allow"),
        ({"policy": {"organizations": [VENDOR], "allow": ["a*"]}}, "neither a name"),
        ({"policy": {"organizations": [VENDOR], "allow": ["*"], "measurements": {"boot": ["00"]}}}, "SHA-256"),
    ],
)
def test_what_is_refused(site: Site, changes: dict[str, object], words: str) -> None:
    with pytest.raises(LocalError, match=words):
        config.load_gateway(gateway(site, **changes))


def test_port_in_use_or_not_ours(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    path = gateway(site, host="192.0.2.1", port=10_500, nat_port=14_500)
    assert main.main(["gateway", "--config", str(path)]) == 2
    assert "cannot listen on 192.0.2.1:10500" in capsys.readouterr().err


def test_statements_need_a_key(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    sections: dict[str, object] = {
        "socket": "agent.sock",
        "integrity": {"passed": True},
        "ledger": {"genesis": "genesis.json"},
        "policy": {"organizations": [VENDOR], "allow": ["*"]},
    }
    assert main.main(["start", "--config", str(site.config("agent", sections))]) == 2
    assert "[integrity] needs [own]" in capsys.readouterr().err
