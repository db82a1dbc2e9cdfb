"""Key agreements of MIKEY, against a DTLS-SRTP handshake of aiortc's kind, by processor time in one run.

    python bench/keying.py [--rounds 15] [--agreements 40]

An agreement is everything that both telephones compute from nothing to the keys of both streams: secrets, messages,
signatures, checks, judgement of the certificate. The ledger's answer is given, for it is another program's work
(`bench/call_setup.py` has it); what a first call costs beyond is reading the other side's certificate, which a
telephone keeps, and is told in a column of its own. The peer is what `aiortc.rtcdtlstransport` does for a DTLS-SRTP
session: pyOpenSSL over OpenSSL in memory, self-signed certificates on P-256, mutual authentication, fingerprints
compared, and keys exported. Certificates are made before.

All take turns in one process, and figures are medians of the rounds.
"""

import argparse
import gc
import statistics
import time
from collections.abc import Callable, Mapping

from aiortc.rtcdtlstransport import SRTP_PROFILES as DTLS_PROFILES
from aiortc.rtcdtlstransport import RTCCertificate, SRTPProtectionProfile, certificate_digest
from OpenSSL import SSL
from rich.console import Console
from rich.table import Table

from voice_dpki.effects import SystemRandom
from voice_dpki.mikey.agreement import Strength
from voice_dpki.mikey.certified import CertifiedResponder, KeyingAnswer, Party
from voice_dpki.mikey.keys import SrtpKeys
from voice_dpki.mikey.modern import ModernInitiator, ModernParty, ModernResponder
from voice_dpki.mikey.modes import Initiator, Offer, Responder
from voice_dpki.mikey.pke import PkeInitiator, PkeOffer, PkeResponder, recipient_of
from voice_dpki.mikey.policy import SrtpProfile
from voice_dpki.mikey.replay import ReplayCache
from voice_dpki.mikey.rsa_r import ReverseInitiator, ReverseOffer, ReverseResponder
from voice_dpki.mikey.shared import SharedInitiator, SharedResponder
from voice_dpki.mikey.steps import PeerClaim
from voice_dpki.names import Tn
from voice_dpki.x509 import profile as certificates
from voice_dpki.x509 import recorded as judgement
from voice_dpki.x509.allotment import Allotment
from voice_dpki.x509.encipherment import LocalDecrypter
from voice_dpki.x509.keys import LocalSigner, generate_es256, generate_rsa
from voice_dpki.x509.profile import build_certificate, read_profile
from voice_dpki.x509.recorded import CertStatus, RecordedCertificate
from voice_dpki.x509.tnauthlist import TnRange

AIMS = {"modern": 0.5, "hybrid": 0.8}
CALLER, CALLEE = "sip:+493023125001@a.example", "sip:+442079460123@b.example"
PROFILE = SrtpProfile.AES_CM_128_HMAC_SHA1_80
RANDOM = SystemRandom()
HELD = Allotment(("a.example", "b.example"), (TnRange(Tn("493023125000"), 1000), TnRange(Tn("442079460000"), 1000)))
KEY_BYTES, SALT_BYTES = 16, 14

Agreement = Callable[[], None]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--agreements", type=int, default=40, help="of each kind in a round")
    args = parser.parse_args()
    kinds: dict[str, Agreement] = {
        "DTLS-SRTP (aiortc, P-256)": dtls(),
        "modern": modern(Strength.MODERN),
        "hybrid": modern(Strength.HYBRID),
        "dh-sign": by_rsa("dh-sign"),
        "rsa-r": by_rsa("rsa-r"),
        "pke": by_rsa("pke"),
        "dhhmac": shared("dhhmac"),
        "psk": shared("psk"),
    }
    known = measure(kinds, args.rounds, args.agreements, _forget_nothing)
    new = measure(kinds, max(3, args.rounds // 3), args.agreements, forget_certificates)
    table = Table(title=f"One agreement, both sides, {PROFILE}: {args.rounds} rounds of {args.agreements}")
    for column in ("", "us of processor", "to DTLS-SRTP", "aim", "us, certificates new", "to DTLS-SRTP"):
        table.add_column(column, justify="right")
    peer, *_ = known
    for name, us in known.items():
        aim = f"<= {AIMS[name]}" if name in AIMS else ""
        table.add_row(
            name, f"{us:.0f}", f"{us / known[peer]:.2f}", aim, f"{new[name]:.0f}", f"{new[name] / new[peer]:.2f}"
        )
    Console().print(table)


def measure(
    kinds: Mapping[str, Agreement], rounds: int, number: int, before: Callable[[], None]
) -> dict[str, float]:
    """Return the median processor time of an agreement of each kind in microseconds; the first round is warm-up."""
    times: dict[str, list[float]] = {name: [] for name in kinds}
    gc.disable()
    for turn in range(rounds + 1):
        for name, agree in kinds.items():
            taken_s = 0.0
            for _ in range(number):
                before()
                began_s = time.process_time()
                agree()
                taken_s += time.process_time() - began_s
            if turn:
                times[name].append(1e6 * taken_s / number)
        gc.collect()
    gc.enable()
    return {name: statistics.median(measured) for name, measured in times.items()}


def _forget_nothing() -> None:
    """Leave what a telephone keeps."""


def forget_certificates() -> None:
    """Forget the certificates that were read before, so that each is as new as in a first call."""
    certificates._read.cache_clear()
    judgement._read_profile.cache_clear()


# --- MIKEY ------------------------------------------------------------------------------------------------------


def modern(strength: Strength) -> Agreement:
    """Return an agreement in the modern mode."""
    caller, callee = (
        ModernParty(uri, certificate(signer, uri), signer)
        for signer, uri in ((generate_es256(), CALLER), (generate_es256(), CALLEE))
    )
    initiator, responder = ModernInitiator(caller), ModernResponder(callee, forgetful())
    said = {party.uri: vouched(party.certificate, with_der=True) for party in (caller, callee)}

    def agree() -> None:
        now_s = time.time()
        offer = initiator.offer(
            responder_uri=CALLEE, profile=PROFILE, random=RANDOM, now_s=now_s, strength=strength
        )
        claim = responder.receive(
            offer.message, initiator_uri=CALLER, key_mgmt_ids=("mikey",), now_s=now_s, steady_s=now_s
        )
        answer = responder.complete(claim, said[CALLER](), random=RANDOM, now_s=now_s, steady_s=now_s)
        keys = offer.complete(offer.receive(answer.message), said[CALLEE](), now_s=now_s)
        initiator.close(offer.csb_id)
        check(keys, answer)

    return agree


def by_rsa(mode: str) -> Agreement:
    """Return an agreement by DH-SIGN, without pairs made in advance, by RSA-R or by PKE."""
    caller, callee = (
        Party(uri, certificate(signer, uri), signer)
        for signer, uri in ((generate_rsa(), CALLER), (generate_rsa(), CALLEE))
    )
    said = {party.uri: vouched(party.certificate, with_der=True) for party in (caller, callee)}
    offer_of, responder = _rsa_ends(mode, caller, callee, said[CALLEE])

    def agree() -> None:
        now_s = time.time()
        offer = offer_of(now_s)
        claim = responder.receive(
            offer.message, initiator_uri=CALLER, key_mgmt_ids=("mikey",), now_s=now_s, steady_s=now_s
        )
        assert isinstance(claim, PeerClaim)
        prepared = responder.prepare(claim, random=RANDOM)
        answer = responder.complete(prepared, said[CALLER](), now_s=now_s, steady_s=now_s)
        if isinstance(offer, PkeOffer):  # its answer is proved by the key that only the Responder could read
            check(offer.confirm(answer.message), answer)
            return
        theirs = offer.receive(answer.message, now_s=now_s)
        assert isinstance(theirs, PeerClaim)
        check(offer.complete(offer.prepare(theirs), said[CALLEE](), now_s=now_s), answer)

    return agree


def _rsa_ends(
    mode: str, caller: Party, callee: Party, said: Callable[[], RecordedCertificate]
) -> tuple[Callable[[float], Offer | ReverseOffer | PkeOffer], CertifiedResponder]:
    """Return what makes the caller's offers, and the callee."""
    if mode == "pke":
        pke = PkeInitiator(caller)
        return (
            lambda now_s: pke.offer(
                recipient_of(said(), CALLEE, now_s), profile=PROFILE, random=RANDOM, now_s=now_s
            ),
            PkeResponder(callee, decrypter(callee), forgetful()),
        )
    one = Initiator(caller) if mode == "dh-sign" else ReverseInitiator(caller, decrypter(caller))
    other = Responder(callee, forgetful()) if mode == "dh-sign" else ReverseResponder(callee, forgetful())
    return (
        lambda now_s: one.offer(responder_uri=CALLEE, profile=PROFILE, random=RANDOM, now_s=now_s),
        other,
    )


def decrypter(party: Party) -> LocalDecrypter:
    """Return what decrypts with the key of a party's certificate."""
    assert isinstance(party.signer, LocalSigner)
    return LocalDecrypter.of(party.signer)


def shared(mode: str) -> Agreement:
    """Return an agreement under a shared key."""
    secret = RANDOM.token(32)
    initiator = SharedInitiator(CALLER, {CALLEE: secret}.get)
    responder = SharedResponder(CALLEE, {CALLER: secret}.get, forgetful())
    make = initiator.offer_psk if mode == "psk" else initiator.offer_dhhmac

    def agree() -> None:
        now_s = time.time()
        offer = make(responder_uri=CALLEE, profile=PROFILE, random=RANDOM, now_s=now_s)
        answer = responder.accept(
            offer.message,
            initiator_uri=CALLER,
            key_mgmt_ids=("mikey",),
            random=RANDOM,
            now_s=now_s,
            steady_s=now_s,
        )
        keys = offer.confirm(answer.message)
        initiator.close(offer.csb_id)
        check(keys, answer)

    return agree


def check(keys: SrtpKeys, answer: KeyingAnswer) -> None:
    """Check that both sides have the same keys."""
    assert (keys.send, keys.receive) == (answer.keys.receive, answer.keys.send)


def forgetful() -> ReplayCache:
    """Return a cache with room for all agreements of a run."""
    return ReplayCache(started_s=0.0, max_entries=10**9)


def certificate(signer: LocalSigner, uri: str) -> bytes:
    """Make a telephone's certificate."""
    now_s = int(time.time())
    return build_certificate(
        signer,
        organization="Operator",
        common_name="telephone",
        uris=[uri],
        not_before_s=now_s - 3600,
        not_after_s=now_s + 86_400,
        random=RANDOM,
    )


def vouched(der: bytes, *, with_der: bool) -> Callable[[], RecordedCertificate]:
    """Return what gives the ledger's answer about a certificate, which each call has to judge anew."""
    read = read_profile(der)
    said = RecordedCertificate(
        digest=read.digest,
        status=CertStatus.VALID,
        organization="Operator",
        not_before_s=read.not_before_s,
        not_after_s=read.not_after_s,
        allotment=HELD,
        der=der if with_der else None,
    )

    def unjudged() -> RecordedCertificate:
        said._trusted.clear()
        return said

    return unjudged


# --- DTLS-SRTP --------------------------------------------------------------------------------------------------


def dtls() -> Agreement:
    """Return a handshake with all that aiortc's RTCDtlsTransport computes for one."""
    ends = [RTCCertificate.generateCertificate() for _ in range(2)]
    fingerprints = [certificate_digest(end._cert, "sha-256") for end in ends]
    profiles: list[SRTPProtectionProfile] = DTLS_PROFILES

    def begin(end: RTCCertificate, *, server: bool) -> SSL.Connection:
        connection = SSL.Connection(end._create_ssl_context(srtp_profiles=profiles))
        if server:
            connection.set_accept_state()
        else:
            connection.set_connect_state()
        return connection

    def agree() -> None:
        client, server = begin(ends[0], server=False), begin(ends[1], server=True)
        open_ = {client, server}
        while open_:
            for one, other in ((client, server), (server, client)):
                step(one, open_)
                hand_over(one, other)
        for one, expected in ((client, fingerprints[1]), (server, fingerprints[0])):
            peer = one.get_peer_certificate(as_cryptography=True)
            assert peer is not None
            assert certificate_digest(peer, "sha-256") == expected
        size = 2 * (KEY_BYTES + SALT_BYTES)
        exported = [each.export_keying_material(b"EXTRACTOR-dtls_srtp", size) for each in (client, server)]
        assert exported[0] == exported[1]

    return agree


def step(connection: SSL.Connection, open_: set[SSL.Connection]) -> None:
    """Go on with a handshake as far as what has come allows."""
    if connection not in open_:
        return
    try:
        connection.do_handshake()
    except SSL.WantReadError:
        return
    open_.discard(connection)


def hand_over(one: SSL.Connection, other: SSL.Connection) -> None:
    """Carry what one end has written to the other."""
    while True:
        try:
            datagram = one.bio_read(1500)
        except SSL.WantReadError:
            return
        other.bio_write(datagram)


if __name__ == "__main__":
    main()
