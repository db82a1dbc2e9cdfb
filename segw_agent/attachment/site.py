"""Provisioning: the files that an operator, its gateway, a vendor and its devices start with."""

from pathlib import Path

from voice_dpki.effects import Clock, Random
from voice_dpki.ledger.members import MemberKind
from voice_dpki.stage.site import LIFETIME_S, Credential, Founder, SiteFolder
from voice_dpki.x509.keys import generate_es256, generate_rsa

CHAIN_ID = "voice-dpki-attach"

OPERATOR, VENDOR, OTHER_VENDOR = "Operator A", "Vendor V", "Vendor W"
GATEWAY_NAME = "segw.a.example"
DEVICE_NAME = "enb1.vendor.example"
OTHER_DEVICE_NAME = "enb1.other.example"

BOOT_DIGEST = "cd00c1ea5e98cd9f0ba192dfa46819528dedc09395ed67e0957ac36708ea4dcd"
"""SHA-256 of the software that devices are expected to have booted; here of the word "boot image v1\\n"."""


def _file(organization: str) -> str:
    return organization.lower().replace(" ", "-")


def _endorsing_key(organization: str) -> str:
    return f"{_file(organization)}-endorsing.pem"


_FOUNDERS = (
    Founder(OPERATOR, MemberKind.OPERATOR, "a.example", _endorsing_key(OPERATOR), "validator.pem"),
    Founder(VENDOR, MemberKind.VENDOR, "vendor.example", _endorsing_key(VENDOR)),
    Founder(OTHER_VENDOR, MemberKind.VENDOR, "other.example", _endorsing_key(OTHER_VENDOR)),
)


class Site(SiteFolder):
    """The folder of one run and its files. A device has no trust anchor but the genesis."""

    def __init__(self, folder: Path, clock: Clock, random: Random) -> None:
        super().__init__(folder, clock, random)
        self.found(CHAIN_ID, _FOUNDERS)
        self.tokens = {each.organization: self.token(_file(each.organization)) for each in _FOUNDERS}

    def credential(
        self, file: str, name: str, organization: str, *, lifetime_s: int = LIFETIME_S, rsa: bool = False
    ) -> Credential:
        """Make a certificate and its key, but do not record it."""
        signer = generate_rsa() if rsa else generate_es256()
        return self.certify(file, signer, organization, name, dns_names=[name], lifetime_s=lifetime_s)

    def submission(self, organization: str) -> dict[str, object]:
        """Return the [submission] section of a node that endorses for a member."""
        return {
            "organization": organization,
            "endorsing_key": _endorsing_key(organization),
            "tokens": f"{_file(organization)}.token",
        }
