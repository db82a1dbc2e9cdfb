"""Other certificates for a party of a call: which of them are told, and which are not.

The ledger is the real state with its rules and lists; only the way to a node, with its proofs, is left out.
"""

from collections.abc import Sequence
from typing import Any, cast

import pytest

from sip_testbed.rivals import Party, rivals_of
from tests.ledger.conftest import START_S, chain, federation
from tests.sip_testbed.test_pinning import B, Ledger, claim
from voice_dpki.ledger.answers import InquiryCode, InquiryError, Resolution
from voice_dpki.ledger.names import parse_listed
from voice_dpki.names import CertDigest
from voice_dpki.x509.keys import LocalSigner, generate_es256, generate_rsa
from voice_dpki.x509.profile import digest_of, read_profile

__all__ = ["chain", "federation"]

CALLER_URI = "sip:+493023125001@a.example"


class ListingLedger(Ledger):
    """A ledger that also answers what is listed, and gives certificates."""

    async def listed(self, keys: Sequence[bytes]) -> tuple[Resolution, ...]:
        self.asked += 1
        if self.is_away:
            raise InquiryError(InquiryCode.UNREACHABLE, "the ledger node does not answer")
        lists = [leaf for key in keys if (leaf := self.chain.state.leaf(key)) is not None]
        return tuple(self._found(digest) for digest in sorted({d for data in lists for d in parse_listed(data)}))

    async def resolve(self, digest: CertDigest, **options: Any) -> Any:
        found = self._found(digest)
        return Resolution(
            digest, found.status, self.chain.state.certificate(digest), found.record, found.member, found.height,
            START_S, 0.0,
        )  # fmt: skip


@pytest.fixture
def ledger(federation: Any, chain: Any) -> ListingLedger:
    return ListingLedger(federation, chain)


@pytest.fixture(scope="module")
def keys() -> list[LocalSigner]:
    return [generate_es256() for _ in range(3)]


async def told(ledger: ListingLedger, der: bytes, role: str = "Responder") -> tuple[str, ...]:
    own = ledger.federation.certificate("Operator A", uris=[CALLER_URI])
    party: Party = "callee" if role == "Responder" else "caller"
    return await rivals_of(cast(Any, ledger), claim(der, role), party, CALLER_URI, read_profile(own))


async def test_a_second_valid_certificate_with_another_key_is_told(
    ledger: ListingLedger, keys: list[LocalSigner]
) -> None:
    used = ledger.record(keys[0])
    assert await told(ledger, used) == ()
    ledger.record(keys[1])
    block = ledger.found(used).height
    (clause,) = await told(ledger, used)
    assert clause.startswith("the ledger has another valid certificate for the callee, with another key, which ")
    assert f"which {B} recorded in block " in clause
    assert block
    (clause,) = await told(ledger, used, "Initiator")
    assert "certificate for the caller, " in clause


async def test_our_own_second_certificate_is_told_to_us(ledger: ListingLedger, keys: list[LocalSigner]) -> None:
    der = ledger.federation.certificate("Operator A", key=keys[0], uris=[CALLER_URI])
    ledger.chain.add([ledger.federation.submission(der)])
    (clause,) = await told(ledger, ledger.record(keys[1]))
    assert "certificate for the caller, with another key, which Operator A recorded" in clause


async def test_what_could_not_stand_in_for_the_used_one_is_not_told(
    ledger: ListingLedger, keys: list[LocalSigner]
) -> None:
    used = ledger.record(keys[0])
    ledger.record(keys[0])  # the same key
    ledger.record(generate_rsa())  # of another kind
    ledger.revoke(ledger.record(keys[1]), "superseded")
    neighbour = ledger.federation.certificate(B, key=keys[2], uris=["sip:+442079460124@b.example"])
    ledger.chain.add([ledger.federation.submission(neighbour, B)])
    assert await told(ledger, used) == ()


async def test_a_renewal_is_not_told_at_either_end_of_it(ledger: ListingLedger, keys: list[LocalSigner]) -> None:
    old, new = ledger.record(keys[0]), ledger.certificate(keys[1])
    ledger.renew(keys[0], old, new)
    assert ledger.found(old).record.replaced_by == digest_of(new)  # type: ignore[union-attr]
    assert (await told(ledger, old), await told(ledger, new)) == ((), ())
    ledger.record(keys[2])
    assert (len(await told(ledger, old)), len(await told(ledger, new))) == (1, 1)


async def test_a_silent_ledger_is_told(ledger: ListingLedger, keys: list[LocalSigner]) -> None:
    used = ledger.record(keys[0])
    ledger.is_away = True
    assert await told(ledger, used) == ("the ledger could not be asked for other certificates of the parties",)
