"""Connected identity: the called party's operator signs the answer to a call (RFC 9970, experimental).

payload = {"dest","iat","orig"}

`orig` and `dest` are those of the call, and `iat` is the answer's own. So the token proves to the caller's side
that the answering party holds the called number. A token of this kind stands in responses, and in an UPDATE from
the called party. We could not read the whole RFC: the module follows its draft and work that builds on it
(docs/divergences.md).
"""

from dataclasses import dataclass
from typing import Final

from voice_dpki.codec import canonical_json
from voice_dpki.errors import MalformedError
from voice_dpki.names import Tn
from voice_dpki.stir.call import SigningRequest
from voice_dpki.stir.kind import Authority, Kind
from voice_dpki.stir.passport import ClaimError, Claims, Destinations, read_dest, read_iat, read_orig


@dataclass(frozen=True, slots=True, kw_only=True)
class RspClaims(Claims):
    """The payload of an rsp PASSporT: the holder of `dest`, one number, answers the call of `orig`."""

    @classmethod
    def parse(cls, payload: bytes) -> "RspClaims":
        """Read the claims; unknown ones are ignored.

        Raises MalformedError if `payload` is no JSON object, and ClaimError for the first claim that is missing or
        wrong.
        """
        claims = canonical_json.decode_object(payload)
        dest = read_dest(claims)
        try:
            check_one_number(dest)
        except MalformedError as error:
            raise ClaimError(f"claim dest cannot be used: {error}") from None
        return cls(dest=dest, iat_s=read_iat(claims), orig=read_orig(claims))

    @classmethod
    def of(cls, request: SigningRequest) -> "RspClaims":
        """Return the claims that a signing request asks for."""
        return cls(dest=request.dest, iat_s=request.iat_s, orig=request.orig)

    def answering(self) -> Tn:
        """Return the number that was called, whose holder answers."""
        (number,) = self.dest.tns
        return number


def check_one_number(dest: Destinations) -> None:
    """Check that exactly one number and no URI was called; raises MalformedError."""
    if len(dest.tns) != 1 or dest.uris:
        raise MalformedError("an answer is signed for exactly one number that was called")


def _check_request(request: SigningRequest) -> None:
    check_one_number(request.dest)


RSP: Final[Kind[RspClaims]] = Kind(
    ppt="rsp",
    proves_caller=False,
    answers=True,
    authority=Authority(RspClaims.answering, "the number that was called", "the number that was called"),
    parse=RspClaims.parse,
    checks=(),
    compose=RspClaims.of,
    members={},
    together=(("dest", _check_request),),
)
