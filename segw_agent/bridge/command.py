"""`segw-agent bridge init|renew|issue|start`: the bridge CA and its OCSP responder."""

import argparse
import asyncio
import contextlib
import logging
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from segw_agent.assembly import inquiry_nodes
from segw_agent.bridge.authority import Authority, IssueError, issue, make_authority, make_responder
from segw_agent.bridge.config import EXAMPLE, Bridge
from segw_agent.bridge.ocsp import AnswerSigner
from segw_agent.bridge.responder import Responder
from segw_agent.bridge.vouching import NotVouchedError, Vouching
from segw_agent.config import SegwSetup
from segw_agent.tracer import IkeTracer
from voice_dpki.effects import SystemClock
from voice_dpki.errors import LocalError
from voice_dpki.ledger.answers import InquiryError
from voice_dpki.shell.config import read_file
from voice_dpki.shell.credentials import read_signer
from voice_dpki.shell.files import FOR_ALL, OWNER_ONLY, make_folder, write_all_new, write_new, write_private
from voice_dpki.shell.http import serve
from voice_dpki.shell.log import setup_logging
from voice_dpki.shell.notify import tell_ready
from voice_dpki.shell.options import whole_number
from voice_dpki.shell.program import Parser, run, run_command
from voice_dpki.shell.result import add_json, print_result
from voice_dpki.shell.token_uri import TokenUri
from voice_dpki.x509.keys import generate_es256, to_pem
from voice_dpki.x509.profile import CertificateProfile, ProfileError, der_of
from voice_dpki.x509.recorded import CertificateRefused, profile_of

log = logging.getLogger(__name__)

CLOCK = SystemClock()

SUMMARY = "for gear that knows only a CA and OCSP: issue certificates, and answer for them by the ledger"

MAX_DAYS = 36_500

EXIT_REFUSED = 1
"""Exit status of `bridge issue` if it refused a certificate."""


def add_commands(commands: "argparse._SubParsersAction[Parser]") -> None:
    """Add `bridge` and its commands. Each sets `run`, which maps parsed arguments to an exit status."""
    text = "".join(f"  {line}\n" for line in EXAMPLE.splitlines())
    bridge = commands.add_parser("bridge", help=SUMMARY, description=f"One configuration (TOML):\n\n{text}")
    added = bridge.add_subparsers(required=True, metavar="COMMAND", parser_class=Parser)

    def add(name: str, summary: str, start: Callable[[argparse.Namespace], int]) -> argparse.ArgumentParser:
        command = added.add_parser(name, help=summary, description=summary[0].upper() + summary[1:] + ".")
        command.add_argument("--config", type=Path, required=True, metavar="FILE", help="the TOML file")
        command.set_defaults(run=start)
        if start is not _start:
            add_json(command)
        return command

    init = add("init", "make the CA's key and certificate, and the responder's", _init)
    init.add_argument(
        "--days", type=whole_number(1, MAX_DAYS), default=3650, help="validity of the CA (default: %(default)s)"
    )
    for command in (init, add("renew", "make the responder's key and certificate anew", _renew)):
        command.add_argument(
            "--responder-days",
            type=whole_number(1, MAX_DAYS),
            default=365,
            help="validity of the responder (default: %(default)s)",
        )
    issuing = add("issue", "issue certificates for self-signed ones that the ledger vouches for", _issue)
    issuing.add_argument("certificates", nargs="+", type=Path, metavar="CERT", help="in DER or PEM")
    issuing.add_argument(
        "--out",
        type=Path,
        required=True,
        metavar="FOLDER",
        help="where each is written, in PEM, under its file's name",
    )
    add("start", "run the OCSP responder until SIGTERM", _start)


def _init(options: argparse.Namespace) -> int:
    bridge = Bridge.load(options.config)
    section, key, certificate = bridge.config.ca, bridge.ca_key(), bridge.file(bridge.config.ca.certificate)
    for path in (key, certificate):
        if isinstance(path, Path) and path.exists():
            raise LocalError(f"{path}: there is a CA already; another one has another name and files")
    signer = read_signer(key) if isinstance(key, TokenUri) else generate_es256()
    authority = make_authority(signer, section.name, int(CLOCK.now_s()), options.days)
    made = [(certificate, authority.certificate.public_bytes(Encoding.PEM), FOR_ALL)]
    if isinstance(key, Path):
        made.insert(0, (key, to_pem(signer), OWNER_ONLY))
    write_all_new(made)
    _make_responder(bridge, authority, options.responder_days)
    print_result(
        options,
        {
            "certificate": str(certificate),
            "key": None if isinstance(key, TokenUri) else str(key),
            **_responder_files(bridge),
        },
        f"{certificate}: the CA that gateways and devices must trust",
    )
    return 0


def _renew(options: argparse.Namespace) -> int:
    bridge = Bridge.load(options.config)
    _make_responder(bridge, bridge.authority(), options.responder_days)
    print_result(options, _responder_files(bridge), "the responder has a new key and certificate: restart it")
    return 0


def _responder_files(bridge: Bridge) -> dict[str, str]:
    section = bridge.config.responder
    return {
        "responder_certificate": str(bridge.file(section.certificate)),
        "responder_key": str(bridge.file(section.key)),
    }


def _make_responder(bridge: Bridge, authority: Authority, days: int) -> None:
    section, signer = bridge.config.responder, generate_es256()
    certificate = make_responder(authority, signer, int(CLOCK.now_s()), days)
    write_private(bridge.file(section.key), to_pem(signer))
    write_private(bridge.file(section.certificate), certificate.public_bytes(Encoding.PEM))


def _issue(options: argparse.Namespace) -> int:
    bridge = Bridge.load(options.config)
    authority, setup = bridge.authority(), bridge.setup()
    make_folder(options.out)
    return run_command(_issue_all(options, bridge, authority, setup))


async def _issue_all(options: argparse.Namespace, bridge: Bridge, authority: Authority, setup: SegwSetup) -> int:
    status, results = 0, []
    async with inquiry_nodes(setup, CLOCK) as nodes:
        vouching = Vouching(nodes, bridge.config.policy, CLOCK)
        for path in options.certificates:
            try:
                profile = profile_of(der_of(read_file(path, "certificate")))
                issued = await _issued(bridge, authority, profile, vouching)
            except (CertificateRefused, ProfileError, IssueError, InquiryError, NotVouchedError) as error:
                print(f"{path}: refused: {error}", file=sys.stderr)
                results.append({"file": str(path), "outcome": "refused", "why": str(error)})
                status = EXIT_REFUSED
                continue
            target = options.out / f"{path.stem}.pem"
            _write_issued(target, issued.public_bytes(Encoding.PEM))
            results.append({"file": str(path), "outcome": "issued", "issued": str(target)})
            if not options.json:
                print(f"{path}: issued: {target}")
    print_result(options, results)
    return status


async def _issued(
    bridge: Bridge, authority: Authority, profile: CertificateProfile, vouching: Vouching
) -> x509.Certificate:
    issued = issue(authority, profile, bridge.config.ocsp_url)
    await vouching.about(profile.digest)
    return issued


def _start(arguments: argparse.Namespace) -> int:
    bridge = Bridge.load(arguments.config)
    signer, setup, options = bridge.answer_signer(), bridge.setup(), bridge.options()
    setup_logging("segw-bridge", options.config.log)
    return run(partial(_serve, bridge, signer, setup))  # this frame holds the options meanwhile


async def _serve(bridge: Bridge, signer: AnswerSigner, setup: SegwSetup, stop: asyncio.Event) -> None:
    with contextlib.closing(IkeTracer(setup.trace, "bridge")) as tracer:
        async with inquiry_nodes(setup, CLOCK) as nodes:
            config, max_age_s = bridge.config, setup.ledger.max_age_s
            vouching = Vouching(nodes, config.policy, CLOCK)
            responder = Responder(
                vouching,
                signer,
                CLOCK,
                validity_s=config.validity_s,
                max_age_s=max_age_s,
                skew_s=config.clock_skew_s,
                ahead_s=bridge.ahead_s,
            )
            async with (
                contextlib.aclosing(responder),
                serve(responder.app(), config.listen, limits=config.limits) as port,
            ):
                address = f"{config.listen.host}:{port}"
                log.info("ready", extra={"fields": {"address": address}})
                tracer.ready(address=address)
                tell_ready(address=address)
                await stop.wait()


def _write_issued(path: Path, data: bytes) -> None:
    """Write a certificate, but never overwrite another one.

    Two certificates of one identity may be in use, or the file there may be the self-signed original. Raises
    LocalError.
    """
    if not path.exists():
        write_new(path, data, FOR_ALL)
    elif read_file(path, "certificate") != data:
        raise LocalError(f"{path}: there is another certificate already; choose another folder")
