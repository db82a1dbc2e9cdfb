"""New keys for a crypto session bundle during a call (RFC 3830 §4.5), in the profile of this project.

    PSK     I_MESSAGE = HDR, T, IDi, IDr, SDP IDs, KEMAC         R_MESSAGE = HDR, T, IDr, V
    DHHMAC  I_MESSAGE = HDR, T, IDi, IDr, DHi, SDP IDs, KEMAC    R_MESSAGE = HDR, T, IDr, IDi, DHr, DHi, KEMAC

An update has the bundle's CSB ID and a later timestamp, and neither RAND nor policy: those of the first exchange
hold. A bundle of PKE or RSA-R is updated in PSK mode under its envelope key, as §4.5 demands where that key was
cached (RFC 4738 §3.6); it needs no certificate and no inquiry to the ledger. Each update brings a new TGK and
new SSRCs, because SRTP libraries cannot change the key of a stream. Only the bundle's Initiator sends
updates: two sides with one encryption key and the same T would encrypt under one key stream (§4.2.3).
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from voice_dpki.effects import Random
from voice_dpki.errors import LocalError
from voice_dpki.mikey import dh, steps
from voice_dpki.mikey.bundle import Bundle, UpdatedBy
from voice_dpki.mikey.failures import Failure, MikeyError
from voice_dpki.mikey.keys import SrtpKeys
from voice_dpki.mikey.message import Header, Message
from voice_dpki.mikey.payloads import DhValue, GeneralExtension, Identity, Kemac, KeyData, Payload, Timestamp
from voice_dpki.mikey.registry import DataType, DhGroup, EncrAlg, KeyType
from voice_dpki.mikey.replay import ReplayCache, unix_time_s
from voice_dpki.mikey.sessions import answer_header, offered_sessions, srtp_keys
from voice_dpki.mikey.shared import DHHMAC_RESP, PSK_RESP, TGK_BYTES, check_no_data, open_tgk
from voice_dpki.mikey.steps import Counts
from voice_dpki.mikey.transport import parties_of

_PSK_INIT: Counts = {Timestamp: (1, 1), Identity: (2, 2), GeneralExtension: (1, 8), Kemac: (1, 1)}
_DHHMAC_INIT: Counts = {**_PSK_INIT, DhValue: (1, 1)}

_OFFERS = {UpdatedBy.PSK: (DataType.PSK_INIT, _PSK_INIT), UpdatedBy.DHHMAC: (DataType.DHHMAC_INIT, _DHHMAC_INIT)}
_ANSWERS = {UpdatedBy.PSK: (DataType.PSK_RESP, PSK_RESP), UpdatedBy.DHHMAC: (DataType.DHHMAC_RESP, DHHMAC_RESP)}


@dataclass(frozen=True, slots=True, repr=False)
class Updated:
    """One party's new keys, for both directions, and the bundle for the next update."""

    keys: SrtpKeys
    bundle: Bundle


@dataclass(frozen=True, slots=True, repr=False)
class UpdateAnswer:
    """A Responder's answer to an update: the message to send, and the new keys."""

    message: bytes
    updated: Updated


@dataclass(frozen=True, slots=True, repr=False)
class UpdateOffer:
    """A sent update, and the state that its Initiator needs to read the answer."""

    message: bytes
    sent: Message
    _bundle: Bundle
    _tgk: bytes
    """Empty in DHHMAC, where the TGK comes from both sides' Diffie-Hellman values."""
    _pair: dh.KeyPair | None

    def confirm(self, octets: bytes) -> Updated:
        """Verify the answer and return the Initiator's new keys; raises MikeyError."""
        bundle, keys = self._bundle, self._bundle.keys
        kind, counts = _ANSWERS[bundle.mode]
        message = steps.read_answer(self.sent, octets, kind, counts)
        named = (bundle.idr,) if bundle.mode is UpdatedBy.PSK else (bundle.idr, bundle.idi)
        steps.check_echo(message.all(Identity) == named, Failure.IDENTITY, "the identities")
        if self._pair is None:
            parties = parties_of(bundle.idi.data, bundle.idr.data, self.sent.one(Timestamp))
            keys.check_verification(message, parties)
            return _updated(bundle, message.header, self.sent, self._tgk, initiates=True)
        steps.check_group(message)
        theirs, echoed = message.all(DhValue)
        steps.check_echo(echoed == self.sent.one(DhValue), Failure.DH_ECHO, "DHi")
        check_no_data(keys.check_kemac(message))
        tgk = dh.shared_value(self._pair.secret, theirs.value)
        return _updated(bundle, message.header, self.sent, tgk, initiates=True)


def offer_update(
    bundle: Bundle, timestamp: Timestamp, *, random: Random, key_mgmt_ids: Sequence[str] = ("mikey",)
) -> UpdateOffer:
    """Make an update with a new TGK for a bundle that we initiated; no other message of ours has its `timestamp`.

    `key_mgmt_ids` are all protocol identifiers that the SDP will offer. Raises LocalError if the clock was set back
    since the bundle's last exchange: the Responder would refuse the update as a replay.
    """
    if int.from_bytes(timestamp.value, "big") <= int.from_bytes(bundle.timestamp.value, "big"):
        raise LocalError("the clock was set back since the keys were agreed on: a new offer is needed")
    kind, _ = _OFFERS[bundle.mode]
    keys, header = bundle.keys, _header(bundle, kind, random)
    payloads = (timestamp, bundle.idi, bundle.idr)
    ids = steps.sdp_ids_of(key_mgmt_ids)
    if bundle.mode is UpdatedBy.PSK:
        tgk = random.token(TGK_BYTES)
        data = keys.crypt(b"\0" + KeyData(KeyType.TGK, tgk).serialize(), timestamp)
        octets = keys.sealed(header, (*payloads, ids), keys.encr_alg, data)
        return UpdateOffer(octets, Message.parse(octets), bundle, tgk, None)
    pair = dh.new_pair(random)
    ours = DhValue(DhGroup.OAKLEY_5, pair.public_value)
    octets = keys.sealed(header, (*payloads, ours, ids), EncrAlg.NULL, b"")
    return UpdateOffer(octets, Message.parse(octets), bundle, b"", pair)


def accept_update(
    bundle: Bundle,
    octets: bytes,
    replays: ReplayCache,
    *,
    key_mgmt_ids: Sequence[str],
    random: Random,
    now_s: float,
    steady_s: float,
) -> UpdateAnswer:
    """Verify an update of a bundle that the peer initiated, and answer it; raises MikeyError.

    The arguments are those of `voice_dpki.mikey.certified.CertifiedResponder.receive`.
    """
    message = Message.parse(octets)
    _check_header(bundle, message, _OFFERS[bundle.mode])
    timestamp = message.one(Timestamp)
    replays.check(octets, timestamp, now_s=now_s, steady_s=steady_s)
    if unix_time_s(timestamp, now_s) <= unix_time_s(bundle.timestamp, now_s):
        raise MikeyError(Failure.REPLAY, "the update is not later than the exchange before it")
    steps.check_sdp_ids(message, key_mgmt_ids)
    steps.check_group(message)
    if message.all(Identity) != (bundle.idi, bundle.idr):
        raise MikeyError(Failure.IDENTITY, "the update is not between the parties of the bundle")
    kemac = bundle.keys.check_kemac(message)
    answer = _answer_psk if bundle.mode is UpdatedBy.PSK else _answer_dhhmac
    answered = answer(bundle, message, kemac, random)
    replays.remember(
        octets, timestamp, now_s=now_s, steady_s=steady_s, organization=bundle.idi.data.decode("utf-8")
    )
    return answered


def _header(bundle: Bundle, kind: DataType, random: Random) -> Header:
    """Return the header of an update: that of the bundle, with a new SSRC for our stream of each m-line."""
    drawn = offered_sessions(random, len(bundle.sessions) // 2)
    sessions = tuple(replace(old, ssrc=new.ssrc) for old, new in zip(bundle.sessions, drawn, strict=True))
    return Header(kind, bundle.keys.csb_id, bundle.keys.prf, sessions, respond=True)


def _check_header(bundle: Bundle, message: Message, offer: tuple[DataType, Counts]) -> None:
    kind, counts = offer
    header = message.header
    steps.check_offer_header(header, kind, len(bundle.sessions) // 2)
    steps.check_respond(header)
    if header.csb_id != bundle.keys.csb_id:
        raise MikeyError(Failure.CSB_ID, "the update is for another bundle")
    if header.prf != bundle.keys.prf:
        raise MikeyError(Failure.PRF, "the update has another PRF than the bundle")
    if [each.policy_no for each in header.sessions] != [each.policy_no for each in bundle.sessions]:
        raise MikeyError(Failure.POLICY, "the update names another policy than the bundle's")
    steps.check_payloads(message, counts)


def _answer_psk(bundle: Bundle, message: Message, kemac: Kemac, random: Random) -> UpdateAnswer:
    timestamp = message.one(Timestamp)
    tgk = open_tgk(kemac, bundle.keys, timestamp)
    header = answer_header(DataType.PSK_RESP, message.header, random)
    parties = parties_of(bundle.idi.data, bundle.idr.data, timestamp)
    octets = bundle.keys.verified(header, (timestamp, bundle.idr), parties)
    return UpdateAnswer(octets, _updated(bundle, header, message, tgk, initiates=False))


def _answer_dhhmac(bundle: Bundle, message: Message, kemac: Kemac, random: Random) -> UpdateAnswer:
    check_no_data(kemac)
    pair, theirs = dh.new_pair(random), message.one(DhValue)
    tgk = dh.shared_value(pair.secret, theirs.value)
    header = answer_header(DataType.DHHMAC_RESP, message.header, random)
    ours = DhValue(DhGroup.OAKLEY_5, pair.public_value)
    payloads: tuple[Payload, ...] = (message.one(Timestamp), bundle.idr, bundle.idi, ours, theirs)
    octets = bundle.keys.sealed(header, payloads, EncrAlg.NULL, b"")
    return UpdateAnswer(octets, _updated(bundle, header, message, tgk, initiates=False))


def _updated(bundle: Bundle, header: Header, offer: Message, tgk: bytes, *, initiates: bool) -> Updated:
    keys = srtp_keys(tgk, header, bundle.keys.rand, bundle.profile, initiates=initiates)
    after = replace(bundle, sessions=header.sessions, timestamp=offer.one(Timestamp))
    return Updated(keys, after)
