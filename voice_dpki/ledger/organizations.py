"""Check of a new member's name (from version 4 of the rules on): it must not look like another member's.

Names that older versions admitted stay, and new ones are compared with them as they are.

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
    """Return the look of a member's name; one that cannot be prepared looks like nothing but itself."""
    try:
        return look(organization)
    except MalformedError:
        return organization
