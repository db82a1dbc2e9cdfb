"""Provisioning: the files that an operator, its gateway, a vendor and its devices start with.

These are keys, self-signed certificates, the ledger's genesis, tokens and a configuration for each program. All are
made new for each run.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from voice_dpki.codec import base64url
from voice_dpki.effects import Clock, Random
from voice_dpki.ledger.genesis import dump_genesis
from voice_dpki.ledger.members import Member, MemberKind
from voice_dpki.names import CertDigest
from voice_dpki.shell.files import write_private
from voice_dpki.stage.network import write_config
from voice_dpki.x509.keys import generate_es256, generate_rsa, to_pem
from voice_dpki.x509.profile import build_certificate, digest_of

CHAIN_ID = "voice-dpki-attach"
_DAY_S = 86_400
LIFETIME_S = 30 * _DAY_S
"""Default lifetime of certificates."""

OPERATOR, VENDOR, OTHER_VENDOR = "Operator A", "Vendor V", "Vendor W"
GATEWAY_NAME = "segw.a.example"
DEVICE_NAME = "enb1.vendor.example"
OTHER_DEVICE_NAME = "enb1.other.example"

BOOT_DIGEST = "cd00c1ea5e98cd9f0ba192dfa46819528dedc09395ed67e0957ac36708ea4dcd"
"""SHA-256 of the software that devices are expected to have booted; here of the word "boot image v1\\n"."""

_MEMBERS = (
    (OPERATOR, MemberKind.OPERATOR, "a.example"),
    (VENDOR, MemberKind.VENDOR, "vendor.example"),
    (OTHER_VENDOR, MemberKind.VENDOR, "other.example"),
)


@dataclass(frozen=True, slots=True)
class Credential:
    """A certificate and its key on disk, and the organisation that has it recorded."""

    name: str
    organization: str
    certificate: Path
    key: Path
    der: bytes

    @property
    def digest(self) -> CertDigest:
        """H(CERT), the certificate's key on the ledger."""
        return digest_of(self.der)


class Site:
    """The folder of one run and its files."""

    def __init__(self, folder: Path, clock: Clock, random: Random) -> None:
        self.folder = folder
        self._clock, self._random = clock, random
        folder.mkdir(parents=True, exist_ok=True)
        self._genesis()
        self.tokens = {organization: self._token(organization) for organization, _, _ in _MEMBERS}

    @property
    def genesis(self) -> Path:
        """The ledger's genesis: the trust anchor of every program, and the only one that a device has."""
        return self.folder / "genesis.json"

    def credential(
        self, file: str, name: str, organization: str, *, lifetime_s: int = LIFETIME_S, rsa: bool = False
    ) -> Credential:
        """Make a certificate and its key, but do not record it."""
        now_s, signer = int(self._clock.now_s()), generate_rsa() if rsa else generate_es256()
        der = build_certificate(
            signer,
            organization=organization,
            common_name=name,
            dns_names=[name],
            not_before_s=now_s - _DAY_S,
            not_after_s=now_s + lifetime_s,
            random=self._random,
        )
        certificate = self._write(f"{file}.der", der)
        return Credential(name, organization, certificate, self._write(f"{file}.pem", to_pem(signer)), der)

    def config(self, actor: str, sections: Mapping[str, object]) -> Path:
        """Write a program's configuration file."""
        return write_config(self.folder, actor, sections)

    def submission(self, organization: str) -> dict[str, object]:
        """Return the [submission] section of a node that endorses for a member."""
        return {
            "organization": organization,
            "endorsing_key": f"{_file(organization)}-endorsing.pem",
            "tokens": f"{_file(organization)}.token",
        }

    def _genesis(self) -> None:
        members = []
        for organization, kind, domain in _MEMBERS:
            endorsing = generate_es256()
            self._write(f"{_file(organization)}-endorsing.pem", to_pem(endorsing))
            validators = (self._validator(),) if kind is MemberKind.OPERATOR else ()
            members.append(
                Member(
                    organization=organization,
                    kind=kind,
                    domains=(domain,),
                    validators=validators,
                    endorsing_keys=(endorsing.public_key_der,),
                )
            )
        self._write("genesis.json", dump_genesis(CHAIN_ID, int(self._clock.now_s() * 1e9), members))

    def _validator(self) -> bytes:
        key = Ed25519PrivateKey.generate()
        self._write("validator.pem", key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        return key.public_key().public_bytes_raw()

    def _token(self, organization: str) -> str:
        token = base64url.encode(self._random.token(24))
        self._write(f"{_file(organization)}.token", token.encode("ascii") + b"\n")
        return token

    def _write(self, name: str, data: bytes) -> Path:
        path = self.folder / name
        write_private(path, data)
        return path


def _file(organization: str) -> str:
    return organization.lower().replace(" ", "-")
