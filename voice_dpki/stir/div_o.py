"""Diversion with the previous token nested in its own: div-o, for paths that carry one token (RFC 8946 §5, §6).

payload = {"dest","div","iat","opt","orig"}                                       RFC 8946 §5
opt     = a whole token of the full form, which may be of type div-o itself       RFC 8946 §6

A verifier extracts the nested tokens (`unfold`) and judges them as if each had its own Identity. `fold` merges
their verdicts into one: the innermost token's if all have passed, so a div-o can prove the caller.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from voice_dpki.codec import canonical_json
from voice_dpki.codec.canonical_json import Json
from voice_dpki.errors import MalformedError
from voice_dpki.names import ascii_lower
from voice_dpki.stir.call import Call, SigningRequest
from voice_dpki.stir.div import DIV, DivClaims, check_is_elsewhere
from voice_dpki.stir.identity import IdentityHeader
from voice_dpki.stir.kind import Kind
from voice_dpki.stir.passport import ClaimError, Passport, read_dest, read_orig
from voice_dpki.stir.verdict import Verdict

MAX_OPT_LENGTH: Final = 4096
"""Characters of a nested token; each level makes it a third longer, and a token has at most 8192."""
MAX_DEPTH: Final = 6
"""Tokens that are extracted from one Identity; a call that was diverted five times nests five."""
MAX_TOKENS: Final = 16
"""Tokens of one call, nested ones included."""

PPT: Final = "div-o"


@dataclass(frozen=True, slots=True, kw_only=True)
class DivOClaims(DivClaims):
    """The payload of a div-o PASSporT."""

    opt: str

    @classmethod
    def parse(cls, payload: bytes) -> "DivOClaims":
        """Read the claims as those of div, and opt.

        Raises MalformedError if `payload` is no JSON object, and ClaimError for the first claim that is missing or
        wrong.
        """
        claims = canonical_json.decode_object(payload)
        try:
            opt = read_opt(claims.get("opt"))
        except MalformedError as error:
            raise ClaimError(f"claim opt cannot be used: {error}") from None
        div = DivClaims.read(claims)
        return cls(dest=div.dest, div=div.div, iat_s=div.iat_s, orig=div.orig, opt=opt)

    @classmethod
    def of(cls, request: SigningRequest) -> "DivOClaims":
        """Return the claims that a signing request asks for."""
        div = DivClaims.of(request)
        return cls(dest=div.dest, div=div.div, iat_s=div.iat_s, orig=div.orig, opt=str(request.own["opt"]))

    def own(self) -> Mapping[str, Json]:
        """Return div and opt (RFC 8946 §5)."""
        return {**DivClaims.own(self), "opt": self.opt}


def read_opt(value: object) -> str:
    """Read opt, a token of the full form; raises MalformedError (RFC 8946 §6)."""
    if not isinstance(value, str) or len(value) > MAX_OPT_LENGTH:
        raise MalformedError(f"it is not a token of at most {MAX_OPT_LENGTH} characters")
    Passport.parse(value)
    return value


def check_joins(request: SigningRequest) -> None:
    """Check that the nested token has the same caller and names the diverting party in dest; raises ClaimError."""
    claims = DivOClaims.of(request)
    try:
        inner = canonical_json.decode_object(Passport.parse(claims.opt).payload_untrusted)
    except MalformedError as error:
        raise ClaimError(f"its payload cannot be read: {error}") from None
    if read_orig(inner) != claims.orig or claims.div.tn not in read_dest(inner).tns:
        raise ClaimError("it is of another caller, or did not lead to the diverting party (RFC 8946 §4.1)")


@dataclass(frozen=True, slots=True)
class Unfolded:
    """A call in which each nested token has an Identity of its own."""

    call: Call
    sizes: Sequence[int]
    """The number of tokens in each received Identity, nested ones included."""

    def fold(self, verdicts: Sequence[Verdict]) -> list[Verdict]:
        """Merge the verdicts on all tokens into one for each received Identity, in their order."""
        if len(self.sizes) == len(verdicts):
            return list(verdicts)
        folded, at = [], 0
        for size in self.sizes:
            folded.append(_one(verdicts[at : at + size]))
            at += size
        return folded


def unfold(call: Call) -> Unfolded:
    """Give each nested token an Identity of its own, behind that of the token that held it.

    Tokens beyond MAX_TOKENS stay nested. The outer one then fails, because the token that it diverts is missing.
    """
    if not any(_may_nest(identity) for identity in call.identities):  # almost every call
        return Unfolded(call, [1] * len(call.identities))
    groups: list[list[str]] = []
    left = MAX_TOKENS - len(call.identities)
    for identity in call.identities:
        inner = _inside(identity)[: max(left, 0)]
        left -= len(inner)
        groups.append([identity, *inner])
    flat = tuple(each for group in groups for each in group)
    return Unfolded(replace(call, identities=flat), [len(group) for group in groups])


def _one(verdicts: Sequence[Verdict]) -> Verdict:
    """Return the first failed verdict from the outside in, or the innermost token's if none failed."""
    failed = next((verdict for verdict in verdicts if verdict.reasoncode is not None), verdicts[-1])
    return replace(failed, about_caller=any(verdict.about_caller for verdict in verdicts))


def _may_nest(identity: str) -> bool:
    """Tell whether the ppt of an Identity is div-o or missing; False if the Identity is malformed."""
    if identity.endswith(";ppt=shaken"):  # the common case, decided without parsing
        return False
    try:
        ppt = IdentityHeader.parse(identity).ppt
    except MalformedError:
        return False
    return ppt is None or ascii_lower(ppt) == PPT


def _inside(identity: str) -> list[str]:
    """Return the tokens nested in an Identity as Identities of their own, from the outside in."""
    found: list[str] = []
    try:
        token = IdentityHeader.parse(identity).token
        while _may_nest(identity) and len(found) < MAX_DEPTH:
            passport = Passport.parse(token)
            if passport.header_text("ppt") != PPT:
                break
            token = DivOClaims.parse(passport.payload_untrusted).opt
            found.append(_as_identity(token))
    except (MalformedError, ClaimError):
        pass  # the token's own verdict names the step that failed
    return found


def _as_identity(token: str) -> str:
    x5u = Passport.parse(token).header_text("x5u")
    return token if x5u is None else f"{token};info=<{x5u}>"


def _div_o() -> Kind[Any]:
    return replace(
        DIV,
        ppt=PPT,
        parse=DivOClaims.parse,
        compose=DivOClaims.of,
        members={**DIV.members, "opt": read_opt},
        together=(("dest", check_is_elsewhere), ("opt", check_joins)),
    )


DIV_O: Final = _div_o()
