"""Which names of organisations are admitted from version 4 of the rules on: none that looks like another's.

Names that older versions admitted stay, and count here as they are.

docs/spec/state.md#names-of-organisations specifies it.
"""

from voice_dpki.errors import MalformedError
from voice_dpki.ledger import directory
from voice_dpki.ledger.refusals import Refusal, Refused
from voice_dpki.ledger.view import StateView
from voice_dpki.x509.prepared import ScriptsError, check_written, look


def check_new(view: StateView, organization: str) -> None:
    """Check the name of an organisation that is no member yet; raises Refused."""
    try:
        check_written(organization)
    except ScriptsError:
        raise Refused(Refusal.ORGANIZATION_SCRIPTS) from None
    except MalformedError:
        raise Refused(Refusal.ORGANIZATION_FORM) from None
    if look(organization) in map(_look_of, directory.organizations(view)):
        raise Refused(Refusal.ORGANIZATION_TAKEN)


def _look_of(organization: str) -> str:
    """Return what a member's name looks like; one that has no written form looks like nothing but itself."""
    try:
        return look(organization)
    except MalformedError:
        return organization
