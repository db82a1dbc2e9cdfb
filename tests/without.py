"""Programs without one check, by the check's name: what does an attack gain when that does not stand in its way?

    python -m tests.without "E21 replay" verify_server.main start --config verify-b.toml

runs a program's own `main` with that check taken away. It is here, and not in a configuration, so that nobody can
take a check away from a program that is in use. `removals` gives the same to tests in this process, as attributes
to replace.
"""

import asyncio
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

from sip_testbed import conversation, proxy_calls
from sip_testbed.pinning import PeerKey, Pinning, Standing
from voice_dpki.mikey import modern, steps
from voice_dpki.stir import examine, verify
from voice_dpki.stir.replay import ReplayCache, Sighting
from voice_dpki.stir.verdict import KeyMgmt, SdpBinding, Verstat
from voice_dpki.x509.allotment import Allotment
from voice_dpki.x509.profile import read_profile
from voice_dpki.x509.recorded import CertStatus, RecordedCertificate

Removal = tuple[Any, str, Callable[..., Any]]
"""An object, the name of its attribute, and what to put in the check's place."""


def _nothing(*given: object) -> None:
    """Find nothing wrong."""


def _believed(offered: Path | None) -> tuple[Removal, ...]:
    """Take every certificate for recorded and valid; one that the ledger lacks is `offered`, as an x5u might do."""
    certificate = verify._certificate

    def check(examined: Any, recorded: RecordedCertificate, now_s: float) -> Any:
        der = recorded.der or (offered.read_bytes() if offered else b"")
        profile = read_profile(der)
        assert profile.tn_auth_list
        believed = replace(
            recorded,
            status=CertStatus.VALID,
            organization=str(profile.organization),
            not_before_s=profile.not_before_s,
            not_after_s=profile.not_after_s,
            allotment=recorded.allotment or Allotment(ranges=profile.tn_auth_list.ranges),
            der=der,
        )
        return certificate(examined, believed, now_s)

    return ((verify, "_certificate", check),)


async def _first(*given: object) -> PeerKey:
    return PeerKey(Standing.FIRST)


async def _forever(*given: object) -> None:
    await asyncio.get_running_loop().create_future()


def _unsigned_too() -> Callable[..., Any]:
    """Let calls in that nobody signed, with no verdict; those that are signed are verified as ever."""
    verified = proxy_calls.CallVerifier.verify

    async def check(self: Any, request: Any, called: Any) -> str:
        return await verified(self, request, called) if request.headers.get("Identity") else Verstat.NONE

    return check


def removals(check: str, offered: Path | None = None) -> tuple[Removal, ...]:
    """Return what takes a check away; `offered` is a certificate that the ledger does not have."""
    if check == "E17 certificate":
        return _believed(offered)
    if check == "MIKEY SIGN":  # DH-SIGN's, and the modern mode's
        return (steps, "check_signature", _nothing), (modern, "_check_signature", _nothing)
    return (_SINGLE[check](),)


_SINGLE: Mapping[str, Callable[[], Removal]] = {
    "E2 Identity present": lambda: (proxy_calls.CallVerifier, "verify", _unsigned_too()),
    "E15 iat": lambda: (examine, "check_iat", _nothing),
    "E17 authority": lambda: (verify, "_authority", _nothing),
    "E20 key-mgmt": lambda: (verify, "_key_mgmt", lambda *given: KeyMgmt.NOT_CHECKED),
    "E21 replay": lambda: (ReplayCache, "claim", lambda *given: Sighting.NEW),
    "E22 SDP": lambda: (verify, "_sdp", lambda *given: SdpBinding.NOT_CHECKED),
    "MIKEY pin": lambda: (Pinning, "check", _first),
    conversation.SILENCE: lambda: (conversation, "_silence", _forever),
}


def main(arguments: Sequence[str]) -> int:
    """Run a program without a check: the check's name, the program's module, and the program's arguments."""
    check, module, *rest = arguments
    removed = removals(check, Path(rest[-1]).parent / "thief.der")
    if check == "E15 iat":  # a program that has just started remembers no uses of a token that is so old
        removed += removals("E21 replay")
    for owner, name, replacement in removed:
        assert hasattr(owner, name), f"{check}: the check has another name now"
        setattr(owner, name, replacement)
    return int(import_module(module).main(rest))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
