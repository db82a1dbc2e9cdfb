from collections.abc import Callable
from pathlib import Path

import pytest

from authn_server.config import EXAMPLE, load_setup
from authn_server.main import main
from tests.piped import error_of, piped, result_of
from tests.reloaded import takes_level
from voice_dpki.effects import SystemClock
from voice_dpki.errors import LocalError
from voice_dpki.names import Tn
from voice_dpki.sip.redirect import Dialect
from voice_dpki.wire.sip.asked import Terms
from voice_dpki.x509.keys import generate_es256, to_pem
from voice_dpki.x509.tnauthlist import TnAuthList

from .conftest import Site


def test_the_example_is_a_configuration(site: Site) -> None:
    setup = load_setup(site.config, SystemClock())
    assert setup.tokens.value == ("t0ken-of-the-proxy", "another-proxy")
    assert (
        setup.credential.value.info == f"https://certs.a.example/{setup.credential.value.profile.digest.hex()}.der"
    )
    assert setup.credential.value.authorises(Tn("493023125999"))


def test_sighup_reads_the_level_of_logs(site: Site) -> None:
    setup = load_setup(site.config, SystemClock())
    assert takes_level(site.config)
    assert setup.config.log.level == "info"


def test_service_provider_codes_get_their_numbers_from_the_configuration(site: Site) -> None:
    site.write(EXAMPLE + '\n[[spc_ranges]]\nstart = "493023125000"\ncount = 10\n', listed=TnAuthList(("709J",)))
    credential = load_setup(site.config, SystemClock()).credential.value
    assert credential.authorises(Tn("493023125009"))
    assert not credential.authorises(Tn("493023125010"))


def test_the_page_on_sip_has_a_configuration(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    page = (Path(__file__).parents[2] / "docs/stir-sip.md").read_text()
    site.write(page.partition("```toml\n")[2].partition("```")[0])
    sip = load_setup(site.config, SystemClock()).sip
    assert sip is not None
    assert sip.peers["127.0.0.1"].terms == Terms("A", attest_by_header=False)
    assert sip.peers["192.0.2.7"].dialect == Dialect(503, x_header=True)
    assert sip.peers["192.0.2.7"].terms == Terms("C")
    assert main(["check-config", "--config", str(site.config)]) == 0
    assert "  SIP          127.0.0.1:5070, 3 peers\n" in capsys.readouterr().out


SIP = '[sip]\nlisten = { port = 5070 }\n[[sip.peers]]\naddress = "127.0.0.1"\n'


@pytest.mark.parametrize(
    ("sip", "message"),
    [
        (SIP, "neither attest nor attest_by_header"),
        (SIP + 'attest = "D"\n', r"sip\.peers\[0\]\.attest"),
        (SIP + 'attest = "A"\nanswer = 301\n', r"sip\.peers\[0\]\.answer"),
        ("[sip]\nlisten = { port = 5070 }\npeers = []\n", r"sip\.peers"),
    ],
)
def test_what_sip_lacks(site: Site, sip: str, message: str) -> None:
    with pytest.raises(LocalError, match=message):
        load_setup(site.write(f"{EXAMPLE}\n{sip}").config, SystemClock())


@pytest.mark.parametrize(
    ("match", "damage"),
    [
        ("authn.der", lambda site: (site.folder / "authn.der").unlink()),
        ("authn.der.*well-formed", lambda site: (site.folder / "authn.der").write_bytes(b"x")),
        (
            r"authn\.pem: not an unencrypted private key in PEM form",
            lambda site: (site.folder / "authn.pem").write_bytes(b"x"),
        ),
        ("private key", lambda site: (site.folder / "authn.pem").write_bytes(to_pem(generate_es256()))),
        ("no secret", lambda site: (site.folder / "proxy.tokens").write_text("# none yet\n")),
        ("validity", lambda site: site.write(valid_s=-60)),
        ("TNAuthList", lambda site: site.write(listed=None)),
        ("organisation", lambda site: site.write(EXAMPLE.replace("Operator A", "Operator B"))),
        ("info_url", lambda site: site.write(EXAMPLE.replace("{digest}", "cert"))),
        ("max_iat_skew_s", lambda site: site.write(EXAMPLE.replace("max_iat_skew_s = 60", "max_iat_skew_s = 0"))),
        ("max_skew", lambda site: site.write(EXAMPLE.replace("max_iat_skew_s", "max_skew"))),
        ("spc_ranges", lambda site: site.write(EXAMPLE + '\n[[spc_ranges]]\nstart = "x"\ncount = 2\n')),
    ],
)
def test_what_to_mend_is_said_before_a_socket_is_bound(
    site: Site, match: str, damage: Callable[[Site], object]
) -> None:
    damage(site)
    with pytest.raises(LocalError, match=match):
        load_setup(site.config, SystemClock())


def test_check_config_tells_what_it_could_sign(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check-config", "--config", str(site.config)]) == 0
    told = capsys.readouterr().out
    assert "1000 numbers" in told
    assert "Operator A" in told


def test_check_config_tells_scripts_in_json(site: Site) -> None:
    told = result_of(main, "check-config", "--config", site.config)
    assert (told["domain"], told["organization"], told["signs"]) == ("a.example", "Operator A", "could")
    profile = load_setup(site.config, SystemClock()).credential.value.profile
    assert (told["certificate"], told["not_after_s"]) == (profile.digest.hex(), profile.not_after_s)
    assert (told["numbers"], told["spcs"], told["sip"]) == (1000, [], None)
    lines = piped("authn-server", "check-config", "--config", site.config).stdout.splitlines()
    assert next(line for line in lines if "  ledger  " in line).endswith("the certificate must be recorded there")
    site.write(valid_s=-60)
    assert "its validity has not begun or is over" in error_of(main, "check-config", "--config", site.config)


def test_check_config_tells_what_is_wrong(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    site.write(valid_s=-60)
    assert main(["check-config", "--config", str(site.config)]) == 2
    assert "its validity has not begun or is over" in capsys.readouterr().err


def test_help_teaches_with_the_example(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["--help"])
    assert stopped.value.code == 0
    told = capsys.readouterr().out
    assert all(line in told for line in EXAMPLE.splitlines())


def test_a_country_is_checked_before_a_socket_is_bound(site: Site) -> None:
    assert load_setup(site.config, SystemClock()).country is None
    example = EXAMPLE.replace('# country = "DE"', 'country = "DE"')
    site.write(example)
    country = load_setup(site.config, SystemClock()).country
    assert country is not None
    assert country.international("03023125001") == "+493023125001"
    site.write(example.replace('"DE"', '"XX"'))
    with pytest.raises(LocalError, match="no country of ISO 3166-1"):
        load_setup(site.config, SystemClock())
