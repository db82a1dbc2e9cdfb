"""An independent STIR implementation judges our Identity."""

import subprocess
import time
from collections.abc import Callable

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from authn_server.config import load_setup
from voice_dpki.effects import SystemClock
from voice_dpki.names import Tn
from voice_dpki.stir.call import SigningRequest
from voice_dpki.stir.passport import Destinations
from voice_dpki.stir.sign import sign_call

from .conftest import Site

pytestmark = pytest.mark.peer("secsipidx")


def secsipidx(site: Site, identity: str) -> subprocess.CompletedProcess[str]:
    """Have secsipidx check `identity` under the public key of the site's certificate."""
    certificate = x509.load_der_x509_certificate((site.folder / "authn.der").read_bytes())
    key = certificate.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    (site.folder / "public.pem").write_bytes(key)
    (site.folder / "identity").write_text(identity)
    command = ["secsipidx", "-check", "-fidentity", "identity", "-fpubkey", "public.pem", "-expire", "60"]
    return subprocess.run(command, cwd=site.folder, capture_output=True, text=True, timeout=60)


@pytest.fixture
def identity(site: Site) -> Callable[..., str]:
    def sign(key_mgmt: tuple[str, ...] = (), sdp: bytes | None = None) -> str:
        now_s = time.time()
        request = SigningRequest(
            "A",
            Tn("493023125001"),
            Destinations((Tn("442079460001"),)),
            int(now_s),
            "5f4e3b1c-7d2a-4b8e-9c1d-2e3f4a5b6c7d",
            key_mgmt,
            sdp,
        )
        return sign_call(request, load_setup(site.config, SystemClock()).credential.value, now_s).serialize()

    return sign


@pytest.mark.parametrize("key_mgmt", [(), ("mikey AQAFgM3YFvMAAAAA", "mikey AQAFgM3YFvMAAAAB")])
@pytest.mark.parametrize("sdp", [None, bytes(32)])
def test_accepts_our_identity_with_and_without_our_claims(
    site: Site, identity: Callable[..., str], key_mgmt: tuple[str, ...], sdp: bytes | None
) -> None:
    done = secsipidx(site, identity(key_mgmt, sdp))
    assert (done.returncode, done.stdout.strip()) == (0, "ok")


def test_refuses_it_once_it_was_changed(site: Site, identity: Callable[..., str]) -> None:
    header, payload, rest = identity().split(".", 2)
    done = secsipidx(site, ".".join([header, payload[:-8] + "AAAAAAAA", rest]))
    assert (done.returncode, "ok" in done.stdout) != (0, True)
