"""The gateway's configuration: the example is complete, and what cannot start says why."""

import re
import ssl
from collections.abc import Callable
from pathlib import Path

import pytest

from sip_testbed.gateway_config import EXAMPLE, load_setup
from voice_dpki.effects import SystemClock, SystemRandom
from voice_dpki.errors import LocalError
from voice_dpki.ledger.members import MemberKind
from voice_dpki.sip.digest import MD5, SHA_256
from voice_dpki.stage.site import Founder, SiteFolder
from voice_dpki.x509.keys import generate_es256, generate_rsa

TELEPHONE, GATEWAY = "sip:+442079460123@b.example", "sip:gateway.b.example"
"""What a gateway's certificate names."""


@pytest.fixture
def configured(tmp_path: Path) -> Callable[..., Path]:
    def write(text: str = EXAMPLE, uris: tuple[str, ...] = (TELEPHONE, GATEWAY)) -> Path:
        site = SiteFolder(tmp_path, SystemClock(), SystemRandom())
        site.certify("gateway", generate_rsa(), "Operator B", "gateway b", uris=uris)
        outside = site.certify("gateway-tls-key", generate_es256(), "Operator B", "gateway b")
        site.write("gateway-tls.pem", ssl.DER_cert_to_PEM_cert(outside.der).encode())
        site.secret("domain.password", "of the domain")
        site.secret("telephone.password", "of the telephone")
        site.found(
            "test", [Founder("Operator B", MemberKind.OPERATOR, "b.example", "endorsing.pem", "validator.pem")]
        )
        path = tmp_path / "gateway.toml"
        path.write_text(text)
        return path

    return write


def test_the_example_is_complete(configured: Callable[..., Path]) -> None:
    setup = load_setup(configured())
    (telephone,) = setup.telephones.values()
    assert (setup.name, telephone.number, telephone.media) == ("gateway.b.example", "442079460123", "sdes")
    assert (telephone.account.username, telephone.account.password) == ("+442079460123", "of the domain")
    assert (telephone.secret.password, telephone.secret.algorithm) == ("of the telephone", SHA_256)
    assert not telephone.unprotected_sip
    assert setup.outside_tls is not None
    assert setup.outside_tls.port == 5061


def test_older_telephones_answer_by_md5(configured: Callable[..., Path]) -> None:
    setup = load_setup(configured(EXAMPLE.replace("md5 = false", "md5 = true")))
    assert [telephone.secret.algorithm for telephone in setup.telephones.values()] == [MD5]


@pytest.mark.parametrize(
    ("uris", "why"),
    [
        ((TELEPHONE,), "would pass for a telephone's"),
        ((GATEWAY,), "does not name our identity"),
        ((TELEPHONE, "sip:other.b.example"), "does not name sip:gateway.b.example"),
    ],
)
def test_a_certificate_that_hides_the_gateway_is_refused(
    configured: Callable[..., Path], uris: tuple[str, ...], why: str
) -> None:
    with pytest.raises(LocalError, match=why):
        load_setup(configured(uris=uris))


@pytest.mark.parametrize(
    ("old", "new", "why"),
    [
        ('"udp:127.0.0.3:5060"', '"tls:127.0.0.3:5061"', "[tls] is missing"),
        ('"udp:127.0.0.3:5060"', '"nowhere"', "proxy: "),
        ('media = "sdes"', 'media = "zrtp"', "media"),
        ("max_calls = 64", "max_calls = 0", "max_calls"),
        ('"gateway-tls.pem"', '"gateway.der"', "no certificate and key for TLS"),
        ("[[telephones]]", "[[telefones]]", "telefones"),
    ],
)
def test_what_is_wrong_is_named(configured: Callable[..., Path], old: str, new: str, why: str) -> None:
    with pytest.raises(LocalError, match=re.escape(why)):
        load_setup(configured(EXAMPLE.replace(old, new)))


def test_a_number_has_one_telephone(configured: Callable[..., Path]) -> None:
    telephone = EXAMPLE[EXAMPLE.index("[[telephones]]") : EXAMPLE.index("[metrics]")]
    with pytest.raises(LocalError, match="two telephones have the number"):
        load_setup(configured(EXAMPLE + telephone))
