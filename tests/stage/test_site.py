import stat
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from voice_dpki.effects import SystemClock, SystemRandom
from voice_dpki.ledger.genesis import load_genesis
from voice_dpki.ledger.members import MemberKind
from voice_dpki.names import Tn
from voice_dpki.stage.site import LIFETIME_S, Founder, SiteFolder
from voice_dpki.x509.keys import from_pem, generate_es256
from voice_dpki.x509.profile import read_profile
from voice_dpki.x509.tnauthlist import TnAuthList, TnRange

RANGES = (TnRange(Tn("493023125000"), 1000),)
OPERATOR = Founder("Operator A", MemberKind.OPERATOR, "a.example", "a-endorsing.pem", "a-validator.pem", RANGES)
VENDOR = Founder("Vendor V", MemberKind.VENDOR, "v.example", "v-endorsing.pem")


@pytest.fixture
def site(tmp_path: Path) -> SiteFolder:
    return SiteFolder(tmp_path / "site", SystemClock(), SystemRandom())


def test_the_genesis_has_the_founders_with_the_keys_in_their_files(site: SiteFolder) -> None:
    site.found("chain", [OPERATOR, VENDOR])
    genesis = load_genesis(site.genesis.read_bytes())
    operator, vendor = genesis.members
    assert (genesis.chain_id, operator.ranges, operator.domains) == ("chain", RANGES, ("a.example",))
    validator = load_pem_private_key((site.folder / "a-validator.pem").read_bytes(), None)
    assert isinstance(validator, Ed25519PrivateKey)
    assert operator.validators == (validator.public_key().public_bytes_raw(),)
    assert (vendor.organization, vendor.kind, vendor.validators) == ("Vendor V", MemberKind.VENDOR, ())
    for member, file in ((operator, "a-endorsing.pem"), (vendor, "v-endorsing.pem")):
        assert member.endorsing_keys == (from_pem((site.folder / file).read_bytes()).public_key_der,)


def test_a_certificate_says_what_was_asked_for_and_lies_beside_its_key(site: SiteFolder) -> None:
    asked = TnAuthList(ranges=RANGES)
    made = site.certify("one", generate_es256(), "Vendor V", "enb1", dns_names=["enb1.v.example"], numbers=asked)
    profile = read_profile(made.certificate.read_bytes())
    assert (profile.organization, profile.dns_names) == ("Vendor V", ("enb1.v.example",))
    assert profile.tn_auth_list == asked
    assert from_pem(made.key.read_bytes()).public_key_der == profile.public_key_der
    assert (made.name, made.organization, made.digest) == ("enb1", "Vendor V", profile.digest)
    now_s = SystemClock().now_s()
    assert profile.valid_at(now_s - 3600)
    assert profile.valid_at(now_s + LIFETIME_S - 60)
    assert not profile.valid_at(now_s + LIFETIME_S + 60)


def test_tokens_are_new_each_time_and_only_the_owner_reads_what_is_written(site: SiteFolder) -> None:
    token = site.token("submit")
    assert (site.folder / "submit.token").read_text() == f"{token}\n"
    assert site.token("submit") != token
    site.found("chain", [OPERATOR])
    site.certify("one", generate_es256(), "Vendor V", "enb1")
    site.config("node", {"node": {"name": "node"}})
    assert {stat.S_IMODE(path.stat().st_mode) for path in site.folder.iterdir()} == {0o600}
