"""Which certificate of a party a telephone encrypts keys to, when it has the party's key pinned.

Whoever has the key of that certificate can read the keys as soon as they are offered, so the pin is asked before.
The ledger is the real state with its rules, as in test_pinning.
"""

from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from sip_testbed.inquiry import MAX_CERTIFICATES, Inquiry
from sip_testbed.pin_store import PinStore
from sip_testbed.pinning import Standing
from tests.ledger.conftest import START_S, chain, federation
from tests.sip_testbed.test_pinning import CALLEE, URI, Ledger, claim
from voice_dpki.ledger.answers import Resolution
from voice_dpki.ledger.names import number_keys
from voice_dpki.mikey.failures import Failure, MikeyError
from voice_dpki.names import CertDigest
from voice_dpki.x509.keys import LocalSigner, generate_rsa
from voice_dpki.x509.profile import digest_of

__all__ = ["chain", "federation"]


@cache
def key(name: str) -> LocalSigner:
    return generate_rsa()


class Listing(Ledger):
    """The same ledger, which also lists the subscriber's certificates and gives them."""

    def __init__(self, federation: Any, chain: Any) -> None:
        super().__init__(federation, chain)
        self.ders: dict[CertDigest, bytes] = {}

    def certificate(self, key: LocalSigner | None = None) -> bytes:
        der = super().certificate(key)
        self.ders[digest_of(der)] = der
        return der

    async def listed(self, keys: Sequence[bytes]) -> list[Resolution]:
        assert list(keys) == number_keys(CALLEE)
        return [self._found(digest) for digest in self.ders]

    async def resolve(self, digest: CertDigest, *, with_certificate: bool = True) -> Resolution:
        if not with_certificate:
            return await super().resolve(digest, with_certificate=False)
        return replace(self._found(digest), certificate=self.ders[digest])


@pytest.fixture
def ledger(federation: Any, chain: Any) -> Listing:
    return Listing(federation, chain)


def telephone(ledger: Listing, file: Path, *, tells: bool = False) -> Inquiry:
    access = SimpleNamespace(client=lambda clock: ledger)
    credentials = SimpleNamespace(party=None, ledger=access, pins=PinStore(file), tells_changed_keys=tells)
    tracer, clock = SimpleNamespace(note=lambda *given, **more: None), SimpleNamespace(now_s=lambda: float(START_S))
    return Inquiry(cast(Any, credentials), cast(Any, tracer), cast(Any, clock))


@pytest.fixture
async def calling(ledger: Listing, tmp_path: Path) -> Inquiry:
    """A telephone that has called the subscriber, and so has its key "own" pinned."""
    return await having_called(ledger, telephone(ledger, tmp_path / "pins.sqlite"))


async def having_called(ledger: Listing, inquiry: Inquiry) -> Inquiry:
    der = ledger.record(key("own"))
    inquiry.begin_call("callee")
    await inquiry.compare(claim(der), ledger.found(der))
    await inquiry.keep_key()
    assert inquiry.peer_key is not None
    assert inquiry.peer_key.standing is Standing.FIRST
    inquiry.begin_call("callee")  # the next call
    return inquiry


async def encrypted_to(inquiry: Inquiry) -> CertDigest:
    recipient, found = await inquiry.recipient(URI)
    assert recipient.certificate.digest == found.digest
    return found.digest


async def test_without_a_pin_it_is_the_newest(ledger: Listing, tmp_path: Path) -> None:
    ledger.record(key("own"))
    newer = ledger.record(key("second"))
    assert await encrypted_to(telephone(ledger, tmp_path / "pins.sqlite")) == digest_of(newer)


async def test_a_newer_certificate_for_another_key_gets_nothing(calling: Inquiry, ledger: Listing) -> None:
    (own,) = ledger.ders
    for _ in range(MAX_CERTIFICATES + 1):
        ledger.record(key("second"))
    assert await encrypted_to(calling) == own


async def test_a_newer_certificate_for_the_pinned_key_is_taken(calling: Inquiry, ledger: Listing) -> None:
    newer = ledger.record(key("own"))
    ledger.record(key("second"))
    assert await encrypted_to(calling) == digest_of(newer)


async def test_a_renewal_of_the_pinned_key_is_taken(calling: Inquiry, ledger: Listing) -> None:
    """The old certificate is valid still, but its owner has gone on to the new key."""
    old, new = next(iter(ledger.ders.values())), ledger.certificate(key("renewed"))
    ledger.renew(key("own"), old, new)
    second = ledger.record(key("second"))
    ledger.renew(key("second"), second, ledger.certificate(key("second's")))
    assert await encrypted_to(calling) == digest_of(new)


async def test_another_key_alone_is_refused_before_anything_is_encrypted(calling: Inquiry, ledger: Listing) -> None:
    (own,) = ledger.ders.values()
    ledger.record(key("second"))
    ledger.revoke(own, "superseded")
    with pytest.raises(MikeyError, match="the Responder's key is not the one of earlier calls") as caught:
        await calling.recipient(URI)
    assert caught.value.failure is Failure.PIN
    ledger.is_away = True
    with pytest.raises(MikeyError, match="is not resolved") as caught:
        await calling.recipient(URI)
    assert caught.value.failure is Failure.LEDGER


async def test_another_key_is_told_where_that_is_configured(ledger: Listing, tmp_path: Path) -> None:
    calling = await having_called(ledger, telephone(ledger, tmp_path / "pins.sqlite", tells=True))
    (own,) = ledger.ders
    second = ledger.record(key("second"))
    assert await encrypted_to(calling) == own
    ledger.revoke(ledger.ders[own], "superseded")
    assert await encrypted_to(calling) == digest_of(second)
