"""The catalogue: found by name and organisation, caught up, and made again if it is damaged."""

from pathlib import Path
from typing import Any

from ledger_node.answer.catalogue import FILE, MAX_RESULTS, Catalogue
from ledger_node.keep.retention import Retention
from ledger_node.keep.store import Store
from voice_dpki.ledger.transactions import Batch, Renew, endorse, renewal_bytes
from voice_dpki.x509.keys import generate_es256
from voice_dpki.x509.profile import digest_of


def results(answer: dict[str, Any]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = answer["results"]
    return found


def test_search_catches_up_and_survives_damage(network: Any, tmp_path: Path) -> None:
    store, maker = Store(tmp_path, network.genesis), network.maker()
    alice = network.certificate(common_name="Alice", uris=("sip:alice@a.example",))
    bob = network.certificate("Operator B", common_name="Bob_100%", dns_names=("bob.b.example",))
    for step in maker.steps([network.submission_of(alice), b"nonsense"]):
        store.commit(step)
    catalogue = Catalogue(tmp_path, store)

    def found(subject: str | None = None, organization: str | None = None) -> list[str]:
        return [entry["digest"] for entry in results(catalogue.search(subject, organization))]

    assert found() == [digest_of(alice).hex()]
    for step in maker.steps([network.submission_of(bob, "Operator B")]):
        store.commit(step)
    assert found() == [digest_of(bob).hex(), digest_of(alice).hex()]
    assert found(organization="Operator B") == found("Bob") == found("b.example") == [digest_of(bob).hex()]
    assert found("_100%") == [digest_of(bob).hex()]
    assert found("ALICE@", "Operator A") == found("alice@", "Operator A") == [digest_of(alice).hex()]
    assert found("alice", "Operator B") == found("nobody") == []
    catalogue.close()

    (tmp_path / FILE).write_bytes(b"damaged" * 1000)
    catalogue = Catalogue(tmp_path, store)
    answer = catalogue.search("alice", None)
    assert answer["height"] == store.height
    assert results(answer)[0]["names"] == ["sip:alice@a.example"]
    catalogue.close()
    store.close()


def test_batches_and_renewals_are_found(network: Any, tmp_path: Path) -> None:
    store, maker, key = Store(tmp_path, network.genesis), network.maker(), generate_es256()
    ders = [network.certificate(common_name=f"one of {number}", key=key) for number in range(3)]
    new = network.certificate(common_name="one of 0")
    signature = key.sign(renewal_bytes("test-1", digest_of(ders[0]), digest_of(new)))
    renewal = Renew("test-1", "Operator A", new, digest_of(ders[0]), key.public_key_der, signature)
    batch = Batch("test-1", "Operator A", tuple(ders))
    for step in maker.steps([endorse(body, [network.signer("Operator A")]) for body in (batch, renewal)]):
        store.commit(step)
    catalogue = Catalogue(tmp_path, store)
    found = {entry["digest"] for entry in results(catalogue.search("one of", None))}
    assert found == {digest_of(der).hex() for der in (*ders, new)}
    catalogue.close()
    store.close()


def test_certificates_of_removed_blocks_are_found_by_the_state(network: Any, tmp_path: Path) -> None:
    store = Store(tmp_path, network.genesis, retention=Retention(age_s=0, blocks=1))
    maker = network.maker()
    alice, bob = network.certificate(common_name="Alice"), network.certificate("Operator B", common_name="Bob")
    for step in maker.steps([network.submission_of(alice)], [network.submission_of(bob, "Operator B")], []):
        store.commit(step)
    assert store.view.first > 2
    catalogue = Catalogue(tmp_path, store)
    answer = results(catalogue.search(None, None))
    assert [(entry["common_name"], entry["organization"], entry["recorded_height"]) for entry in answer] == [
        ("Bob", "Operator B", 2),
        ("Alice", "Operator A", 1),
    ]
    carol = network.certificate(common_name="Carol")
    for step in maker.steps([network.submission_of(carol)]):
        store.commit(step)
    assert len(results(catalogue.search(None, None))) == 3
    catalogue.close()
    store.close()


def test_an_answer_is_bounded(network: Any, tmp_path: Path) -> None:
    store, maker = Store(tmp_path, network.genesis), network.maker()
    ders = [network.certificate() for _ in range(MAX_RESULTS + 5)]
    for step in maker.steps([network.submission_of(der) for der in ders]):
        store.commit(step)
    catalogue = Catalogue(tmp_path, store)
    assert len(results(catalogue.search(None, None))) == MAX_RESULTS
    catalogue.close()
    store.close()
