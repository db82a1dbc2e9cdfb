"""Asking a node who holds a number that members hold one by one."""

from voice_dpki.ledger.held_numbers import NUMBER_LEAF, number_key
from voice_dpki.ledger.standing import told_of
from voice_dpki.names import Tn
from voice_dpki.wire.ledger.client import LedgerClient
from voice_dpki.x509.recorded import RecordedCertificate


async def with_holder(client: LedgerClient, recorded: RecordedCertificate, tn: Tn) -> RecordedCertificate:
    """Return a certificate with what the ledger says of a number, if that has to be asked; raises InquiryError."""
    if recorded.allotment is None or recorded.allotment.is_settled(tn):
        return recorded
    (holder,) = await client.read(NUMBER_LEAF, [number_key(tn)])
    return told_of(recorded, tn, holder)
