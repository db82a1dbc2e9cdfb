"""The definition of a kind of PASSporT: its claims and steps, the authority it needs, its proof (RFC 8225 §8)."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final, Generic, TypeVar

from voice_dpki.names import Tn
from voice_dpki.stir.call import Call, SigningRequest
from voice_dpki.stir.passport import Claims, Passport
from voice_dpki.stir.replay import replay_key

_C = TypeVar("_C", bound=Claims)
_C_contra = TypeVar("_C_contra", bound=Claims, contravariant=True)


@dataclass(frozen=True, slots=True)
class Authority(Generic[_C_contra]):
    """The number or namespaces over which a signer must have authority, and their names in sentences."""

    number: Callable[[_C_contra], Tn] | None
    """The number that the signer's certificate must cover; None if the kind is not about a number's holder."""
    to_verifiers: str
    """Its name in the sentences of step E17."""
    to_signers: str
    """Its name in the answers to signing requests."""
    namespaces: Callable[[_C_contra], frozenset[str]] | None = None
    """The namespaces of Resource-Priority, in lower case. Who may sign them is configured, not on the ledger."""

    def __post_init__(self) -> None:
        if self.number is None and self.namespaces is None:
            raise ValueError("a signer needs authority over something")


OVER_CALLER: Final[Authority[Claims]] = Authority(
    lambda claims: claims.orig, "the caller's number", "the originating number"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind(Generic[_C]):
    """One kind of PASSporT, by the name in its header's ppt.

    Steps E3 to E18 and E21 are the same for all kinds. Only a kind that proves the number to verify ends in
    TN-Validation-Passed. Only for one that proves the caller's do E20 and E22 compare the call's keying and session
    description.
    """

    ppt: str
    """Its name in IANA's registry of PASSporT extensions; "" for the PASSporT without an extension."""
    proves_caller: bool
    """Whether it proves the caller's number. If so, its signer needs authority over that number."""
    authority: Authority[_C]
    parse: Callable[[bytes], _C]
    """Reads a payload; raises MalformedError, or ClaimError that names the claim (step E14)."""
    checks: tuple[Callable[[_C, Call], None], ...]
    """Steps that this kind alone has. They need the request alone, run after E16, and raise VerificationFailed."""
    compose: Callable[[SigningRequest], _C]
    """Returns the claims to sign for a request."""
    members: Mapping[str, Callable[[object], object]]
    """What a signing request must hold for this kind alone; the readers raise MalformedError or ClaimError."""
    options: Mapping[str, Callable[[object], object]] = field(default_factory=dict)
    """What a signing request can hold for this kind alone; the readers raise as those of `members` do."""
    together: tuple[tuple[str, Callable[[SigningRequest], None]], ...] = ()
    """Checks of several members: the one to name in an error; the check raises ClaimError or MalformedError."""
    answers: bool = False
    """Whether it stands in the answer to a call only, and proves the called number."""
    diverts: Callable[[_C], Tn] | None = None
    """Returns the diverting number, for a kind of diversion, whose dest is the call's new target; else None."""
    replay_key: Callable[[Passport], bytes] = replay_key
    """Returns the key under which an accepted token is remembered (step E21). Kinds share no keys."""

    def __post_init__(self) -> None:
        if self.proves_caller and self.authority is not OVER_CALLER:
            raise ValueError(f"{self.ppt} cannot prove the caller's number without authority over it")
        if self.answers and (self.proves_caller or self.authority.number is None):
            raise ValueError(f"{self.ppt} proves the number that was called, and needs authority over that")

    def proves(self, call: Call) -> bool:
        """Tell whether it proves the number to verify: the caller's, or in an answer the called one."""
        return self.answers if call.is_answer else self.proves_caller

    def reader(self, name: str) -> Callable[[object], object] | None:
        """Return what reads the member `name` of a signing request; None if this kind has no such member."""
        return self.members.get(name) or self.options.get(name)
