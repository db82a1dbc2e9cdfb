"""The SIP Identity header field (RFC 8224 §4).

    Identity = signed-identity-digest SEMI "info" EQUAL LAQUOT absoluteURI RAQUOT *( SEMI ident-info-params )
    ident-info-params = "alg" EQUAL token / "ppt" EQUAL token / generic-param

The values of alg and ppt may be quoted, as many networks write them. Parameter names and values are compared
without regard to case (RFC 3261 §7.3.1), and white space may surround `;` and `=`. A field that was folded over
several lines is unfolded, for some proxies pass it on as it came.
"""

import re
from dataclasses import dataclass, field

from voice_dpki.errors import MalformedError
from voice_dpki.names import ascii_lower
from voice_dpki.stir.passport import MAX_TOKEN_LENGTH

MAX_IDENTITY_LENGTH = 10_240
"""Characters of a header field: the largest token and its parameters."""

MAX_PARAMETERS = 16

_USUAL = re.compile(
    rf"([A-Za-z0-9._-]{{1,{MAX_TOKEN_LENGTH}}});info=<([!-;=?-~]*)>;alg=(ES256);ppt=([a-z-]+)", re.ASCII
)
"""The spelling of almost all signers, tried first; the whole grammar reads it as the same."""
_KNOWN = frozenset({"info", "alg", "ppt"})
_FOLD = re.compile(r"\r?\n[ \t]+")
_DIGEST = re.compile(r"([A-Za-z0-9._/+=-]+)[ \t]*")
_NAME = r"[A-Za-z0-9.!%*_+`'~-]+"
_VALUE = r"""<[!-;=?-~]*>|"(?:[^"\\\x00-\x1f\x7f]|\\[ -~])*"|[!#-+\--:=?-~]+"""
_PARAMETER = re.compile(rf";[ \t]*({_NAME})[ \t]*(?:=[ \t]*({_VALUE})[ \t]*)?")


class InfoFormError(MalformedError):
    """The field is well formed except for info, which is not a URI in angle brackets."""


@dataclass(frozen=True, slots=True)
class IdentityHeader:
    """One Identity header field's value; parameters that were not given are None."""

    token: str
    info: str | None
    """The URI without its angle brackets."""
    alg: str | None
    ppt: str | None
    has_others: bool = field(default=False, compare=False)
    """Whether there are parameters besides these three."""

    @classmethod
    def parse(cls, value: str) -> "IdentityHeader":
        """Parse a value, folded or not; parameters other than info, alg and ppt are ignored.

        Raises MalformedError at the first character that the grammar does not admit, at a duplicate parameter, and
        above 10240 characters, 8192 characters of the token, or 16 parameters. Raises InfoFormError where only the
        form of info is wrong.
        """
        if len(value) > MAX_IDENTITY_LENGTH:
            raise MalformedError(f"the Identity header has more than {MAX_IDENTITY_LENGTH} characters")
        if (usual := _USUAL.fullmatch(value)) is not None:
            return cls(usual[1], usual[2], usual[3], usual[4])
        return cls._parse_any(value)

    @classmethod
    def _parse_any(cls, value: str) -> "IdentityHeader":
        value = _FOLD.sub(" ", value).strip(" \t\r\n")
        digest = _DIGEST.match(value)
        if digest is None:
            raise MalformedError("the Identity header does not begin with a PASSporT (RFC 8224 §4)")
        if len(digest[1]) > MAX_TOKEN_LENGTH:
            raise MalformedError(f"the PASSporT has more than {MAX_TOKEN_LENGTH} characters")
        parameters = _parameters(value, digest.end())
        info = parameters.get("info")
        if info is not None and not info.startswith("<"):
            raise InfoFormError("the Identity header's info is not a URI in angle brackets (RFC 8224 §4)")
        return cls(
            token=digest[1],
            info=info[1:-1] if info else None,
            alg=_unquoted(parameters.get("alg")),
            ppt=_unquoted(parameters.get("ppt")),
            has_others=not parameters.keys() <= _KNOWN,
        )

    def serialize(self) -> str:
        """Write the value in the order and spelling that peers are known to read."""
        named = (("info", self.info and f"<{self.info}>"), ("alg", self.alg), ("ppt", self.ppt))
        return ";".join([self.token, *(f"{name}={value}" for name, value in named if value is not None)])


def _parameters(value: str, at: int) -> dict[str, str]:
    parameters: dict[str, str] = {}
    while at < len(value):
        found = _PARAMETER.match(value, at)
        if found is None:
            raise MalformedError(f"the Identity header's parameters break off at character {at} (RFC 8224 §4)")
        name = ascii_lower(found[1])
        if name in parameters or len(parameters) == MAX_PARAMETERS:
            raise MalformedError("the Identity header gives a parameter twice, or too many of them")
        parameters[name] = found[2] or ""
        at = found.end()
    return parameters


def _unquoted(value: str | None) -> str | None:
    return value.strip('"') if value is not None else None
