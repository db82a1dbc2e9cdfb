"""Priority: an operator with authority over a namespace of Resource-Priority grants it to a call (RFC 8443, 9027).

payload = {"dest","iat","orig","rph","sph"?}                                      RFC 9027 §5
rph     = {"auth":["ets.0",...]}                                                  RFC 8443 §3
sph     = "psap-callback", with values of esnet alone                             RFC 9027 §4

A certificate of the ledger gives authority over numbers, not over namespaces. So the signer's and the verifier's
configuration say who may sign which namespace.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from voice_dpki.codec import canonical_json
from voice_dpki.codec.canonical_json import Json
from voice_dpki.errors import MalformedError
from voice_dpki.names import ascii_lower
from voice_dpki.stir.call import Call, SigningRequest
from voice_dpki.stir.kind import Authority, Kind
from voice_dpki.stir.passport import ClaimError, Claims, read_dest, read_iat, read_orig
from voice_dpki.stir.verdict import Step, VerificationFailed

MAX_VALUES: Final = 16
"""Values of Resource-Priority that one call may have."""

PSAP_CALLBACK: Final = "psap-callback"
ESNET: Final = "esnet"
"""The namespace of local emergency communications (RFC 7135)."""

_WORD: Final = r"[A-Za-z0-9!%*_+`'~-]{1,32}"
R_VALUE: Final = rf"{_WORD}\.{_WORD}"
"""The pattern for r-value = namespace "." r-priority (RFC 4412 §3.1); our bound is 32 characters for each."""

_VALUE: Final = re.compile(rf"{R_VALUE}\Z")


@dataclass(frozen=True, slots=True, kw_only=True)
class RphClaims(Claims):
    """The payload of an rph PASSporT (RFC 8443)."""

    auth: tuple[str, ...]
    """Values of Resource-Priority that are granted, as they were written."""
    sph: str = ""
    """The value of Priority that is granted (RFC 9027 §4); empty if none is."""

    @classmethod
    def parse(cls, payload: bytes) -> "RphClaims":
        """Read the claims; unknown ones are ignored.

        Raises MalformedError if `payload` is no JSON object, and ClaimError for the first claim that is missing or
        wrong.
        """
        claims = canonical_json.decode_object(payload)
        try:
            auth = read_rph(claims.get("rph"))
            sph = read_sph(claims["sph"]) if "sph" in claims else ""
            check_call_back(auth, sph)
        except MalformedError as error:
            raise ClaimError(f"claim rph or sph cannot be used: {error}") from None
        return cls(dest=read_dest(claims), iat_s=read_iat(claims), orig=read_orig(claims), auth=auth, sph=sph)

    @classmethod
    def of(cls, request: SigningRequest) -> "RphClaims":
        """Return the claims that a signing request asks for."""
        auth, sph = _asked(request)
        return cls(dest=request.dest, iat_s=request.iat_s, orig=request.orig, auth=auth, sph=sph)

    def own(self) -> Mapping[str, Json]:
        """Return rph and sph (RFC 8443 §3, RFC 9027 §4)."""
        rph: dict[str, Json] = {"rph": {"auth": list(self.auth)}}
        return {**rph, "sph": self.sph} if self.sph else rph

    def namespaces(self) -> frozenset[str]:
        """Return the namespaces of the values, in lower case."""
        return frozenset(ascii_lower(value.partition(".")[0]) for value in self.auth)


def read_rph(value: object) -> tuple[str, ...]:
    """Read {"auth": ["ets.0", ...]}, as a signing request and a payload have it; raises MalformedError."""
    auth = value.get("auth") if isinstance(value, dict) else None
    if not isinstance(auth, list) or not 1 <= len(auth) <= MAX_VALUES:
        raise MalformedError(f"rph must be there and hold auth, a list of 1 to {MAX_VALUES} (RFC 8443 §3)")
    return tuple(_r_value(item) for item in auth)


def read_sph(value: object) -> str:
    """Read sph; raises MalformedError for any other value than psap-callback (RFC 9027 §4)."""
    if value != PSAP_CALLBACK:
        raise MalformedError(f"sph is not {PSAP_CALLBACK} (RFC 9027 §4)")
    return PSAP_CALLBACK


def read_resource_priority(text: str) -> frozenset[str]:
    """Read the value of a Resource-Priority header field, in lower case; raises MalformedError."""
    values = text.split(",", MAX_VALUES)
    if len(values) > MAX_VALUES:
        raise MalformedError(f"Resource-Priority has more than {MAX_VALUES} values")
    return frozenset(ascii_lower(_r_value(value.strip(" \t"))) for value in values)


def check_call_back(auth: tuple[str, ...], sph: str) -> None:
    """Check that sph comes with values of esnet alone; raises MalformedError. Source: RFC 9027 §4."""
    if sph and any(ascii_lower(value.partition(".")[0]) != ESNET for value in auth):
        raise MalformedError("sph stands beside values of esnet alone (RFC 9027 §4)")


def check_priority(claims: RphClaims, call: Call) -> None:
    """E16 priority: the call has the priority that was granted (RFC 8443 §4.2, RFC 9027 §3, §4)."""
    granted = {ascii_lower(value) for value in claims.auth}
    if call.resource_priority is not None and not granted <= call.resource_priority:
        raise VerificationFailed(Step.PRIORITY, "the call's Resource-Priority is not the one that was signed")
    if claims.sph and call.priority is not None and call.priority != claims.sph:
        raise VerificationFailed(Step.PRIORITY, "the call's Priority is not the one that was signed")


def _check_request(request: SigningRequest) -> None:
    try:
        check_call_back(*_asked(request))
    except MalformedError as error:
        raise ClaimError(str(error)) from None


def _asked(request: SigningRequest) -> tuple[tuple[str, ...], str]:
    auth = request.own["rph"]
    assert isinstance(auth, tuple), "read_rph made it"
    return auth, str(request.own.get("sph", ""))


def _r_value(value: object) -> str:
    if not isinstance(value, str) or not _VALUE.match(value):
        raise MalformedError("a value is not namespace and priority with a dot between, such as ets.0 (RFC 4412)")
    return value


RPH: Final[Kind[RphClaims]] = Kind(
    ppt="rph",
    proves_caller=False,
    authority=Authority(
        None, "the namespaces of its Resource-Priority", "the namespace of rph", namespaces=RphClaims.namespaces
    ),
    parse=RphClaims.parse,
    checks=(check_priority,),
    compose=RphClaims.of,
    members={"rph": read_rph},
    options={"sph": read_sph},
    together=(("sph", _check_request),),
)
