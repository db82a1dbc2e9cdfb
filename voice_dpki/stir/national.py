"""Numbers as one country writes them, made international by that country's dialling plan (RFC 8224 §8.3, E.164).

Proxies dial "030 23125001" or "0049 30 23125001" for +493023125001. A number with + in front is international
already, and so are digits that are valid only as one. Digits that are no number of the plan, such as an emergency
number, are left unchanged. A number with two readings is refused: a wrong guess would sign for somebody else.
"""

import re
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any, Final

from voice_dpki.codec.telephone import MAX_TN_LENGTH, MAX_URI_LENGTH
from voice_dpki.errors import LocalError, MalformedError
from voice_dpki.names import ascii_lower

REMEMBERED: Final = 4096
"""Numbers whose reading is remembered."""

_DIGITS: Final = re.compile(r"[0-9.()-]{1,80}\Z")
_SEPARATORS: Final = str.maketrans("", "", ".-()")
_URI: Final = re.compile(
    r"(?P<before>tel:|sips?:)(?P<number>[0-9.()-]{1,80})(?P<behind>(?:[;@][^\s]*)?)\Z", re.IGNORECASE | re.ASCII
)
_PHONE: Final = re.compile(r";user=phone(?=[;?]|\Z)", re.IGNORECASE | re.ASCII)
_PLACES: Final = ("orig", "dest", "from", "to", "div")
"""Objects of requests that hold `tn` or `uri`."""


class Country:
    """The dialling plan of one country."""

    def __init__(self, region: str) -> None:
        """`region` is the country's code in ISO 3166-1, such as "DE".

        Raises LocalError for another one, and if the library that knows dialling plans is not installed.
        """
        try:
            import phonenumbers
        except ImportError:
            raise LocalError("country needs the package phonenumbers: pip install 'voice-dpki[national]'") from None
        if region not in phonenumbers.SUPPORTED_REGIONS:
            raise LocalError(f"country: {region!r} is no country of ISO 3166-1 with a dialling plan, such as DE")
        self._library: Any = phonenumbers
        self._region = region
        plan: Any = phonenumbers.PhoneMetadata.metadata_for_region(region)
        code = str(phonenumbers.country_code_for_region(region))
        prefix = plan.national_prefix or ""
        self._marks = re.compile(f"(?:{plan.international_prefix}|{re.escape(prefix)})")
        self._needs_mark = prefix not in ("", code)
        self._read = lru_cache(REMEMBERED)(self._reading)

    def international(self, text: str) -> str:
        """Return a number of the country's plan with + and country code, any other text as it is.

        Raises MalformedError where two numbers could be meant.
        """
        if not _DIGITS.match(text):
            return text
        digits = text.translate(_SEPARATORS)
        return (self._read(digits) or text) if 1 <= len(digits) <= MAX_TN_LENGTH else text

    def in_uri(self, text: str) -> str:
        """Return a tel URI, or a SIP URI with user=phone, with its number made international; others unchanged.

        Raises MalformedError where two numbers could be meant.
        """
        found = _URI.match(text) if len(text) <= MAX_URI_LENGTH else None
        if found is None or "phone-context" in ascii_lower(text):
            return text
        if ascii_lower(found["before"]) != "tel:" and not _PHONE.search(found["behind"].partition("?")[0]):
            return text
        return f"{found['before']}{self.international(found['number'])}{found['behind']}"

    def _reading(self, digits: str) -> str:
        """Return the number that digits mean, as E.164 with +; "" for none; raises MalformedError for two."""
        is_marked = self._marks.match(digits) is not None
        national = self._valid(digits, self._region) if is_marked or not self._needs_mark else ""
        readings = {self._valid(f"+{digits}", None), national} - {""}
        if len(readings) > 1:
            raise MalformedError("the number could be a national and an international one; a + in front tells")
        return next(iter(readings), "")

    def _valid(self, digits: str, region: str | None) -> str:
        """Return a number as E.164 with + in front; "" if it is not valid. Digits with + need no `region`."""
        library = self._library
        try:
            number = library.parse(digits, region)
        except library.NumberParseException:
            return ""
        if not library.is_valid_number(number):
            return ""
        return str(library.format_number(number, library.PhoneNumberFormat.E164))


class AmbiguousError(MalformedError):
    """A member holds a number that could be two; `place` names it."""

    def __init__(self, place: str, sentence: str) -> None:
        super().__init__(sentence)
        self.place = place


def with_international(body: Mapping[str, object], country: Country) -> Mapping[str, object]:
    """Return a decoded request with its numbers made international; raises AmbiguousError.

    Parts without the shape of a request are left unchanged.
    """
    return {name: _request(value, country) for name, value in body.items()}


def _request(request: object, country: Country) -> object:
    if not isinstance(request, dict):
        return request
    return {name: _party(name, value, country) if name in _PLACES else value for name, value in request.items()}


def _party(place: str, party: object, country: Country) -> object:
    if not isinstance(party, dict):
        return party
    readers = {"tn": country.international, "uri": country.in_uri}
    return {
        name: _each(f"{place}.{name}", value, readers[name]) if name in readers else value
        for name, value in party.items()
    }


def _each(place: str, value: object, read: Callable[[str], str]) -> object:
    if isinstance(value, list):
        return [_each(place, item, read) if isinstance(item, str) else item for item in value]
    if not isinstance(value, str):
        return value
    try:
        return read(value)
    except MalformedError as error:
        raise AmbiguousError(place, str(error)) from None
