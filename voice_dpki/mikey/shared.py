"""The modes with a pre-shared key: PSK (RFC 3830 §3.1) and DHHMAC (RFC 4650 §3), in the profile of this project.

    PSK     I_MESSAGE = HDR, T, RAND, IDi, IDr, SP, SDP IDs, KEMAC
            R_MESSAGE = HDR, T, IDr, V
    DHHMAC  I_MESSAGE = HDR, T, RAND, IDi, IDr, SP, DHi, SDP IDs, KEMAC
            R_MESSAGE = HDR, T, IDr, IDi, DHr, DHi, KEMAC

PSK transports a TGK that the Initiator chose, encrypted under the shared key: anyone who later obtains that key can
decrypt every recorded call. In DHHMAC the shared key only authenticates, so recorded calls stay secret. Neither
mode uses the ledger: two parties that share a key need nobody to vouch for them.

IDs, which both standards make optional in places, are always sent and expected. RFC 4650 §4.2 prints other numbers
for NULL and HMAC-SHA-1 than the registry of RFC 3830 §6.2, whose numbers are used.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import ClassVar

from voice_dpki.effects import Random
from voice_dpki.errors import LocalError
from voice_dpki.mikey import dh, steps
from voice_dpki.mikey.bundle import Bundle, UpdatedBy, bundle_of
from voice_dpki.mikey.certified import KeyingAnswer
from voice_dpki.mikey.failures import Failure, MikeyError
from voice_dpki.mikey.keys import SrtpKeys
from voice_dpki.mikey.message import Header, Message
from voice_dpki.mikey.payloads import (
    DhValue,
    GeneralExtension,
    Identity,
    Kemac,
    KeyData,
    Payload,
    Rand,
    SecurityPolicy,
    Timestamp,
    Verification,
)
from voice_dpki.mikey.policy import SrtpProfile, policy_for
from voice_dpki.mikey.registry import DataType, DhGroup, EncrAlg, ErrorNumber, KeyType, PayloadType, Prf
from voice_dpki.mikey.replay import ReplayCache
from voice_dpki.mikey.sessions import Bundles, accept_policy, answer_header, offered_sessions, srtp_keys
from voice_dpki.mikey.steps import Counts
from voice_dpki.mikey.transport import MessageKeys, parties_of

MIN_KEY_BYTES = 16
"""Shortest pre-shared key: as strong as the keys that it protects."""

TGK_BYTES = 32
"""Bytes of a TGK that we send; received ones have at least MIN_KEY_BYTES."""

KeyOf = Callable[[str], bytes | None]
"""Returns the key that we share with the party of a URI, or None."""

_PSK_INIT: Counts = {
    Timestamp: (1, 1),
    Rand: (1, 1),
    Identity: (2, 2),
    SecurityPolicy: (1, 1),
    GeneralExtension: (1, 8),
    Kemac: (1, 1),
}
PSK_RESP: Counts = {Timestamp: (1, 1), Identity: (1, 1), GeneralExtension: (0, 8), Verification: (1, 1)}
_DHHMAC_INIT: Counts = {**_PSK_INIT, DhValue: (1, 1)}
DHHMAC_RESP: Counts = {
    Timestamp: (1, 1),
    Identity: (2, 2),
    DhValue: (2, 2),
    GeneralExtension: (0, 8),
    Kemac: (1, 1),
}


@dataclass(frozen=True, slots=True, repr=False)
class SharedOffer(ABC):
    """A sent I_MESSAGE, and the state that its Initiator needs to read the answer."""

    message: bytes
    profile: SrtpProfile
    sent: Message
    _keys: MessageKeys

    @property
    def csb_id(self) -> int:
        """The bundle's ID."""
        return self.sent.header.csb_id

    @abstractmethod
    def confirm(self, octets: bytes) -> SrtpKeys:
        """Verify the R_MESSAGE and return the Initiator's keys; raises MikeyError."""

    def bundle(self, answer: bytes) -> Bundle:
        """Return the bundle to keep for updates; `answer` is the confirmed R_MESSAGE."""
        mode = UpdatedBy.DHHMAC if isinstance(self, DhHmacOffer) else UpdatedBy.PSK
        return bundle_of(mode, self._keys, self.profile, self.sent, Message.parse(answer).header)

    def _agreed(self, tgk: bytes, header: Header) -> SrtpKeys:
        return srtp_keys(tgk, header, self.sent.one(Rand).rand, self.profile, initiates=True)


@dataclass(frozen=True, slots=True, repr=False)
class PskOffer(SharedOffer):
    """An offer that holds the TGK."""

    _tgk: bytes
    answer: ClassVar[DataType] = DataType.PSK_RESP
    """The kind of the verification message."""

    def confirm(self, octets: bytes) -> SrtpKeys:
        """Verify the verification message and return the Initiator's keys; raises MikeyError."""
        message = steps.read_answer(self.sent, octets, self.answer, PSK_RESP)
        idi, idr = self.sent.all(Identity)
        steps.check_echo(message.one(Identity) == idr, Failure.IDENTITY, "IDr")
        self._keys.check_verification(message, parties_of(idi.data, idr.data, self.sent.one(Timestamp)))
        return self._agreed(self._tgk, message.header)


@dataclass(frozen=True, slots=True, repr=False)
class DhHmacOffer(SharedOffer):
    """An offer with the Initiator's public value."""

    _pair: dh.KeyPair

    def confirm(self, octets: bytes) -> SrtpKeys:
        """Verify the Responder's MAC and return the Initiator's keys; raises MikeyError."""
        message = steps.read_answer(self.sent, octets, DataType.DHHMAC_RESP, DHHMAC_RESP)
        steps.check_group(message)
        steps.check_echo(message.all(DhValue)[1] == self.sent.one(DhValue), Failure.DH_ECHO, "DHi")
        idi, idr = self.sent.all(Identity)
        steps.check_echo(message.all(Identity) == (idr, idi), Failure.IDENTITY, "IDr and IDi")
        check_no_data(self._keys.check_kemac(message))
        tgk = dh.shared_value(self._pair.secret, message.all(DhValue)[0].value)
        return self._agreed(tgk, message.header)


class SharedInitiator:
    """Maker of one party's offers under keys that it shares with others."""

    def __init__(self, uri: str, key_of: KeyOf) -> None:
        self._uri = uri
        self._key_of = key_of
        self._bundles = Bundles()

    def offer_psk(
        self,
        *,
        responder_uri: str,
        profile: SrtpProfile,
        random: Random,
        now_s: float,
        key_mgmt_ids: Sequence[str] = ("mikey",),
        prf: Prf = Prf.HMAC_SHA_256,
        lines: int = 1,
    ) -> PskOffer:
        """Make a PSK offer for `lines` m-lines.

        `key_mgmt_ids` are all protocol identifiers that the SDP will offer, in its order.
        Raises LocalError if no key is shared with the Responder.
        """
        header, payloads, keys = self._begin(DataType.PSK_INIT, responder_uri, profile, random, now_s, prf, lines)
        tgk = random.token(TGK_BYTES)
        timestamp = next(payload for payload in payloads if isinstance(payload, Timestamp))
        data = keys.crypt(b"\0" + KeyData(KeyType.TGK, tgk).serialize(), timestamp)
        octets = keys.sealed(header, (*payloads, steps.sdp_ids_of(key_mgmt_ids)), keys.encr_alg, data)
        return PskOffer(octets, profile, Message.parse(octets), keys, tgk)

    def offer_dhhmac(
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
    ) -> DhHmacOffer:
        """Make a DHHMAC offer like `offer_psk`; `pair`, if given, must serve no other exchange."""
        header, payloads, keys = self._begin(
            DataType.DHHMAC_INIT, responder_uri, profile, random, now_s, prf, lines
        )
        pair = pair or dh.new_pair(random)
        more = (DhValue(DhGroup.OAKLEY_5, pair.public_value), steps.sdp_ids_of(key_mgmt_ids))
        octets = keys.sealed(header, (*payloads, *more), EncrAlg.NULL, b"")
        return DhHmacOffer(octets, profile, Message.parse(octets), keys, pair)

    def next_timestamp(self, now_s: float) -> Timestamp:
        """Return the timestamp of an update (`voice_dpki.mikey.update`), later than those of all offers before."""
        return self._bundles.timestamp(now_s)

    def close(self, csb_id: int) -> None:
        """Forget a bundle whose call has ended, so that its ID can be drawn again."""
        self._bundles.close(csb_id)

    def _begin(
        self,
        kind: DataType,
        responder_uri: str,
        profile: SrtpProfile,
        random: Random,
        now_s: float,
        prf: Prf,
        lines: int,
    ) -> tuple[Header, tuple[Payload, ...], MessageKeys]:
        secret = self._key_of(responder_uri)
        if secret is None or len(secret) < MIN_KEY_BYTES:
            raise LocalError(f"no key of {MIN_KEY_BYTES} bytes or more is shared with the Responder")
        header = Header(kind, self._bundles.open(random), prf, offered_sessions(random, lines), respond=True)
        rand = random.token(steps.RAND_BYTES)
        payloads = (
            self._bundles.timestamp(now_s),
            Rand(rand),
            steps.identity_of(self._uri),
            steps.identity_of(responder_uri),
            policy_for(profile),
        )
        return header, payloads, MessageKeys(secret, prf, header.csb_id, rand)


class SharedResponder:
    """Reader of the offers to one party under keys that it shares with others; it answers each offer once."""

    def __init__(
        self,
        uri: str,
        key_of: KeyOf,
        replays: ReplayCache,
        profiles: Iterable[SrtpProfile] = tuple(SrtpProfile),
    ) -> None:
        self._uri = uri
        self._key_of = key_of
        self._replays = replays
        self._profiles = tuple(profiles)

    def accept(
        self,
        octets: bytes,
        *,
        initiator_uri: str,
        key_mgmt_ids: Sequence[str],
        random: Random,
        now_s: float,
        steady_s: float,
        lines: int = 1,
    ) -> KeyingAnswer:
        """Verify a PSK or DHHMAC offer and answer it; raises MikeyError.

        The arguments are those of `voice_dpki.mikey.certified.CertifiedResponder.receive`.
        """
        message = Message.parse(octets)
        is_psk = message.header.data_type == DataType.PSK_INIT
        kind = DataType.PSK_INIT if is_psk else DataType.DHHMAC_INIT
        steps.check_offer_header(message.header, kind, lines)
        steps.check_payloads(message, _PSK_INIT if is_psk else _DHHMAC_INIT)
        steps.check_respond(message.header)
        self._replays.check(octets, message.one(Timestamp), now_s=now_s, steady_s=steady_s)
        steps.check_sdp_ids(message, key_mgmt_ids)
        steps.check_values(message)
        keys = self._keys_of(message, initiator_uri)
        kemac = keys.check_kemac(message)
        profile = accept_policy(message, self._profiles)
        answer = self._answer_psk if is_psk else self._answer_dhhmac
        answered = answer(message, keys, kemac, profile, random)
        self._replays.remember(
            octets, message.one(Timestamp), now_s=now_s, steady_s=steady_s, organization=initiator_uri
        )
        return answered

    def _keys_of(self, message: Message, initiator_uri: str) -> MessageKeys:
        idi, idr = message.all(Identity)
        if steps.read_party(idr, self._uri) is None:
            raise MikeyError(Failure.IDENTITY, "the message is for another Responder than this one")
        if steps.read_party(idi, initiator_uri) is None:
            raise MikeyError(Failure.IDENTITY, "the Initiator's ID is not the party of this call")
        secret = self._key_of(initiator_uri)
        if secret is None or len(secret) < MIN_KEY_BYTES:
            sentence = "no key is shared with the Initiator"
            raise MikeyError(Failure.IDENTITY, sentence, ErrorNumber.AUTH_FAILURE)  # as for a wrong key
        header = message.header
        return MessageKeys(secret, Prf(header.prf), header.csb_id, message.one(Rand).rand)

    def _answer_psk(
        self, message: Message, keys: MessageKeys, kemac: Kemac, profile: SrtpProfile, random: Random
    ) -> KeyingAnswer:
        tgk = open_tgk(kemac, keys, message.one(Timestamp))
        header = answer_header(DataType.PSK_RESP, message.header, random)
        timestamp, (idi, idr) = message.one(Timestamp), message.all(Identity)
        octets = keys.verified(header, (timestamp, idr), parties_of(idi.data, idr.data, timestamp))
        bundle = bundle_of(UpdatedBy.PSK, keys, profile, message, header)
        return _answered(octets, tgk, header, message, bundle)

    def _answer_dhhmac(
        self, message: Message, keys: MessageKeys, kemac: Kemac, profile: SrtpProfile, random: Random
    ) -> KeyingAnswer:
        check_no_data(kemac)
        pair = dh.new_pair(random)
        tgk = dh.shared_value(pair.secret, message.one(DhValue).value)
        header = answer_header(DataType.DHHMAC_RESP, message.header, random)
        idi, idr = message.all(Identity)
        ours = DhValue(DhGroup.OAKLEY_5, pair.public_value)
        payloads = (message.one(Timestamp), idr, idi, ours, message.one(DhValue))
        octets = keys.sealed(header, payloads, EncrAlg.NULL, b"")
        bundle = bundle_of(UpdatedBy.DHHMAC, keys, profile, message, header)
        return _answered(octets, tgk, header, message, bundle)


def open_tgk(kemac: Kemac, keys: MessageKeys, timestamp: Timestamp) -> bytes:
    """Decrypt KEMAC, whose MAC was verified, and return the one TGK in it; raises MikeyError."""
    match keys.opened(kemac, timestamp, PayloadType.KEY_DATA):
        case (KeyData(KeyType.TGK, key, _, None),) if len(key) >= MIN_KEY_BYTES:
            return key
    raise MikeyError(Failure.PAYLOAD, f"the key data are not one TGK of {MIN_KEY_BYTES} bytes or more")


def check_no_data(kemac: Kemac) -> None:
    """Check that a KEMAC of DHHMAC transports no key (RFC 4650 §4.2); raises MikeyError."""
    if kemac.encr_alg != EncrAlg.NULL or kemac.encr_data:
        raise MikeyError(Failure.ENCRYPTION, "KEMAC holds encrypted data where DHHMAC has none (RFC 4650 §4.2)")


def _answered(octets: bytes, tgk: bytes, header: Header, message: Message, bundle: Bundle) -> KeyingAnswer:
    keys = srtp_keys(tgk, header, message.one(Rand).rand, bundle.profile, initiates=False)
    return KeyingAnswer(octets, keys, bundle)
