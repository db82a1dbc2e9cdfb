"""The configurations of proxy and attacker: the examples work, and every mistake is an error with a name."""

from pathlib import Path

import pytest

from sip_testbed import path, proxy_config
from sip_testbed.path import PathConfig, make_attack
from sip_testbed.proxy_config import Access, load_setup, service_url
from sip_testbed.proxy_stir import StirService
from voice_dpki.effects import SystemClock, SystemRandom
from voice_dpki.errors import LocalError
from voice_dpki.shell.config import load_config
from voice_dpki.shell.reload import reload_all
from voice_dpki.shell.tls import make_certificate
from voice_dpki.sip.digest import MD5, SHA_256

USERS = '[[users]]\nnumber = "+49 (30) 23125-001"\npassword = "x"\n'.replace(" (30) ", "30")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "proxy.toml").write_text(proxy_config.EXAMPLE)
    (tmp_path / "path.toml").write_text(path.EXAMPLE)
    (tmp_path / "users.toml").write_text(USERS)
    for name in ("sign-a.token", "verify-a.token"):
        (tmp_path / name).write_text("secret\n")
    return tmp_path


def test_the_example_works(folder: Path) -> None:
    setup = load_setup(folder / "proxy.toml")
    assert setup.config.name == "Operator A"
    assert (setup.signing, setup.verification) == (Access("secret"), Access("secret"))
    secret = setup.users.secret("493023125001")
    assert secret is not None
    assert secret == setup.users.secret("+493023125001")
    assert secret.algorithm == SHA_256
    assert setup.users.secret("nobody") is None


def test_a_service_is_asked_over_tls_where_that_is_configured(folder: Path) -> None:
    for name in ("proxy", "a"):
        make_certificate(folder, name, "Operator A", 30)
    tls = 'tls = { certificate = "proxy.pem", key = "proxy-key.pem", servers = ["a.pem"] }'
    text = proxy_config.EXAMPLE.replace(f"# {tls}", tls)
    (folder / "proxy.toml").write_text(text)
    setup = load_setup(folder / "proxy.toml")
    assert setup.signing is not None
    assert setup.verification is not None
    assert (setup.signing.tls is not None, setup.verification.tls) == (True, None)
    with pytest.raises(LocalError, match="must begin with https"):
        StirService("the server", "http://127.0.0.2:8081", setup.signing, 2000)
    StirService("the server", "https://127.0.0.2:8081", setup.signing, 2000)


def test_tls_for_sip_is_read_whole(folder: Path) -> None:
    commented = proxy_config.EXAMPLE
    for line in (
        "[tls]",
        "port = 5061",
        'certificate = "proxy.pem"',
        'key = "proxy-key.pem"',
        'peers = ["peers/"]',
    ):
        assert f"# {line}" in commented
        commented = commented.replace(f"# {line}", line)
    (folder / "proxy.toml").write_text(commented)
    with pytest.raises(LocalError, match=r"proxy\.pem"):
        load_setup(folder / "proxy.toml")
    make_certificate(folder, "proxy", "Operator A", 30)
    make_certificate(folder / "peers", "b", "Operator B", 30)
    (folder / "peers" / "b-key.pem").unlink()
    tls = load_setup(folder / "proxy.toml").tls
    assert tls is not None
    assert tls.value.tls.server is not None
    assert tls.value.tls.port == 5061
    assert load_setup(folder / "proxy.toml").config.listen.port == 5060
    before = tls.value.server
    (folder / "proxy.pem").unlink()
    (folder / "proxy-key.pem").unlink()
    make_certificate(folder, "proxy", "Operator A", 60)
    assert reload_all()
    assert tls.value.server.not_after_s > before.not_after_s


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ('domain = "a.example"', 'dommain = "a.example"', "dommain"),
        ('domain = "b.example"', "", "either a prefix or a domain"),
        ('prefix = "+44"', 'domain = "c.example"', "to_domain goes with a prefix"),
        ("[signing]", '[[routes]]\nprefix = "44"\nnext_hop = "udp:127.0.0.3:1"\n[signing]', "44 is routed twice"),
        ('host = "127.0.0.2"', 'host = "0.0.0.0"', "listen.advertise is missing"),
        ('host = "127.0.0.2"', 'host = "::"', "listen.advertise is missing"),
        ('host = "127.0.0.2"', 'host = "0.0.0.0"\nadvertise = "::"', "listen.advertise is no address of one host"),
        ('host = "127.0.0.2"', 'host = "localhost"', "listen.host: localhost is no numeric address"),
        ("udp:127.0.0.3:5060", "127.0.0.3", "write it like"),
        ("udp:127.0.0.3:5060", "tls:127.0.0.3:5061", r"\[tls\] is missing"),
        ("users.toml", "missing.toml", "missing.toml"),
        ("sign-a.token", "missing.token", "missing.token"),
        ('policy = "refuse"', 'policy = "maybe"', "policy"),
        ("[listen]", "[registration]\nmin_s = 900\n[listen]", "min_s"),
    ],
)
def test_a_mistake_is_named(folder: Path, old: str, new: str, says: str) -> None:
    assert old in proxy_config.EXAMPLE
    (folder / "proxy.toml").write_text(proxy_config.EXAMPLE.replace(old, new, 1))
    with pytest.raises(LocalError, match=says):
        load_setup(folder / "proxy.toml")


@pytest.mark.parametrize(
    ("users", "says"),
    [
        (USERS + 'ha1 = "00"\n', "ha1"),
        (USERS + f'ha1 = "{"0" * 64}"\n', "not both"),
        (USERS.replace('password = "x"', ""), "password, or ha1"),
        (USERS + "md5 = true\n", "allow_md5"),
        (USERS.replace("+49", "x"), "number"),
    ],
)
def test_a_mistake_about_a_user_is_named(folder: Path, users: str, says: str) -> None:
    (folder / "users.toml").write_text(users)
    with pytest.raises(LocalError, match=says):
        load_setup(folder / "proxy.toml")


def test_older_telephones_are_admitted_where_that_is_allowed(folder: Path) -> None:
    (folder / "users.toml").write_text(USERS + "md5 = true\n")
    example = proxy_config.EXAMPLE.replace("allow_md5 = false", "allow_md5 = true")
    (folder / "proxy.toml").write_text(example)
    secret = load_setup(folder / "proxy.toml").users.secret("+493023125001")
    assert secret is not None
    assert secret.algorithm == MD5


def test_a_service_url_has_the_standard_path_unless_it_has_one() -> None:
    assert service_url("http://127.0.0.1:8081", "/stir/v1/signing") == "http://127.0.0.1:8081/stir/v1/signing"
    assert service_url("http://127.0.0.1:8081/", "/stir/v1/signing") == "http://127.0.0.1:8081/stir/v1/signing"
    assert service_url("https://x/y", "/stir/v1/signing") == "https://x/y"
    with pytest.raises(LocalError):
        service_url("ftp://x", "/")


@pytest.mark.parametrize("change", ["mode = 'resign'", "mode = 'resign'\n[resign]\nkey = 'a'", "mode = 'dance'"])
def test_a_mistake_of_the_attacker_is_named(folder: Path, change: str) -> None:
    (folder / "path.toml").write_text(f"{change}\n[listen]\nport = 0\n[[routes]]\nnext_hop = 'udp:127.0.0.1:1'\n")
    with pytest.raises(LocalError):
        make_attack(
            load_config(folder / "path.toml", PathConfig), folder / "path.toml", SystemClock(), SystemRandom()
        )
