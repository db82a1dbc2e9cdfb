"""Readiness checks of the server: a key that signs, a certificate that verifiers accept, and the ledger."""

from typing import Final

from authn_server.expiry import Expiry
from authn_server.service import AuthnService
from authn_server.switching import Switch
from voice_dpki.effects import Clock
from voice_dpki.errors import VoiceDpkiError
from voice_dpki.shell.readiness import Check, Finding, failed_if, warned_if, worst
from voice_dpki.stir.sign import Credential
from voice_dpki.x509.keys import fault_of, is_elsewhere, verify_signature

AGAIN_S: Final = 10.0
"""How often the key is tried."""

PROBE: Final = b"voice-dpki readiness probe"
"""Data signed as a probe. It is no PASSporT: that has a base64url header and dots."""


def checks(switch: Switch, service: AuthnService, expiry: Expiry, clock: Clock) -> dict[str, Check]:
    """Return the checks of /readyz."""

    def certificate() -> Finding:
        reason = service.health().facts.get("reason", "")
        return worst(failed_if(reason), warned_if(expiry.shortfall()), warned_if(switch.shortfall()))

    key = KeyProbe(switch, clock)
    return {"certificate": certificate, "key": key.check, "ledger": lambda: switch.current.standing.freshness()}


class KeyProbe:
    """Checks that the key in use signs, and that it belongs to the certificate."""

    def __init__(self, switch: Switch, clock: Clock) -> None:
        self._switch, self._clock = switch, clock
        self._tried: tuple[Credential, float, str] | None = None
        """The credential that was tried last, when, and what was wrong with it."""

    def check(self) -> Finding:
        """Return the result of a probe that is at most AGAIN_S old.

        A key in a token is not probed here, because a token would block the event loop: threads probe it at
        intervals (`voice_dpki.shell.signing`), and their last result is used.
        """
        credential, now_s = self._switch.current.credential, self._clock.steady_s()
        if is_elsewhere(credential.signer):
            return failed_if(fault_of(credential.signer))
        tried = self._tried
        if tried is None or tried[0] is not credential or now_s - tried[1] >= AGAIN_S:
            self._tried = tried = credential, now_s, _fault(credential)
        return failed_if(tried[2])


def _fault(credential: Credential) -> str:
    """Have a key sign; return what is wrong with it, "" if it does."""
    signer = credential.signer
    try:
        signature = signer.sign(PROBE)
        verify_signature(credential.profile.public_key_der, signer.algorithm, PROBE, signature)
    except VoiceDpkiError as error:
        return f"the signing key cannot be used: {error}"
    return ""
