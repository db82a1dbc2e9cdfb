"""A device that lies, for scenarios: it claims another identity, or replays another SA's integrity statement."""

import argparse
import asyncio
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

from segw_agent import config as configuration
from segw_agent.config import DeviceConfig, SegwSetup
from segw_agent.device import Device
from segw_agent.tracer import IkeTracer
from voice_dpki.effects import SystemClock, SystemRandom
from voice_dpki.ikev2.events import SaName
from voice_dpki.ikev2.identity import fqdn
from voice_dpki.ikev2.integrity import IntegrityInfo
from voice_dpki.ikev2.sa import Party
from voice_dpki.shell.log import setup_logging
from voice_dpki.shell.program import run

OLD_SA = SaName(bytes(8), bytes(8))
"""The IKE SA for which the replayed statement was made."""


class RogueParty(Party):
    """A party whose identity need not be in its certificate."""

    def __post_init__(self) -> None:
        """Accept any identity."""


class RogueDevice(Device):
    """A device that, with `forge`, sends an integrity statement made for another IKE SA."""

    forge = False

    def state_integrity(self, sa: SaName) -> bytes:
        """Return the statement for N(INTEGRITY_INFO)."""
        content = super().state_integrity(OLD_SA if self.forge else sa)
        return IntegrityInfo.parse(content).serialize()


def main() -> int:
    """Run the device."""
    parser = argparse.ArgumentParser(prog="rogue")
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("--claim", help="the identity that is claimed")
    parser.add_argument("--forge", action="store_true", help="replay a statement of integrity")
    options = parser.parse_args()
    config, setup = configuration.load_device(options.config)
    assert setup.party is not None
    if options.claim:
        party = RogueParty(setup.party.certificate, fqdn(options.claim), setup.party.signer)
        setup = replace(setup, party=party)
    setup_logging("rogue-device")
    return run(partial(_device, config, setup, options.forge))


async def _device(config: DeviceConfig, setup: SegwSetup, forge: bool, stop: asyncio.Event) -> int:
    tracer = IkeTracer(setup.trace, "device")
    device = RogueDevice(config, setup, SystemClock(), SystemRandom(), tracer)
    device.forge = forge
    outcome = await device.run(stop)
    tracer.close()
    return 0 if outcome.attached else 1


if __name__ == "__main__":
    sys.exit(main())
