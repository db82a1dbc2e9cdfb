"""A user agent's identity, and its credentials in its domain."""

from dataclasses import dataclass, field

from sipmessage import URI, Request, Response

from voice_dpki.effects import Random
from voice_dpki.errors import MalformedError
from voice_dpki.sip.digest import answer_challenge, choose_challenge
from voice_dpki.sip.message import parse_uri

_FIELDS = {401: ("WWW-Authenticate", "Authorization"), 407: ("Proxy-Authenticate", "Proxy-Authorization")}


@dataclass(frozen=True, slots=True)
class Account:
    """A user of a domain: an address of record like "sip:+493023125001@a.example", and its credentials there."""

    aor: str
    username: str
    password: str = field(repr=False)
    display_name: str = ""
    allow_md5: bool = False

    @property
    def name_addr(self) -> str:
        """The value for From and To."""
        return f'"{self.display_name}" <{self.aor}>' if self.display_name else f"<{self.aor}>"

    @property
    def domain(self) -> str:
        """The user's domain, which is the realm of its proxy and registrar."""
        return parse_uri(self.aor).host

    def is_named_by(self, uri: URI) -> bool:
        """Return whether the user part of `uri` is this user's, with or without + in front of a number."""
        return _user_part(uri) == _user_part(parse_uri(self.aor))

    def new_request(self, method: str, target: str, to: str, from_tag: str, call_id: str) -> Request:
        """Build a request outside dialogs (RFC 3261 §8.1.1), without CSeq; raises MalformedError for a bad URI."""
        request = Request(method, parse_uri(target))
        request.headers.set("Max-Forwards", "70")
        request.headers.set("From", f"{self.name_addr};tag={from_tag}")
        request.headers.set("To", to)
        request.headers.set("Call-ID", call_id)
        return request

    def authorize(self, request: Request, response: Response, random: Random) -> bool:
        """Put the answer to a 401 or 407 into `request` and increase its CSeq by one (RFC 3261 §22.2).

        Returns False and changes nothing if there is nothing to answer: the status is another one, the user's own
        domain sent no challenge that can be answered, or the credentials were refused already and not for a stale
        nonce. Another domain's challenge is never answered: that domain could guess the password from the answer.
        """
        names = _FIELDS.get(response.code)
        if names is None:
            return False
        try:
            values = response.headers.getlist(names[0])
            challenge = choose_challenge(values, realm=self.domain, allow_md5=self.allow_md5)
        except MalformedError:
            return False
        if request.headers.get(names[1]) and not challenge.stale:
            return False
        answer = answer_challenge(
            challenge,
            username=self.username,
            password=self.password,
            method=request.method,
            uri=str(request.uri),
            count=1,
            cnonce=random.token(8).hex(),
        )
        request.headers.set(names[1], answer)
        sequence = int(request.headers["CSeq"].split()[0]) + 1
        request.headers.set("CSeq", f"{sequence} {request.method}")
        return True


def _user_part(uri: URI) -> str:
    return (uri.user or "").split(";")[0].removeprefix("+")
