"""The section `[policy]`: patterns, measurements and the example that it writes of itself."""

import tomllib
from typing import Any

import msgspec
import pytest

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
    ],
)
def test_patterns(pattern: str, identity: str, covered: bool) -> None:
    assert policy(allow=(pattern,)).allows(identity) is covered
    assert policy(deny=("x", pattern)).denies(identity) is covered


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
