"""The signed Diffie-Hellman mode, DH-SIGN (RFC 3830 §3.3), in the profile of this project.

    I_MESSAGE = HDR, T, RAND, IDi, CERTi, IDr, SP, DHi, SDP IDs, SIGNi
    R_MESSAGE = HDR, T, IDr, CERTr, IDi, DHr, DHi, SIGNr

Each side reads the other's message in three steps. `receive` makes every check that needs only the message, and
returns a PeerClaim. The claim is unverified: it names the certificate, which the caller looks up at its own ledger
node. During the lookup, `prepare` verifies the signature under the certificate and computes the keys, which takes
about as long. `complete` releases the keys if the ledger vouches for the certificate.

What the standards leave open is fixed here: the group is OAKLEY 5; the signature is RSA-PSS with SHA-256 (SIGN does
not name its hash); IDs are the SIP URIs of the call, and the certificates list them as subject alternative names.
The dialled URI may have another domain than the callee's own, because proxies route numbers from domain to domain.
So two URIs with the same number are the same party (`codec.telephone.is_same_party`), and `steps.check_recorded`
checks on the ledger that the operator behind the certificate holds both number and domain.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from voice_dpki.effects import Random
from voice_dpki.mikey import dh, steps
from voice_dpki.mikey.certified import (
    CertifiedInitiator,
    CertifiedResponder,
    KeyingAnswer,
    Prepared,
    signed,
)
from voice_dpki.mikey.failures import Failure
from voice_dpki.mikey.keys import SrtpKeys
from voice_dpki.mikey.message import Header, Message
from voice_dpki.mikey.payloads import (
    DhValue,
    Identity,
    Rand,
    Timestamp,
)
from voice_dpki.mikey.policy import SrtpProfile
from voice_dpki.mikey.registry import DataType, DhGroup, Prf
from voice_dpki.mikey.sessions import accept_policy, answer_header, srtp_keys
from voice_dpki.mikey.steps import AnyClaim, PeerClaim
from voice_dpki.x509.recorded import RecordedCertificate


@dataclass(frozen=True, slots=True, repr=False)
class Offer:
    """A sent I_MESSAGE, and the state that its Initiator needs to read the answer."""

    message: bytes
    responder_uri: str
    profile: SrtpProfile
    sent: Message
    pair: dh.KeyPair

    @property
    def csb_id(self) -> int:
        """The bundle's ID."""
        return self.sent.header.csb_id

    def receive(self, octets: bytes, *, now_s: float) -> AnyClaim:
        """Make the checks on an R_MESSAGE that need no ledger.

        Raises MikeyError, with the failure PEER_ERROR for an error message of the Responder.
        """
        message = steps.read_answer(self.sent, octets, DataType.DH_RESP, steps.R_MESSAGE)
        steps.check_values(message)
        steps.check_echo(message.all(DhValue)[1] == self.sent.one(DhValue), Failure.DH_ECHO, "DHi")
        idr, idi = message.all(Identity)
        steps.check_echo(idi == self.sent.all(Identity)[0], Failure.IDENTITY, "IDi")
        return steps.read_claim(message, "Responder", idr, self.responder_uri, now_s)

    def prepare(self, claim: PeerClaim) -> Prepared[SrtpKeys]:
        """Verify the Responder's signature and compute the Initiator's keys; raises MikeyError."""
        steps.check_signature(claim)
        tgk = dh.shared_value(self.pair.secret, claim.message.all(DhValue)[0].value)
        header, rand = claim.message.header, self.sent.one(Rand).rand
        return Prepared(claim, srtp_keys(tgk, header, rand, self.profile, initiates=True))

    def complete(self, prepared: Prepared[SrtpKeys], recorded: RecordedCertificate, *, now_s: float) -> SrtpKeys:
        """Return the keys if the ledger vouches for the Responder's certificate; raises MikeyError."""
        return prepared.release(recorded, now_s)


class Initiator(CertifiedInitiator):
    """Maker of one party's offers."""

    def offer(
        self,
        *,
        responder_uri: str,
        profile: SrtpProfile,
        random: Random,
        now_s: float,
        key_mgmt_ids: Sequence[str] = ("mikey",),
        prf: Prf = Prf.HMAC_SHA_256,
        pair: dh.KeyPair | None = None,
        lines: int = 1,
    ) -> Offer:
        """Make an I_MESSAGE for a call to `responder_uri` that keys `lines` m-lines, with random SSRCs of ours.

        `key_mgmt_ids` are all protocol identifiers that the SDP will offer, in its order (RFC 4567 §4.1.4). `pair`,
        if given, is a fresh key pair that no other exchange uses.
        """
        pair = pair or dh.new_pair(random)
        header, payloads = self._begin(DataType.DH_INIT, responder_uri, profile, prf, random, now_s, lines)
        more = (DhValue(DhGroup.OAKLEY_5, pair.public_value), steps.sdp_ids_of(key_mgmt_ids))
        octets = signed(header, (*payloads, *more), self._party.signer)
        return Offer(octets, responder_uri, profile, Message.parse(octets), pair)


class Responder(CertifiedResponder):
    """Reader of the offers to one party; it answers each once."""

    kind = DataType.DH_INIT
    counts = steps.I_MESSAGE

    def prepare(
        self, claim: PeerClaim, *, random: Random, pair: dh.KeyPair | None = None
    ) -> Prepared[KeyingAnswer]:
        """Verify the Initiator's signature and make the R_MESSAGE, with random SSRCs of ours; raises MikeyError.

        `pair`, if given, is a fresh key pair that no other exchange uses.
        """
        message = claim.message
        steps.check_signature(claim)
        profile = accept_policy(message, self._profiles)
        pair = pair or dh.new_pair(random)
        tgk = dh.shared_value(pair.secret, message.one(DhValue).value)
        header = answer_header(DataType.DH_RESP, message.header, random)
        keys = srtp_keys(tgk, header, message.one(Rand).rand, profile, initiates=False)
        return Prepared(claim, KeyingAnswer(self._answer(message, header, pair), keys))

    def _answer(self, message: Message, header: Header, pair: dh.KeyPair) -> bytes:
        idi, _ = message.all(Identity)
        payloads = (
            message.one(Timestamp),
            steps.identity_of(self._party.uri),
            self._party.presented,
            idi,
            DhValue(DhGroup.OAKLEY_5, pair.public_value),
            message.one(DhValue),
        )
        return signed(header, payloads, self._party.signer)
