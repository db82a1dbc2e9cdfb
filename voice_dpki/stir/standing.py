"""The standing of an authentication service's own certificate on the ledger: whether verifiers would accept it.

Verifiers judge the signer's certificate (step E17 of `voice_dpki.stir.verify`). A signature that they refuse only
harms the caller, so a service does not sign if it knows that they would refuse it (RFC 8224 §6.1).
"""

from voice_dpki.stir.sign import SigningRefused
from voice_dpki.x509.profile import CertificateProfile
from voice_dpki.x509.recorded import CertificateRefused, RecordedCertificate, Use, judge


def check_own_certificate(profile: CertificateProfile, recorded: RecordedCertificate, now_s: float) -> None:
    """Check that verifiers accept our own certificate; raises SigningRefused with the code "not-on-ledger"."""
    try:
        judge(recorded, Use.SIGN_CALLS, now_s, presented=profile)
    except CertificateRefused as refused:
        raise SigningRefused("not-on-ledger", refused.about("this server's certificate")) from None
