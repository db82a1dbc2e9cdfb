"""The member `action` of a verification's answer: what the rules of the server's operator do with the call."""

from typing import Annotated

from msgspec import UNSET, Meta, Struct, UnsetType

from voice_dpki.stir.treatment import Act, Treatment


class Action(Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """Own: what is to be done with the call, there if the server's operator has rules for it."""

    act: Act
    rule: Annotated[str, Meta(description="The rule that decided.")] = ""
    status: Annotated[int, Meta(description="The SIP status of a rejection, also of one that is only watched.")] = 0
    text: str = ""
    reasons: Annotated[tuple[str, ...], Meta(description="Values of Reason (RFC 9410).")] = ()
    verstat: Annotated[str, Meta(description="As the client spells it; none if the callee is told none.")] = ""
    instead_of: Annotated[Act, Meta(description="What the rule says, and is not done.")] | UnsetType = UNSET
    emergency: bool = False


def action_of(treatment: Treatment | None) -> Action | UnsetType:
    """Return the member for a treatment, UNSET if there is none."""
    if treatment is None:
        return UNSET
    return Action(
        act=treatment.act,
        rule=treatment.rule,
        status=treatment.status,
        text=treatment.text,
        reasons=treatment.reasons,
        verstat=treatment.verstat,
        instead_of=UNSET if treatment.instead_of is None else treatment.instead_of,
        emergency=treatment.is_emergency,
    )
