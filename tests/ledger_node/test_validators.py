"""Validators change by vote on a running ledger: followers and clients that know the genesis alone follow."""

import json
from dataclasses import replace
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from voice_dpki.effects import SystemClock
from voice_dpki.ledger.genesis import load_genesis
from voice_dpki.ledger.members import Member
from voice_dpki.ledger.proposals import SetMember, encode_change, proposal_id
from voice_dpki.ledger.records import CertStatus
from voice_dpki.ledger.transactions import Propose, Transaction, Vote, endorse
from voice_dpki.wire.ledger.subscription import Subscription
from voice_dpki.x509.keys import to_pem
from voice_dpki.x509.profile import digest_of

MEMBERS = ("Operator A", "Operator B")


def change_at_once(network: Any) -> None:
    """Let what is voted for take effect in the next block."""
    path = network.folder / "genesis.json"
    form = json.loads(path.read_bytes())
    form["app_state"]["parameters"] = {"delay_s": 0, "delay_blocks": 1}
    path.write_text(json.dumps(form))
    network.genesis = load_genesis(path.read_bytes())


def add_keys(network: Any, count: int) -> list[bytes]:
    """Give the engine more keys; returns the public ones."""
    public = []
    for number in range(count):
        key = Ed25519PrivateKey.generate()
        (network.folder / "keys" / f"validator-new-{number}.pem").write_bytes(to_pem(key))
        public.append(key.public_key().public_bytes_raw())
    return public


def vote_in(network: Any, engine: Any, member: Member, revision: int) -> int:
    """Change a member by the votes of both operators; returns the height."""
    until_s = int(SystemClock().now_s()) + 3600
    propose = Propose("test-1", MEMBERS[0], until_s, encode_change(SetMember(member, revision)))
    raw = endorse(propose, [network.signer(MEMBERS[0])])
    vote = Vote("test-1", MEMBERS[1], proposal_id(Transaction.parse(raw).body_bytes), True)
    for transaction in (raw, endorse(vote, [network.signer(MEMBERS[1])])):
        answer = engine.http.post("/ledger/v1/transactions", content=transaction)
        assert answer.status_code == 200, answer.text
    return int(answer.json()["height"])


async def test_a_client_of_the_genesis_finds_its_way_to_validators_that_it_never_heard_of(
    network: Any, token: str, tmp_path: Any
) -> None:
    """A's validator is replaced and then B's, so that none of the genesis is left and the way has to be found."""
    change_at_once(network)
    new = add_keys(network, 4)
    engine = network.engine(heartbeat_s=0.1).start()
    follower = network.follower("b", engine.url).start()
    der = network.certificate()
    async with (
        network.client(follower, trust_file=tmp_path / "trust.json") as early,
        network.client(engine) as writer,
    ):
        follower.reaches((await writer.submit(der, token)).height)
        assert (await early.resolve(digest_of(der))).status is CertStatus.VALID
        subscription = Subscription(early)
        async with subscription.following():
            for name, keys in zip(MEMBERS, (new[:3], new[3:]), strict=True):
                member = network.genesis.member(name)
                height = vote_in(network, engine, replace(member, validators=tuple(keys)), 0)
                engine.reaches(height + 4)
            follower.reaches(height + 30)
            held = await subscription.look_up(digest_of(der))
            assert (held.status, held.height > height) == (CertStatus.VALID, True)
        async with network.client(follower) as late, network.client(engine) as other:
            for client in (late, other):
                assert (await client.resolve(digest_of(der))).status is CertStatus.VALID
        assert (await early.resolve(digest_of(der))).status is CertStatus.VALID
    kept = json.loads((tmp_path / "trust.json").read_text())
    assert len(kept["validators"]) == 4
    follower.kill()
    assert follower.start().info()["height"] >= height
    follower.reaches(engine.info()["height"])
    block = follower.http.get(f"/ledger/v1/headers/{height + 4}").json()
    assert {each["pub_key"]["type"] for each in block["validators"]} == {"tendermint/PubKeyEd25519"}
