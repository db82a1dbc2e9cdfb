"""The call placement service over HTTP: partners, and strangers who would like to be."""

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import jwt
import pytest

from tests.openapi import documents
from voice_dpki.names import Tn
from voice_dpki.stir.access import AccessAction
from voice_dpki.stir.call import SigningRequest
from voice_dpki.stir.cps import MAX_BODY_BYTES, PassportsForm, PlacedForm, path_of
from voice_dpki.stir.div import Diverting
from voice_dpki.stir.passport import Destinations
from voice_dpki.stir.placement import MAX_PER_CALL, OVERHEAD_BYTES
from voice_dpki.stir.sign import sign_call
from voice_dpki.x509.keys import generate_es256
from voice_dpki.x509.recorded import CertStatus

from .cps_site import CALLED, CALLER, HOST, ORIGID, PLACE, Operator, Site, bearer

NUMBERS = (str(CALLER), str(CALLED))


@pytest.fixture
async def site() -> AsyncIterator[Site]:
    async with Site().serving() as site:
        yield site


def outcome(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["title"]


async def counted(site: Site, action: str, outcome: str) -> float:
    line = f'voice_dpki_cps_requests_total{{action="{action}",outcome="{outcome}"}} '
    found = [each for each in (await site.http.get("/metrics")).text.splitlines() if each.startswith(line)]
    return float(found[0].split()[-1]) if found else 0.0


@pytest.mark.parametrize("publisher", ["", "Operator A"])
async def test_what_the_callers_operator_publishes_the_called_partys_retrieves(site: Site, publisher: str) -> None:
    place, token = replace(PLACE, publisher=publisher), site.a.passport()
    placed = await site.a.publish(token, place=place)
    assert (placed.status_code, placed.json()) == (201, {"expires_s": 15})
    assert await site.b.retrieved() == [token]
    assert await site.b.retrieved(replace(PLACE, publisher="Operator A")) == [token]
    assert await site.b.retrieved(replace(PLACE, publisher="1234")) == []
    assert await site.a.retrieved(place) == [token]


async def test_nobody_else_retrieves_it(site: Site) -> None:
    assert outcome(await site.c.retrieve()) == (403, "foreign")
    await site.a.publish(site.a.passport())
    assert outcome(await site.c.retrieve()) == (403, "foreign")
    assert outcome(await site.b.retrieve(replace(PLACE, orig=Tn("493023125002")))) == (404, "none")


async def test_it_is_forgotten_at_its_end(site: Site) -> None:
    await site.a.publish(site.a.passport(), lifetime_s=15)
    site.clock.elapse(14)
    assert len(await site.b.retrieved()) == 1
    site.clock.elapse(1.1)
    assert await site.b.retrieved() == []


async def test_none_is_kept_for_more_than_a_minute(site: Site) -> None:
    placed = await site.a.publish(site.a.passport(), lifetime_s=3600)
    assert placed.json() == {"expires_s": 60}
    site.clock.wall_s -= 30  # a clock that is set back extends nothing
    site.clock.passed_s += 60.5
    assert await site.b.retrieved() == []


async def test_only_calls_to_the_services_own_numbers_are_kept(site: Site) -> None:
    elsewhere = replace(PLACE, dest=Tn("331234567001"))
    token = site.a.passport(dest=elsewhere.dest)
    assert outcome(await site.a.publish(token, place=elsewhere)) == (403, "foreign")


FLAWS = ("other caller", "other called", "not of now", "not its number", "revoked", "no token")


@pytest.mark.parametrize("flaw", FLAWS)
async def test_what_proves_no_caller_is_not_kept(site: Site, flaw: str) -> None:
    changes: dict[str, dict[str, Any]] = {
        "other caller": {"orig": Tn("493023125002")},
        "other called": {"dest": Tn("442079460002")},
        "not of now": {"ago_s": 61},
    }
    token = site.a.passport(**changes.get(flaw, {})) if flaw != "no token" else "e30.e30.AAAA"
    if flaw == "not its number":
        token = signed_by(site.c, CALLER)
    signer = site.client(replace(site.operators[0], signer=generate_es256()))
    if flaw == "revoked":
        token = signer.passport()
        site.set(signer, status=CertStatus.REVOKED)
    assert outcome(await site.c.publish(token)) == (403, "unverified")
    assert await site.b.retrieved() == []


def signed_by(client: Any, orig: Tn) -> str:
    """Sign for a number with a certificate that has no authority over it, as a thief would."""
    now_s, info = int(client.site.clock.now_s()), client.credential.info
    claims = {"attest": "A", "dest": {"tn": [CALLED]}, "iat": now_s, "orig": {"tn": orig}, "origid": ORIGID}
    headers = {"alg": "ES256", "ppt": "shaken", "typ": "passport", "x5u": info}
    return jwt.encode(claims, client.operator.signer.private_key, algorithm="ES256", headers=headers)


async def test_passports_of_another_library_are_kept(site: Site) -> None:
    token = signed_by(site.a, CALLER)
    assert (await site.a.publish(token)).status_code == 201
    assert await site.b.retrieved() == [token]


async def test_an_operator_on_the_path_publishes_what_it_received(site: Site) -> None:
    token = site.a.passport()
    assert (await site.c.publish(token, place=replace(PLACE, publisher="Operator C"))).status_code == 201
    assert await site.b.retrieved(replace(PLACE, publisher="Operator A")) == []
    assert await site.c.retrieved() == await site.b.retrieved() == [token]
    assert await site.a.retrieved() == []


async def test_a_diverted_call(site: Site) -> None:
    """B's number was called first, and B diverted the call to another of its numbers."""
    first, now_s = site.a.passport(dest=Tn("442079460009")), site.clock.now_s()
    request = SigningRequest(
        "", CALLER, Destinations((CALLED,)), int(now_s), "", ppt="div", own={"div": Diverting(Tn("442079460009"))}
    )
    diverted = sign_call(request, site.b.credential, now_s).token
    assert outcome(await site.b.publish(first)) == (403, "unverified")
    assert (await site.b.publish(first, diverted)).status_code == 201
    assert await site.b.retrieved() == [first, diverted]


class Strangers:
    """Requests that are refused, by what becomes of them."""

    @staticmethod
    async def without_a_token(site: Site) -> httpx.Response:
        return await site.http.get(path_of(PLACE))

    @staticmethod
    async def with_basic(site: Site) -> httpx.Response:
        return await site.http.get(path_of(PLACE), headers={"Authorization": "Basic eDp5"})

    @staticmethod
    async def with_a_passport(site: Site) -> httpx.Response:
        return await site.b.retrieve(access=site.a.passport())

    @staticmethod
    async def for_another_service(site: Site) -> httpx.Response:
        return await site.b.retrieve(access=site.b.access(AccessAction.RETRIEVE, audience="cps.a.example"))

    @staticmethod
    async def from_yesterday(site: Site) -> httpx.Response:
        return await site.b.retrieve(access=site.b.access(AccessAction.RETRIEVE, ahead_s=-86_400))

    @staticmethod
    async def from_tomorrow(site: Site) -> httpx.Response:
        return await site.b.retrieve(access=site.b.access(AccessAction.RETRIEVE, ahead_s=86_400))

    @staticmethod
    async def for_another_call(site: Site) -> httpx.Response:
        other = site.b.access(AccessAction.RETRIEVE, replace(PLACE, orig=Tn("493023125002")))
        return await site.b.retrieve(access=other)

    @staticmethod
    async def to_publish(site: Site) -> httpx.Response:
        return await site.b.retrieve(access=site.b.access(AccessAction.PUBLISH))

    @staticmethod
    async def for_other_passports(site: Site) -> httpx.Response:
        access = site.a.access(AccessAction.PUBLISH, PLACE, site.a.passport())
        return await site.a.publish(site.a.passport(ago_s=1), access=access)

    @staticmethod
    async def of_nobody(site: Site) -> httpx.Response:
        return await site.client(Operator("Operator B", "442079460000"), is_recorded=False).retrieve()

    @staticmethod
    async def of_a_stolen_name(site: Site) -> httpx.Response:
        thief = site.client(Operator("Operator C", "442079460000"))
        access = jwt.encode(
            {**claims_of(site.b.access(AccessAction.RETRIEVE)), "jti": "other"},
            thief.operator.signer.private_key,
            algorithm="ES256",
            headers={"x5u": thief.credential.info},
        )
        return await thief.retrieve(access=access)

    @staticmethod
    async def with_anothers_certificate(site: Site) -> httpx.Response:
        header, payload, _ = site.b.access(AccessAction.RETRIEVE).split(".")
        return await site.b.retrieve(
            access=f"{header}.{payload}.{site.a.access(AccessAction.RETRIEVE).split('.')[2]}"
        )

    @staticmethod
    async def of_a_revoked_certificate(site: Site) -> httpx.Response:
        site.set(site.b, status=CertStatus.REVOKED)
        return await site.b.retrieve()


def claims_of(token: str) -> dict[str, Any]:
    part = token.split(".")[1]
    claims: dict[str, Any] = json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
    return claims


@pytest.mark.parametrize(
    ("stranger", "told"),
    [
        (Strangers.without_a_token, (401, "token")),
        (Strangers.with_basic, (401, "token")),
        (Strangers.with_a_passport, (401, "token")),
        (Strangers.for_another_service, (401, "audience")),
        (Strangers.from_yesterday, (401, "fresh")),
        (Strangers.from_tomorrow, (401, "fresh")),
        (Strangers.for_another_call, (403, "bound")),
        (Strangers.to_publish, (403, "bound")),
        (Strangers.for_other_passports, (403, "bound")),
        (Strangers.of_nobody, (401, "certificate")),
        (Strangers.of_a_stolen_name, (403, "issuer")),
        (Strangers.with_anothers_certificate, (401, "signature")),
        (Strangers.of_a_revoked_certificate, (401, "certificate")),
    ],
)
async def test_strangers(site: Site, stranger: Any, told: tuple[int, str]) -> None:
    await site.a.publish(site.a.passport())
    action = "publish" if stranger is Strangers.for_other_passports else "retrieve"
    before = await counted(site, action, told[1])
    answer = await stranger(site)
    assert outcome(answer) == told
    assert answer.headers["content-type"] == "application/problem+json"
    assert ("www-authenticate" in answer.headers) is (told[0] == 401)
    assert not any(number in answer.text for number in NUMBERS)
    assert await counted(site, action, told[1]) == before + 1


async def test_a_token_is_good_for_one_request(site: Site) -> None:
    token, access = site.a.passport(), site.b.access(AccessAction.RETRIEVE)
    publish = site.a.access(AccessAction.PUBLISH, PLACE, token)
    assert (await site.a.publish(token, access=publish)).status_code == 201
    assert outcome(await site.a.publish(token, access=publish)) == (401, "replay")
    assert (await site.b.retrieve(access=access)).status_code == 200
    site.clock.elapse(59)
    assert outcome(await site.b.retrieve(access=access)) == (401, "replay")


async def test_a_strangers_copy_uses_no_token_up(site: Site) -> None:
    access = site.b.access(AccessAction.RETRIEVE)
    header, payload, signature = access.split(".")
    forged = f"{header}.{payload}.{'A' * len(signature)}"
    assert outcome(await site.b.retrieve(access=forged)) == (401, "signature")
    assert outcome(await site.b.retrieve(access=access)) == (404, "none")


async def test_a_token_from_before_the_start_may_have_been_used(site: Site) -> None:
    assert outcome(await site.b.retrieve(access=site.b.access(AccessAction.RETRIEVE, ahead_s=-2))) == (
        401,
        "replay",
    )
    assert outcome(await site.b.retrieve(access=site.b.access(AccessAction.RETRIEVE, ahead_s=50))) == (404, "none")


async def test_an_operator_that_uses_its_share_of_tokens_leaves_the_others_theirs() -> None:
    async with Site(tokens_max_entries=20).serving() as site:
        told = [(await site.c.retrieve()).status_code for _ in range(14)]
        assert (told[0], told[-1]) == (403, 429)
        answer = await site.b.retrieve()
        assert answer.status_code == 404


async def test_a_publisher_that_floods_leaves_the_others_room() -> None:
    async with Site(max_bytes=40 * (OVERHEAD_BYTES + 600)).serving() as site:
        numbers = [Tn(f"493023125{number:03}") for number in range(60)]
        told = [
            (await site.a.publish(site.a.passport(orig), place=replace(PLACE, orig=orig))).status_code
            for orig in numbers
        ]
        assert told[0] == 201
        assert told[-1] == 429
        assert 15 < told.count(201) < 25
        own = Tn("331234567001")
        assert (await site.c.publish(site.c.passport(own), place=replace(PLACE, orig=own))).status_code == 201
        site.clock.elapse(16)
        assert (await site.a.publish(site.a.passport())).status_code == 201


async def test_one_pair_of_numbers_has_so_many_calls(site: Site) -> None:
    told = [await site.a.publish(site.a.passport(ago_s=number)) for number in range(MAX_PER_CALL + 1)]
    assert [each.status_code for each in told] == [201] * MAX_PER_CALL + [429]
    assert told[-1].headers["retry-after"]
    assert len(await site.b.retrieved()) == MAX_PER_CALL


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b'{"passports":[]}',
        b'{"passports":["x"]}',
        b'{"passports":"e30.e30.AA"}',
        b'{"passports":["e30.e30.AA","e30.e30.AA"],"passports":["e30.e30.AA"]}',
        b'{"passports":["e30.e30.AA"],"more":1}',
        json.dumps({"passports": ["e30.e30.AA"] * 11}).encode(),
        json.dumps({"passports": ["e30.e30." + "A" * 8192]}).encode(),
    ],
)
async def test_bodies_that_are_none(site: Site, body: bytes) -> None:
    access = site.a.access(AccessAction.PUBLISH, PLACE, "e30.e30.AA")
    answer = await site.http.post(path_of(PLACE), content=body, headers=bearer(access))
    assert outcome(answer) == (400, "body")


async def test_a_body_above_the_bound_is_not_read(site: Site) -> None:
    headers = bearer(site.a.access(AccessAction.PUBLISH))
    answer = await site.http.post(path_of(PLACE), content=b"x" * (MAX_BODY_BYTES + 1), headers=headers)
    assert answer.status_code == 413


@pytest.mark.parametrize("path", ["/passports/x/493023125001", "/passports/442079460001/+493023125001"])
async def test_paths_without_numbers(site: Site, path: str) -> None:
    assert outcome(await site.http.get(path, headers=bearer(site.b.access(AccessAction.RETRIEVE)))) == (400, "body")


async def test_without_the_ledger_nobody_is_known(site: Site) -> None:
    site.is_down = True
    for answer in (await site.a.publish(site.a.passport()), await site.b.retrieve()):
        assert outcome(answer) == (503, "ledger")
        assert answer.headers["retry-after"]


async def test_a_slow_client_holds_nobody_up(site: Site) -> None:
    host, port = site.http.base_url.host, site.http.base_url.port
    head = f"POST {path_of(PLACE)} HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n"
    head += f"Authorization: Bearer {site.a.access(AccessAction.PUBLISH)}\r\n\r\n"
    slow = [await asyncio.open_connection(host, port) for _ in range(20)]
    for _, writer in slow:
        writer.write(head.encode() + b"{")
    token = site.a.passport()
    assert (await site.a.publish(token)).status_code == 201
    assert await site.b.retrieved() == [token]
    for _, writer in slow:
        writer.close()


async def test_health_and_the_document(site: Site) -> None:
    for path in ("/health", "/healthz"):
        assert (await site.http.get(path)).json() == {"status": "ok"}
    ready = (await site.http.get("/readyz")).json()
    assert ready == {"status": "ready", "checks": {"clock": {"state": "ok"}, "members": {"state": "ok"}}}
    site.is_down = True
    assert (await site.http.get("/readyz")).status_code == 503
    (document,) = [text for path, text in documents().items() if path.name == "cps-server.json"]
    assert (await site.http.get("/openapi.json")).content == document
    assert {PassportsForm.__name__, PlacedForm.__name__} <= json.loads(document)["components"]["schemas"].keys()


async def test_no_number_and_no_token_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    trace = tmp_path / "cps.jsonl"
    async with Site().serving(trace) as site:
        token = site.a.passport()
        await site.a.publish(token)
        await site.b.retrieve()
        await site.c.retrieve()
        await site.c.publish(site.a.passport(orig=Tn("493023125002")))
        await Strangers.for_another_call(site)
    told = trace.read_text() + caplog.text + "".join(str(vars(record)) for record in caplog.records)
    assert "publish: placed" in told
    for secret in (*NUMBERS, "493023125002", token, token.split(".")[2]):
        assert secret not in told


async def test_audiences_of_the_host_are_what_the_configuration_says() -> None:
    async with Site(audiences=("one.example", HOST)).serving() as site:
        assert (await site.a.publish(site.a.passport(), audience="one.example")).status_code == 201
