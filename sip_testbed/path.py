"""The program `sip-testbed path`: an attacker on the path between two domains, made as a misbehaving proxy."""

import argparse
import asyncio
import logging
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from sipmessage import URI, Response

from sip_testbed.path_attacks import SIMPLE, ChangeSdp, Forgery, Hold, PathAttack, Resign
from sip_testbed.proxy_config import Route, Routes
from sip_testbed.proxy_element import Forward, ProxyElement
from sip_testbed.proxy_rules import RequestRefusal
from voice_dpki.effects import Clock, Random, SystemClock, SystemRandom
from voice_dpki.errors import LocalError, MalformedError, PeerError
from voice_dpki.shell.config import AdvertisedListen, Config, PositiveSeconds, load_config, resolve
from voice_dpki.shell.credentials import read_certificate, read_signer
from voice_dpki.shell.program import describe_configured, indented, start
from voice_dpki.shell.trace import CallTraceConfig, Tracer, TraceTo
from voice_dpki.sip.message import Hop, copy_request
from voice_dpki.sip.proxy import Arrival
from voice_dpki.sip.transaction import UDP_MAX_BYTES
from voice_dpki.stir.tn import canonical_tn
from voice_dpki.wire.sip.invite import number_of
from voice_dpki.x509.reference import url_for

log = logging.getLogger(__name__)

EXAMPLE = """\
mode = "resign"                             # what to do to the calls that pass, see above
hold_s = 70                                 # for hold

[listen]                                    # UDP and TCP alike
host = "127.0.0.5"
port = 5060

[[routes]]                                  # where calls go on, in both directions
domain = "b.example"
next_hop = "udp:127.0.0.3:5060"

[resign]
key = "thief.pem"
certificate = "thief.der"
info_url = "https://certs.a.example/{digest}.der"
caller = "+441134960001"                    # the number to claim; without it the caller's own
attest = "A"
age_s = 0                                   # how old the signature is to look
"""

HELP = f"""\
An attacker between two domains: it stands where a route of one proxy leads, forwards everything in both directions
as a proxy does, and tampers with it on the way. By mode:

  forward                 nothing
  strip-identity          takes the Identity out of INVITEs
  replay                  sends the first signed INVITE again as every later call
  change-key-mgmt         changes the MIKEY message of the offer
  add-media               adds a section of video to the offer
  change-sdp              has offer and answer name its own address for the media
  strip-key-mgmt          takes MIKEY out of the offer and downgrades it to RTP/AVP
  change-answer-key-mgmt  changes the MIKEY message of the answer
  hold                    holds INVITEs back for hold_s seconds
  resign                  signs INVITEs with a key of its own, for any caller

A configuration (TOML; files are looked for beside it):

{indented(EXAMPLE)}"""

Mode = Literal[
    "forward",
    "strip-identity",
    "replay",
    "change-key-mgmt",
    "add-media",
    "change-sdp",
    "strip-key-mgmt",
    "change-answer-key-mgmt",
    "hold",
    "resign",
]


class ResignConfig(Config, frozen=True, kw_only=True):
    """The key of a thief or a rogue insider, and the claims to sign with it."""

    key: str
    certificate: str
    info_url: str
    caller: str | None = None
    attest: Literal["A", "B", "C"] = "A"
    age_s: int = 0


class PathConfig(Config, frozen=True, kw_only=True):
    """The TOML file; see EXAMPLE. File names are relative to it."""

    listen: AdvertisedListen
    mode: Mode
    routes: tuple[Route, ...]
    udp_max_bytes: int = UDP_MAX_BYTES
    hold_s: PositiveSeconds = 70.0
    resign: ResignConfig | None = None
    trace: CallTraceConfig = CallTraceConfig()


@dataclass(frozen=True, slots=True)
class PathSetup:
    """A completely checked configuration, with which the attacker can start."""

    config: PathConfig
    attack: PathAttack
    trace: TraceTo


class PathService:
    """A proxy that forwards everything after the attack has changed it."""

    def __init__(self, config: PathConfig, attack: PathAttack, tracer: Tracer, random: Random) -> None:
        self._routes = Routes(config.routes)
        self._attack = attack
        self._tracer = tracer
        self._element = ProxyElement(
            config.listen,
            self._decide,
            resolve=self._resolve,
            secret=random.token(32),
            random=random,
            tracer=tracer,
            udp_max_bytes=config.udp_max_bytes,
            change_response=self._change_response,
            advertise=config.listen.advertise,
        )

    @property
    def address(self) -> Hop:
        """The address at which it listens, once it has started."""
        return self._element.address

    async def start(self) -> None:
        """Bind the sockets; raises LocalError."""
        await self._element.start()

    async def close(self) -> None:
        """Stop at once."""
        await self._element.close()

    async def _decide(self, arrival: Arrival) -> Forward:
        request = copy_request(arrival.request)
        if request.method == "INVITE":
            self._tell(await self._attack.invite(request))
        hop = self._resolve(request.uri)
        if hop is None:
            raise RequestRefusal(404)
        return Forward(request, hop)

    def _change_response(self, response: Response) -> None:
        try:
            self._tell(self._attack.response(response))
        except PeerError:
            log.exception("an attack failed")

    def _resolve(self, uri: URI) -> Hop | None:
        return self._routes.find(uri, number_of(uri))

    def _tell(self, done: str | None) -> None:
        if done is not None:
            self._tracer.note(done, step="attack")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the subcommand and its arguments."""
    describe_configured(parser, HELP)


def run(args: argparse.Namespace) -> int:
    """Run the attacker until SIGTERM and return its exit status; raises VoiceDpkiError if it cannot start."""
    return start("sip-testbed path", load_setup(args.config), _serve)


async def _serve(setup: PathSetup, stop: asyncio.Event) -> None:
    tracer = Tracer.named_by(setup.trace, "path")
    service = PathService(setup.config, setup.attack, tracer, SystemRandom())
    async with AsyncExitStack() as stack:
        stack.callback(tracer.close)
        stack.push_async_callback(service.close)
        await service.start()
        log.info("ready", extra={"fields": {"sip": service.address.address, "mode": setup.config.mode}})
        tracer.ready(sip=service.address.address)
        await stop.wait()


def load_setup(path: Path) -> PathSetup:
    """Read the configuration at `path` and the files that it names; raises LocalError that says what to correct."""
    config = load_config(path, PathConfig)
    config.listen.check(path)
    Routes(config.routes)
    return PathSetup(config, make_attack(config, path, SystemClock(), SystemRandom()), config.trace.read(path))


def make_attack(config: PathConfig, path: Path, clock: Clock, random: Random) -> PathAttack:
    """Return the attack that the configuration at `path` asks for; raises LocalError."""
    if config.mode == "hold":
        return Hold(config.hold_s)
    if config.mode == "change-sdp":
        return ChangeSdp(config.listen.advertised)
    if config.mode == "resign":
        if config.resign is None:
            raise LocalError(f"{path}: mode resign needs a section [resign]")
        return Resign(_forgery(config.resign, path), clock, random)
    return SIMPLE[config.mode]()


def _forgery(config: ResignConfig, path: Path) -> Forgery:
    profile = read_certificate(resolve(path, config.certificate))
    signer = read_signer(resolve(path, config.key))
    try:
        info = url_for(config.info_url, profile.digest)
        caller = canonical_tn(config.caller) if config.caller else None
    except MalformedError as error:
        raise LocalError(f"{path}: resign: {error}") from None
    return Forgery(signer, info, caller, config.attest, config.age_s)
