"""Known certificates are answered for without a question, and changes arrive, with real nodes."""

import asyncio
import json
import time
from collections.abc import Callable
from typing import Any

import pytest

from tests.present import present
from voice_dpki.errors import LocalError
from voice_dpki.ledger.answers import InquiryCode, InquiryError
from voice_dpki.ledger.names import number_keys, subject_key
from voice_dpki.ledger.records import CertStatus
from voice_dpki.names import Tn
from voice_dpki.wire.ledger.subscription import Subscription
from voice_dpki.x509.profile import digest_of
from voice_dpki.x509.tnauthlist import TnAuthList, TnRange

DEADLINE_S = 60.0


async def until(condition: Callable[[], Any]) -> None:
    end = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < end
        await asyncio.sleep(0.005)


async def heard(subscription: Subscription, digest: Any, status: CertStatus) -> None:
    """Wait until a certificate is held with a status."""
    await until(lambda: getattr(subscription.held(digest), "status", None) is status)


async def known(subscription: Subscription, digest: Any) -> None:
    """Look a certificate up until it is held."""
    end = time.monotonic() + DEADLINE_S
    while subscription.held(digest) is None:
        assert time.monotonic() < end
        await subscription.look_up(digest)
        await asyncio.sleep(0.005)


async def test_a_known_certificate_is_held_and_every_change_is_heard(running: Any, token: str) -> None:
    engine, follower = running.nodes
    first, second = running.certificate("Operator B"), running.certificate("Operator B")
    async with running.client(follower) as client, running.client(engine) as other:
        for der in (first, second):
            await client.submit(der, token)
        subscription = Subscription(client, witnesses=[other], compare_s=0.02)
        async with subscription.following():
            for der in (first, second):
                await known(subscription, digest_of(der))
            assert present(subscription.held(digest_of(first))).certificate == first
            for status in (CertStatus.SUSPENDED, CertStatus.VALID, CertStatus.REVOKED):
                await client.change_status(digest_of(first), status, "unspecified", token)
                await heard(subscription, digest_of(first), status)
                held = subscription.held(digest_of(first))
                assert held is not None
                assert (held.certificate, present(held.member).organization) == (first, "Operator B")
            assert present(subscription.held(digest_of(second))).status is CertStatus.VALID
            assert subscription.held(digest_of(b"")) is None
            assert (await subscription.look_up(digest_of(b""))).status is CertStatus.UNKNOWN
        assert (await other.resolve(digest_of(first))).status is CertStatus.REVOKED
        assert client.fork is None


async def test_a_break_leaves_no_gap(network: Any, token: str) -> None:
    """While the follower that is asked is away nothing is known for long, and then all that changed meanwhile."""
    engine = network.engine(heartbeat_s=0.2).start()
    follower = network.follower("a", engine.url).start()
    der, other = network.certificate(), network.certificate()
    async with network.client(engine) as writer, network.client(follower, max_age_s=1.5) as client:
        for each in (der, other):
            follower.reaches((await writer.submit(each, token)).height)
        subscription = Subscription(client)
        assert subscription.lacking() == "the ledger has not been heard yet"
        async with subscription.following():
            for each in (der, other):
                await known(subscription, digest_of(each))
            await until(lambda: not subscription.lacking())
            follower.kill()
            await writer.revoke(digest_of(der), "keyCompromise", token)
            await until(lambda: subscription.held(digest_of(der)) is None)
            with pytest.raises(InquiryError) as caught:
                await subscription.look_up(digest_of(der))
            assert caught.value.code is InquiryCode.UNREACHABLE
            assert "s old, and 1.5 s are allowed" in subscription.lacking()
            follower.start()
            await heard(subscription, digest_of(der), CertStatus.REVOKED)
            await until(lambda: subscription.held(digest_of(other)) is not None)


async def test_who_was_away_goes_on_where_it_was(running: Any, token: str) -> None:
    follower = running.nodes[1]
    der = running.certificate("Operator B")
    async with running.client(follower) as client:
        recorded = await client.submit(der, token)
        since, changed = await client.changes(None, wait_s=1.0)
        assert changed is None
        while since.height <= recorded.height:
            since, _ = await client.changes(since, wait_s=1.0)
        await client.submit(running.certificate("Operator B"), token)
        await client.revoke(digest_of(der), "superseded", token)
        changed = frozenset()
        while digest_of(der) not in changed:
            header, changed = await client.changes(since, wait_s=5.0)
            assert header.height > since.height
        _, nothing = await client.changes(header, wait_s=0.0)
        assert nothing == frozenset()


async def test_questions_about_changes_that_are_none(running: Any) -> None:
    engine = running.nodes[0]
    for query in ("root=00", "root=xyz", f"root={'A' * 64}", "height=x", "wait_ms=x"):
        assert engine.http.get(f"/ledger/v1/changes?{query}").status_code == 400
    unknown = engine.http.get(f"/ledger/v1/changes?root={'00' * 32}").json()
    assert unknown["steps"] is None
    assert unknown["signed_header"]["header"]["height"] == str(unknown["height"])


async def test_many_at_once_and_by_prefix(running: Any, token: str) -> None:
    engine, follower = running.nodes
    ders = [running.certificate(name) for name in ("Operator A", "Operator B")]
    async with running.client(engine) as a, running.client(follower) as b:
        for client, der in zip((a, b), ders, strict=True):
            await client.submit(der, token)
        asked = [*(digest_of(der) for der in ders), digest_of(b"")]
        found = await b.resolve_all(asked)
        assert [each.status for each in found] == [CertStatus.VALID, CertStatus.VALID, CertStatus.UNKNOWN]
        assert [each.member.organization for each in found[:2]] == ["Operator A", "Operator B"]
        for digest, one in zip(asked, found, strict=True):
            hidden = await b.resolve_hidden(digest, digits=2)
            assert (hidden.status, hidden.member) == (one.status, one.member)
        assert digest_of(ders[0]) in (await a.resolve_prefix(digest_of(ders[0]).hex()[:1])).recorded
    for path in ("prefix/XY", "prefix/" + "0" * 65, "headers/x"):
        assert engine.http.get(f"/ledger/v1/{path}").status_code == 400
    for body in (b"", b"{}", b'{"digests": []}', b'{"digests": ["00"]}', json.dumps({"digests": ["0"] * 1001})):
        assert engine.http.post("/ledger/v1/statuses", content=body).status_code == 400
    assert engine.http.get("/ledger/v1/headers/100000").status_code == 404


async def test_all_certificates_of_a_name_and_of_a_number(running: Any, token: str) -> None:
    engine = running.nodes[0]
    ranges = TnAuthList(ranges=(TnRange(Tn("493023125100"), 100),))
    phone = running.certificate(common_name="Phone 7", uris=("sip:+493023125107@a.example",))
    block = running.certificate(common_name="Block", tn_auth_list=ranges)
    async with running.client(engine) as client:
        for der in (phone, block, running.certificate(common_name="Phone 8")):
            await client.submit(der, token)
        found = await client.listed(number_keys(Tn("493023125107")))
        assert {each.digest for each in found} == {digest_of(phone), digest_of(block)}
        assert {each.status for each in found} == {CertStatus.VALID}
        (one,) = await client.listed([subject_key("Operator A", "Phone 7")])
        assert one.digest == digest_of(phone)
        assert await client.listed([subject_key("Operator A", "Phone 9")]) == ()
    for query in ("number=%2B493023125107", "subject=Phone 7&organization=Operator A", "dns=a", "uri=a", "spc=a"):
        answer = engine.http.get(f"/ledger/v1/names?{query}").json()
        assert all(leaf["proof"] for leaf in answer["leaves"])
    for query in ("", "number=x", "number=1&dns=a", "name=a"):
        assert engine.http.get(f"/ledger/v1/names?{query}").status_code == 400
    for body in (b"{}", b'{"keys": []}', b'{"keys": ["00"]}', json.dumps({"keys": ["00" * 32] * 65})):
        assert engine.http.post("/ledger/v1/leaves", content=body).status_code == 400


async def test_a_trusted_header_is_kept_for_the_next_start(running: Any, tmp_path: Any) -> None:
    engine, file = running.nodes[0], tmp_path / "trust.json"
    engine.reaches(2)
    async with running.client(engine, trust_file=file) as client:
        await client.resolve(digest_of(b""))
        height = (await client.light_block(2)).height
    kept = json.loads(file.read_text())
    assert int(kept["signed_header"]["header"]["height"]) >= height == 2
    async with running.client(engine, trust_file=file) as client:
        await client.resolve(digest_of(b""))
    for text in ("", "{}", json.dumps({**kept, "validators": kept["validators"][:1]})):
        file.write_text(text)
        with pytest.raises(LocalError, match="no trusted header"):
            running.client(engine, trust_file=file)
