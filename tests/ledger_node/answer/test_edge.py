"""An edge node, which holds no state: it verifies, keeps proofs, and hands the rest on."""

import asyncio
import json
import signal
import time
from typing import Any

import httpx
import pytest

from tests.ledger_node.conftest import wait_until
from voice_dpki.ledger.answers import InquiryCode, InquiryError
from voice_dpki.ledger.names import subject_key
from voice_dpki.ledger.records import CertStatus
from voice_dpki.wire.ledger.subscription import Subscription
from voice_dpki.x509.profile import digest_of


def edge_of(network: Any, url: str, name: str = "edge") -> Any:
    return network.node(name, f'[edge]\nurl = "{url}"\nmax_entries = 50\n')


def inquiries(node: Any) -> int:
    return sum('"inquiry' in line for line in node.trace.read_text().splitlines())


async def test_the_edge_keeps_proofs_and_puts_new_headers_to_them(network: Any, token: str) -> None:
    engine = network.engine(heartbeat_s=0.2).start()
    edge = edge_of(network, engine.url).start()
    der = network.certificate()
    async with network.client(engine) as writer, network.client(edge) as client:
        await writer.submit(der, token)
        first = await client.resolve(digest_of(der))
        asked = inquiries(engine)
        edge.reaches(first.height + 3)
        for with_certificate in (True, False):
            later = await client.resolve(digest_of(der), with_certificate=with_certificate)
            assert later.status is CertStatus.VALID
            assert later.certificate == (der if with_certificate else None)
        assert later.height >= first.height + 3
        assert inquiries(engine) == asked
        answer = edge.http.post("/ledger/v1/status", content=der).json()
        assert (answer["status"], "certificate" in answer) == ("valid", False)
        assert (await client.resolve(digest_of(b""))).status is CertStatus.UNKNOWN
        assert edge.info()["role"] == "edge"


async def test_several_certificates_whose_proofs_are_kept(network: Any, token: str) -> None:
    """The edge answers about them itself, also when it is cut off; if one is not kept, its node is asked."""
    engine = network.engine(heartbeat_s=0.2).start()
    edge = edge_of(network, engine.url).start()
    ders = [network.certificate(), network.certificate()]
    digests = [digest_of(der) for der in ders]
    async with network.client(engine) as writer, network.client(edge) as client:
        for der in ders:
            await writer.submit(der, token)
        before = await client.resolve_all(digests)
        assert inquiries(engine) == 0, "a list is not traced"
        for digest in digests:
            await client.resolve(digest)
        engine.process.send_signal(signal.SIGSTOP)
        wait_until(lambda: "voice_dpki_ledger_edge_cut_off 1.0" in edge.http.get("/metrics").text, "cut off")
        kept = await client.resolve_all(digests)
        assert [(found.status, found.record, found.member) for found in kept] == [
            (found.status, found.record, found.member) for found in before
        ]
        assert [found.digest for found in await client.resolve_all(digests[::-1])] == digests[::-1]
        with pytest.raises(InquiryError):
            await client.resolve_all([*digests, digest_of(b"")])
        assert edge.http.post("/ledger/v1/statuses", content=b"{}").status_code == 400
        engine.process.send_signal(signal.SIGCONT)


async def test_changes_reach_the_edge_and_known_certificates_are_proved_anew(network: Any, token: str) -> None:
    engine = network.engine(heartbeat_s=5).start()
    edge = edge_of(network, engine.url).start()
    der, other = network.certificate(), network.certificate()
    async with network.client(engine) as writer, network.client(edge) as client:
        for each in (der, other):
            await writer.submit(each, token)
            assert (await client.resolve(digest_of(each))).status is CertStatus.VALID
        receipt = await writer.revoke(digest_of(der), "keyCompromise", token)
        edge.reaches(receipt.height)
        asked = inquiries(engine)
        assert (await client.resolve(digest_of(der))).status is CertStatus.REVOKED
        found = await client.resolve(digest_of(other))
        assert (found.status, found.certificate) == (CertStatus.VALID, other)
        assert inquiries(engine) - asked <= 2
        subscription = Subscription(client)
        async with subscription.following():
            await subscription.look_up(digest_of(other))
            receipt = await writer.revoke(digest_of(other), "superseded", token)
            end = time.monotonic() + 10
            while (await subscription.look_up(digest_of(other))).status is not CertStatus.REVOKED:
                assert time.monotonic() < end
                await asyncio.sleep(0.005)


async def test_when_the_other_node_is_away_the_edge_answers_and_says_how_old_it_is(
    network: Any, token: str
) -> None:
    engine = network.engine(heartbeat_s=0.2).start()
    edge = edge_of(network, engine.url).start()
    der = network.certificate()
    async with network.client(engine) as writer, network.client(edge) as client:
        await writer.submit(der, token)
        await client.resolve(digest_of(der))
        engine.kill()
        found = await client.resolve(digest_of(der))
        assert (found.status, found.certificate) == (CertStatus.VALID, der)
        assert edge.info()["age_s"] >= 0
        with pytest.raises(InquiryError) as caught:
            await client.resolve(digest_of(b""))
        assert caught.value.code is InquiryCode.UNREACHABLE
        for path in ("names?dns=a", "prefix/00", "changes"):
            assert edge.http.get(f"/ledger/v1/{path}").status_code == 503
        async with network.client(edge, max_age_s=0.01) as strict:
            with pytest.raises(InquiryError, match="old"):
                await strict.resolve(digest_of(der))
        height = edge.info()["height"]
        engine.start()
        edge.reaches(height + 1)
        assert edge.stop() == 0
        assert json.loads((edge.data / "trust.json").read_text())["signed_header"]
        edge.start()
        edge.reaches(height + 1)


async def test_an_edge_that_is_cut_off_answers_what_it_holds_and_says_so_at_once_for_the_rest(
    network: Any, token: str
) -> None:
    """Its node hangs: no connection breaks, and nobody waits for it once that is known."""
    engine = network.engine(heartbeat_s=0.2).start()
    edge = edge_of(network, engine.url).start()
    der = network.certificate()
    async with network.client(engine) as writer, network.client(edge) as client:
        await writer.submit(der, token)
        await client.resolve(digest_of(der))
        height = edge.info()["height"]
        engine.process.send_signal(signal.SIGSTOP)
        wait_until(lambda: "voice_dpki_ledger_edge_cut_off 1.0" in edge.http.get("/metrics").text, "cut off")
        assert "the edge is cut off" in edge.http.get("/healthz").text
        assert edge.http.get("/readyz").json()["checks"]["ledger"]["state"] == "warning"
        assert (await client.resolve(digest_of(der))).status is CertStatus.VALID
        for path in (
            f"status/{'00' * 32}",
            f"certificates/{'00' * 32}.der",
            "names?dns=a",
            "changes?wait_ms=30000",
        ):
            answer = get(edge, path)
            assert (answer.status_code, "the edge is cut off" in answer.json()["detail"]) == (503, True)
        engine.process.send_signal(signal.SIGCONT)
        edge.reaches(height + 3)
        assert get(edge, f"status/{'00' * 32}").json()["status"] == "unknown"
        assert "voice_dpki_ledger_edge_cut_off 0.0" in edge.http.get("/metrics").text
        assert "cut off" not in edge.http.get("/healthz").text
        assert edge.http.get("/readyz").json() == {
            "status": "ready",
            "checks": {"clock": {"state": "ok"}, "ledger": {"state": "ok"}},
        }


async def test_other_questions_are_handed_on(network: Any, token: str) -> None:
    engine = network.engine().start()
    edge = edge_of(network, engine.url).start()
    der = network.certificate(common_name="Phone 7")
    async with network.client(engine) as writer, network.client(edge) as client:
        height = (await writer.submit(der, token)).height
        (found,) = await client.resolve_all([digest_of(der)])
        assert found.status is CertStatus.VALID
        assert (await client.resolve_hidden(digest_of(der), digits=3)).status is CertStatus.VALID
        (listed,) = await client.listed([subject_key("Operator A", "Phone 7")])
        assert listed.digest == digest_of(der)
        assert (await client.light_block(height)).height == height
    asked = inquiries(engine)
    for _ in range(2):
        assert get(edge, f"certificates/{digest_of(der).hex()}.der").content == der
    assert inquiries(engine) == asked + 1, "the second answer is the proof that was kept"
    assert get(edge, f"certificates/{'00' * 32}.der").status_code == 404
    assert get(edge, "certificates/00.der").status_code == 400
    unknown = get(edge, "search?subject=Phone")
    assert (unknown.status_code, "/ledger/v1/names" in unknown.json()["detail"]) == (404, True)
    for path in ("names?subject=Phone 7&organization=Operator A", "members/Operator%20A"):
        assert get(edge, path).status_code == 200
    for path in ("prefix/XY", "status/00", "certificates/x", "headers/x"):
        assert get(edge, path).status_code == 400
    assert get(edge, "blocks/1").status_code == 404
    assert edge.http.post("/ledger/v1/submissions", content=der).status_code == 404


async def test_many_who_wait_for_changes_keep_nobody_else_waiting(network: Any) -> None:
    """More than there are connections to the other node; each is answered once there is something."""
    engine = network.engine(heartbeat_s=3600).start()
    edge = edge_of(network, engine.url).start()
    edge.reaches(1)
    height = edge.info()["height"]
    async with httpx.AsyncClient(base_url=edge.url, trust_env=False, timeout=60) as client:

        async def changes(after: int, wait_ms: int) -> httpx.Response:
            return await client.get(f"/ledger/v1/changes?height={after}&wait_ms={wait_ms}")

        waiting = [asyncio.create_task(changes(999_999_999, 30_000)) for _ in range(40)]
        await asyncio.sleep(0.5)
        assert (await client.get("/ledger/v1/names?dns=a")).status_code == 200
        for after, wait_ms in ((height - 1, 30_000), (height, 0), (height, 1)):
            answer = await changes(after, wait_ms)
            assert (answer.status_code, answer.json()["steps"]) == (200, None)
        assert not any(task.done() for task in waiting)
        for path in ("changes?height=x", "changes?root=00", "changes?wait_ms=-1"):
            assert (await client.get(f"/ledger/v1/{path}")).status_code == 400
        assert edge.stop() == 0
        assert {(await task).status_code for task in waiting} == {200}


def test_an_edge_with_witnesses(network: Any) -> None:
    engine = network.engine(heartbeat_s=0.1).start()
    role = f'[edge]\nurl = "{engine.url}"\nwitnesses = ["{engine.url}", "http://127.0.0.1:9"]\n'
    network.node("edge", role).start().reaches(1)


def test_an_edge_without_its_node_starts_and_waits(network: Any) -> None:
    edge = edge_of(network, "http://127.0.0.1:9").start()
    assert (edge.info()["height"], edge.info()["time"]) == (0, None)
    assert get(edge, f"status/{'00' * 32}").status_code == 503
    edge.says("no headers come")


def test_an_edge_with_the_submission_role(network: Any) -> None:
    role = '[edge]\nurl = "http://127.0.0.1:9"\n' + network.submission("Operator A")
    assert "has no state" in network.node("edge", role).fails()


def get(node: Any, path: str) -> httpx.Response:
    return node.http.get(f"/ledger/v1/{path}")
