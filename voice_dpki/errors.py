"""Base classes of errors. The branch says which side did wrong.

Messages are for people. A message names what was wrong and, if there is one, the limit or the section that
was broken. It never holds a token, a key or a subscriber's number.
"""


class VoiceDpkiError(Exception):
    """Base of every error that this project raises on purpose."""


class PeerError(VoiceDpkiError):
    """The other side did wrong: malformed, oversized, unauthentic or disallowed input."""


class LocalError(VoiceDpkiError):
    """We did wrong: bad configuration, a missing file, a call out of order."""


class HarmfulAgainError(LocalError):
    """Something was refused that does harm when it is tried again, as a PIN does, which tokens count."""


class MalformedError(PeerError):
    """Bytes from outside do not parse as what they claim to be."""
