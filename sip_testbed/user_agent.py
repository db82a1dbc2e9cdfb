"""The program `sip-testbed user-agent`: a telephone that registers, calls or answers, speaks and records."""

import argparse
import asyncio
import logging
from contextlib import AsyncExitStack, suppress
from typing import TypeAlias

from sip_testbed.credentials import Credentials, KeysCredentials, ModernCredentials
from sip_testbed.enciphered_keying import PkeKeying, ReverseKeying
from sip_testbed.keying import Keying
from sip_testbed.modern_keying import ModernKeying
from sip_testbed.shared_keying import SharedKeying
from sip_testbed.telephone import Telephone
from sip_testbed.user_agent_config import (
    EXAMPLE,
    CallConfig,
    SharedCredentials,
    TelephoneSetup,
    load_setup,
)
from voice_dpki.effects import Clock, Random, SystemClock, SystemRandom
from voice_dpki.media.codecs import CODECS, SpeechDecoder, SpeechEncoder
from voice_dpki.media.pictures import load_coders
from voice_dpki.names import ascii_lower
from voice_dpki.shell.program import StoppedError, describe_configured, indented, start, unless_stopped
from voice_dpki.shell.trace import Tracer
from voice_dpki.sip.keepalive import KeepAliveTimes
from voice_dpki.wire.sip.transport import Tls
from voice_dpki.wire.sip.user_agent import UserAgent

log = logging.getLogger(__name__)

EXIT_REFUSED = 1
"""Exit status of a caller if one of its calls was not established."""

HELP = f"""\
A telephone without a person: it registers with its domain's proxy, and then either places calls ([call]) or answers
those that come until it is stopped. Calls are keyed end to end with MIKEY: the other side's certificate is
looked up on this operator's own ledger node, or both telephones share a key. It plays a recording into the call and
keeps what it heard.

A caller ends with status 0 if every call was established, and 1 if somebody refused one, or nothing came on one
within silence_s; the result file says who refused the last one.

A configuration (TOML; files are looked for beside it):

{indented(EXAMPLE)}"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the subcommand and its arguments."""
    describe_configured(parser, HELP)


def run(args: argparse.Namespace) -> int:
    """Run the user agent and return its exit status; raises VoiceDpkiError if it cannot start."""
    return start("sip-testbed user-agent", load_setup(args.config), _serve)


async def _serve(setup: TelephoneSetup, stop: asyncio.Event) -> int:
    clock, random = SystemClock(), SystemRandom()
    tracer = Tracer.named_by(setup.trace, "user-agent", clock)
    async with AsyncExitStack() as stack:
        stack.callback(tracer.close)
        _load_coders(setup)
        keying = keying_by(setup.credentials, tracer, clock, random)
        if keying is not None:
            stack.push_async_callback(keying.close)
            await keying.prepare()
        agent = UserAgent(
            setup.account,
            host=setup.listen.host,
            port=setup.listen.port,
            proxy=setup.proxy,
            tracer=tracer,
            random=random,
            proxy_only=setup.proxy_only,
            instance=setup.instance,
            advertise=setup.listen.advertise,
            tls=Tls(setup.tls) if setup.tls else None,
            keep_alive=KeepAliveTimes() if setup.keep_alive else None,
            session_s=setup.session_expires_s,
            transfers=setup.takes_part_in_transfers,
        )
        stack.push_async_callback(agent.close)
        await agent.start()
        telephone = Telephone(setup, agent, keying, tracer, clock, random)
        if setup.call is None:
            agent.on_invite = telephone.answer
        await _register(agent, setup, stop)
        log.info("ready", extra={"fields": {"sip": agent.address.address}})
        tracer.ready(sip=agent.address.address)
        if setup.call is None:
            await stop.wait()
            return 0
        return await _call(telephone, setup.call, stop)


AnyKeying: TypeAlias = Keying | PkeKeying | ReverseKeying | ModernKeying | SharedKeying


def keying_by(
    given: KeysCredentials | SharedCredentials | None, tracer: Tracer, clock: Clock, random: Random
) -> AnyKeying | None:
    """Return the keying that goes with credentials; None without them, for media in clear."""
    match given:
        case Credentials(mode="pke") as pke:
            return PkeKeying(pke, tracer, clock, random)
        case Credentials(mode="rsa-r") as reverse:
            return ReverseKeying(reverse, tracer, clock, random)
        case Credentials() as credentials:
            return Keying(credentials, tracer, clock, random)
        case ModernCredentials() as modern:
            return ModernKeying(modern, tracer, clock, random)
        case SharedCredentials() as shared:
            return SharedKeying(shared, tracer, clock, random)
    return None


async def _register(agent: UserAgent, setup: TelephoneSetup, stop: asyncio.Event) -> None:
    """Register, unless stopped before; a callee retries temporary failures. Raises RegistrationError."""
    with suppress(StoppedError):
        await unless_stopped(agent.register(until_done=setup.call is None), stop)


def _load_coders(setup: TelephoneSetup) -> None:
    """Import and start the codecs now, because that takes longer than setting up a call."""
    changes = setup.call.changes if setup.call else ()
    for codec in (setup.codec, *(codec for codec in CODECS.values() if ascii_lower(codec.name) in changes)):
        SpeechEncoder(codec)
        SpeechDecoder(codec)
    if setup.video:
        load_coders()


async def _call(telephone: Telephone, wanted: CallConfig, stop: asyncio.Event) -> int:
    """Place the calls until they are over or the program is stopped; return the exit status."""
    try:
        return 0 if await unless_stopped(_call_each(telephone, wanted), stop) else EXIT_REFUSED
    except StoppedError:
        return EXIT_REFUSED


async def _call_each(telephone: Telephone, wanted: CallConfig) -> bool:
    """Place one call after the other, and return whether all were established."""
    established = [(await telephone.call(wanted.target)).established]
    for _ in range(wanted.times - 1):
        await asyncio.sleep(wanted.pause_s)
        established.append((await telephone.call(wanted.target)).established)
    return all(established)
