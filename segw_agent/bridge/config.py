"""The bridge's configuration, one file for all its commands, and the keys and certificates that it names."""

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated

import msgspec
from cryptography import x509
from cryptography.exceptions import InvalidSignature

from segw_agent.bridge.authority import Authority
from segw_agent.bridge.ocsp import AnswerSigner
from segw_agent.config import LedgerSection, SegwSetup, make_setup
from segw_agent.policy import CertificatePolicy
from voice_dpki.errors import LocalError
from voice_dpki.shell.config import Config, Listen, TraceConfig, load_config, read_file, resolve
from voice_dpki.shell.credentials import read_signer
from voice_dpki.shell.example import example_of
from voice_dpki.shell.limits import Limits
from voice_dpki.shell.log import LogConfig, set_level
from voice_dpki.shell.reload import Options
from voice_dpki.shell.token_uri import KeyPlace, key_place
from voice_dpki.x509.keys import LocalSigner, spki

_DEVICES_AND_GATEWAY = {
    "organizations": ["Vendor V", "Operator A"],
    "allow": ["*.vendor.example", "segw.a.example"],
}

EXAMPLE = f"""\
ocsp_url = "http://192.0.2.1:26690/ocsp"   # in every certificate that is issued: gateways, and devices, ask there
validity_s = 5                             # how long an answer may be kept: revocation takes effect after it
clock_skew_s = 300                         # how far a client's clock may be behind ours
answers_kept = true                        # false if no client keeps answers: clocks may be ahead by as much, too

[ca]
name = "Operator A bridge CA 1"            # another CA must have another name
certificate = "bridge-ca.pem"
key = "bridge-ca.key"                      # not needed by `bridge start`: keep it elsewhere

[responder]
certificate = "bridge-ocsp.pem"
key = "bridge-ocsp.key"

[listen]                                   # /ocsp, /metrics and /healthz
host = "127.0.0.1"
port = 26690

[limits]                                   # for one client address; 10 of cost_s is one OCSP answer
cost_s = 10000
concurrent = 256
connections = 256

[ledger]
urls = ["http://127.0.0.1:26680"]          # inquiry nodes, asked in this order
genesis = "genesis.json"                   # whom to believe: the ledger's first validators
trust = "trusted.json"                     # the newest header that followed from them, kept here
max_age_s = 30                             # an answer that is older is not believed
timeout_s = 2                              # how long an inquiry may take, at all nodes together

{example_of(CertificatePolicy, "policy", instead=_DEVICES_AND_GATEWAY, column=43)}
# [log]                                    # to standard error
# level = "info"                           # debug, info, warning or error; SIGHUP reads it again
# form = "json"                            # or "text"
"""


class CaSection(Config, frozen=True, kw_only=True):
    """The CA: its common name, and where its certificate and key are."""

    name: Annotated[str, msgspec.Meta(min_length=1, max_length=64)]
    certificate: str
    key: str
    """A file, or a pkcs11: URI of an RSA key in a token."""


class ResponderSection(Config, frozen=True, kw_only=True):
    """Where the responder's certificate and key are."""

    certificate: str
    key: str


class BridgeConfig(Config, frozen=True, kw_only=True):
    """The bridge's TOML file; see EXAMPLE."""

    ocsp_url: Annotated[str, msgspec.Meta(pattern=r"^http://[!-~]{1,500}$")]
    """Plain HTTP: answers are signed, and TLS would need one more certificate whose status must be checked."""
    ca: CaSection
    responder: ResponderSection
    listen: Listen
    ledger: LedgerSection
    policy: CertificatePolicy
    validity_s: Annotated[float, msgspec.Meta(ge=1, le=86_400)] = 5.0
    clock_skew_s: Annotated[float, msgspec.Meta(ge=0, le=86_400)] = 300.0
    """How far a client's clock may be behind: thisUpdate is earlier by this, and nextUpdate is not later."""
    answers_kept: bool = True
    """Whether a client keeps answers until nextUpdate, as charon does unless it has `cert_cache = no`.

    If none does, clocks may also be ahead by `clock_skew_s`: nextUpdate is later by it, and trust lasts no longer.
    """
    limits: Limits = Limits()
    log: LogConfig = LogConfig()
    trace: TraceConfig | None = None


@dataclass(frozen=True, slots=True)
class Bridge:
    """A configuration and its path; files that it names are read on demand. Every method may raise LocalError."""

    config: BridgeConfig
    path: Path

    @classmethod
    def load(cls, path: Path) -> "Bridge":
        """Read the configuration."""
        config = load_config(path, BridgeConfig)
        if not config.ledger.urls:
            raise LocalError(f"{path}: [ledger] urls: the bridge needs an inquiry node to ask")
        return cls(config, path)

    def options(self) -> Options[BridgeConfig]:
        """Return the options, which SIGHUP reads again while a reference to them exists."""
        options = Options(partial(load_config, self.path, BridgeConfig))
        options.on_change(lambda config: set_level(config.log))
        return options

    @property
    def ahead_s(self) -> float:
        """How far a client's clock may be ahead."""
        return 0.0 if self.config.answers_kept else self.config.clock_skew_s

    def file(self, name: str) -> Path:
        """Return the path of a file that the configuration names."""
        return resolve(self.path, name)

    def authority(self) -> Authority:
        """Read the CA's certificate and key."""
        section = self.config.ca
        certificate = self._certificate(section.certificate)
        return Authority(certificate, self._key(self.ca_key(), certificate))

    def ca_key(self) -> KeyPlace:
        """Return where the CA's key is."""
        return key_place(self.config.ca.key, self.path.parent)

    def answer_signer(self) -> AnswerSigner:
        """Read the responder's certificate and key, and check them against the CA's certificate."""
        section, ca = self.config.responder, self._certificate(self.config.ca.certificate)
        certificate = self._certificate(section.certificate)
        try:
            certificate.verify_directly_issued_by(ca)
        except (ValueError, TypeError, InvalidSignature):
            raise LocalError(f"{section.certificate}: not issued by the CA: segw-agent bridge renew") from None
        return AnswerSigner(ca, certificate, self._key(self.file(section.key), certificate))

    def setup(self) -> SegwSetup:
        """Read the settings for inquiries."""
        return make_setup(self.path, ledger=self.config.ledger, party=None, trace=self.config.trace)

    def _certificate(self, name: str) -> x509.Certificate:
        path = self.file(name)
        try:
            return x509.load_pem_x509_certificate(read_file(path, "certificate"))
        except ValueError:
            raise LocalError(f"{path}: not a certificate in PEM form") from None

    def _key(self, place: KeyPlace, certificate: x509.Certificate) -> LocalSigner:
        signer = read_signer(place, "key")
        if spki(certificate.public_key()) != signer.public_key_der:  # type: ignore[arg-type]  # any kind encodes
            raise LocalError(f"{place}: not the key of the certificate beside it")
        return signer
