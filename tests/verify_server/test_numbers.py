"""Numbers that members hold one by one: the ledger is asked of the caller's, and what is not known is refused."""

import json
from collections.abc import Collection
from dataclasses import dataclass, field, replace

import pytest

from tests.recorded import recorded
from verify_server.service import VerifyService
from voice_dpki.codec import base64url
from voice_dpki.effects import SystemClock
from voice_dpki.ledger.held_numbers import NumberHolder
from voice_dpki.ledger.standing import with_number
from voice_dpki.names import CertDigest, Tn
from voice_dpki.shell.trace import Tracer
from voice_dpki.stir.examine import Policy
from voice_dpki.stir.replay import ReplayCache
from voice_dpki.stir.verdict import Step, VerificationFailed
from voice_dpki.x509.allotment import Allotment
from voice_dpki.x509.keys import generate_es256
from voice_dpki.x509.recorded import CertStatus, RecordedCertificate

from .conftest import RANGE_A, Caller, verification
from .cps_site import CALLED, Site

CALLING = Tn("493023125001")
A, ANOTHER = NumberHolder("Operator A", 0), NumberHolder("Operator C", 7)


@dataclass
class Ledger:
    """A ledger on which the signer's organisation, marked, has a certificate for its whole range."""

    caller: Caller
    holder: NumberHolder | None
    holds_signer: bool = True
    holds_number: bool = False
    is_silent: bool = False
    asked: list[Tn] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.der = self.caller.der()
        self.record = recorded(self.der, Allotment(ranges=(RANGE_A,), by_number=True))

    def held(self, digest: CertDigest) -> RecordedCertificate | None:
        return self.record if self.holds_signer else None

    async def look_up(self, digest: CertDigest) -> RecordedCertificate:
        return self.record

    def with_numbers(self, recorded: RecordedCertificate, numbers: Collection[Tn]) -> RecordedCertificate | None:
        return self._told(recorded, numbers) if self.holds_number else None

    async def ask_numbers(self, recorded: RecordedCertificate, numbers: Collection[Tn]) -> RecordedCertificate:
        if self.is_silent:
            raise VerificationFailed(Step.LEDGER, "this domain's inquiry node does not answer")
        self.asked += numbers
        return self._told(recorded, numbers)

    def _told(self, recorded: RecordedCertificate, numbers: Collection[Tn]) -> RecordedCertificate:
        for tn in numbers:
            recorded = with_number(recorded, tn, self.holder)
        return recorded


async def verdict(ledger: Ledger, identity: str = "") -> tuple[str, str]:
    service = VerifyService(ledger, Policy(60), ReplayCache(9, 120), SystemClock(), Tracer(None, "verify"))
    body = json.dumps(verification(identity or ledger.caller.identity(ledger.der))).encode()
    answer = service.verify(body)
    found = json.loads(answer if isinstance(answer, bytes) else await answer)["verificationResponse"]
    return found["verstat"], found.get("reasondesc", "")


VALID = "TN-Validation-Passed"


@pytest.mark.parametrize("holds_signer", [True, False])
@pytest.mark.parametrize("holder", [None, A])
async def test_a_call_from_a_number_that_is_still_the_signers(
    caller: Caller, holder: NumberHolder | None, holds_signer: bool
) -> None:
    ledger = Ledger(caller, holder, holds_signer)
    assert await verdict(ledger) == (VALID, "")
    assert ledger.asked == [CALLING]


@pytest.mark.parametrize("holder", [ANOTHER, NumberHolder("Operator A", 7)])
async def test_a_call_from_a_number_that_has_gone_to_another(caller: Caller, holder: NumberHolder) -> None:
    verstat, why = await verdict(Ledger(caller, holder))
    assert verstat != VALID
    assert "has no authority over the caller's number" in why


async def test_where_the_leaf_is_held_nobody_is_asked(caller: Caller) -> None:
    ledger = Ledger(caller, None, holds_number=True)
    assert await verdict(ledger) == (VALID, "")
    assert ledger.asked == []
    ledger.holder = ANOTHER
    assert (await verdict(ledger))[0] != VALID


async def test_where_the_ledger_does_not_tell_the_call_is_not_verified(caller: Caller) -> None:
    verstat, why = await verdict(Ledger(caller, None, is_silent=True))
    assert (verstat != VALID, "does not answer" in why) == (True, True)


def forged(identity: str) -> str:
    """The same Identity with a signature of another key."""
    head, payload, rest = identity.split(".", 2)
    _signature, parameters = rest.split(";", 1)
    signature = generate_es256().sign(f"{head}.{payload}".encode())
    return f"{head}.{payload}.{base64url.encode(signature)};{parameters}"


@pytest.mark.parametrize("holds_signer", [True, False])
async def test_nobody_asks_the_ledger_on_behalf_of_a_forged_token(caller: Caller, holds_signer: bool) -> None:
    ledger = Ledger(caller, A, holds_signer)
    assert await verdict(ledger, forged(caller.identity(ledger.der))) == (
        "TN-Validation-Failed",
        "The signature does not verify under the signer's key.",
    )
    assert ledger.asked == []
    assert await verdict(ledger) == (VALID, "")
    assert ledger.asked == [CALLING]


async def test_nobody_asks_the_ledger_for_a_signer_that_is_revoked(caller: Caller) -> None:
    ledger = Ledger(caller, A)
    ledger.record = replace(ledger.record, status=CertStatus.REVOKED)
    verstat, why = await verdict(ledger)
    assert (verstat, "was revoked" in why, ledger.asked) == ("TN-Validation-Failed", True, [])


class PortedSite(Site):
    """A call placement service on a ledger where the called number is a third operator's."""

    holder = "Operator C"

    async def ask_numbers(self, recorded: RecordedCertificate, numbers: Collection[Tn]) -> RecordedCertificate:
        allotment = recorded.allotment
        for tn in numbers:
            if allotment is not None and tn == CALLED:
                allotment = allotment.with_number(tn, holds=recorded.organization == self.holder)
        return replace(recorded, allotment=allotment)


async def test_passports_of_a_call_are_for_who_holds_the_called_number_now() -> None:
    async with PortedSite().serving() as site:
        assert isinstance(site, PortedSite)
        placed = await site.a.publish(site.a.passport())
        assert (placed.status_code, placed.json()["title"]) == (403, "foreign"), "it serves Operator B alone"
        site.holder = "Operator B"
        assert (await site.a.publish(site.a.passport())).status_code == 201
        assert len(await site.b.retrieved()) == 1
        site.holder = "Operator C"
        assert (await site.b.retrieve()).status_code == 403
        assert len(await site.c.retrieved()) == 1
