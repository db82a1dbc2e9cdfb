"""The reverse public-key mode, RSA-R (RFC 4738), between two parties, in the profile of this project.

    I_MESSAGE = HDR, T, RAND, IDi, CERTi, [IDr], SP, SDP IDs, SIGNi
    R_MESSAGE = HDR, T, [RAND], IDr, CERTr, SP, KEMAC, PKE, SIGNr

The Responder chooses the TGK and encrypts it to the Initiator's certificate. The Initiator therefore need not know
the Responder in advance: the party to which the call was forwarded can answer an offer without IDr, and the claim
then names that party. Anyone who later obtains the Initiator's key can decrypt every recorded call.

The Initiator sends RAND, as ours does, or else the Responder; never both (§3.6, §3.7). SIGNr covers both
identities and the timestamp besides its message (§3.6).
"""

from collections.abc import Sequence
from dataclasses import dataclass

from voice_dpki.effects import Decrypter, Random
from voice_dpki.mikey import steps
from voice_dpki.mikey.bundle import Bundle, UpdatedBy
from voice_dpki.mikey.certified import (
    CertifiedInitiator,
    CertifiedResponder,
    KeyingAnswer,
    Party,
    Prepared,
    signed,
    signed_with,
)
from voice_dpki.mikey.envelope import ENVELOPE_KEY_BYTES, check_decrypter, is_kept, seal, unseal, unwrap, wrap
from voice_dpki.mikey.failures import Failure, MikeyError
from voice_dpki.mikey.keys import SrtpKeys
from voice_dpki.mikey.message import Header, Message
from voice_dpki.mikey.payloads import (
    Certificate,
    EnvelopeKey,
    GeneralExtension,
    Identity,
    Kemac,
    Payload,
    Rand,
    SecurityPolicy,
    Signature,
    Timestamp,
)
from voice_dpki.mikey.policy import SrtpProfile
from voice_dpki.mikey.registry import DataType, ExtensionType, Prf
from voice_dpki.mikey.sessions import accept_policy, answer_header, srtp_keys
from voice_dpki.mikey.shared import TGK_BYTES
from voice_dpki.mikey.steps import AnyClaim, Counts, PeerClaim
from voice_dpki.mikey.transport import MessageKeys, parties_of
from voice_dpki.x509.recorded import RecordedCertificate, Use

I_MESSAGE: Counts = {**steps.SIGNED_OFFER, Rand: (0, 1), Identity: (1, 2)}
"""The Initiator's message (RFC 4738 §3.4)."""

R_MESSAGE: Counts = {
    Timestamp: (1, 1),
    Rand: (0, 1),
    Identity: (1, 1),
    Certificate: (1, 1),
    SecurityPolicy: (1, 1),
    Kemac: (1, 1),
    EnvelopeKey: (1, 1),
    GeneralExtension: (0, 8),
    Signature: (1, 1),
}
"""The Responder's message (RFC 4738 §3.6). A CSB ID in a general extension is for groups: see `_check_unicast`."""

_USES = (Use.KEY_MEDIA, Use.ENCIPHER_KEYS)
"""The uses that the Initiator's certificate must be trusted for: it signs offers, and keys are encrypted to it."""


@dataclass(frozen=True, slots=True, repr=False)
class PreparedReverse(Prepared[SrtpKeys]):
    """The Initiator's keys and bundle for updates, both withheld until the ledger vouches for the claim."""

    _bundle: Bundle | None = None

    def release_bundle(self, recorded: RecordedCertificate, now_s: float) -> Bundle | None:
        """Return the bundle for updates under the envelope key; None if the Responder forbids to keep that key.

        Raises MikeyError if the ledger does not vouch for the certificate at `now_s`.
        """
        self.release(recorded, now_s)
        return self._bundle


@dataclass(frozen=True, slots=True, repr=False)
class ReverseOffer:
    """A sent I_MESSAGE, and the state that its Initiator needs to read the answer."""

    message: bytes
    responder_uri: str | None
    """The party that must answer; None allows anyone for whom the ledger vouches."""
    profile: SrtpProfile
    sent: Message
    _decrypter: Decrypter
    _decoy: bytes

    @property
    def csb_id(self) -> int:
        """The bundle's ID."""
        return self.sent.header.csb_id

    def receive(self, octets: bytes, *, now_s: float) -> AnyClaim:
        """Make the checks on an R_MESSAGE that need no ledger; return the claim of the party that answered.

        Raises MikeyError, with the failure PEER_ERROR for an error message of the Responder.
        """
        message = steps.read_answer(self.sent, octets, DataType.RSA_R_RESP, R_MESSAGE)
        steps.check_rand(message)
        _check_one_rand(self.sent, message)
        _check_unicast(message)
        same_policy = message.one(SecurityPolicy) == self.sent.one(SecurityPolicy)
        steps.check_echo(same_policy, Failure.POLICY, "the one SRTP policy")
        return steps.read_claim(message, "Responder", message.one(Identity), self.responder_uri, now_s)

    def prepare(self, claim: PeerClaim) -> PreparedReverse:
        """Verify the Responder's signature and compute the Initiator's keys; raises MikeyError."""
        message, idi = claim.message, self.sent.all(Identity)[0]
        idr, timestamp = message.one(Identity), message.one(Timestamp)
        steps.check_signature(claim, message.before_signature() + parties_of(idi.data, idr.data, timestamp))
        keys = self._keys(message)
        tgk = unseal(message.one(Kemac), keys, idr, timestamp)
        bundle = Bundle(UpdatedBy.PSK, keys, self.profile, idi, idr, message.header.sessions, timestamp)
        agreed = srtp_keys(tgk, message.header, keys.rand, self.profile, initiates=True)
        return PreparedReverse(claim, agreed, _bundle=bundle if is_kept(message.one(EnvelopeKey)) else None)

    def _keys(self, message: Message) -> MessageKeys:
        prf, rand = Prf(message.header.prf), _rand_of(self.sent, message)
        secret = unwrap(message.one(EnvelopeKey), prf, self._decrypter, self._decoy)
        return MessageKeys(secret, prf, self.csb_id, rand)

    def complete(self, prepared: Prepared[SrtpKeys], recorded: RecordedCertificate, *, now_s: float) -> SrtpKeys:
        """Return the keys if the ledger vouches for the Responder's certificate; raises MikeyError."""
        return prepared.release(recorded, now_s)


class ReverseInitiator(CertifiedInitiator):
    """Maker of one party's offers, for which the Responder chooses the keys."""

    def __init__(self, party: Party, decrypter: Decrypter) -> None:
        check_decrypter(party, decrypter)
        super().__init__(party)
        self._decrypter = decrypter

    def offer(
        self,
        *,
        responder_uri: str,
        profile: SrtpProfile,
        random: Random,
        now_s: float,
        key_mgmt_ids: Sequence[str] = ("mikey",),
        prf: Prf = Prf.HMAC_SHA_256,
        retargetable: bool = False,
        lines: int = 1,
    ) -> ReverseOffer:
        """Make an I_MESSAGE that keys `lines` m-lines of a call to `responder_uri`.

        If the call is `retargetable`, any other party can answer too.
        `key_mgmt_ids` are all protocol identifiers that the SDP will offer, in its order (RFC 4567 §4.1.4).
        """
        header, payloads = self._begin(DataType.RSA_R_INIT, responder_uri, profile, prf, random, now_s, lines)
        timestamp, rand, idi, certificate, idr, policy = payloads
        named = () if retargetable else (idr,)
        ids = steps.sdp_ids_of(key_mgmt_ids)
        octets = signed(header, (timestamp, rand, idi, certificate, *named, policy, ids), self._party.signer)
        expected = None if retargetable else responder_uri
        decoy = random.token(ENVELOPE_KEY_BYTES)
        return ReverseOffer(octets, expected, profile, Message.parse(octets), self._decrypter, decoy)


class ReverseResponder(CertifiedResponder):
    """Reader of the offers to one party; it answers each with a TGK of its own."""

    kind = DataType.RSA_R_INIT
    counts = I_MESSAGE

    def prepare(self, claim: PeerClaim, *, random: Random) -> Prepared[KeyingAnswer]:
        """Verify the Initiator's signature and make the R_MESSAGE with a TGK of ours; raises MikeyError."""
        message = claim.message
        steps.check_signature(claim)
        steps.check_respond(message.header)
        profile = accept_policy(message, self._profiles)
        header = answer_header(DataType.RSA_R_RESP, message.header, random)
        ours_rand = () if message.all(Rand) else (Rand(random.token(steps.RAND_BYTES)),)
        (rand,) = message.all(Rand) or ours_rand
        secret, tgk = random.token(ENVELOPE_KEY_BYTES), random.token(TGK_BYTES)
        keys = MessageKeys(secret, Prf(header.prf), header.csb_id, rand.rand)
        octets = self._answer(claim, header, ours_rand, keys, tgk)
        idi, idr, timestamp = message.all(Identity)[0], self._party_id, message.one(Timestamp)
        bundle = Bundle(UpdatedBy.PSK, keys, profile, idi, idr, header.sessions, timestamp)
        agreed = srtp_keys(tgk, header, rand.rand, profile, initiates=False)
        return Prepared(claim, KeyingAnswer(octets, agreed, bundle), _USES)

    @property
    def _party_id(self) -> Identity:
        return steps.identity_of(self._party.uri)

    def _answer(
        self, claim: PeerClaim, header: Header, rand: Sequence[Payload], keys: MessageKeys, tgk: bytes
    ) -> bytes:
        message, timestamp = claim.message, claim.message.one(Timestamp)
        idi, idr = message.all(Identity)[0], self._party_id
        payloads = (
            timestamp,
            *rand,
            idr,
            self._party.presented,
            message.one(SecurityPolicy),
            seal(keys, idr, tgk, timestamp),
            wrap(keys.secret, keys.prf, claim.certificate),
        )
        more = parties_of(idi.data, idr.data, timestamp)
        return signed_with(header, payloads, self._party.signer, more)


def _check_one_rand(sent: Message, message: Message) -> None:
    """Check that exactly one side sent a RAND; the Initiator discards any other answer (RFC 4738 §3.7)."""
    if len(sent.all(Rand)) + len(message.all(Rand)) != 1:
        raise MikeyError(Failure.RAND, "exactly one side must send RAND (RFC 4738 §3.7)")


def _check_unicast(message: Message) -> None:
    """Check that the answer is not for a group, as it would be with a new CSB ID (RFC 4738 §3.6)."""
    if any(each.ext_type == ExtensionType.CSB_ID for each in message.all(GeneralExtension)):
        raise MikeyError(Failure.CSB_ID, "the answer has another CSB ID, which only groups have (RFC 4738 §3.6)")


def _rand_of(sent: Message, message: Message) -> bytes:
    (rand,) = sent.all(Rand) or message.all(Rand)
    return rand.rand
