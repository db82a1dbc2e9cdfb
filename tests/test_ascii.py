"""Protocol text is ASCII: no regular expression may take the Kelvin sign for a k, or an Arabic digit for a digit.

In a pattern over `str`, \\d, \\w, \\s and \\b are Unicode's, and ignoring case folds U+212A to k and U+017F to s,
unless re.ASCII is set. So names that differ would be the same, and numbers would pass that nobody else can read.
"""

import ast
import contextlib
import re
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest
from sipmessage import Request

from segw_agent.peer_names import PeerNames
from segw_agent.policy import CertificatePolicy
from voice_dpki.codec.telephone import host_in_uri
from voice_dpki.errors import MalformedError
from voice_dpki.ikev2.failures import IkeError
from voice_dpki.ikev2.identity import check_identity, fqdn
from voice_dpki.names import ascii_lower
from voice_dpki.stir.tn import canonical_uri
from voice_dpki.wire.sip.invite import date_of
from voice_dpki.x509.profile import CertificateProfile

ROOT = Path(__file__).parents[1]
PACKAGES = ("voice_dpki", "authn_server", "verify_server", "ledger_node", "segw_agent", "sip_testbed")
PART_OF_APP_HASH = {"voice_dpki/ledger/admission.py", "voice_dpki/ledger/names.py", "voice_dpki/x509/allotment.py"}
"""Which certificates are admitted and how they are listed changes only with a version of the rules."""

CLASSES = {"isdigit", "isdecimal", "isnumeric", "isalpha", "isalnum", "isspace", "casefold"}
NO_PROTOCOL_TEXT = {"voice_dpki/stage/ladder.py", "ledger_node/abci/install.py"}
"""A row's own label, and what `go version` says."""

FOLDS = {"lower", "upper", "casefold"}
FOLDED_SAFELY = {
    "ledger_node/": "hexadecimal digits, and the names of organisations that an operator sets up",
    "segw_agent/attachment/": "this project's own names and sentences",
    "segw_agent/bridge/": "this project's own names and sentences",
    "sip_testbed/assess.py": "this project's own sentences",
    "sip_testbed/events.py": "a transport; none has a k",
    "sip_testbed/ladder.py": "this project's own names",
    "sip_testbed/proxy_rules.py": "words without a k",
    "voice_dpki/codec/http1.py": "fields of HTTP, decoded as Latin-1",
    "voice_dpki/wire/http_client.py": "the TLS library's sentence",
    "voice_dpki/ikev2/": "names of notifies, and an identity decoded as ASCII",
    "voice_dpki/ledger/genesis.py": "hexadecimal digits",
    "voice_dpki/ledger/header.py": "hexadecimal digits",
    "voice_dpki/ledger/light.py": "hexadecimal digits",
    "voice_dpki/ledger/names.py": "part of the AppHash",
    "voice_dpki/media/codecs.py": "a codec's name, compared with this project's own",
    "voice_dpki/names.py": "ascii_lower itself",
    "voice_dpki/shell/": "names of log levels, and a scheme decoded as Latin-1",
    "voice_dpki/sip/": "tokens of SIP; those that are compared have no k",
    "voice_dpki/wire/sip/": "tokens of SIP; those that are compared have no k",
    "voice_dpki/stir/verdict.py": "this project's own sentences",
    "voice_dpki/x509/allotment.py": "part of the AppHash",
}
"""Files, or folders, that fold text in which no letter beyond ASCII can become one of ASCII, and why."""

FUNCTIONS = {"compile", "match", "fullmatch", "search", "split", "sub", "subn", "findall", "finditer"}
UNICODE_CLASS = re.compile(r"(?<!\\)(?:\\\\)*\\[dDwWsSbB]")
INLINE_FLAGS = re.compile(r"\(\?([a-zA-Z]+)[):]")


def patterns(tree: ast.AST) -> Iterator[tuple[ast.Call, ast.expr]]:
    """Every call that compiles a pattern, of `re` or of msgspec.Meta, with the pattern."""
    for call in (node for node in ast.walk(tree) if isinstance(node, ast.Call)):
        function = call.func
        if not isinstance(function, ast.Attribute) or not isinstance(function.value, ast.Name):
            continue
        if function.value.id == "re" and function.attr in FUNCTIONS and call.args:
            yield call, call.args[0]
        yield from ((call, keyword.value) for keyword in call.keywords if keyword.arg == "pattern")


def is_beyond_ascii(call: ast.Call, pattern: ast.expr) -> bool:
    parts = [node.value for node in ast.walk(pattern) if isinstance(node, ast.Constant)]
    if any(isinstance(part, bytes) for part in parts):
        return False
    text = "".join(part for part in parts if isinstance(part, str))
    flags = "".join(INLINE_FLAGS.findall(text))
    named = {node.attr for argument in (*call.args[1:], *(k.value for k in call.keywords if k.arg == "flags"))
             for node in ast.walk(argument) if isinstance(node, ast.Attribute)}  # fmt: skip
    folds = "i" in flags or bool(named & {"IGNORECASE", "I"})
    return (folds or UNICODE_CLASS.search(text) is not None) and "a" not in flags and not named & {"ASCII", "A"}


def found_in(source: str) -> list[int]:
    tree = ast.parse(source)
    return sorted({call.lineno for call, pattern in patterns(tree) if is_beyond_ascii(call, pattern)})


def classified(source: str) -> list[int]:
    """Lines of statements that ask whether text is digits or letters, or fold it, without asking for ASCII."""
    statements = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.stmt)]
    found = set()
    for statement in statements:
        own = [
            node
            for field in ast.iter_child_nodes(statement)
            if isinstance(field, ast.expr)
            for node in ast.walk(field)
        ]
        named = {node.attr for node in own if isinstance(node, ast.Attribute)}
        if named & CLASSES and "isascii" not in named:
            found.add(statement.lineno)
    return sorted(found)


def folds_in(source: str) -> list[int]:
    """Lines that fold a text with Unicode's rules, by which the Kelvin sign is a k."""
    calls = (node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call) and not node.args)
    return sorted(
        {call.lineno for call in calls if isinstance(call.func, ast.Attribute) and call.func.attr in FOLDS}
    )


@pytest.mark.parametrize(
    ("beyond", "source"),
    [
        (True, r're.compile(r"\d+")'),
        (True, r're.compile(r"k", re.IGNORECASE)'),
        (True, r're.compile(r"(?i)k")'),
        (True, r're.compile("a" + rf"{x}\s")'),
        (True, r're.sub(r"\w", "", text)'),
        (True, r're.match(r"k", text, flags=re.I)'),
        (True, r'msgspec.Meta(pattern=r"^[^\s]$")'),
        (False, r're.compile(r"[0-9]+\Z")'),
        (False, r're.compile(rb"\d+", re.IGNORECASE)'),
        (False, r're.compile(r"\d", re.IGNORECASE | re.ASCII)'),
        (False, r're.compile(r"(?ai)\bk")'),
        (False, r're.compile(r"\\d")'),
        (False, r'text.split("\\s")'),
    ],
)
def test_what_is_found(beyond: bool, source: str) -> None:
    assert bool(found_in(source)) is beyond


def test_every_regular_expression_is_ascii() -> None:
    files = [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]
    assert len(files) > 100
    found = {str(path.relative_to(ROOT)): found_in(path.read_text()) for path in files}
    assert {name: lines for name, lines in found.items() if lines and name not in PART_OF_APP_HASH} == {}


def test_digits_and_letters_are_ascii() -> None:
    assert classified("if text.isdigit():\n    pass") == [1]
    assert classified("return text.isascii() and text.isdigit()") == []
    files = [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]
    found = {str(path.relative_to(ROOT)): classified(path.read_text()) for path in files}
    assert {name: lines for name, lines in found.items() if lines and name not in NO_PROTOCOL_TEXT} == {}


def test_case_is_folded_in_ascii() -> None:
    """Use `ascii_lower`, or give the reason in FOLDED_SAFELY."""
    assert folds_in("a = b.lower()\nc = ascii_lower(b)\nd = b.upper") == [1]
    files = [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]
    found = {str(path.relative_to(ROOT)) for path in files if folds_in(path.read_text())}
    assert {name for name in found if not name.startswith(tuple(FOLDED_SAFELY))} == set()
    assert {safe for safe in FOLDED_SAFELY if not any(name.startswith(safe) for name in found)} == set()


def test_names_fold_in_ascii_only() -> None:
    assert ascii_lower("K.Example") == "k.example"
    assert ascii_lower("\u212a.EXAMPLE\u0130") == "\u212a.example\u0130"
    assert canonical_uri("SIP:Bob@K.Example") == "sip:bob@k.example"


def test_a_date_in_other_digits_is_none() -> None:
    for day, is_date in (("26", True), ("\u0662\u0666", False)):
        request = SimpleNamespace(headers={"Date": f"Thu, {day} Nov 2026 19:00:00 GMT"})
        with contextlib.nullcontext() if is_date else pytest.raises(MalformedError):
            assert date_of(cast(Request, request), 0) == 1_795_719_600


def test_look_alikes_of_a_host_are_other_hosts() -> None:
    """Certificates can hold such names: the X.509 library reads an IA5String as UTF-8."""
    assert host_in_uri("sip:bob@K.example:5060") == "k.example"
    assert host_in_uri("sip:bob@\u212a.example") != "k.example"
    policy = CertificatePolicy(organizations=frozenset(), allow=("*.K.example",))
    assert policy.allows(PeerNames("gw.k.example"))
    ours = SimpleNamespace(dns_names=("K.example", "\u212a2.example"), der=b"")
    assert check_identity(fqdn("k.EXAMPLE"), cast(CertificateProfile, ours)) == "k.example"
    with pytest.raises(IkeError):
        check_identity(fqdn("k2.example"), cast(CertificateProfile, ours))
    assert not policy.allows(PeerNames("gw.\u212a.example"))
