"""Lookup of the holder of a number that is allotted singly."""

from voice_dpki.ledger.held_numbers import NUMBER_LEAF, NumberHolder, number_key
from voice_dpki.ledger.standing import with_number
from voice_dpki.names import Tn
from voice_dpki.wire.ledger.client import LedgerClient
from voice_dpki.x509.recorded import RecordedCertificate


async def holder_of(client: LedgerClient, tn: Tn) -> NumberHolder | None:
    """Return the holder in a number's own leaf, None if it has no leaf; raises InquiryError."""
    (holder,) = await client.read(NUMBER_LEAF, [number_key(tn)])
    return holder


async def ask_number(client: LedgerClient, recorded: RecordedCertificate, tn: Tn) -> RecordedCertificate:
    """Return a certificate with the number's holder added, looked up if it is needed; raises InquiryError."""
    if recorded.allotment is None or recorded.allotment.is_settled(tn):
        return recorded
    return with_number(recorded, tn, await holder_of(client, tn))
