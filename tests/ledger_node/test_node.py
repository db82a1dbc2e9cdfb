"""An engine and a follower as processes: submission, inquiry, refusals, search, and the files they take."""

import asyncio
import json
import math
import signal
import time
from typing import Any

import httpx
import msgspec
import pytest

from voice_dpki.ledger.answers import InquiryError
from voice_dpki.ledger.records import CertStatus
from voice_dpki.ledger.transactions import MAX_TRANSACTION_BYTES, Submit, endorse, renewal_bytes
from voice_dpki.names import Tn
from voice_dpki.wire.ledger.client import SubmissionError
from voice_dpki.x509.keys import generate_es256
from voice_dpki.x509.profile import MAX_CERTIFICATE_BYTES, digest_of
from voice_dpki.x509.tnauthlist import TnAuthList, TnRange


async def test_a_certificate_through_its_life(running: Any, token: str) -> None:
    engine, follower = running.nodes
    der = running.certificate("Operator B")
    digest = digest_of(der)
    async with running.client(follower) as b, running.client(engine) as a:
        assert (await b.resolve(digest)).status is CertStatus.UNKNOWN
        receipt = await b.submit(der, token)
        assert (receipt.status, receipt.repeated) == (CertStatus.VALID, False)
        for client in (a, b):
            found = await client.resolve(digest)
            assert (found.status, found.certificate) == (CertStatus.VALID, der)
            assert found.member == running.genesis.member("Operator B")
            assert found.record.recorded_height == receipt.height <= found.height
        for status in (CertStatus.SUSPENDED, CertStatus.VALID, CertStatus.REVOKED):
            receipt = await b.change_status(digest, status, "unspecified", token)
            assert (receipt.status, receipt.repeated) == (status, False)
            assert (await b.resolve(digest, with_certificate=False)).status is status
        assert (await a.resolve(digest)).status is CertStatus.REVOKED


async def test_a_renewal_is_endorsed_and_asking_again_changes_nothing(running: Any, token: str) -> None:
    engine, key = running.nodes[0], generate_es256()
    old = running.certificate(common_name="renewed", key=key)
    new = running.certificate(common_name="renewed")
    signature = key.sign(renewal_bytes(running.genesis.chain_id, digest_of(old), digest_of(new)))
    body = {"certificate": new, "replaces": digest_of(old).hex(), "owner_key": key.public_key_der}
    good = msgspec.json.encode({**body, "owner_signature": signature})
    header = {"authorization": f"Bearer {token}"}
    async with running.client(engine) as client:
        await client.submit(old, token)
        forged = post(engine, "renewals", msgspec.json.encode({**body, "owner_signature": bytes(64)}), header)
        assert (forged.status_code, forged.json()["name"]) == (422, "owner-signature")
        answers = [post(engine, "renewals", good, header) for _ in range(2)]
        assert [(each.status_code, each.json()["repeated"]) for each in answers] == [(201, False), (200, True)]
        assert (await client.resolve(digest_of(new))).record.replaces == digest_of(old)
    assert post(engine, "renewals", b"{}", header).status_code == 400
    assert post(engine, "renewals", good, {}).status_code == 401


async def test_asking_again_changes_nothing(running: Any, token: str) -> None:
    engine = running.nodes[0]
    der = running.certificate()
    async with running.client(engine) as client:
        receipts = await asyncio.gather(*(client.submit(der, token) for _ in range(5)))
        assert sorted(receipt.repeated for receipt in receipts) == [False, True, True, True, True]
        assert len({receipt.height for receipt in receipts}) == 1
        first = await client.revoke(digest_of(der), "superseded", token)
        again = await client.revoke(digest_of(der), "keyCompromise", token)
        assert (again.height, again.repeated) == (first.height, True)
        assert (await client.resolve(digest_of(der))).record.reason == "superseded"


async def test_refusals_have_codes_and_sentences(running: Any, token: str) -> None:
    engine, follower = running.nodes
    shared = generate_es256()
    async with running.client(engine) as a, running.client(follower) as b:
        await a.submit(running.certificate("Operator A", key=shared), token)
        ranges = TnAuthList(ranges=(TnRange(Tn("442079460000"), 1000),))
        for client, der, name in (
            (a, b"no certificate", "certificate-malformed"),
            (a, running.certificate("Operator B"), "wrong-organization"),
            (a, running.certificate(tn_auth_list=ranges), "numbers-outside-ranges"),
            (b, running.certificate("Operator B", key=shared), "key-of-another-organization"),
            (a, running.certificate(not_before_s=1, not_after_s=2), "expired"),
        ):
            with pytest.raises(SubmissionError) as caught:
                await client.submit(der, token)
            assert (caught.value.name, caught.value.code is None) == (name, False)
        with pytest.raises(SubmissionError) as caught:
            await b.revoke(digest_of(b"absent"), "unspecified", token)
        assert caught.value.name == "not-recorded"


@pytest.mark.parametrize("header", [{}, {"authorization": "Bearer wrong"}, {"authorization": "Basic YTpi"}])
def test_without_a_token_nothing_is_endorsed(running: Any, header: dict[str, str]) -> None:
    engine, der = running.nodes[0], running.certificate()
    for path, body in (
        ("submissions", der),
        ("revocations", json.dumps({"digest": digest_of(der).hex(), "reason": "unspecified"}).encode()),
    ):
        answer = post(engine, path, body, header)
        assert answer.status_code == 401
        assert answer.headers["www-authenticate"] == "Bearer"
    assert get(engine, f"status/{digest_of(der).hex()}").json()["status"] == "unknown"


def test_transactions_that_nobody_may_send(running: Any, token: str) -> None:
    engine = running.nodes[0]
    height = engine.info()["height"]
    der = running.certificate("Operator A")
    rogue = endorse(Submit("test-1", "Operator A", der), [running.signer("Operator B")])
    taken = endorse(Submit("test-1", "Operator B", der), [running.signer("Operator B")])
    elsewhere = endorse(Submit("test-2", "Operator A", der), [running.signer("Operator A")])
    for raw, name in (
        (b"", "malformed"),
        (rogue, "unknown-signer"),
        (taken, "wrong-organization"),
        (elsewhere, "wrong-chain"),
        (rogue[:-1] + bytes([rogue[-1] ^ 1]), "unknown-signer"),
        (b"\x9f" + rogue[1:] + b"\xff", "malformed"),
    ):
        for node in running.nodes:
            answer = post(node, "transactions", raw)
            assert (answer.status_code, answer.json()["name"], answer.json()["height"]) == (422, name, None)
    assert post(engine, "transactions", bytes(MAX_TRANSACTION_BYTES + 1)).status_code == 413
    too_large = bytes(MAX_CERTIFICATE_BYTES + 1)
    assert post(engine, "submissions", too_large).status_code == 401  # nobody reads what a stranger sends
    assert post(engine, "submissions", too_large, {"authorization": f"Bearer {token}"}).status_code == 413
    blocks = get(engine, f"blocks?from={height + 1}&count=10").json()["blocks"]
    assert not any(block["transactions"] for block in blocks)


def test_a_transaction_is_a_members_own_way_in(running: Any) -> None:
    der = running.certificate("Operator A")
    raw = endorse(Submit("test-1", "Operator A", der), [running.signer("Operator A")])
    answer = post(running.nodes[1], "transactions", raw)
    assert (answer.status_code, answer.json()["code"]) == (200, 0)
    again = post(running.nodes[0], "transactions", raw)
    assert (again.status_code, again.json()["name"]) == (422, "already-recorded")


async def test_plain_http_inquiries(running: Any, token: str) -> None:
    engine = running.nodes[0]
    der = running.certificate(uris=("sip:+493023125007@a.example",), common_name="phone of 7")
    async with running.client(engine) as client:
        await client.submit(der, token)
    digest = digest_of(der).hex()
    assert get(engine, f"certificates/{digest}.der").content == der
    assert get(engine, f"certificates/{'00' * 32}.der").status_code == 404
    assert post(engine, "status", der).json() == get(engine, f"status/{digest}").json()
    assert "certificate" not in get(engine, f"status/{digest}").json()
    assert get(engine, "members/Operator%20B").json()["member"]["record"]
    assert get(engine, "members/Nobody").json()["member"]["record"] is None
    for path in ("status/xyz", f"status/{digest}00", "blocks/x", "blocks?from=-1", "members/" + "x" * 600):
        assert get(engine, path).status_code == 400
    for body in (b"{}", b'{"digest": "", "reason": ""}', b'{"digest": "\xff"}'):
        assert post(engine, "revocations", body, {"authorization": f"Bearer {token}"}).status_code == 400
    for query, found in (("subject=phone of 7", 1), ("subject=%2B493023125007", 1), ("subject=%25", 0)):
        answer = get(engine, f"search?{query}").json()
        assert [(entry["digest"], entry["status"]) for entry in answer["results"]] == [(digest, "valid")] * found
        assert answer["height"] >= 1
    assert "voice_dpki_ledger_height" in engine.http.get("/metrics").text
    notes = [json.loads(line) for line in engine.trace.read_text().splitlines()]
    assert any(note.get("text", "").startswith(f"inquiry H(CERT) {digest[:8]}.., valid at") for note in notes)


def test_blocks_can_be_waited_for(running: Any) -> None:
    engine = running.nodes[0]
    engine.reaches(2)
    height = engine.info()["height"]
    assert get(engine, f"blocks/{height}").json()["signed_header"]["header"]["height"] == str(height)
    assert get(engine, f"blocks/{height + 1000}?wait_ms=1").status_code == 404
    several = get(engine, "blocks?from=1&count=2").json()["blocks"]
    assert [block["signed_header"]["header"]["height"] for block in several] == ["1", "2"]


def test_a_hangup_reads_the_tokens_again(network: Any, token: str) -> None:
    engine = network.engine().start()

    def answered(with_token: str) -> int:
        return post(
            engine, "submissions", network.certificate(), {"authorization": f"Bearer {with_token}"}
        ).status_code

    assert (answered(token), answered("a-newer-token")) == (201, 401)
    (network.folder / "tokens").write_text("a-newer-token\n")
    engine.process.send_signal(signal.SIGHUP)
    engine.says("configuration read again")
    assert (answered(token), answered("a-newer-token")) == (401, 201)
    (network.folder / "tokens").unlink()
    engine.process.send_signal(signal.SIGHUP)
    engine.says("configuration refused, the one before stays")
    assert (answered(token), answered("a-newer-token")) == (401, 201)


async def test_heartbeats_keep_answers_fresh(network: Any) -> None:
    engine = network.engine(heartbeat_s=0.2).start()
    engine.reaches(1)
    async with network.client(engine, max_age_s=math.inf) as client:
        began_s = time.monotonic()
        first = await client.resolve(digest_of(b""))
        engine.reaches(first.height + 3)
        later = await client.resolve(digest_of(b""))
        assert later.height >= first.height + 3
        assert later.age_s < first.age_s + time.monotonic() - began_s, "its header is a later one"


async def test_a_follower_goes_on_answering_and_says_how_old_it_is(network: Any, token: str) -> None:
    engine = network.engine(heartbeat_s=0.2).start()
    follower = network.follower("a", engine.url, "Operator A").start()
    der = network.certificate()
    async with network.client(follower) as client, network.client(follower, max_age_s=0.01) as strict:
        await client.submit(der, token)
        engine.kill()
        found = await client.resolve(digest_of(der))
        assert found.status is CertStatus.VALID
        assert follower.info()["height"] >= found.height
        with pytest.raises(InquiryError, match="old"):
            await strict.resolve(digest_of(der))
        with pytest.raises(SubmissionError) as caught:
            await client.submit(network.certificate(), token)
        assert caught.value.name == "unavailable"
        assert follower.stop() == 0
        follower.start()
        assert (await client.resolve(digest_of(der))).status is CertStatus.VALID
        engine.start()
        assert not (await client.submit(network.certificate(), token)).repeated


def get(node: Any, path: str) -> httpx.Response:
    return node.http.get(f"/ledger/v1/{path}")


def post(node: Any, path: str, body: bytes, headers: dict[str, str] | None = None) -> httpx.Response:
    return node.http.post(f"/ledger/v1/{path}", content=body, headers=headers)
