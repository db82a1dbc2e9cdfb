"""Other certificates for the parties of a call: both ends report a second valid one for a URI.

The holder of the other certificate's key can answer, or call, in that party's place. It may be a second telephone,
or the operator. The first call to a party has no earlier key to compare with.
"""

import logging
from collections.abc import Sequence
from typing import Literal, TypeAlias

from voice_dpki.ledger.answers import InquiryError
from voice_dpki.mikey.steps import PeerClaim
from voice_dpki.names import CertDigest
from voice_dpki.wire.ledger.client import LedgerClient
from voice_dpki.wire.ledger.uri_certificates import UriCertificate, UriCertificates
from voice_dpki.x509.profile import CertificateProfile
from voice_dpki.x509.recorded import CertStatus

log = logging.getLogger(__name__)

Party: TypeAlias = Literal["caller", "callee"]

_OTHER: dict[Party, Party] = {"caller": "callee", "callee": "caller"}


async def rivals_of(
    ledger: LedgerClient, peer: PeerClaim, party: Party, own_uri: str, own: CertificateProfile
) -> tuple[str, ...]:
    """Return clauses for the call's report about other valid certificates for its parties, of which `peer` is one.

    A certificate for the same key, or for another kind of key, does not count. Nor does one that renews the
    certificate in use or is renewed by it: the older key has signed for the newer one. If the ledger cannot be
    asked, a clause says so.
    """
    told: list[str] = []
    try:
        for who, uri, used in ((party, peer.uri, peer.certificate), (_OTHER[party], own_uri, own)):
            told += _told(who, _rivals(await UriCertificates(ledger, uri).read(), used))
    except InquiryError as error:
        log.warning("other certificates are not known", extra={"fields": {"reason": str(error)}})
        told.append("the ledger could not be asked for other certificates of the parties")
    return tuple(told)


def _rivals(listed: Sequence[UriCertificate], used: CertificateProfile) -> list[UriCertificate]:
    """Return the certificates that could stand in for the `used` one and are not linked to it by a renewal."""
    linked = {each.found.digest for each in listed if _links(each) & {used.digest}}
    linked.update(*(_links(each) for each in listed if each.found.digest == used.digest))
    return [
        each
        for each in listed
        if each.found.digest not in linked and each.found.status is CertStatus.VALID and _could_key(each, used)
    ]


def _links(each: UriCertificate) -> set[CertDigest]:
    """Return the certificates that this one renews, and that renew it."""
    record = each.found.record
    return set() if record is None else {digest for digest in (record.replaces, record.replaced_by) if digest}


def _could_key(each: UriCertificate, used: CertificateProfile) -> bool:
    """Return whether a certificate names the party, and has another key of the same kind, which may sign.

    A mode of MIKEY signs with one kind of key, and no telephone changes its mode at the request of the other side.
    """
    profile = each.profile
    if profile is None or not each.is_named or profile.public_key_der == used.public_key_der:
        return False
    return profile.key_algorithm == used.key_algorithm and profile.may_sign()


def _told(party: str, rivals: Sequence[UriCertificate]) -> list[str]:
    records = [each.found.record for each in rivals]
    return [
        f"the ledger has another valid certificate for the {party}, with another key, which {record.organization} "
        f"recorded in block {record.recorded_height}"
        for record in records
        if record is not None
    ]
