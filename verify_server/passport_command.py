"""`voice-dpki passport`: sign a call, or tell what a token or an INVITE holds and how its verification goes."""

import argparse
import sys
from pathlib import Path
from typing import Any

from verify_server.passport_report import Report, as_json, as_text, decode, explain, verify
from verify_server.passport_sign import MAX_CALLS, MAX_RATE, add_options, csv, sign, write
from verify_server.passport_source import MAX_INPUT_BYTES, Source, read_source
from voice_dpki.effects import SystemClock
from voice_dpki.errors import LocalError
from voice_dpki.shell.options import whole_number
from voice_dpki.shell.program import Parser, run_command

LAST_S = (1 << 40) - 1

DESCRIPTION = """\
Sign a call, and tell what a token or an INVITE holds and what each step of its verification finds.

  voice-dpki passport sign --certificate a.der --key a.pem --from 493023125001 --to 442079460001
  voice-dpki passport sign --certificate a.der --key a.pem invite.txt
  voice-dpki passport csv 1000 --certificate a.der --key a.pem --from 493023125001 --to 442079460001 > calls.csv
  voice-dpki passport decode identity.txt
  voice-dpki passport explain --from 493023125001 --to 442079460001 identity.txt
  voice-dpki passport explain < invite.txt
  voice-dpki passport verify --config verify.toml --json < invite.txt

The input is an INVITE, the value of one Identity header field, or a bare token; without a file it is read from
standard input. An INVITE tells who calls whom; for others, --from and --to do. `decode` judges nothing, `explain`
runs the steps that need no ledger, and `verify` also asks the ledger of a verification server's configuration.
Nothing is remembered, so a replay is not found. `explain` and `verify` end with status 1 if a step has failed.

`sign` prints an Identity, or the INVITE with it. `csv` prints SIPp's injection file: caller, callee, Date, token
and certificate URL of each call. The scenario needs `Date: [field2]` and
`Identity: [field3];info=<[field4]>;alg=ES256;ppt=shaken`. Identities are good for a minute: --rate spreads them.
"""


def command(arguments: list[str]) -> int:
    """Sign a call, decode a PASSporT or an INVITE, and explain each step of its verification."""
    options = _parser().parse_args(arguments)
    if options.work == "csv":
        write(csv(options))
        return 0
    if options.work == "sign":
        _check_call_is_told_once(options)
        print(sign(options, None if options.caller is not None else _read(options.file)))
        return 0
    source = read_source(_read(options.file), getattr(options, "caller", None), getattr(options, "called", None))
    report = _report(options, source)
    print(as_json(report) if options.json else as_text(report))
    return 1 if any(each.failed for each in report) else 0


def _report(options: argparse.Namespace, source: Source) -> Report:
    if options.work == "decode":
        return decode(source)
    now_s = SystemClock().now_s() if options.at is None else float(options.at)
    if options.work == "explain":
        return explain(source, now_s)
    found: Report = []

    async def work() -> None:
        found.extend(await verify(source, options.config, now_s))

    run_command(work())
    return found


def _check_call_is_told_once(options: argparse.Namespace) -> None:
    """Check that either the options or an INVITE tell the call; raises LocalError."""
    told = {options.caller is not None, options.called is not None}
    if len(told) == 2 or (told == {True} and options.file is not None):
        raise LocalError("the call is told by both --from and --to, or by an INVITE")
    if told == {False} and (options.div or options.rph or options.rcd):
        raise LocalError("--div, --rph and --rcd go with --from and --to")
    if options.reason and not options.rcd:
        raise LocalError("--reason goes with --rcd")


def _read(path: Path | None) -> bytes:
    """Read the file, or standard input; raises LocalError for one that cannot be read or is too long."""
    try:
        if path is None:
            data = sys.stdin.buffer.read(MAX_INPUT_BYTES + 1)
        else:
            with path.open("rb") as file:
                data = file.read(MAX_INPUT_BYTES + 1)
    except OSError as error:
        raise LocalError(f"{path}: cannot be read: {error.strerror}") from None
    if len(data) > MAX_INPUT_BYTES:
        raise LocalError(f"the input has more than {MAX_INPUT_BYTES} bytes")
    return data


def _parser() -> Parser:
    parser = Parser(prog="voice-dpki passport", description=DESCRIPTION)
    commands = parser.add_subparsers(required=True, metavar="COMMAND", dest="work", parser_class=Parser)
    for name, help_ in (
        ("decode", "show header, payload and parameters"),
        ("explain", "run the steps that need no ledger"),
        ("verify", "run all steps, with the ledger that a verification server asks"),
    ):
        each = commands.add_parser(name, help=help_, description=help_)
        each.add_argument("file", nargs="?", type=Path, metavar="FILE", help="default: standard input")
        each.add_argument("--json", action="store_true", help="print JSON")
        if name != "decode":
            each.add_argument("--from", dest="caller", metavar="NUMBER", help="who calls, if no INVITE tells it")
            each.add_argument("--to", dest="called", metavar="NUMBER", help="who is called, if no INVITE tells it")
            each.add_argument(
                "--at",
                type=whole_number(1, LAST_S),
                metavar="SECONDS",
                help="judge at this time, in seconds since 1970",
            )
        if name == "verify":
            each.add_argument(
                "--config", type=Path, required=True, metavar="FILE", help="verify-server's TOML file"
            )
    _add_signing(commands)
    return parser


def _add_signing(commands: Any) -> None:
    one = commands.add_parser("sign", help="sign a call with a key", description="Sign a call with a key.")
    one.add_argument("file", nargs="?", type=Path, metavar="FILE", help="an INVITE; default: standard input")
    one.add_argument("--json", action="store_true", help="print the Identity and its parts as JSON")
    one.add_argument("--from", dest="caller", metavar="NUMBER", help="who calls")
    one.add_argument("--to", dest="called", metavar="NUMBER", help="who is called; with --div, where the call goes")
    kind = one.add_mutually_exclusive_group()
    kind.add_argument("--div", metavar="NUMBER", help="sign a diversion by this number (RFC 8946)")
    kind.add_argument("--rph", action="append", metavar="VALUE", help="sign a priority such as ets.0 (RFC 8443)")
    kind.add_argument("--rcd", metavar="NAME", help="sign the caller's name, to be shown (RFC 9795; experimental)")
    one.add_argument("--reason", metavar="TEXT", help="with --rcd: why the caller calls")
    add_options(one)
    many = commands.add_parser("csv", help="sign calls for SIPp", description="Sign calls for SIPp.")
    many.add_argument("count", type=whole_number(1, MAX_CALLS), metavar="N", help="how many calls")
    many.add_argument("--from", dest="caller", required=True, metavar="NUMBER", help="the first caller")
    many.add_argument("--to", dest="called", required=True, metavar="NUMBER", help="who is called")
    many.add_argument(
        "--callers",
        type=whole_number(1, MAX_CALLS),
        default=1,
        metavar="COUNT",
        help="how many consecutive numbers call in turns; default: 1",
    )
    many.add_argument(
        "--rate",
        type=whole_number(1, MAX_RATE),
        metavar="CALLS",
        help="calls a second: each is signed for its own second; default: all for now",
    )
    add_options(many)
