"""The program `sip-testbed pins`: the keys that a telephone has pinned, for its user to look at and to forget."""

import argparse
from datetime import UTC, datetime
from pathlib import Path

from sip_testbed.pin_store import Pin, PinStore
from voice_dpki.errors import LocalError, MalformedError
from voice_dpki.names import Tn
from voice_dpki.stir.tn import canonical_tn

HELP = """\
The keys that a telephone has pinned (`pins` in its configuration), one a line: number, when the key was first
believed, H(CERT) of its certificate, and the organisation that recorded it.

A call with another key is refused. If the user knows why the key is another one, for instance because the number
has a new subscriber, --forget has the next call pin anew:

  sip-testbed pins pins.sqlite --forget +442079460123

The telephone may run meanwhile.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the subcommand and its arguments."""
    parser.description = HELP
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("file", type=Path, metavar="FILE", help="the telephone's pins")
    parser.add_argument("--forget", metavar="NUMBER", help="remove the pin of this number")


def run(args: argparse.Namespace) -> int:
    """List the pins, or forget one; return the exit status. Raises LocalError."""
    if not args.file.exists():
        raise LocalError(f"{args.file}: there is no such file")
    store = PinStore(args.file)
    if args.forget is None:
        for pin in store.all():
            print(_line(pin))
        return 0
    if not store.forget(_number(args.forget)):
        raise LocalError(f"{args.file}: this number is not pinned")
    print("The next call to this number pins its key anew.")
    return 0


def _line(pin: Pin) -> str:
    since = datetime.fromtimestamp(pin.since_s, UTC)
    return f"+{pin.number}  {since:%Y-%m-%d %H:%M:%S} UTC  {pin.digest.hex()}  {pin.organization}"


def _number(text: str) -> Tn:
    try:
        return canonical_tn(text)
    except MalformedError as error:
        raise LocalError(f"--forget: {error}") from None
