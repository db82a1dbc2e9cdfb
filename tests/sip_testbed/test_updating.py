"""New keys by updates in the modes of telephones that have them, and where there are none."""

from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, cast

import pytest

from sip_testbed.credentials import Credentials
from sip_testbed.enciphered_keying import PkeKeying, ReverseKeying
from sip_testbed.keying import Keying
from sip_testbed.shared_keying import SharedKeying
from sip_testbed.updating import NoUpdateError
from sip_testbed.user_agent_config import SharedCredentials
from tests.clocks import SettableClock
from tests.recorded import recorded
from tests.sip_testbed.test_keying import CALLEE, CALLER, CLOCK, HELD, RANDOM, party
from voice_dpki.mikey.certified import KeyingAnswer, Party
from voice_dpki.mikey.failures import Failure, MikeyError
from voice_dpki.mikey.keys import SrtpKeys
from voice_dpki.mikey.message import Message
from voice_dpki.mikey.payloads import Rand
from voice_dpki.mikey.policy import SrtpProfile
from voice_dpki.mikey.sdp import key_mgmt_value
from voice_dpki.mikey.update import UpdateOffer
from voice_dpki.x509.encipherment import LocalDecrypter
from voice_dpki.x509.profile import digest_of
from voice_dpki.x509.recorded import CertStatus

PROFILE = SrtpProfile.AES_CM_128_HMAC_SHA1_80
TRACER = cast(Any, SimpleNamespace(note=lambda *told, **how: None))


class Ledger:
    """A node that counts what it is asked, and vouches for certificates."""

    def __init__(self, *ders: bytes) -> None:
        self.held = {digest_of(der): der for der in ders}
        self.asked = 0

    def client(self, clock: object) -> "Ledger":
        return self

    async def aclose(self) -> None:
        pass

    async def listed(self, keys: Any) -> list[Any]:
        return [await self.resolve(digest) for digest in self.held]

    async def resolve(self, digest: Any, **_: object) -> Any:
        self.asked += 1
        said = recorded(self.held[digest], HELD, "Operator", height=2)
        record = SimpleNamespace(recorded_height=2)
        return SimpleNamespace(digest=digest, recorded=said, status=CertStatus.VALID, height=2, record=record)


@dataclass
class Pair:
    """Both telephones of a call."""

    caller: Any
    callee: Any
    clock: SettableClock
    ledger: Ledger

    async def begin(self) -> tuple[SrtpKeys, SrtpKeys]:
        """Agree on the keys of a call; returns both sides'."""
        self.caller.begin_call("callee")
        self.callee.begin_call("caller")
        await self.caller.meet(CALLEE)
        offer = self.caller.offer(CALLEE)
        answer = await self.callee.accept([key_mgmt_value(offer.message)], CALLER)
        self.answered(answer)
        return await self.caller.confirm(offer, [key_mgmt_value(answer.message)]), answer.keys

    def offer(self) -> UpdateOffer:
        self.clock.elapse(1)
        return self.caller.updating.offer()

    def accept(self, offer: UpdateOffer) -> Any:
        values = [key_mgmt_value(offer.message)]
        assert self.callee.updating.is_update(values)
        return self.callee.updating.accept(values)

    def answered(self, answer: KeyingAnswer) -> KeyingAnswer:
        """The callee sends an answer."""
        self.callee.updating.answered(answer.bundle)
        return answer


def credentials(own: Party, ledger: Ledger, mode: str) -> Credentials:
    decrypter = LocalDecrypter.of(cast(Any, own.signer))
    return Credentials(own, PROFILE, cast(Any, ledger), mode=cast(Any, mode), decrypter=decrypter)


def pair_by(mode: str) -> Pair:
    clock = SettableClock(CLOCK.now_s() + 1)
    if mode in ("psk", "dhhmac"):
        shared = [
            SharedCredentials(uri, PROFILE, cast(Any, mode), {other: bytes(range(32))})
            for uri, other in ((CALLER, CALLEE), (CALLEE, CALLER))
        ]
        caller, callee = (SharedKeying(each, TRACER, clock, RANDOM) for each in shared)
        return Pair(caller, callee, clock, Ledger())
    parties = party(CALLER), party(CALLEE)
    ledger = Ledger(*(each.certificate for each in parties))
    make: Any = {"pke": PkeKeying, "rsa-r": ReverseKeying, "dh-sign": Keying}[mode]
    signing = [make(credentials(each, ledger, mode), TRACER, clock, RANDOM) for each in parties]
    return Pair(signing[0], signing[1], clock, ledger)


MODES = pytest.mark.parametrize("mode", ["psk", "dhhmac", "pke", "rsa-r"])


@MODES
async def test_an_update_gives_both_sides_new_keys_and_asks_no_ledger(mode: str) -> None:
    pair = pair_by(mode)
    keys, _ = await pair.begin()
    seen, asked = [keys], pair.ledger.asked
    csb_ids = set()
    for _ in range(2):
        offer = pair.offer()
        answer = pair.answered(pair.accept(offer))
        keys = pair.caller.updating.confirm(offer, [key_mgmt_value(answer.message)])
        assert (keys.send, keys.receive) == (answer.keys.receive, answer.keys.send)
        assert not Message.parse(offer.message).all(Rand)
        csb_ids.add(Message.parse(offer.message).header.csb_id)
        seen.append(keys)
    assert len({each.send.tek for each in seen}) == len({each.send.ssrc for each in seen}) == 3
    assert (len(csb_ids), pair.ledger.asked) == (1, asked)


@MODES
async def test_an_update_is_taken_once_and_no_older_one_after_it(mode: str) -> None:
    pair = pair_by(mode)
    await pair.begin()
    older, newer = pair.offer(), pair.offer()
    pair.answered(pair.accept(newer))
    for each in (newer, older):
        with pytest.raises(MikeyError) as caught:
            pair.accept(each)
        assert caught.value.failure is Failure.REPLAY


@MODES
async def test_what_was_accepted_and_not_answered_changes_nothing(mode: str) -> None:
    pair = pair_by(mode)
    await pair.begin()
    await pair.callee.accept([key_mgmt_value(pair.caller.offer(CALLEE).message)], CALLER)
    pair.accept(pair.offer())
    offer = pair.offer()
    answer = pair.answered(pair.accept(offer))
    keys = pair.caller.updating.confirm(offer, [key_mgmt_value(answer.message)])
    assert (keys.send, keys.receive) == (answer.keys.receive, answer.keys.send)


@MODES
async def test_the_side_alone_that_began_the_bundle_sends_updates(mode: str) -> None:
    pair = pair_by(mode)
    await pair.begin()
    with pytest.raises(NoUpdateError):
        pair.callee.updating.offer()
    with pytest.raises(MikeyError, match="from the side alone that began") as caught:
        pair.caller.updating.accept([key_mgmt_value(pair.offer().message)])
    assert caught.value.failure is Failure.CSB_ID


@MODES
async def test_a_call_that_is_over_leaves_nothing_to_update(mode: str) -> None:
    pair = pair_by(mode)
    await pair.begin()
    offer = pair.offer()
    values = [key_mgmt_value(offer.message)]
    pair.callee.updating.forget()
    assert not pair.callee.updating.is_update(values)
    with pytest.raises(MikeyError):
        await pair.callee.accept(values, CALLER)
    pair.caller.begin_call("callee")
    with pytest.raises(NoUpdateError):
        pair.caller.updating.offer()


async def test_a_clock_that_was_set_back_makes_a_new_agreement_of_an_update() -> None:
    pair = pair_by("psk")
    await pair.begin()
    pair.clock.set(-5)
    with pytest.raises(NoUpdateError):
        pair.caller.updating.offer()


async def test_dh_sign_has_no_updates() -> None:
    pair = pair_by("dh-sign")
    await pair.begin()
    with pytest.raises(NoUpdateError):
        pair.caller.updating.offer()
