"""The folder of one demonstration: keys, self-signed certificates, the ledger's genesis, tokens, configurations.

Everything is generated anew, and only its owner may read it; there are no default secrets.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from voice_dpki.codec import base64url
from voice_dpki.effects import Clock, Random
from voice_dpki.ledger.genesis import dump_genesis
from voice_dpki.ledger.members import Member, MemberKind
from voice_dpki.names import CertDigest
from voice_dpki.shell.files import write_private
from voice_dpki.stage.network import write_config
from voice_dpki.x509.keys import LocalSigner, generate_es256, to_pem
from voice_dpki.x509.profile import build_certificate, digest_of
from voice_dpki.x509.tnauthlist import TnAuthList, TnRange

_DAY_S = 86_400

LIFETIME_S = 30 * _DAY_S
"""Default lifetime of certificates; all begin a day ago."""


@dataclass(frozen=True, slots=True)
class Founder:
    """A member at genesis, and the files for its new keys. Without a `validator_key` it has no validator."""

    organization: str
    kind: MemberKind
    domain: str
    endorsing_key: str
    validator_key: str | None = None
    ranges: tuple[TnRange, ...] = ()


@dataclass(frozen=True, slots=True)
class Credential:
    """A certificate and its key on disk; its common name, and the organisation that has it recorded."""

    name: str
    organization: str
    certificate: Path
    key: Path
    der: bytes

    @property
    def digest(self) -> CertDigest:
        """H(CERT), the certificate's key on the ledger."""
        return digest_of(self.der)


class SiteFolder:
    """The folder and its files. Methods raise LocalError for a file that cannot be written."""

    def __init__(self, folder: Path, clock: Clock, random: Random) -> None:
        self.folder = folder
        self._clock, self._random = clock, random
        folder.mkdir(parents=True, exist_ok=True)

    @property
    def genesis(self) -> Path:
        """The ledger's genesis, the trust anchor of all programs."""
        return self.folder / "genesis.json"

    def found(self, chain_id: str, founders: Iterable[Founder]) -> None:
        """Make the founders' keys, and write the genesis of a ledger of these members."""
        members = [self._member(founder) for founder in founders]
        self.write("genesis.json", dump_genesis(chain_id, int(self._clock.now_s() * 1e9), members))

    def certify(
        self,
        file: str,
        signer: LocalSigner,
        organization: str,
        common_name: str,
        *,
        dns_names: Sequence[str] = (),
        uris: Sequence[str] = (),
        numbers: TnAuthList | None = None,
        lifetime_s: int = LIFETIME_S,
    ) -> Credential:
        """Make a certificate for the key of `signer`, and write both; `file` is their name without its suffix.

        Nothing is recorded on the ledger. Raises ProfileError for what the ledger's profile does not admit.
        """
        now_s = int(self._clock.now_s())
        der = build_certificate(
            signer,
            organization=organization,
            common_name=common_name,
            uris=uris,
            dns_names=dns_names,
            tn_auth_list=numbers,
            not_before_s=now_s - _DAY_S,
            not_after_s=now_s + lifetime_s,
            random=self._random,
        )
        certificate, key = self.write(f"{file}.der", der), self.write(f"{file}.pem", to_pem(signer))
        return Credential(common_name, organization, certificate, key, der)

    def token(self, name: str) -> str:
        """Make a bearer token, and write it to the file `name`.token."""
        token = base64url.encode(self._random.token(24))
        self.secret(f"{name}.token", token)
        return token

    def secret(self, name: str, text: str) -> Path:
        """Write a secret, which is one line, and return its file."""
        return self.write(name, text.encode("utf-8") + b"\n")

    def config(self, actor: str, sections: Mapping[str, object]) -> Path:
        """Write a program's configuration, and return its file."""
        return write_config(self.folder, actor, sections)

    def write(self, name: str, data: bytes) -> Path:
        """Write or replace a file, and return its path."""
        path = self.folder / name
        write_private(path, data)
        return path

    def _member(self, founder: Founder) -> Member:
        endorsing = generate_es256()
        self.write(founder.endorsing_key, to_pem(endorsing))
        return Member(
            organization=founder.organization,
            kind=founder.kind,
            domains=(founder.domain,),
            ranges=founder.ranges,
            validators=(self._validator(founder.validator_key),) if founder.validator_key else (),
            endorsing_keys=(endorsing.public_key_der,),
        )

    def _validator(self, file: str) -> bytes:
        key = Ed25519PrivateKey.generate()
        self.write(file, to_pem(key))
        return key.public_key().public_bytes_raw()
