from collections.abc import Callable
from pathlib import Path

import pytest

from tests.piped import error_of, piped, result_of
from tests.reloaded import takes_level
from verify_server.config import EXAMPLE, SET_S, load_setup
from verify_server.main import main
from voice_dpki.errors import LocalError
from voice_dpki.shell.reload import reload_all
from voice_dpki.stir.examine import Policy
from voice_dpki.stir.profile import Profile
from voice_dpki.stir.replay import RepeatedToken, Sighting, TokenUse

from .conftest import Site

LEDGER_TLS = 'ledger_tls = { certificate = "tls.der", key = "tls.pem", servers = ["ledger.der"] }\n'


def test_the_example_is_a_configuration(site: Site) -> None:
    setup = load_setup(site.config)
    assert setup.ledger.genesis.chain_id == "test"
    assert setup.tokens.value == ("t0ken-of-the-proxy",)
    assert setup.config.policy().freshness_s == 60


def test_sighup_reads_the_level_of_logs(site: Site) -> None:
    setup = load_setup(site.config)
    assert takes_level(site.config)
    assert setup.config.log.level == "info"


def test_tokens_are_read_again(site: Site) -> None:
    setup = load_setup(site.config)
    (site.folder / "proxy.tokens").write_text("a-newer-token\n")
    assert reload_all()
    assert setup.tokens.value == ("a-newer-token",)


def test_signatures_are_remembered_for_as_long_as_they_could_be_fresh(site: Site) -> None:
    replays, use = load_setup(site.config).config.replay_cache(500), TokenUse(b"x", b"c1", "Operator A", 990)
    assert replays.claim(use, 1000) is Sighting.NEW
    assert replays.look(use, 1120 + SET_S) is Sighting.SAME_CALL
    assert replays.look(use, 1121 + SET_S) is Sighting.NEW


def test_what_was_signed_before_the_start_is_not_known(site: Site) -> None:
    replays = load_setup(site.config).config.replay_cache(990.7)
    assert replays.look(TokenUse(b"x", b"c1", "Operator A", 989), 1000) is Sighting.UNKNOWN
    assert replays.look(TokenUse(b"x", b"c1", "Operator A", 990), 1000) is Sighting.NEW


def test_repeated_tokens_are_judged_as_configured(site: Site) -> None:
    assert load_setup(site.config).config.policy().repeated_token is RepeatedToken.ACCEPT
    site.write(f'{EXAMPLE}\n[replay]\nrepeated_token = "refuse"\nb2bua = ["sbc"]\n')
    (site.folder / "proxy.tokens").write_text("sbc a-token\n")
    policy = load_setup(site.config).config.policy()
    assert (policy.repeated_token, policy.b2bua) == (RepeatedToken.REFUSE, frozenset({"sbc"}))
    site.write(f'{EXAMPLE}\n[replay]\nb2bua = ["another"]\n')
    with pytest.raises(LocalError, match=r"replay\.b2bua: no token has the name 'another'"):
        load_setup(site.config)


@pytest.mark.parametrize(
    ("match", "damage"),
    [
        ("genesis.json", lambda site: (site.folder / "genesis.json").unlink()),
        ("genesis.json", lambda site: (site.folder / "genesis.json").write_bytes(b"{}")),
        ("no secret", lambda site: (site.folder / "proxy.tokens").write_text("")),
        ("freshness_s", lambda site: site.write(EXAMPLE.replace("freshness_s = 60", "freshness_s = -1"))),
        ("no http or https URL", lambda site: site.write(EXAMPLE.replace("http://", ""))),
        ("junk: no http", lambda site: site.write(EXAMPLE.replace("witnesses = []", 'witnesses = ["junk"]'))),
        ("no trusted header", lambda site: (site.folder / "ledger-trust.json").write_text("{}")),
        ("tls.der", lambda site: site.write(LEDGER_TLS + EXAMPLE)),
        ("replay_max_entries", lambda site: site.write(EXAMPLE.replace("200000", "0"))),
        ("require", lambda site: site.write(EXAMPLE.replace("require_key_mgmt", "require_keymgmt"))),
    ],
)
def test_what_to_mend_is_said_before_a_socket_is_bound(
    site: Site, match: str, damage: Callable[[Site], object]
) -> None:
    damage(site)
    with pytest.raises(LocalError, match=match):
        load_setup(site.config)


def test_what_has_to_be_signed_is_configured(site: Site) -> None:
    assert load_setup(site.config).config.policy() == Policy()
    text = EXAMPLE.replace("require_key_mgmt = false", "require_key_mgmt = true")
    site.write(
        text.replace("require_sdp = false", "require_sdp = true").replace("freshness_s = 60", "freshness_s = 9")
    )
    assert load_setup(site.config).config.policy() == Policy(9, require_key_mgmt=True, require_sdp=True)


def test_who_may_grant_priority_is_configured(site: Site) -> None:
    assert load_setup(site.config).config.policy().priority == {}
    site.write(f'{EXAMPLE}\n[priority]\n"Operator A" = ["ETS", "wps"]\n')
    assert load_setup(site.config).config.policy().priority == {"Operator A": {"ets", "wps"}}
    site.write(f'{EXAMPLE}\n[priority]\n"Operator A" = ["ets.0"]\n')
    with pytest.raises(LocalError, match="priority"):
        load_setup(site.config)


def test_the_rules_of_a_country_are_configured(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    policy = load_setup(site.write(EXAMPLE.replace("# profile", "profile")).config).config.policy()
    assert (policy.profile, [kind.ppt for kind in policy.kinds]) == (Profile.MAN, ["shaken"])
    assert main(["check-config", "--config", str(site.config)]) == 0
    assert "profile      man" in capsys.readouterr().out
    with pytest.raises(LocalError, match="profile"):
        load_setup(site.write(EXAMPLE.replace('# profile = "man"', 'profile = "usa"')).config)


def test_check_config_tells_how_it_would_verify(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check-config", "--config", str(site.config)]) == 0
    told = capsys.readouterr().out
    assert "200000 signatures remembered" in told
    assert "witnesses    none" in told


def test_check_config_tells_scripts_in_json(site: Site) -> None:
    told = result_of(main, "check-config", "--config", site.config)
    assert (told["witnesses"], told["replay_max_entries"], told["rules"]) == ([], 200_000, None)
    assert told["requires_key_mgmt"] is load_setup(site.config).config.require_key_mgmt
    lines = piped("verify-server", "check-config", "--config", site.config).stdout.splitlines()
    assert "  outside      none: of a signer who is not on the ledger, nothing is known" in lines
    (site.folder / "genesis.json").unlink()
    assert "genesis.json" in error_of(main, "check-config", "--config", site.config)


def test_check_config_tells_what_is_wrong(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    (site.folder / "genesis.json").unlink()
    assert main(["check-config", "--config", str(site.config)]) == 2
    assert "genesis.json" in capsys.readouterr().err


def test_help_teaches_with_the_example(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["--help"])
    assert stopped.value.code == 0
    told = capsys.readouterr().out
    assert all(line in told for line in EXAMPLE.splitlines())


def test_sip_is_checked_and_told(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    page = (Path(__file__).parents[2] / "docs/stir-sip.md").read_text()
    sip = page.split("```toml\n")[2].partition("```")[0]
    assert main(["check-config", "--config", str(site.write(f"{EXAMPLE}\n{sip}").config)]) == 0
    assert "  SIP          127.0.0.1:5071, 1 peer\n" in capsys.readouterr().out
    unnamed = sip.replace('address = "127.0.0.1"', 'address = "as.example"')
    with pytest.raises(LocalError, match=r"as\.example is no numeric address"):
        load_setup(site.write(f"{EXAMPLE}\n{unnamed}").config)


def test_a_country_is_checked_before_a_socket_is_bound(site: Site) -> None:
    assert load_setup(site.config).country is None
    country = load_setup(site.write(EXAMPLE.replace('# country = "DE"', 'country = "GB"')).config).country
    assert country is not None
    assert country.international("02079460001") == "+442079460001"
    with pytest.raises(LocalError, match="no country of ISO 3166-1"):
        load_setup(site.write(EXAMPLE.replace('# country = "DE"', 'country = "XX"')).config)
