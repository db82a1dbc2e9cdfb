"""The public-key mode, PKE (RFC 3830 §3.2), in the profile of this project.

    I_MESSAGE = HDR, T, RAND, IDi, CERTi, IDr, SP, SDP IDs, KEMAC, CHASH, PKE, SIGNi
    R_MESSAGE = HDR, T, IDr, V

The Initiator must have the Responder's certificate before it calls: it asks the ledger for those of the number, and
CHASH names the one that it chose. Its keys are agreed as soon as the offer arrives, so media that come before the
answer can be played. Anyone who later obtains the Responder's key can decrypt every recorded call.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from hashlib import sha1, sha256

from voice_dpki.codec.telephone import is_same_party
from voice_dpki.effects import Decrypter, Random
from voice_dpki.mikey import steps
from voice_dpki.mikey.bundle import UpdatedBy, bundle_of
from voice_dpki.mikey.certified import (
    CertifiedInitiator,
    CertifiedResponder,
    KeyingAnswer,
    Party,
    Prepared,
    signed,
)
from voice_dpki.mikey.envelope import ENVELOPE_KEY_BYTES, check_decrypter, is_kept, seal, unseal, unwrap, wrap
from voice_dpki.mikey.failures import Failure, MikeyError
from voice_dpki.mikey.message import Message
from voice_dpki.mikey.payloads import CertificateHash, EnvelopeKey, Identity, Kemac, Rand, Timestamp
from voice_dpki.mikey.policy import SrtpProfile
from voice_dpki.mikey.registry import DataType, HashFunc, Prf
from voice_dpki.mikey.replay import ReplayCache
from voice_dpki.mikey.sessions import accept_policy, answer_header, srtp_keys
from voice_dpki.mikey.shared import TGK_BYTES, PskOffer
from voice_dpki.mikey.steps import Counts, PeerClaim
from voice_dpki.mikey.strength import check_rsa_key
from voice_dpki.mikey.transport import MessageKeys, parties_of
from voice_dpki.x509.profile import CertificateProfile
from voice_dpki.x509.recorded import CertificateRefused, RecordedCertificate, Use, judge

I_MESSAGE: Counts = {
    **steps.SIGNED_OFFER,
    Kemac: (1, 1),
    CertificateHash: (1, 1),
    EnvelopeKey: (1, 1),
}
"""The Initiator's message (RFC 3830 §3.2)."""

_HASHES = {HashFunc.SHA_1: sha1, HashFunc.SHA_256: sha256}
"""Hashes by which CHASH can name our certificate; MD5 is refused."""

_HASH_OF = {Prf.MIKEY_1: HashFunc.SHA_1, Prf.HMAC_SHA_256: HashFunc.SHA_256}


@dataclass(frozen=True, slots=True)
class Recipient:
    """A party that keys can be encrypted to: a URI, and the certificate that names it. See `recipient_of`."""

    uri: str
    certificate: CertificateProfile


def recipient_of(recorded: RecordedCertificate, uri: str, now_s: float) -> Recipient:
    """Return the party `uri` with the certificate that the ledger gave for it; raises MikeyError.

    The certificate must be trusted for the encryption of keys, and name the party.
    """
    whose = "the Responder's certificate"
    if recorded.der is not None:
        check_rsa_key(recorded.der, whose)
    try:
        trusted = judge(recorded, Use.ENCIPHER_KEYS, now_s)
        named = next((each for each in trusted.profile.uris if is_same_party(each, uri)), None)
        if named is None:
            raise MikeyError(Failure.IDENTITY, f"{whose} does not name the party that is called")
        trusted.check_uri(named)
    except CertificateRefused as refused:
        sentence = f"{refused.about(whose)} (ledger at height {recorded.height})"
        raise MikeyError(Failure.LEDGER, sentence) from None
    return Recipient(named, trusted.profile)


@dataclass(frozen=True, slots=True, repr=False)
class PkeOffer(PskOffer):
    """An offer whose TGK is in an envelope; the answer is the same as in PSK mode, under the envelope key."""

    answer = DataType.PKE_RESP


class PkeInitiator(CertifiedInitiator):
    """Maker of one party's offers to parties whose certificates it has."""

    def offer(
        self,
        recipient: Recipient,
        *,
        profile: SrtpProfile,
        random: Random,
        now_s: float,
        key_mgmt_ids: Sequence[str] = ("mikey",),
        prf: Prf = Prf.HMAC_SHA_256,
        lines: int = 1,
    ) -> PkeOffer:
        """Make an I_MESSAGE for a call to `recipient` that keys `lines` m-lines.

        `key_mgmt_ids` are all protocol identifiers that the SDP will offer, in its order (RFC 4567 §4.1.4).
        """
        header, payloads = self._begin(DataType.PKE_INIT, recipient.uri, profile, prf, random, now_s, lines)
        timestamp, rand, idi, *_ = payloads
        secret, tgk = random.token(ENVELOPE_KEY_BYTES), random.token(TGK_BYTES)
        keys = MessageKeys(secret, prf, header.csb_id, rand.rand)
        more = (
            steps.sdp_ids_of(key_mgmt_ids),
            seal(keys, idi, tgk, timestamp),
            _hash_of(recipient.certificate.der, _HASH_OF[prf]),
            wrap(secret, prf, recipient.certificate),
        )
        octets = signed(header, (*payloads, *more), self._party.signer)
        return PkeOffer(octets, profile, Message.parse(octets), keys, tgk)


class PkeResponder(CertifiedResponder):
    """Reader of the offers that were encrypted to one party."""

    kind = DataType.PKE_INIT
    counts = I_MESSAGE

    def __init__(
        self,
        party: Party,
        decrypter: Decrypter,
        replays: ReplayCache,
        profiles: Iterable[SrtpProfile] = tuple(SrtpProfile),
    ) -> None:
        check_decrypter(party, decrypter)
        super().__init__(party, replays, profiles)
        self._decrypter = decrypter

    def prepare(self, claim: PeerClaim, *, random: Random) -> Prepared[KeyingAnswer]:
        """Verify the Initiator's signature, open the envelope and make the verification message.

        Raises MikeyError.
        """
        message, timestamp = claim.message, claim.message.one(Timestamp)
        steps.check_signature(claim)
        steps.check_respond(message.header)
        self._check_hash(message.one(CertificateHash))
        profile = accept_policy(message, self._profiles)
        idi, idr = message.all(Identity)
        keys = self._open(message, random)
        tgk = unseal(message.one(Kemac), keys, idi, timestamp)
        header = answer_header(DataType.PKE_RESP, message.header, random)
        octets = keys.verified(header, (timestamp, idr), parties_of(idi.data, idr.data, timestamp))
        agreed = srtp_keys(tgk, header, message.one(Rand).rand, profile, initiates=False)
        kept = is_kept(message.one(EnvelopeKey))
        bundle = bundle_of(UpdatedBy.PSK, keys, profile, message, header) if kept else None
        return Prepared(claim, KeyingAnswer(octets, agreed, bundle))

    def _check_hash(self, named: CertificateHash) -> None:
        if named.hash_func not in _HASHES:
            raise MikeyError(Failure.HASH, f"hash function {named.hash_func} is not accepted for CHASH")
        if named != _hash_of(self._party.certificate, HashFunc(named.hash_func)):
            raise MikeyError(Failure.HASH, "the keys are encrypted to another certificate than ours")

    def _open(self, message: Message, random: Random) -> MessageKeys:
        prf, decoy = Prf(message.header.prf), random.token(ENVELOPE_KEY_BYTES)
        secret = unwrap(message.one(EnvelopeKey), prf, self._decrypter, decoy)
        return MessageKeys(secret, prf, message.header.csb_id, message.one(Rand).rand)


def _hash_of(der: bytes, function: HashFunc) -> CertificateHash:
    return CertificateHash(function, _HASHES[function](der).digest())
