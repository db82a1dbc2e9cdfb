"""The submission role of a node whose store is behind the ledger."""

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from ledger_node.keep.chain import Chain, TxOutcome
from ledger_node.keep.store import Store
from ledger_node.order import submission
from ledger_node.order.orderer import RefusedByLedgerError, UnavailableError
from ledger_node.order.submission import Submission
from tests.ledger_node.conftest import wait_until
from tests.soft_hsm import SoftHsm
from voice_dpki.ledger.draft import OK, Draft
from voice_dpki.ledger.records import CertStatus
from voice_dpki.ledger.refusals import Refusal
from voice_dpki.ledger.rules import V1
from voice_dpki.ledger.state import TxResult
from voice_dpki.ledger.transactions import Transaction, signed_bytes
from voice_dpki.names import Height
from voice_dpki.shell.credentials import read_signer
from voice_dpki.shell.token_uri import key_place
from voice_dpki.shortfalls import SHORTFALLS
from voice_dpki.x509.keys import generate_es256, verify_signature
from voice_dpki.x509.profile import digest_of


@pytest.fixture
def chain(network: Any, tmp_path: Path) -> Iterator[Chain]:
    chain = Chain(Store(tmp_path / "store", network.genesis), network.genesis)
    yield chain
    chain.close()


def endorsing(network: Any, chain: Chain) -> Submission:
    """The role of A, ordering at a ledger that has recorded whatever is handed to it."""
    refusal = Refusal.RECORDED
    recorded = TxOutcome(TxResult(refusal.code, refusal.kebab, refusal.sentence), None)

    async def order(_: bytes) -> TxOutcome:
        await asyncio.sleep(0)
        return recorded

    return Submission(chain, "Operator A", network.signer("Operator A"), order)


async def test_it_waits_until_its_store_has_the_certificate(network: Any, chain: Chain) -> None:
    der = network.certificate()
    steps = network.maker().steps([], [], [network.submission_of(der)], [])
    asked = asyncio.ensure_future(endorsing(network, chain).submit(der))
    for step in steps:
        await asyncio.sleep(0.01)
        assert not asked.done() or chain.height >= 3
        await chain.write(partial(chain.store.commit, step))
    recorded = await asyncio.wait_for(asked, 60)
    assert (recorded.digest, recorded.height, recorded.repeated) == (digest_of(der), 3, True)


async def test_it_does_not_know_where_its_store_stays_behind(
    network: Any, chain: Chain, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(submission, "OWN_STORE_WAIT_S", 0.1)
    with pytest.raises(UnavailableError, match="yet to store"):
        await endorsing(network, chain).submit(network.certificate())


async def test_what_another_organisation_has_recorded_is_refused(network: Any, chain: Chain) -> None:
    der = network.certificate("Operator B")
    for step in network.maker().steps([network.submission_of(der, "Operator B")]):
        await chain.write(partial(chain.store.commit, step))
    with pytest.raises(RefusedByLedgerError):
        await endorsing(network, chain).submit(der)


async def test_a_node_that_does_not_know_its_member_yet_endorses_nothing(network: Any, chain: Chain) -> None:
    """It is admitted later, or its key was changed: the node starts, says so, and endorses once it can."""
    ordered: list[bytes] = []

    async def order(raw: bytes) -> TxOutcome:
        ordered.append(raw)
        return TxOutcome(OK, Height(0))

    new = generate_es256()
    role = Submission(chain, "Operator A", new, order)
    said = "at block 0, the newest here, 'Operator A' is no member with this endorsing key"
    assert [note for note in SHORTFALLS.notes() if note.startswith(said)]
    der = network.certificate()
    for request in (
        role.submit(der),
        role.renew(der, digest_of(der), b"key", b"signature"),
        role.change_status(digest_of(der), CertStatus.REVOKED, "keyCompromise"),
    ):
        with pytest.raises(UnavailableError, match=said):
            await request
    assert not ordered
    member = network.genesis.member("Operator A")
    with chain.snapshot() as view:
        draft = Draft(view, V1)
        draft.put_member(replace(member, endorsing_keys=(new.public_key_der,)))
        outcome = draft.outcome()
    await chain.write(partial(chain.store.restore, Height(1), outcome))
    assert not role.shortfall()
    await role.submit(der)
    assert len(ordered) == 1
    chain.close()
    assert not role.shortfall()


@pytest.mark.peer("softhsm2-util")
@pytest.mark.peer("pkcs11-tool")
async def test_an_endorsing_key_in_a_token_endorses_while_it_is_there(
    network: Any, chain: Chain, hsm: SoftHsm
) -> None:
    ordered: list[bytes] = []

    async def order(raw: bytes) -> TxOutcome:
        ordered.append(raw)
        return TxOutcome(OK, Height(0))

    signer = read_signer(key_place(hsm.uri("sti")))
    with chain.snapshot() as view:
        draft = Draft(view, V1)
        member = network.genesis.member("Operator A")
        draft.put_member(replace(member, endorsing_keys=(signer.public_key_der,)))
        outcome = draft.outcome()
    await chain.write(partial(chain.store.restore, Height(1), outcome))
    role, der = Submission(chain, "Operator A", signer, order), network.certificate()
    await role.submit(der)
    transaction = Transaction.parse(ordered[0])
    (endorsement,) = transaction.endorsements
    signed = signed_bytes(transaction.body_bytes)
    verify_signature(signer.public_key_der, "ES256", signed, endorsement.signature)
    hsm.take_away()
    with pytest.raises(
        UnavailableError, match=r"^this node cannot use its endorsing key: the token's module does not work$"
    ):
        await role.submit(der)
    assert "a key in a token cannot be used: the token's module does not work" in SHORTFALLS.notes()
    assert "the token's module does not work" in role.check().reason
    hsm.bring_back()


@pytest.mark.peer("softhsm2-util")
@pytest.mark.peer("pkcs11-tool")
def test_a_node_says_by_itself_that_its_token_is_gone_and_is_back(network: Any, hsm: SoftHsm) -> None:
    """Nobody has to submit anything for it, and the node validates on."""
    node = network.engine(heartbeat_s=0.2)
    key = node.config.parent / "keys" / "endorsing-operator-a.pem"
    hsm.hold("endorsing", key)
    node.config.write_text(node.config.read_text().replace(f"keys/{key.name}", hsm.uri("endorsing")))
    key.unlink()
    node.start()
    wait_until(lambda: endorsing_key(node) == {"state": "ok"}, "the node is ready")
    hsm.take_away()
    wait_until(lambda: endorsing_key(node)["state"] == "failed", "the node says that its token is gone")
    assert endorsing_key(node)["reason"].startswith("a key in a token cannot be used")
    assert node.http.get("/readyz").status_code == 503
    node.reaches(node.info()["height"] + 2)
    hsm.bring_back()
    wait_until(lambda: endorsing_key(node) == {"state": "ok"}, "the node endorses again")
    assert node.stop() == 0


def endorsing_key(node: Any) -> Any:
    return node.http.get("/readyz").json()["checks"]["endorsing_key"]
