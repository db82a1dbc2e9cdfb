"""The section `[policy]`: patterns, measurements and the example that it writes of itself."""

import tomllib
from dataclasses import replace
from typing import Any

import msgspec
import pytest

from segw_agent.peer_names import PeerNames
from segw_agent.policy import CertificatePolicy, IntegrityPolicy, Policy, Question, Side
from voice_dpki.shell.config import Config
from voice_dpki.shell.example import example_of

DIGEST = b"\7" * 32


def policy(**changes: Any) -> Policy:
    parts: dict[str, Any] = {"organizations": frozenset({"Vendor V"}), "allow": ("*.vendor.example",)}
    return Policy(**parts | changes)


@pytest.mark.parametrize(
    ("pattern", "identity", "covered"),
    [
        ("*.vendor.example", "enb1.vendor.example", True),
        ("*.vendor.example", "a.enb1.vendor.example", True),
        ("*.vendor.example", "evilvendor.example", False),
        ("*.vendor.example", "vendor.example", False),
        ("ENB1.vendor.example", "enb1.Vendor.example", True),
        ("vendor.example", "enb1.vendor.example", False),
        ("*.example.vendor", "enb1.vendor.example", False),
        ("*", "CN=enb1,O=Vendor V", True),
        ("CN=enb1,O=Vendor V", "CN=enb1,O=Vendor V", True),
        ("O=vendor  v, CN=ENB1", "CN=enb1,O=Vendor V", True),
        ("C=DE, O=Vendor V, serialNumber=7", "2.5.4.5=7,O=Vendor V,C=DE", True),
        ("CN=enb1", "CN=enb1,O=Vendor V", False),
        ("*.vendor.example", "CN=enb1,O=x.vendor.example", False),
        ("enb1.vendor.example", "CN=enb1.vendor.example,O=Vendor V", False),
        ("CN=enb1.vendor.example", "enb1.vendor.example", False),
    ],
)
def test_patterns(pattern: str, identity: str, covered: bool) -> None:
    """Each pattern covers names of its own kind."""
    assert policy(allow=(pattern,)).allows(PeerNames(identity)) is covered
    assert policy(deny=("x", pattern)).denies(PeerNames(identity)) is covered


HOLDER = PeerNames(
    dns_names=("enb1.vendor.example", "enb1.other.example"),
    uris=("sip:+4930@sip.vendor.example",),
    common_name="cn.vendor.example",
    subject="CN=cn.vendor.example,O=Vendor V",
)
SHOWN = ("", "enb1.vendor.example", "enb1.other.example", HOLDER.subject)
"""What the holder of such a certificate may show in IKE; at the bridge, nothing."""


@pytest.mark.parametrize("shown", SHOWN)
@pytest.mark.parametrize(
    "pattern",
    [
        "enb1.vendor.example",
        "*.OTHER.example",
        "sip.vendor.example",
        "sip:+4930@SIP.vendor.example",
        "cn.vendor.example",
        "O=Vendor V, CN=cn.vendor.example",
        "*",
    ],
)
def test_whoever_is_denied_by_one_name_comes_in_under_none(pattern: str, shown: str) -> None:
    assert policy(deny=(pattern,)).denies(replace(HOLDER, shown=shown))
    assert not policy(deny=("enb2.vendor.example", "CN=enb1", "tel:+4930")).denies(replace(HOLDER, shown=shown))


@pytest.mark.parametrize("shown", SHOWN)
def test_every_name_that_could_be_shown_is_to_be_allowed(shown: str) -> None:
    needed = ["*.vendor.example", "*.other.example", *([shown] if "=" in shown else [])]
    holder = replace(HOLDER, shown=shown)
    assert policy(allow=tuple(needed)).allows(holder)
    for missing in needed:
        assert not policy(allow=tuple({*needed} - {missing})).allows(holder)
    assert not policy(allow=("*",)).allows(PeerNames(subject="CN=x"))


@pytest.mark.parametrize("pattern", ["CN=", "CN=a,,O=b", "O=Vendor V CN=,"])
def test_distinguished_names_that_are_none(pattern: str) -> None:
    with pytest.raises(ValueError, match="RFC 4514"):
        policy(deny=(pattern,))


@pytest.mark.parametrize("pattern", ["*vendor.example", "enb*.vendor.example", "*.*.example"])
@pytest.mark.parametrize("key", ["allow", "deny"])
def test_patterns_that_would_mislead(key: str, pattern: str) -> None:
    with pytest.raises(ValueError, match="neither a name"):
        policy(**{key: (pattern,)})


@pytest.mark.parametrize("text", ["00", "x" * 64, "7" * 66, ""])
def test_measurements_that_are_none(text: str) -> None:
    with pytest.raises(ValueError, match="SHA-256"):
        policy(measurements={"boot": frozenset({DIGEST.hex(), text})})


def test_measurements() -> None:
    strict = policy(measurements={"boot": frozenset({DIGEST.hex().upper(), "00" * 32}), "never": frozenset()})
    assert strict.admits_measurement("boot", DIGEST)
    assert strict.admits_measurement("firmware", DIGEST)
    assert not strict.admits_measurement("boot", b"\x08" * 32)
    assert not strict.admits_measurement("boot", None)
    assert not strict.admits_measurement("never", DIGEST)


@pytest.mark.parametrize("own", IntegrityPolicy)
@pytest.mark.parametrize("callers", IntegrityPolicy)
def test_the_stricter_treatment_counts(own: IntegrityPolicy, callers: IntegrityPolicy) -> None:
    certificate: Any = None
    question = Question(Side.GATEWAY, certificate, "enb1", certificate, integrity=callers)
    assert (question.unique_id, question.connection) == (0, ""), "the daemon's numbers begin at 1"
    wanted = {own, callers}
    expected = next(
        each
        for each in (IntegrityPolicy.REQUIRE, IntegrityPolicy.CHECK_IF_PRESENT, IntegrityPolicy.IGNORE)
        if each in wanted
    )
    assert policy(integrity=own).integrity_for(question) is expected


@pytest.mark.parametrize("section", [CertificatePolicy, Policy])
def test_the_example_shows_every_key_and_is_valid(section: type[Config]) -> None:
    text = example_of(section, "policy")
    plain = text.replace("# [", "[").replace("# boot", "boot")
    read = tomllib.loads(plain)["policy"]
    assert list(read) == list(section.__struct_fields__)
    msgspec.convert(read, section)
    msgspec.convert(tomllib.loads(text)["policy"], section)
    for line in text.splitlines()[1:]:
        assert "  # " in line or line.startswith("# boot"), line


def test_the_bridge_has_no_keys_that_it_would_not_check() -> None:
    with pytest.raises(msgspec.ValidationError, match="unknown field `integrity`"):
        msgspec.convert({"organizations": [], "allow": [], "integrity": "require"}, CertificatePolicy)
