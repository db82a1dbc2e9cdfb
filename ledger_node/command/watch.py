"""`voice-dpki ledger watch`: reports every certificate recorded for a URI to the URI's owner."""

import asyncio
from contextlib import suppress
from datetime import UTC, datetime

from ledger_node.command.session import CONSOLE, Commands, Session, parse_digest
from voice_dpki.ledger.answers import InquiryCode, InquiryError
from voice_dpki.names import CertDigest
from voice_dpki.shell.program import StoppedError, unless_stopped
from voice_dpki.wire.ledger.subscription import RETRY_S
from voice_dpki.wire.ledger.uri_certificates import UriCertificate, UriCertificates

EXIT_UNKNOWN = 1
"""Exit status if a certificate was recorded that the owner does not know."""

DESCRIPTION = """\
Tells of each certificate on the ledger that names the URI, or has authority over its number, and is not one that
the owner knows. Lists and changes are proved, so the node can keep none back; it can only be silent, which is told.

  voice-dpki ledger watch --genesis genesis.json sip:+442079460123@b.example --known telephone.der

Without --known, those that are there at the start are shown and taken as known. The command ends with status 1 at
the first other one. With --stay it goes on, and ends with status 1 once it is stopped. With --once it looks, and
does not wait.
"""


def add_watch_command(commands: Commands) -> None:
    """Add the command."""
    watching = commands.add_parser(
        "watch", help="tell of certificates that somebody records for a URI", description=DESCRIPTION
    )
    watching.set_defaults(work=watch)
    watching.add_argument("uri", help="for instance sip:+442079460123@b.example")
    watching.add_argument(
        "--known", action="append", metavar="CERTIFICATE", help="a certificate of the owner: file or H(CERT)"
    )
    ending = watching.add_mutually_exclusive_group()
    ending.add_argument("--once", action="store_true", help="look once, and end")
    ending.add_argument("--stay", action="store_true", help="go on after a certificate that is not known")


async def watch(session: Session) -> int:
    """Tell of certificates that the owner does not know; return the program's exit status."""
    options = session.options
    known = None if options.known is None else {parse_digest(each) for each in options.known}
    watcher = _Watcher(session, UriCertificates(session.client, options.uri), known)
    with suppress(StoppedError):
        await unless_stopped(watcher.run(), session.stop)
    return EXIT_UNKNOWN if watcher.has_told else 0


class _Watcher:
    """The certificates known for one URI, and those reported."""

    def __init__(self, session: Session, certificates: UriCertificates, known: set[CertDigest] | None) -> None:
        self._session = session
        self._certificates = certificates
        self._known = known
        self._silent = False
        self.has_told = False

    async def run(self) -> None:
        """Check again after each change, until the watch must end."""
        options = self._session.options
        if options.once:
            self._tell(await self._certificates.read())
            return
        failures = 0
        while options.stay or not self.has_told:
            try:
                self._tell(await self._certificates.read_changed())
            except InquiryError as error:
                self._tell_silence(error)
                await asyncio.sleep(RETRY_S[min(failures, len(RETRY_S) - 1)])
                failures += 1
            else:
                failures, self._silent = 0, False

    def _tell(self, listed: list[UriCertificate]) -> None:
        """Tell of the certificates that are not known, which then are."""
        if self._known is None:
            self._known = {each.found.digest for each in listed}
            self._show("known from the start", listed)
            return
        news = [each for each in listed if each.found.digest not in self._known]
        if news or self._session.options.once:
            self._show("NOT KNOWN", news)
        self._known |= {each.found.digest for each in news}
        self.has_told = self.has_told or bool(news)

    def _show(self, as_what: str, certificates: list[UriCertificate]) -> None:
        uri = self._session.options.uri
        lines = [f"{_now()} {as_what}: {_line(each)}" for each in certificates]
        result = {
            "uri": uri,
            "is_known": as_what != "NOT KNOWN",
            "certificates": [_plain(each) for each in certificates],
        }
        self._session.tell(result, *(lines or [f"{_now()} {as_what}: nothing is recorded for {uri}"]))

    def _tell_silence(self, error: InquiryError) -> None:
        """Report once that the node does not answer; raises the error if the chain has forked."""
        if error.code is InquiryCode.FORK:
            raise error
        if not self._silent and not self._session.options.json:
            CONSOLE.print(f"{_now()} nothing is heard of the ledger: {error}", soft_wrap=True)
        self._silent = True


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _line(each: UriCertificate) -> str:
    found, record = each.found, each.found.record
    what = (
        "names the URI" if each.is_named else "may sign for its number" if each.profile else "cannot be read here"
    )
    line = f"H(CERT) {found.digest.hex()} {what}, {found.status}"
    if record is not None:
        line += f", recorded for {record.organization} in block {record.recorded_height}"
        line += f", renews {record.replaces.hex()}" if record.replaces else ""
    return line


def _plain(each: UriCertificate) -> dict[str, object]:
    found = each.found
    return {
        "digest": found.digest,
        "status": found.status,
        "names_uri": each.is_named,
        "record": found.record,
    }
