"""What a telephone demands of the other side's identity before it asks its ledger node."""

from types import SimpleNamespace
from typing import Any, cast

import pytest

from sip_testbed.credentials import Credentials
from sip_testbed.keying import Keying
from voice_dpki.effects import SystemClock, SystemRandom
from voice_dpki.mikey.certified import Party
from voice_dpki.mikey.failures import Failure, MikeyError
from voice_dpki.mikey.modes import Initiator
from voice_dpki.mikey.policy import SrtpProfile
from voice_dpki.mikey.sdp import key_mgmt_value
from voice_dpki.x509.keys import generate_rsa
from voice_dpki.x509.profile import build_certificate

CALLEE = "sip:+442079460123@b.example"
CLOCK, RANDOM = SystemClock(), SystemRandom()


def party(uri: str) -> Party:
    signer, now_s = generate_rsa(), int(CLOCK.now_s())
    certificate = build_certificate(
        signer, organization="Operator", common_name="user", uris=[uri], random=RANDOM,
        not_before_s=now_s - 60, not_after_s=now_s + 3600,
    )  # fmt: skip
    return Party(uri, certificate, signer)


class Unasked:
    """A ledger node that must not be asked."""

    def client(self, clock: object) -> "Unasked":
        return self

    async def resolve(self, *args: object, **options: object) -> None:
        raise AssertionError("the ledger was asked")

    async def aclose(self) -> None:
        pass


@pytest.mark.parametrize(
    "uri", ["sip:alice@a.example", "sip:+493023125001;phone-context=a.example@a.example", "sip:*21#@a.example"]
)
async def test_a_caller_without_a_number_is_refused(uri: str) -> None:
    profile = SrtpProfile.AES_CM_128_HMAC_SHA1_80
    credentials = Credentials(party(CALLEE), profile, cast(Any, Unasked()))
    keying = Keying(credentials, cast(Any, SimpleNamespace()), CLOCK, RANDOM)
    offer = Initiator(party(uri)).offer(
        responder_uri=CALLEE, profile=profile, random=RANDOM, now_s=CLOCK.now_s() + 1
    )
    with pytest.raises(MikeyError, match="URI has no telephone number") as caught:
        await keying.accept([key_mgmt_value(offer.message)], uri)
    await keying.close()
    assert caught.value.failure is Failure.IDENTITY
