"""Network elements that a certificate names: a SIP URI without a user is that of a server (RFC 5922 §7.1).

A telephone's certificate names users alone. One that also names an element belongs to that element, such as a
gateway, which answers for these users: data encrypted to its key are decrypted there.
"""

from voice_dpki.names import ascii_lower
from voice_dpki.x509.profile import CertificateProfile


def element_uri(host: str) -> str:
    """Return the URI by which a certificate names the element at `host`."""
    return f"sip:{host}"


def elements_of(profile: CertificateProfile) -> tuple[str, ...]:
    """Return the hosts of the elements that a certificate names, in its order; a telephone's has none."""
    return tuple(uri.partition(":")[2] for uri in profile.uris if _names_element(ascii_lower(uri)))


def _names_element(uri: str) -> bool:
    return uri.startswith(("sip:", "sips:")) and "@" not in uri
