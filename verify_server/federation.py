"""The numbers of all members of the ledger, as last read: no signer outside the federation may claim them."""

from collections.abc import Mapping

from voice_dpki.ledger.answers import InquiryError
from voice_dpki.ledger.members import Member
from voice_dpki.stir.verdict import Step, VerificationFailed
from voice_dpki.wire.ledger.members import KeptMembers
from voice_dpki.x509.listed import Federation


class FederationMembers(KeptMembers):
    """The members of the ledger, as they were last read."""

    _made_of: Mapping[str, Member] | None = None
    _federation = Federation({})

    def federation(self) -> Federation:
        """Return what they hold; raises VerificationFailed where that is not known or too old."""
        try:
            members = self.members()
        except InquiryError:
            raise VerificationFailed(
                Step.LEDGER, "what numbers the members of the federation hold is not known at this time"
            ) from None
        if members is not self._made_of:
            self._federation = Federation({name: member.allotment for name, member in members.items()})
            self._made_of = members
        return self._federation
