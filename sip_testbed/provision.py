"""Provisioning: the files that the operators need before the first call.

They are keys, self-signed certificates, the ledger's genesis, tokens between a domain's own services, subscribers,
and a configuration file for each program.
"""

import base64
import json
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from voice_dpki.codec import base64url
from voice_dpki.effects import Clock, Random
from voice_dpki.ledger.header import Validator
from voice_dpki.ledger.members import MemberKind
from voice_dpki.names import Tn
from voice_dpki.sip.hop import SIP_PORT
from voice_dpki.stage.addresses import Addresses, AddressPlan
from voice_dpki.stage.site import Credential, Founder, SiteFolder
from voice_dpki.x509.keys import LocalSigner, generate_es256, generate_rsa
from voice_dpki.x509.tnauthlist import TnAuthList, TnRange

CHAIN_ID = "voice-dpki-testbed"

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
        "third": (10, SIP_PORT),
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
    """An operator, as in the genesis."""

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
THIRD = Tn("493023125002")
"""The subscriber to whom the caller transfers the callee: another one of Operator A's."""
CALLEE = Tn("442079460123")
CALLEE_OVER_TRANSIT = Tn("442079460223")
"""Operator A reaches the numbers 44207946 02xx over a transit network, on which a scenario's attacker is."""

TRANSIT_PREFIX = "+4420794602"

CALLEE_OVER_SBC = Tn("442079460323")
"""Operator A reaches the numbers 44207946 03xx over the same network, through SBCs that rewrite SDP."""

SBC_PREFIX = "+4420794603"

CALLEE_IMPERSONATED = Tn("442079460423")
"""For this number Operator B records a second certificate in a scenario; calls to it go to Operator B directly."""

CALLEES = (CALLEE, CALLEE_OVER_TRANSIT, CALLEE_OVER_SBC, CALLEE_IMPERSONATED)
"""All numbers of the callee, whose telephone has one certificate for them."""

OUTSIDE = Tn("441134960001")
"""A number that the ledger allots to no operator (Ofcom reserves it for drama)."""


def aor(number: Tn, operator: Operator) -> str:
    """Return the SIP address of record of a subscriber."""
    return f"sip:+{number}@{operator.domain}"


class Site(SiteFolder):
    """The folder of one testbed and its files."""

    def __init__(
        self,
        folder: Path,
        addresses: Addresses,
        clock: Clock,
        random: Random,
        ledger: LedgerKind = LedgerKind.EMBEDDED,
    ) -> None:
        super().__init__(folder, clock, random)
        self.addresses = addresses
        self.ledger = ledger
        for operator in ledger.operators:
            (folder / operator.letter).mkdir(exist_ok=True)
        with ThreadPoolExecutor() as pool:  # RSA keys take longest to generate, so do that in parallel
            standard = pool.map(self.standard_telephone, OPERATORS, ((CALLER,), CALLEES))
            telephones = map(self.telephone, OPERATORS, ((CALLER,), CALLEES))
            self.found(CHAIN_ID, map(_founder, ledger.operators))
            comets = ledger.operators if ledger is LedgerKind.FEDERATION else ()
            self.node_ids = {operator.letter: self._node_id(operator.letter) for operator in comets}
            self.signer, self.answer_signer = (
                self.signing_credential(f"{operator.letter}/signer", operator.numbers, operator)
                for operator in OPERATORS
            )
            self.caller, self.callee = telephones
            self.standard_caller, self.standard_callee = standard
        roles = (f"{role}-{operator.letter}" for role in ("verify", "submit") for operator in ledger.operators)
        self.tokens = {name: self.token(name) for name in ("sign-a", "sign-b", *roles)}
        self.passwords = {operator.letter: base64url.encode(random.token(12)) for operator in OPERATORS}
        self.shared_key = self.secret("telephones.psk", random.token(32).hex())
        """A key that both telephones share, for the modes of MIKEY that need one."""

    def signing_credential(
        self, name: str, numbers: TnRange = OPERATORS[0].numbers, operator: Operator = OPERATORS[0]
    ) -> Credential:
        """Make a certificate in an operator's name with authority over `numbers`, without recording it."""
        listed = TnAuthList(ranges=(numbers,))
        return self.certify(name, generate_es256(), operator.organization, f"sti.{operator.domain}", numbers=listed)

    def second_telephone(self, *, standard: bool = False) -> Credential:
        """Make a certificate for a number of the callee's with a key of Operator B's, without recording it."""
        make = self.standard_telephone if standard else self.telephone
        return make(OPERATORS[1], (CALLEE_IMPERSONATED,), "second-telephone")

    def third_telephone(self, *, standard: bool = False) -> Credential:
        """Make the certificate of the telephone to which a call is transferred, without recording it."""
        make = self.standard_telephone if standard else self.telephone
        return make(OPERATORS[0], (THIRD,), "third-telephone")

    def listen(self, actor: str) -> dict[str, object]:
        """Return the [listen] section of an actor's configuration."""
        address = self.addresses[actor]
        return {"host": address.host, "port": address.port}

    def users(self, letter: str, *numbers: Tn) -> str:
        """Write the subscribers of a domain, all with the domain's one password; return the file's name."""
        password = self.passwords[letter]
        users = [{"number": f"+{number}", "password": password} for number in numbers]
        return self.config(f"users-{letter}", {"users": users}).name

    def telephone(self, operator: Operator, numbers: Iterable[Tn], file: str = "telephone") -> Credential:
        """Make a user agent's certificate: on P-256, with which MIKEY's modern mode signs."""
        return self._certified(operator, numbers, file, generate_es256())

    def standard_telephone(
        self, operator: Operator, numbers: Iterable[Tn], file: str = "standard-telephone"
    ) -> Credential:
        """Make one for the standard modes: on RSA, because the standard has no other signature (RFC 3830 §6.5)."""
        return self._certified(operator, numbers, file, generate_rsa())

    def _certified(self, operator: Operator, numbers: Iterable[Tn], file: str, signer: LocalSigner) -> Credential:
        letter = operator.letter
        uris = [aor(number, operator) for number in numbers]
        return self.certify(f"{letter}/{file}", signer, operator.organization, f"telephone {letter}", uris=uris)

    def _node_id(self, letter: str) -> str:
        """Write the node key of an operator's CometBFT in CometBFT's format; return the node's id for peers."""
        key = Ed25519PrivateKey.generate()
        seed, public = key.private_bytes_raw(), key.public_key().public_bytes_raw()
        value = base64.b64encode(seed + public).decode("ascii")
        form = {"priv_key": {"type": "tendermint/PrivKeyEd25519", "value": value}}
        (self.folder / cometbft_home(letter) / "config").mkdir(mode=0o700, parents=True)
        self.write(f"{cometbft_home(letter)}/config/node_key.json", json.dumps(form).encode("ascii"))
        return Validator(public, 1).address.hex()


def _founder(operator: Operator) -> Founder:
    return Founder(
        operator.organization,
        MemberKind.OPERATOR,
        operator.domain,
        f"{operator.letter}/endorsing.pem",
        f"{operator.letter}/validator.pem",
        (operator.numbers,),
    )


def cometbft_home(letter: str) -> str:
    """Return the name of the folder of an operator's CometBFT."""
    return f"cometbft-{letter}"
