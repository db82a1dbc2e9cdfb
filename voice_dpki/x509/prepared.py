"""Names of organisations and subjects, prepared so that two names that look alike are equal or refused.

RFC 4518 says how names of a directory are compared: invisible characters are removed, NFKC unifies the spellings of
a letter, repeated spaces count once, and case is ignored. Its tables are those of Unicode 3.2, which the RFC
prescribes and `unicodedata.ucd_3_2_0` has in every version of Python. UTS 39 (§5.2, "Highly Restrictive") says
which scripts one name may mix; the table of scripts below is from Unicode 14.

docs/spec/state.md#names-of-organisations specifies it.
"""

import re
import stringprep
import unicodedata
from functools import lru_cache

from voice_dpki.errors import MalformedError
from voice_dpki.names import is_printable

_normalize = unicodedata.ucd_3_2_0.normalize
_category = unicodedata.ucd_3_2_0.category

_NOTHING = re.compile("[\u00ad\u034f\u1806\u180b-\u180d\ufe00-\ufe0f\ufffc]")
"""Characters that RFC 4518 §2.2 maps to nothing, and that are printable by Unicode 3.2."""

_BLANK = re.compile("[\u115f\u1160\u17b4\u17b5\u2800\ufffd]")
"""Invisible letters and symbols that RFC 4518 keeps, and the replacement character (§2.4)."""

_SPACES = re.compile("  +")


class ScriptsError(MalformedError):
    """A name mixes scripts whose letters look alike."""


def written(text: str) -> str:
    """Return a name in its normal spelling: prepared by RFC 4518, except that its case is kept.

    Raises MalformedError for a character that no name may hold: one that Unicode 3.2 does not have or that is not
    printable, an invisible one of `_BLANK`, or a combining one at the beginning; and for a name that is empty then.
    """
    if not is_printable(text):
        raise MalformedError("a name holds a character that is not printable by Unicode 3.2")
    found = _SPACES.sub(" ", _normalize("NFKC", _NOTHING.sub("", text))).strip(" ")
    if not found or not is_printable(found) or _BLANK.search(found):
        raise MalformedError("a name holds a character that shows nothing, or nothing else")
    if _category(found[0])[0] == "M":
        raise MalformedError("a name begins with a combining character (RFC 4518 §2.4)")
    return found


def prepared(text: str) -> str:
    """Return the form by which spellings of a name are compared: `written`, case folded; raises MalformedError."""
    folded = "".join(map(_folded, _normalize("NFKC", "".join(map(_folded, written(text))))))
    return _normalize("NFKC", folded)


@lru_cache(2048)
def look(text: str) -> str:
    """Return the form that look-alike names share: `prepared`, with look-alike letters replaced by Latin ones.

    Raises MalformedError. Source: UTS 39 §4, for the letters of Cyrillic and Greek alone.
    """
    return prepared("".join(_LOOKS.get(character, character) for character in written(text)))


@lru_cache(4096)
def check_written(text: str) -> None:
    """Check that a name is as `written` returns it, in scripts that one name may mix.

    Raises MalformedError, and ScriptsError if only the scripts are wrong.
    """
    if written(text) != text:
        raise MalformedError("a name is not written as RFC 4518 prepares it")
    used = {script for script in map(_script, text) if script}
    if len(used) > 1 and not any(used <= together for together in _TOGETHER):
        raise ScriptsError("a name mixes scripts")


def _folded(character: str) -> str:
    """Fold case by table B.2 of RFC 3454; keep a character that would fold to one not in Unicode 3.2."""
    folded = stringprep.map_table_b2(character)
    return folded if all(_category(each) != "Cn" for each in folded) else character


def _script(character: str) -> str:
    """Return the script of a character; "" if it has none, or if several use it."""
    code = ord(character)
    return next((script for first, last, script in _RANGES if first <= code <= last), "")


_SCRIPTS = """
Arab 621-63a 641-64a 66a-66f 671-6d3 6d5-6dc 6de-6fe fe73
Armn 531-58a
Beng 981-9e3 9f0-9fa
Bopo 2ea-2eb 3105-312c 31a0-31b7
Brai 2800-28ff
Buhd 1740-1753
Cans 1401-1676
Cher 13a0-13f4
Copt 3e2-3ef
Cyrl 400-482 488-50f
Deva 901-950 960-963 970
Dsrt 10400-1044d
Ethi 1200-137c
Geor 10a0-10f8
Goth 10330-1034a
Grek 342-345 375-3e1 3f3-3f6 1f00-1ffc
Gujr a81-ae0
Guru a02-a5c a70-a74
Hang 1100-11f9 302e-302f ac00-d7a3
Hani 2e80-2ef2 3005-3007 3021-3029 303b 303e-303f 3190-3191 3400-9fa5 fa0e-fa29 20000-2a6d6
Hano 1720-1734
Hebr 591-5f4 fb1e
Hira 3041-3096 309d-309e
Ital 10300-10323
Kana 30a1-30fa 30fd-30fe 31f0-31ff
Khmr 1780-17e9
Knda c82-ce1
Laoo e81-ed9
Latn 41-5a 61-7a c0-d6 d8-f6 f8-2ad 363-36f 1e00-1ef9 2132 2180-2183
Mlym d02-d6f
Mong 1800-1801 1804 1806-18a9
Mymr 1000-1039 104a-1059
Ogam 1680-169c
Orya b01-b70
Runr 16a0-16ea 16ee-16f0
Sinh d82-df4
Syrc 700-74a
Tagb 1760-1773
Taml b82-bd7
Telu c01-c6f
Tglg 1700-1714
Thaa 780-7b1
Thai e01-e3a e40-e5b
Tibt f00-fcf
Yiii a000-a4c6
"""
"""Scripts (ISO 15924) and their characters, from Scripts.txt and ScriptExtensions.txt of Unicode 14.

The table holds for characters that Unicode 3.2 has and NFKC does not change; a range may run over others. One that
several scripts use, such as a digit or a mark of Indian scripts, has no script. © 1991-2021 Unicode, Inc., by the
Unicode License.
"""

_TOGETHER = tuple(
    frozenset(scripts.split())
    for scripts in ("Latn Hani Hira Kana", "Latn Hani Bopo", "Latn Hani Hang")  # Japanese, Chinese, Korean
)

_LOOK_ALIKES = """
410A 412B 415E 405S 406I 408J 41aK 41cM 41dH 41eO 420P 421C 422T 423Y 425X 474V 4aeY 4c0I 50cG
430a 435e 455s 456i 458j 43eo 440p 441c 443y 445x 475v 4afy 4bbh 501d
391A 392B 395E 396Z 397H 399I 39aK 39cM 39dN 39fO 3a1P 3a4T 3a5Y 3a7X
3b1a 3b3y 3b9i 3bak 3bdv 3bfo 3c1p 3c5u 3c7x 3f3j
"""
"""Letters of Cyrillic and Greek, by their codes, with the Latin letter that each looks like."""

_LOOKS = {chr(int(entry[:3], 16)): entry[3] for entry in _LOOK_ALIKES.split()}


def _ranges() -> tuple[tuple[int, int, str], ...]:
    found = []
    for line in _SCRIPTS.split("\n")[1:-1]:
        script, *spans = line.split()
        for span in spans:
            first, _, last = span.partition("-")
            found.append((int(first, 16), int(last or first, 16), script))
    return tuple(sorted(found, key=lambda each: each[2] != "Latn"))


_RANGES = _ranges()
"""First and last character of each range, with its script; Latin, which most names are in, first."""
