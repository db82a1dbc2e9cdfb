"""Provisioning: the files that the operators need before the first call.

They are keys, self-signed certificates, the ledger's genesis, tokens between a domain's own services, subscribers,
and a configuration file for each program. Everything is generated anew in one folder; there are no default secrets.
"""

import base64
import json
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from voice_dpki.codec import base64url
from voice_dpki.effects import Clock, Random
from voice_dpki.ledger.genesis import dump_genesis
from voice_dpki.ledger.header import Validator
from voice_dpki.ledger.members import Member, MemberKind
from voice_dpki.names import CertDigest, Tn
from voice_dpki.shell.files import write_private
from voice_dpki.sip.hop import SIP_PORT
from voice_dpki.stage.addresses import Addresses, AddressPlan
from voice_dpki.stage.network import write_config
from voice_dpki.x509.keys import LocalSigner, generate_es256, generate_rsa, to_pem
from voice_dpki.x509.profile import build_certificate, digest_of
from voice_dpki.x509.tnauthlist import TnAuthList, TnRange

CHAIN_ID = "voice-dpki-testbed"
CERTIFICATE_DAYS = 30
_DAY_S = 86_400

_OPERATORS = {"a": 2, "b": 3, "c": 8, "d": 9}
_SERVICES = {
    "proxy": SIP_PORT,
    "authn": 8081,
    "verify": 8082,
    "ledger": 8083,
    "validator": 8084,
    "cometbft-rpc": 8085,
    "cometbft-p2p": 8086,
}

ADDRESSES = AddressPlan(
    "127.0.0",
    5059,
    {
        "engine": (4, 8084),
        "path": (5, SIP_PORT),
        "caller": (6, SIP_PORT),
        "callee": (7, SIP_PORT),
        **{
            f"{service}-{letter}": (number, port)
            for letter, number in _OPERATORS.items()
            for service, port in _SERVICES.items()
        },
    },
)
"""Where the actors listen, and each operator's CometBFT."""


@dataclass(frozen=True, slots=True)
class Operator:
    """One of the operators, as the genesis knows it."""

    letter: str
    organization: str
    domain: str
    numbers: TnRange


OPERATORS = (
    Operator("a", "Operator A", "a.example", TnRange(Tn("493023125000"), 1000)),
    Operator("b", "Operator B", "b.example", TnRange(Tn("442079460000"), 1000)),
)
"""The two operators between which calls are placed."""

FEDERATION = (
    *OPERATORS,
    Operator("c", "Operator C", "c.example", TnRange(Tn("33199000000"), 10_000)),
    Operator("d", "Operator D", "d.example", TnRange(Tn("12035550100"), 100)),
)
"""The operators of the federation's validators."""


class LedgerKind(StrEnum):
    """The kind of engine that orders the ledger's transactions."""

    EMBEDDED = "embedded"
    """One engine, which holds the two operators' validator keys."""
    FEDERATION = "federation"
    """Validators of four operators on CometBFT, each with its own key."""

    @property
    def operators(self) -> tuple[Operator, ...]:
        """The members at genesis, each with one validator."""
        return FEDERATION if self is LedgerKind.FEDERATION else OPERATORS


CALLER = Tn("493023125001")
CALLEE = Tn("442079460123")
CALLEE_OVER_TRANSIT = Tn("442079460223")
"""Operator A reaches the numbers 44207946 02xx over a transit network, on which a scenario's attacker is."""

TRANSIT_PREFIX = "+4420794602"

CALLEE_OVER_SBC = Tn("442079460323")
"""Operator A reaches the numbers 44207946 03xx over the same network, through SBCs that rewrite SDP."""

SBC_PREFIX = "+4420794603"
OUTSIDE = Tn("441134960001")
"""A number that the ledger allots to no operator (Ofcom reserves it for drama)."""


@dataclass(frozen=True, slots=True)
class Credential:
    """A certificate and its key on disk."""

    certificate: Path
    key: Path
    der: bytes

    @property
    def digest(self) -> CertDigest:
        """H(CERT), the certificate's name on the ledger."""
        return digest_of(self.der)


def aor(number: Tn, operator: Operator) -> str:
    """Return the SIP address of record of a subscriber."""
    return f"sip:+{number}@{operator.domain}"


class Site:
    """The folder of one testbed and its files."""

    def __init__(
        self,
        folder: Path,
        addresses: Addresses,
        clock: Clock,
        random: Random,
        ledger: LedgerKind = LedgerKind.EMBEDDED,
    ) -> None:
        self.folder = folder
        self.addresses = addresses
        self.ledger = ledger
        self._clock = clock
        self._random = random
        for operator in ledger.operators:
            (folder / operator.letter).mkdir(parents=True, exist_ok=True)
        with ThreadPoolExecutor() as pool:  # RSA keys take longest to generate, so do that in parallel
            telephones = pool.map(
                self._telephone, OPERATORS, ((CALLER,), (CALLEE, CALLEE_OVER_TRANSIT, CALLEE_OVER_SBC))
            )
            self._genesis()
            comets = ledger.operators if ledger is LedgerKind.FEDERATION else ()
            self.node_ids = {operator.letter: self._node_id(operator.letter) for operator in comets}
            self.signer = self.signing_credential("a/signer")
            self.caller, self.callee = telephones
        roles = (f"{role}-{operator.letter}" for role in ("verify", "submit") for operator in ledger.operators)
        self.tokens = {name: self._token(name) for name in ("sign-a", *roles)}
        self.passwords = {operator.letter: base64url.encode(random.token(12)) for operator in OPERATORS}

    @property
    def genesis(self) -> Path:
        """The ledger's genesis, the trust anchor of all programs in the testbed."""
        return self.folder / "genesis.json"

    def signing_credential(self, name: str, numbers: TnRange = OPERATORS[0].numbers) -> Credential:
        """Make a certificate in Operator A's name with authority over `numbers`, without recording it."""
        return self._credential(
            name,
            generate_es256(),
            OPERATORS[0].organization,
            common_name=f"sti.{OPERATORS[0].domain}",
            numbers=TnAuthList(ranges=(numbers,)),
        )

    def config(self, actor: str, sections: Mapping[str, object]) -> Path:
        """Write a program's configuration file and return its path."""
        return write_config(self.folder, actor, sections)

    def secret(self, name: str, text: str) -> Path:
        """Write a file that only its owner may read."""
        return self._write(name, text.encode("utf-8") + b"\n")

    def listen(self, actor: str) -> dict[str, object]:
        """Return the [listen] section of an actor's configuration."""
        address = self.addresses[actor]
        return {"host": address.host, "port": address.port}

    def users(self, letter: str, *numbers: Tn) -> str:
        """Write the subscribers of a domain, all with the domain's one password; return the file's name."""
        password = self.passwords[letter]
        users = [{"number": f"+{number}", "password": password} for number in numbers]
        return self.config(f"users-{letter}", {"users": users}).name

    def _telephone(self, operator: Operator, numbers: Iterable[Tn]) -> Credential:
        """Make a user agent's certificate: RSA, because MIKEY has no other signature (RFC 3830 §6.5)."""
        uris = [aor(number, operator) for number in numbers]
        return self._credential(
            f"{operator.letter}/telephone",
            generate_rsa(),
            operator.organization,
            common_name=f"telephone {operator.letter}",
            uris=uris,
        )

    def _credential(
        self,
        name: str,
        signer: LocalSigner,
        organization: str,
        *,
        common_name: str,
        uris: list[str] | None = None,
        numbers: TnAuthList | None = None,
    ) -> Credential:
        now_s = int(self._clock.now_s())
        der = build_certificate(
            signer,
            organization=organization,
            common_name=common_name,
            uris=uris or (),
            tn_auth_list=numbers,
            not_before_s=now_s - _DAY_S,
            not_after_s=now_s + CERTIFICATE_DAYS * _DAY_S,
            random=self._random,
        )
        return Credential(self._write(f"{name}.der", der), self._write(f"{name}.pem", to_pem(signer)), der)

    def _node_id(self, letter: str) -> str:
        """Write the node key of an operator's CometBFT in CometBFT's format; return the node's id for peers."""
        key = Ed25519PrivateKey.generate()
        seed, public = key.private_bytes_raw(), key.public_key().public_bytes_raw()
        value = base64.b64encode(seed + public).decode("ascii")
        form = {"priv_key": {"type": "tendermint/PrivKeyEd25519", "value": value}}
        (self.folder / cometbft_home(letter) / "config").mkdir(mode=0o700, parents=True)
        self._write(f"{cometbft_home(letter)}/config/node_key.json", json.dumps(form).encode("ascii"))
        return Validator(public, 1).address.hex()

    def _genesis(self) -> None:
        members = []
        for operator in self.ledger.operators:
            validator = Ed25519PrivateKey.generate()
            endorsing = generate_es256()
            pem = validator.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
            self._write(f"{operator.letter}/validator.pem", pem)
            self._write(f"{operator.letter}/endorsing.pem", to_pem(endorsing))
            members.append(
                Member(
                    organization=operator.organization,
                    kind=MemberKind.OPERATOR,
                    domains=(operator.domain,),
                    ranges=(operator.numbers,),
                    validators=(validator.public_key().public_bytes_raw(),),
                    endorsing_keys=(endorsing.public_key_der,),
                )
            )
        self._write("genesis.json", dump_genesis(CHAIN_ID, int(self._clock.now_s() * 1e9), members))

    def _token(self, name: str) -> str:
        token = base64url.encode(self._random.token(24))
        self.secret(f"{name}.token", token)
        return token

    def _write(self, name: str, data: bytes) -> Path:
        path = self.folder / name
        write_private(path, data)
        return path


def cometbft_home(letter: str) -> str:
    """Return the name of the folder of an operator's CometBFT."""
    return f"cometbft-{letter}"
