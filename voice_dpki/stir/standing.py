"""The standing of an authentication service's own certificate on the ledger: whether verifiers would accept it.

Verifiers look up the signer's certificate (steps E17 of `voice_dpki.stir.verify`). A signature that they must
refuse only harms the caller, so a service does not sign when it knows that they would (RFC 8224 §6.1).
"""

from voice_dpki.stir.sign import SigningRefused
from voice_dpki.stir.verify import SignerRecord, SignerStatus
from voice_dpki.x509.profile import CertificateProfile

_NOT_VALID = {
    SignerStatus.UNKNOWN: "this server's certificate is not recorded on the ledger",
    SignerStatus.REVOKED: "this server's certificate was revoked on the ledger",
    SignerStatus.SUSPENDED: "this server's certificate is suspended on the ledger",
    SignerStatus.EXPIRED: "this server's certificate has expired",
    SignerStatus.NOT_YET_VALID: "the validity of this server's certificate has not begun",
}


def refusal_of(profile: CertificateProfile, record: SignerRecord) -> SigningRefused | None:
    """Return the reason not to sign with a certificate that has this record; None if verifiers accept it."""
    if record.status is SignerStatus.REVOKED and not record.is_member:
        return _refused("the operator of this server's certificate is no member of the ledger any more")
    if record.status is not SignerStatus.VALID:
        return _refused(_NOT_VALID[record.status])
    if record.organization != profile.organization:
        return _refused("this server's certificate is recorded on the ledger by another organisation")
    listed = profile.tn_auth_list
    if listed is None or not listed.inside(record.ranges, record.spcs):
        return _refused("this server's certificate claims numbers that the ledger does not allot to its operator")
    return None


def _refused(sentence: str) -> SigningRefused:
    return SigningRefused("not-on-ledger", sentence)
