"""Devices that lie to a strongSwan gateway whose plugin is built with AddressSanitizer."""

import random
import subprocess
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from tests.present import present
from voice_dpki.ikev2.identity import fqdn
from voice_dpki.ikev2.payloads import Certificate, Identification, Notify, Payload
from voice_dpki.ikev2.registry import INTEGRITY_INFO, IdType

from .strongswan.charon import BUILD, ROOT, Charon
from .strongswan.liar import LyingDevice
from .strongswan.site import Site, demand, make_site
from .strongswan.world import policy

pytestmark = pytest.mark.netns

SANITIZED = BUILD / "sanitized"
FUZZ_ROUNDS = 20_000
SUPPRESSIONS = "leak:libcrypto.so\nleak:signature_params_clone\n"
"""What others leak, and the plugin never calls: OpenSSL its configuration, charon 16 bytes for each self-signed
certificate that it does not trust (verify_trust_chain in credential_manager.c of 5.9.8)."""


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Build with the sanitizers; returns what a process needs to report to standard error."""
    demand()
    subprocess.run(["make", "--quiet", "-C", ROOT / "segw_agent/charon_plugin", "sanitized"], check=True)
    suppressions = tmp_path_factory.mktemp("lsan") / "suppressions"
    suppressions.write_text(SUPPRESSIONS)
    return {
        "ASAN_OPTIONS": "abort_on_error=1:detect_leaks=1",
        "LSAN_OPTIONS": f"suppressions={suppressions}:print_suppressions=0",
        "UBSAN_OPTIONS": "halt_on_error=1",
    }


@pytest.fixture(scope="module")
def site(environment: dict[str, str]) -> Iterator[Site]:
    library = subprocess.run(["gcc", "-print-file-name=libasan.so"], capture_output=True, text=True, check=True)
    preloaded = {"PRELOAD": library.stdout.strip(), **environment}
    with make_site(plugin=SANITIZED / "libstrongswan-voice-dpki.so", environment=preloaded) as made:
        honest(made)
        yield made
        ended_well(made.charons["gateway"])


def honest(site: Site) -> None:
    """Let a device's charon attach, and end without a report; its address is free for liars then."""
    device = site.recorded()
    site.start_agents()
    own = device.write(site.path / "enb")
    site.start_agent("device", policy("Operator A", "*.a.example") + own + "[integrity]\npassed = true\n")
    for _ in range(3):
        with site.attached(device):
            site.charons["device"].rekey()
    site.refused(site.identity(), "not-recorded")
    assert not site.attach(site.recorded(), "nobody.a.example")
    site.agents.pop("device").stop()
    ended_well(site.charons["device"])


def ended_well(charon: Charon) -> None:
    """End a charon, which must end in order and without a report of the sanitizers."""
    assert charon.stop() == 0, charon.output()
    assert "ERROR: " not in charon.output()


@pytest.fixture(scope="module")
def device(site: Site) -> Iterator[LyingDevice]:
    with LyingDevice(site) as made:
        yield made


def refused(site: Site, device: LyingDevice, code: str, **lies: object) -> None:
    gateway = site.charons["gateway"]
    since = len(gateway.log())
    failed = device.attach(site.recorded(), **lies)  # type: ignore[arg-type]
    assert "AUTHENTICATION_FAILED" in failed.error.sentence
    assert f" refused: {code}: " in gateway.log()[since:]


@pytest.mark.parametrize(
    "identification",
    [
        fqdn("enb0.vendor.example"),
        fqdn("*.vendor.example"),
        fqdn("*"),
        fqdn("vendor.example"),
        Identification(IdType.RFC822_ADDR, b"enb@vendor.example"),
        Identification(IdType.IPV4_ADDR, bytes((10, 1, 0, 2))),
        Identification(IdType.DER_ASN1_DN, bytes.fromhex("3000")),
        Identification(IdType.FQDN, b"x" * 2000),
    ],
)
def test_an_identity_that_is_not_the_certificates(
    site: Site, device: LyingDevice, identification: Identification
) -> None:
    refused(site, device, "identity", identification=identification)


def test_the_certificate_of_somebody_else(site: Site, device: LyingDevice) -> None:
    known, stranger = site.recorded(), site.identity()
    stranger.name, since = known.name, len(site.charons["gateway"].log())
    device.attach(stranger, certificate=known.certificate)
    said = site.charons["gateway"].log()[since:]
    assert f"'{known.name}' vouched for" in said  # the certificate is, and its key did not sign
    assert f"'{known.name}' trusted" not in said
    assert "signature validation failed" in said


def test_two_certificates_and_the_first_is_ones_own(site: Site, device: LyingDevice) -> None:
    known = site.recorded()

    def both(payloads: tuple[Payload, ...]) -> tuple[Payload, ...]:
        return (*payloads[:2], Certificate(4, known.certificate), *payloads[2:])

    stranger = site.identity()
    stranger.name, since = known.name, len(site.charons["gateway"].log())
    device.attach(stranger, alter=both)
    assert f"'{known.name}' refused: identity: " in site.charons["gateway"].log()[since:]


@pytest.mark.parametrize(
    "contents", [(b"", b""), (bytes(4096), bytes(4096)), (bytes(4097),), (bytes(20_000),)], ids=len
)
def test_notifies_that_come_twice_or_are_too_large(
    site: Site, device: LyingDevice, contents: tuple[bytes, ...]
) -> None:
    notifies = tuple(Notify(INTEGRITY_INFO, content) for content in contents)
    refused(site, device, "malformed", alter=lambda payloads: (*payloads, *notifies))


def test_malformed_certificates(site: Site, device: LyingDevice) -> None:
    """Cut short, changed, swollen and senseless ones: each is refused, and charon lives on."""
    chance = random.Random(1)
    for _ in range(60):
        known = site.identity()
        der = bytearray(known.certificate)
        for _ in range(chance.randrange(4)):
            der[chance.randrange(len(der))] = chance.randrange(256)
        cut = bytes(der[: chance.choice((0, 1, 2, 50, len(der) - 1, len(der)))])
        swollen = cut + bytes(chance.choice((0, 0, 1, 9000)))
        device.attach(known, certificate=swollen)
    known = site.identity()
    for encoding in (0, 1, 7, 12, 13, 201, 255):
        device.attach(known, alter=partial(with_encoding, encoding=encoding))
    assert present(site.charons["gateway"].process).poll() is None


def with_encoding(payloads: tuple[Payload, ...], encoding: int) -> tuple[Payload, ...]:
    return tuple(
        Certificate(encoding, payload.data) if isinstance(payload, Certificate) else payload for payload in payloads
    )


def test_fuzzing_what_the_plugin_reads(environment: dict[str, str], tmp_path: Path, site: Site) -> None:
    (tmp_path / "sample.der").write_bytes(site.identity().certificate)
    for seed in range(2):
        command: list[str | Path] = [SANITIZED / "fuzz", str(seed), str(FUZZ_ROUNDS), tmp_path / "sample.der"]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=100)
        assert done.returncode == 0, done.stderr
        messages, certificates, answers = map(int, done.stdout.split())
        assert messages == FUZZ_ROUNDS
        assert 0 < certificates < messages
        assert 0 < answers < messages
