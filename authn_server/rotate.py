"""`authn-server rotate`: a new signing key, without a lost call.

The new certificate is recorded, and known to every verifier's node, before it is used. The old one stays valid
until no token signed with it can be on the way, and is then revoked.
"""

import argparse
import asyncio
import os
import signal
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Final

import msgspec

from authn_server.config import AuthnConfig, AuthnSetup, load_setup
from authn_server.rotation_files import RotationFiles
from voice_dpki.effects import Clock, Random
from voice_dpki.errors import LocalError, PeerError
from voice_dpki.ledger.answers import InquiryError
from voice_dpki.shell.again import SeldomTell, again
from voice_dpki.shell.config import load_config, read_secrets, resolve
from voice_dpki.shell.credentials import read_certificate
from voice_dpki.shell.files import take_lock
from voice_dpki.shell.options import number, whole_number
from voice_dpki.shell.program import describe_configured
from voice_dpki.shell.tls import COMMAND_HELP, command_context
from voice_dpki.shell.token_uri import TokenUri, key_place
from voice_dpki.stir.sign import SigningRefused
from voice_dpki.stir.standing import check_own_certificate
from voice_dpki.wire.http_client import HttpClient, HttpError
from voice_dpki.wire.ledger.client import DEFAULT_MAX_AGE_S, LedgerClient
from voice_dpki.x509.profile import MAX_LIFETIME_S, CertificateProfile
from voice_dpki.x509.recorded import CertStatus

SUMMARY = "replace the signing key, without a call that is lost"
DESCRIPTION = """\
Makes a key and a certificate for the same numbers as the one in use, and has the certificate recorded. When this
operator's node and the witnesses of [ledger] tell that it is valid, and --spread-s later, the files that the
configuration names are replaced, and each server is told by SIGHUP (--pid) or by its operator to read them again.
Once all servers sign with the new key, and --overlap-s later, the old certificate is revoked.

  authn-server rotate --config authn.toml --token submission.token --pid $(systemctl show -P MainPID authn-server)

The same command goes on with a rotation that was broken off. Calls go on all the time.
"""
POLL_S: Final = 0.2
OVERLAP_S: Final = 180.0
"""Longer than a token is fresh for any verifier: 60 s, as much again for clocks, and a minute."""
MAX_HEALTH_BYTES: Final = 65_536
MAX_PID: Final = 1 << 22
"""Linux has no process of a higher number."""
_DAY_S: Final = 86_400

Say = Callable[[str], None]


def add_rotate_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    describe_configured(parser, DESCRIPTION)
    seconds = number(above=0, most=_DAY_S, unit="seconds")
    parser.add_argument(
        "--token", type=Path, required=True, metavar="FILE", help="a token of the submission node, on one line"
    )
    parser.add_argument("--submit-url", metavar="URL", help="the submission node (default: url of [ledger])")
    parser.add_argument("--days", type=whole_number(1, MAX_LIFETIME_S // _DAY_S - 1), default=90, help="validity")
    parser.add_argument(
        "--pid", type=whole_number(1, MAX_PID), action="append", default=[], help="a server to send SIGHUP to"
    )
    parser.add_argument(
        "--server", action="append", default=[], metavar="URL", help="of each server (default: by [listen])"
    )
    parser.add_argument("--server-tls", type=Path, metavar="FILE", help=COMMAND_HELP)
    parser.add_argument(
        "--spread-s", type=seconds, default=DEFAULT_MAX_AGE_S, help="until each node has it (default: %(default)s)"
    )
    parser.add_argument("--overlap-s", type=seconds, default=OVERLAP_S, help="(default: %(default)s)")
    parser.add_argument(
        "--wait-s", type=seconds, default=600.0, help="for nodes and servers (default: %(default)s)"
    )


async def rotate(options: argparse.Namespace, clock: Clock, random: Random, say: Say = print) -> None:
    """Rotate the key of the configuration that the arguments name; raises VoiceDpkiError."""
    config = load_config(options.config, AuthnConfig)
    key = key_place(config.key, options.config.parent)
    if isinstance(key, TokenUri):
        raise LocalError(f"{options.config}: the {key} is replaced by hand: docs/hsm.md")
    files = RotationFiles(resolve(options.config, config.certificate), key)
    with take_lock(files.certificate, "another rotation is under way"):
        files.mend()
        setup = load_setup(options.config, clock)
        async with AsyncExitStack() as opened:
            nodes = await _nodes(setup, options, clock, opened)
            rotation = _Rotation(options, setup, files, nodes, clock, say)
            if not files.old.exists():
                await rotation.introduce(random)
            await rotation.switch()
            await rotation.retire()


@dataclass(frozen=True, slots=True)
class _Nodes:
    """The ledger as the command sees it."""

    submission: LedgerClient
    asked: Sequence[LedgerClient]
    """This operator's inquiry node, and the witnesses."""
    token: str


async def _nodes(setup: AuthnSetup, options: argparse.Namespace, clock: Clock, opened: AsyncExitStack) -> _Nodes:
    access = setup.ledger
    if access is None:
        raise LocalError(f"{options.config}: a rotation needs [ledger], to know when the new certificate counts")
    submission = replace(access, url=options.submit_url or access.url).client(clock, keeps_trust=False)
    clients = [submission, access.client(clock, keeps_trust=False), *access.witness_clients(clock)]
    for client in clients:
        await opened.enter_async_context(client)
    return _Nodes(submission, clients[1:], read_secrets(options.token)[0])


class _Rotation:
    """The steps."""

    def __init__(
        self,
        options: argparse.Namespace,
        setup: AuthnSetup,
        files: RotationFiles,
        nodes: _Nodes,
        clock: Clock,
        say: Say,
    ) -> None:
        self._options, self._setup, self._files = options, setup, files
        self._nodes, self._clock, self._say = nodes, clock, say

    async def introduce(self, random: Random) -> None:
        """Have the new certificate recorded, and replace the old one's files once all nodes have it."""
        options, now_s = self._options, self._clock.now_s()
        new = self._files.make_next(self._setup.credential.value.profile, options.days, now_s, random)
        submit = partial(self._nodes.submission.submit, new.der, self._nodes.token)
        receipt = await again(submit, SeldomTell())
        self._say(f"H(CERT) {new.digest.hex()} is recorded in block {receipt.height}")
        for node in self._nodes.asked:
            await self._until(partial(self._accepted, node, new), "a node does not tell that it is valid")
        await asyncio.sleep(options.spread_s)
        self._files.replace()
        self._say(f"{self._files.certificate} and its key are replaced")

    async def switch(self) -> None:
        """Wait until every server signs with the new certificate."""
        for pid in self._options.pid:
            _hang_up(pid)
        if not self._options.pid:
            self._say("Send SIGHUP to each server now, or have it restarted")
        digest = read_certificate(self._files.certificate).digest.hex()
        for url in self._options.server or [_own_url(self._setup)]:
            await self._until(partial(self._signs, url, digest), f"{url} does not sign with it")
            self._say(f"{url} signs with it")

    async def retire(self) -> None:
        """Revoke the old certificate once no call signed with it can be on the way."""
        self._say(f"The old certificate is revoked in {self._options.overlap_s:g} s")
        await asyncio.sleep(self._options.overlap_s)
        old = read_certificate(self._files.old)
        status = (await again(partial(self._nodes.asked[0].resolve, old.digest), SeldomTell())).status
        if status in (CertStatus.VALID, CertStatus.SUSPENDED):
            await again(
                partial(self._nodes.submission.revoke, old.digest, "superseded", self._nodes.token), SeldomTell()
            )
        self._files.forget_old()
        self._say(f"H(CERT) {old.digest.hex()} is revoked")

    async def _accepted(self, node: LedgerClient, profile: CertificateProfile) -> str:
        """Return why verifiers that ask this node would refuse the certificate, or "" if they accept it."""
        try:
            resolution = await node.resolve(profile.digest)
            check_own_certificate(profile, resolution.recorded, self._clock.now_s())
        except (InquiryError, SigningRefused) as error:
            return str(error)
        return ""

    async def _signs(self, url: str, digest: str) -> str:
        """Return why a server does not sign with the certificate, or "" if it does."""
        tls = command_context(self._options.server_tls)
        try:
            async with HttpClient(url, timeout_s=5.0, max_answer_bytes=MAX_HEALTH_BYTES, tls=tls) as client:
                body = (await client.request("GET", "/healthz")).body
            told = msgspec.json.decode(body, type=_Health)
        except HttpError as error:
            return str(error)
        except ValueError:  # msgspec's errors, and bytes that are not UTF-8
            return "it does not answer as an authn-server does"
        if told.certificate == digest:
            return ""
        return "; ".join(told.notes) or "it has not read the configuration again"

    async def _until(self, problem: Callable[[], Awaitable[str]], what: str) -> None:
        """Wait until there is no problem; raises PeerError when --wait-s has passed."""
        end_s = self._clock.steady_s() + self._options.wait_s
        while why := await problem():
            if self._clock.steady_s() > end_s:
                raise PeerError(f"{what}: {why}. Nothing is revoked; the same command goes on from here")
            await asyncio.sleep(POLL_S)


class _Health(msgspec.Struct, frozen=True):
    """The members of /healthz that are needed here."""

    certificate: str = ""
    notes: tuple[str, ...] = ()


def _hang_up(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGHUP)
    except OSError as error:
        raise LocalError(f"--pid {pid}: SIGHUP cannot be sent: {error.strerror}") from None


def _own_url(setup: AuthnSetup) -> str:
    """Return where the server of this configuration listens; raises LocalError."""
    listen = setup.config.listen
    if listen.port == 0:
        raise LocalError("--server is needed, for [listen] names no port")
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(listen.host, listen.host)  # noqa: S104 - compared, not bound
    scheme = "http" if setup.tls is None else "https"
    return f"{scheme}://{f'[{host}]' if ':' in host else host}:{listen.port}"
