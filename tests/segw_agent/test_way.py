"""A device that has the genesis and nothing else, after all of the genesis's validators were replaced."""

import json
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from segw_agent.attachment.network import Testbed
from segw_agent.attachment.site import CHAIN_ID, DEVICE_NAME, GATEWAY_NAME, OPERATOR, VENDOR
from segw_agent.ledger import Ledger
from segw_agent.staple import MAX_STAPLE_BYTES
from segw_agent.tracer import IkeTracer
from segw_agent.way import MAX_WAY, find_way, header_of, with_way
from tests.present import present
from voice_dpki.effects import SystemClock
from voice_dpki.ledger.answers import InquiryCode, InquiryError
from voice_dpki.ledger.clock import LedgerClock
from voice_dpki.ledger.genesis import Genesis, load_genesis
from voice_dpki.ledger.light import LightBlock
from voice_dpki.ledger.proposals import SetMember, encode_change
from voice_dpki.ledger.transactions import Propose, endorse
from voice_dpki.stage.site import Credential
from voice_dpki.wire.ledger.client import LedgerClient, light_client, load_trust
from voice_dpki.x509.keys import from_pem, to_pem

from .conftest import wait_until

VALIDATORS = ("validator-1.pem", "validator-2.pem")


class ChangingTestbed(Testbed):
    """Its operator replaces its only validator, twice."""

    def _node(self, node: str) -> dict[str, object]:
        sections = super()._node(node)
        if node == "engine":
            sections["engine"] = {"validator_keys": ["validator.pem", *VALIDATORS], "heartbeat_s": 0.1}
        return sections

    def prepare(self) -> None:
        form = json.loads(self.site.genesis.read_bytes())
        form["app_state"]["parameters"] = {"delay_s": 0, "delay_blocks": 1}
        self.site.genesis.write_text(json.dumps(form))
        for name in VALIDATORS:
            key = Ed25519PrivateKey.generate()
            self.site.write(name, to_pem(key))

    def replace_validator(self, file: str, revision: int) -> None:
        url = f"http://{self.addresses['engine']}"
        key = from_pem_public(self.site.folder / file)
        member = replace(present(genesis_of(self).member(OPERATOR)), validators=(key,))
        until_s = int(SystemClock().now_s()) + 3600
        proposal = Propose(CHAIN_ID, OPERATOR, until_s, encode_change(SetMember(member, revision)))
        signer = from_pem((self.site.folder / "operator-a-endorsing.pem").read_bytes())
        answer = httpx.post(f"{url}/ledger/v1/transactions", content=endorse(proposal, [signer]), trust_env=False)
        assert answer.status_code == 200, answer.text
        height = answer.json()["height"] + 20
        node = f"http://{self.addresses['ledger-a']}/ledger/v1/node"
        wait_until(lambda: httpx.get(node, trust_env=False).json()["height"] > height, "20 more blocks")


def from_pem_public(path: Path) -> bytes:
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    key = load_pem_private_key(path.read_bytes(), None)
    assert isinstance(key, Ed25519PrivateKey)
    return key.public_key().public_bytes_raw()


def genesis_of(testbed: Testbed) -> Genesis:
    return load_genesis(testbed.site.genesis.read_bytes())


@pytest.fixture(scope="module")
def testbed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ChangingTestbed]:
    with ChangingTestbed(tmp_path_factory.mktemp("logs")) as running:
        running.prepare()
        running.start_ledger()
        for revision, name in enumerate(VALIDATORS):
            running.replace_validator(name, revision)
        yield running


@pytest.fixture(scope="module")
def segw(testbed: Testbed) -> Credential:
    credential = testbed.site.credential("segw", GATEWAY_NAME, OPERATOR)
    testbed.record(credential)
    return credential


@pytest.fixture
async def client(testbed: Testbed) -> AsyncIterator[LedgerClient]:
    url = f"http://{testbed.addresses['ledger-a']}"
    async with LedgerClient.of_genesis(url, genesis_of(testbed)) as made:
        yield made


@pytest.fixture
async def answer(client: LedgerClient, segw: Credential) -> bytes:
    return (await client.resolve_raw(segw.digest, with_certificate=False))[1]


@pytest.fixture
async def way(client: LedgerClient, answer: bytes, testbed: Testbed) -> tuple[LightBlock, ...]:
    return await find_way(client, genesis_of(testbed), header_of(answer), SystemClock().now_s())


def ledger_of(testbed: Testbed, **options: Any) -> Ledger:
    """What judges for a device that has the genesis, or a trust file, and nobody to ask."""
    light = light_client(genesis_of(testbed), options.get("trust_file"))
    return Ledger({}, light, LedgerClock(SystemClock(), 0), IkeTracer(None, "device"), max_age_s=30, **options)


def test_device_follows_what_the_gateway_staples(testbed: Testbed, segw: Credential) -> None:
    known = testbed.site.credential("enb1", DEVICE_NAME, VENDOR)
    testbed.record(known)
    testbed.start_gateway(segw)
    said = testbed.running["gateway"].program.log
    wait_until(lambda: "validators have changed" in said.read_text(), "the gateway knows the way")
    device = testbed.start_device(known)
    assert device.wait_end(15) == 0, device.program.log.read_text()


async def test_way_is_short_and_proves_itself(
    testbed: Testbed, segw: Credential, answer: bytes, way: tuple[LightBlock, ...], tmp_path: Path
) -> None:
    assert 4 <= len(way) <= 5  # before and after each change, and the newest
    stapled, trust_file = with_way(answer, way, MAX_STAPLE_BYTES), tmp_path / "trust.json"
    found = await ledger_of(testbed, trust_file=trust_file).find(segw.digest, step="8", stapled=stapled)
    assert found.source == "stapled"
    assert load_trust(trust_file).height == found.resolution.height
    again = ledger_of(testbed, trust_file=trust_file)  # now the way is not needed any more
    assert (await again.find(segw.digest, step="8", stapled=answer)).source == "stapled"


async def test_refusal_says_what_to_do(
    testbed: Testbed, segw: Credential, answer: bytes, way: tuple[LightBlock, ...]
) -> None:
    for stapled in (
        answer,
        with_way(answer, way[-1:], MAX_STAPLE_BYTES),
        with_way(answer, way[:1], MAX_STAPLE_BYTES),
    ):
        with pytest.raises(InquiryError, match="put a newer header, from GET /ledger/v1/headers/HEIGHT") as caught:
            await ledger_of(testbed).find(segw.digest, step="8", stapled=stapled)
        assert caught.value.code is InquiryCode.UNPROVEN


@pytest.mark.parametrize("bent", [[1], [{"signed_header": {}}], [{}] * (MAX_WAY + 1), {}, "way"])
async def test_ways_that_are_none(testbed: Testbed, segw: Credential, answer: bytes, bent: Any) -> None:
    stapled = b'%s,"way":%s}' % (answer[:-1], json.dumps(bent).encode())
    with pytest.raises(InquiryError) as caught:
        await ledger_of(testbed).find(segw.digest, step="8", stapled=stapled)
    assert caught.value.code is InquiryCode.MALFORMED


async def test_forged_way(testbed: Testbed, segw: Credential, answer: bytes, way: tuple[LightBlock, ...]) -> None:
    signed = way[0].signed_header
    later = replace(signed, header=replace(signed.header, app_hash=bytes(32)))
    forged = with_way(answer, (replace(way[0], signed_header=later), *way[1:]), MAX_STAPLE_BYTES)
    with pytest.raises(InquiryError) as caught:
        await ledger_of(testbed).find(segw.digest, step="8", stapled=forged)
    assert caught.value.code is InquiryCode.UNPROVEN


def test_a_way_that_is_too_long_keeps_its_end(way: tuple[LightBlock, ...], answer: bytes) -> None:
    whole = with_way(answer, way, MAX_STAPLE_BYTES)
    shorter = with_way(answer, way, len(whole) - 1)
    assert json.loads(shorter)["way"] == json.loads(whole)["way"][1:]
    assert with_way(answer, way, len(answer)) == answer
