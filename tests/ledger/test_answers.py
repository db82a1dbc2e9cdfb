"""Answers prove what they say, or are refused with the code for what is wrong."""

import base64
import json
import math
from collections.abc import Callable
from dataclasses import replace
from hashlib import sha256
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.present import present
from voice_dpki.ledger import tree
from voice_dpki.ledger.answer_forms import EvidenceForm, MemberForm, answer_bytes, tail_bytes
from voice_dpki.ledger.answers import (
    AnswerVerifier,
    HeaderUnknownError,
    InquiryCode,
    InquiryError,
    TrustExpiredError,
)
from voice_dpki.ledger.light import LightClient, LightCode, LightError, TrustPoint
from voice_dpki.ledger.members import member_key
from voice_dpki.ledger.proof import Proof
from voice_dpki.ledger.records import CertStatus
from voice_dpki.ledger.state import MemoryState
from voice_dpki.names import CertDigest
from voice_dpki.wire.ledger.client import light_client
from voice_dpki.x509.profile import digest_of
from voice_dpki.x509.recorded import RecordedCertificate

ABSENT = CertDigest(bytes(32))


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def proof(state: MemoryState, key: bytes) -> str:
    return b64(tree.prove(state, key).serialize())


class World:
    """A chain with one valid and one revoked certificate, and the answers of a node that holds it."""

    def __init__(self, federation: Any, chain: Any) -> None:
        self.chain, self.state = chain, chain.state
        self.valid, self.revoked = federation.certificate(), federation.certificate()
        chain.add([federation.submission(self.valid), federation.submission(self.revoked)])
        chain.add([federation.change(digest_of(self.revoked), "revoked", 0, reason="keyCompromise")])
        self.light = light_client(federation.genesis)
        self.verifier = AnswerVerifier(self.light, max_age_s=30)
        self.now_s = chain.replica.last.header.time_ns / 1e9 + 3

    def answer(self, digest: CertDigest) -> dict[str, Any]:
        record = self.state.record(digest)
        member = record and self.state.member(record.organization)
        return {
            "digest": digest.hex(),
            "height": 0,
            "status": "whatever",
            "record": b64(record.serialize()) if record else None,
            "certificate": b64(self.state.certificates[digest]) if record else None,
            "proof": proof(self.state, digest),
            "member": {
                "record": b64(member.serialize()),
                "proof": proof(self.state, member_key(member.organization)),
            }
            if member
            else None,
            "signed_header": self.chain.replica.last.to_json(),
        }

    def verify(self, answer: Any, digest: CertDigest, **options: Any) -> Any:
        data = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
        options = {
            "now_s": self.now_s,
            "min_height": self.verifier.latest_height,
            "with_certificate": True,
            **options,
        }
        return self.verifier.verify(data, digest, **options)

    def refused(self, answer: Any, digest: CertDigest, **options: Any) -> InquiryCode:
        with pytest.raises(InquiryError) as caught:
            self.verify(answer, digest, **options)
        return caught.value.code


@pytest.fixture
def world(federation: Any, chain: Any) -> World:
    return World(federation, chain)


def test_a_recorded_certificate(world: World) -> None:
    digest = digest_of(world.valid)
    found = world.verify(world.answer(digest), digest)
    assert (found.status, found.certificate, found.height) == (CertStatus.VALID, world.valid, 4)
    assert found.record == world.state.record(digest)
    assert found.member == world.state.member("Operator A")
    assert found.age_s == pytest.approx(3)
    assert world.verify(world.answer(digest), digest, with_certificate=False).certificate is None


def test_what_is_judged_of_an_answer(world: World) -> None:
    digest, record = digest_of(world.valid), world.state.record(digest_of(world.valid))
    member = world.state.member("Operator A")
    assert record
    assert member
    found = world.verify(world.answer(digest), digest)
    assert found.recorded == RecordedCertificate(
        digest=digest,
        status=CertStatus.VALID,
        height=4,
        organization="Operator A",
        not_before_s=record.not_before_s,
        not_after_s=record.not_after_s,
        allotment=member.allotment,
        der=world.valid,
    )
    absent = world.verify(world.answer(ABSENT), ABSENT)
    assert absent.recorded == RecordedCertificate(digest=ABSENT, status=CertStatus.UNKNOWN, height=4)


def test_other_statuses(world: World) -> None:
    digest = digest_of(world.revoked)
    assert world.verify(world.answer(digest), digest).status is CertStatus.REVOKED
    absent = world.verify(world.answer(ABSENT), ABSENT)
    assert (absent.status, absent.record, absent.member, absent.certificate) == (
        CertStatus.UNKNOWN,
        None,
        None,
        None,
    )


def test_the_status_is_that_of_now_whatever_the_node_says(world: World) -> None:
    digest = digest_of(world.valid)
    genesis = world.chain.federation.genesis
    trust = TrustPoint.genesis(genesis.validators, genesis.time_ns)
    light = LightClient(genesis.chain_id, trust, trusting_period_s=math.inf)
    world.verifier = AnswerVerifier(light, max_age_s=10**9)
    late = world.now_s + 40 * 86_400
    assert world.verify(world.answer(digest), digest, now_s=late).status is CertStatus.EXPIRED


# Several at once


def batch(world: World, *digests: CertDigest) -> dict[str, Any]:
    answers = [world.answer(digest) for digest in digests]
    return {
        "entries": [{name: answer[name] for name in ("digest", "record", "proof")} for answer in answers],
        "members": {"Operator A": world.answer(digest_of(world.valid))["member"]},
        "signed_header": answers[0]["signed_header"],
    }


def ask_batch(world: World, answer: Any, *digests: CertDigest) -> Any:
    data = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
    return world.verifier.verify_batch(data, digests, world.now_s, min_height=world.verifier.latest_height)


def test_a_batch(world: World) -> None:
    digests = digest_of(world.valid), ABSENT, digest_of(world.revoked)
    found = ask_batch(world, batch(world, *digests), *digests)
    assert [each.digest for each in found] == list(digests)
    assert [each.status for each in found] == [CertStatus.VALID, CertStatus.UNKNOWN, CertStatus.REVOKED]
    assert found[0].member is found[2].member
    assert found[0].member == world.state.member("Operator A")


def swap_records(answer: dict[str, Any]) -> None:
    first, second = answer["entries"]
    first["record"], second["record"] = second["record"], first["record"]


def swap_entries(answer: dict[str, Any]) -> None:
    answer["entries"].reverse()


def leave_out_an_entry(answer: dict[str, Any]) -> None:
    answer["entries"].pop()


def leave_out_the_member(answer: dict[str, Any]) -> None:
    answer["members"] = {}


def say_the_member_is_gone(answer: dict[str, Any]) -> None:
    answer["members"]["Operator A"]["record"] = None


@pytest.mark.parametrize(
    ("lie", "code"),
    [
        (swap_records, InquiryCode.UNPROVEN),
        (say_the_member_is_gone, InquiryCode.UNPROVEN),
        (swap_entries, InquiryCode.MALFORMED),
        (leave_out_an_entry, InquiryCode.MALFORMED),
        (leave_out_the_member, InquiryCode.MALFORMED),
    ],
)
def test_a_batch_that_lies(world: World, lie: Callable[[dict[str, Any]], None], code: InquiryCode) -> None:
    digests = digest_of(world.valid), digest_of(world.revoked)
    answer = batch(world, *digests)
    lie(answer)
    with pytest.raises(InquiryError) as caught:
        ask_batch(world, answer, *digests)
    assert caught.value.code is code


def below(world: World, prefix: str) -> dict[str, Any]:
    proof = tree.prove_prefix(world.state, bytes(int(digit, 16) for digit in prefix), 100)
    leaves = [
        {"key": key.hex(), "value": b64(world.state.leaf(key))}
        if world.state.certificate(CertDigest(key))
        else {"key": key.hex(), "hash": b64(value)}
        for key, value in proof.leaves
    ]
    return {
        "prefix": prefix,
        "proof": b64(Proof(proof.siblings, None).serialize()),
        "leaves": leaves,
        "members": {"Operator A": world.answer(digest_of(world.valid))["member"]},
        "signed_header": world.chain.replica.last.to_json(),
    }


def ask_prefix(world: World, answer: Any, prefix: str) -> Any:
    data = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
    return world.verifier.verify_prefix(data, prefix, world.now_s, min_height=world.verifier.latest_height)


@pytest.mark.parametrize("digits", [0, 1, 3, 64])
def test_a_prefix_tells_of_all_and_not_which_is_meant(world: World, digits: int) -> None:
    digest = digest_of(world.revoked)
    prefix = digest.hex()[:digits]
    found = ask_prefix(world, below(world, prefix), prefix)
    assert found.about(digest).status is CertStatus.REVOKED
    assert found.about(digest).member == world.state.member("Operator A")
    absent = CertDigest(bytes.fromhex(prefix.ljust(64, "0"))) if digits < 64 else digest
    assert found.about(absent).status is (CertStatus.UNKNOWN if digits < 64 else CertStatus.REVOKED)
    if digits:
        with pytest.raises(ValueError, match="prefix"):
            found.about(CertDigest(bytes([digest[0] ^ 0xFF]) + digest[1:]))


def test_the_size_of_an_answer_about_several(world: World) -> None:
    """16 MiB, one byte more of which is refused before it is read."""
    digest, light = digest_of(world.valid), world.verifier
    leaves = {
        "leaves": [
            {
                "key": digest.hex(),
                "value": b64(present(world.state.leaf(digest))),
                "proof": proof(world.state, digest),
            }
        ],
        "signed_header": world.chain.replica.last.to_json(),
    }
    asked: tuple[tuple[Any, Callable[[bytes], Any]], ...] = (
        (batch(world, digest), lambda data: ask_batch(world, data, digest)),
        (below(world, ""), lambda data: ask_prefix(world, data, "")),
        (leaves, lambda data: light.verify_leaves(data, [digest], world.now_s, min_height=light.latest_height)),
    )
    for answer, ask in asked:
        widest = json.dumps(answer).encode().ljust(16_777_216)
        assert ask(widest)
        with pytest.raises(InquiryError, match="more than 16777216 bytes") as caught:
            ask(widest + b" ")
        assert caught.value.code is InquiryCode.MALFORMED


def test_a_record_that_a_prefix_keeps_back_is_not_taken_for_absent(world: World) -> None:
    digest = digest_of(world.revoked)
    answer = below(world, "")
    leaf = next(leaf for leaf in answer["leaves"] if leaf["key"] == digest.hex())
    value = base64.b64decode(leaf.pop("value"))
    leaf["hash"] = b64(sha256(value).digest())
    with pytest.raises(InquiryError, match="does not show"):
        ask_prefix(world, answer, "").about(digest)
    answer["leaves"].remove(leaf)
    with pytest.raises(InquiryError) as caught:
        ask_prefix(world, answer, "")
    assert caught.value.code is InquiryCode.UNPROVEN


def test_leaves_by_their_keys(world: World) -> None:
    keys = [member_key("Operator A"), digest_of(world.valid), bytes(32)]
    values = [world.state.leaf(key) for key in keys]

    def ask(asked: list[bytes], *leaves: Any) -> Any:
        answer = {"leaves": leaves, "signed_header": world.chain.replica.last.to_json()}
        data = json.dumps(answer).encode()
        return world.verifier.verify_leaves(data, asked, world.now_s, min_height=world.verifier.latest_height)

    def leaf(key: bytes, value: bytes | None) -> dict[str, Any]:
        return {"key": key.hex(), "value": value and b64(value), "proof": proof(world.state, key)}

    assert values[2] is None
    assert ask(keys, *map(leaf, keys, values)) == tuple(values)
    for asked, lies, code in (
        (keys, [leaf(keys[0], values[0])], InquiryCode.MALFORMED),
        (keys[:1], [leaf(keys[1], values[1])], InquiryCode.MALFORMED),
        (keys[:1], [leaf(keys[0], values[1])], InquiryCode.UNPROVEN),
        (keys[:1], [leaf(keys[0], None)], InquiryCode.UNPROVEN),
        (keys[2:], [leaf(keys[2], b"x")], InquiryCode.UNPROVEN),
    ):
        with pytest.raises(InquiryError) as caught:
            ask(asked, *lies)
        assert caught.value.code is code


# Lies


def lie_about_record(answer: dict[str, Any], world: World) -> None:
    record = world.state.record(digest_of(world.revoked))
    answer["record"] = b64(replace(record, status=CertStatus.VALID, revision=0, reason=None).serialize())


def no_record(answer: dict[str, Any], world: World) -> None:
    answer["record"] = "AAAA"


def lie_about_member(answer: dict[str, Any], world: World) -> None:
    member = world.state.member("Operator A")
    answer["member"]["record"] = b64(replace(member, domains=("b.example",)).serialize())


def other_member(answer: dict[str, Any], world: World) -> None:
    member = world.state.member("Operator B")
    answer["member"] = {"record": b64(member.serialize()), "proof": proof(world.state, member_key("Operator B"))}


def say_absent(answer: dict[str, Any], world: World) -> None:
    answer.update(record=None, member=None, certificate=None)


def say_absent_by_anothers_proof(answer: dict[str, Any], world: World) -> None:
    say_absent(answer, world)
    answer["proof"] = proof(world.state, ABSENT)


def say_no_member(answer: dict[str, Any], world: World) -> None:
    answer["member"] = {"record": None, "proof": proof(world.state, member_key("Nobody"))}


def other_certificate(answer: dict[str, Any], world: World) -> None:
    answer["certificate"] = b64(world.valid)


def change_app_hash(answer: dict[str, Any], world: World) -> None:
    answer["signed_header"]["header"]["app_hash"] = "00" * 32


def drop_a_vote(answer: dict[str, Any], world: World) -> None:
    vote = answer["signed_header"]["commit"]["signatures"][0]
    vote.update(block_id_flag=1, validator_address="", timestamp="0001-01-01T00:00:00Z", signature=None)


def change_a_signature(answer: dict[str, Any], world: World) -> None:
    answer["signed_header"]["commit"]["signatures"][0]["signature"] = b64(bytes(64))


@pytest.mark.parametrize(
    "lie",
    [
        lie_about_record,
        no_record,
        lie_about_member,
        other_member,
        say_absent,
        say_absent_by_anothers_proof,
        say_no_member,
        other_certificate,
        change_app_hash,
        drop_a_vote,
        change_a_signature,
    ],
)
def test_a_node_that_lies_is_not_believed(world: World, lie: Callable[[dict[str, Any], World], None]) -> None:
    digest = digest_of(world.revoked)
    answer = world.answer(digest)
    lie(answer, world)
    assert world.refused(answer, digest) is InquiryCode.UNPROVEN
    world.verify(world.answer(digest), digest)


@pytest.mark.parametrize(
    "change",
    [
        {"proof": "?"},
        {"proof": "AAAB"},
        {"proof": None},
        {"member": None},
        {"member": {"record": None}},
        {"certificate": None},
        {"signed_header": {}},
        {"signed_header": None},
    ],
)
def test_malformed_answers(world: World, change: dict[str, Any]) -> None:
    digest = digest_of(world.valid)
    assert world.refused(world.answer(digest) | change, digest) is InquiryCode.MALFORMED


def test_any_bytes_are_malformed(world: World) -> None:
    @given(st.binary(max_size=40))
    def fuzz(data: bytes) -> None:
        assert world.refused(data, ABSENT) is InquiryCode.MALFORMED

    fuzz()


def test_a_header_that_is_known_already_is_held_to_the_clock_again(world: World) -> None:
    """Its octets are not verified twice, but the clock may have been set since."""
    digest = digest_of(world.valid)
    answer = json.dumps(world.answer(digest)).encode()
    sent_s = world.now_s - 3
    for now_s in (sent_s, sent_s + 30, sent_s - 10):
        assert world.verify(answer, digest, now_s=now_s).status is CertStatus.VALID
    assert world.refused(answer, digest, now_s=sent_s - 11) is InquiryCode.CLOCK
    assert world.refused(answer, digest, now_s=sent_s + 31) is InquiryCode.STALE


@pytest.mark.parametrize("code", LightCode)
def test_why_a_header_is_not_trusted_is_told(world: World, code: LightCode) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise LightError(code, "why")

    light: Any = SimpleNamespace(fork=None, verify=refuse)
    signed = world.chain.replica.last
    with pytest.raises(InquiryError, match="is not trusted: why") as caught:
        AnswerVerifier(light, max_age_s=30).trust(json.dumps(signed.to_json()).encode(), world.now_s, min_height=0)
    told = {
        LightCode.FORK: InquiryCode.FORK,
        LightCode.FUTURE: InquiryCode.CLOCK,
        LightCode.NEWER_RULES: InquiryCode.NEWER_RULES,
    }
    assert caught.value.code is told.get(code, InquiryCode.UNPROVEN)
    assert isinstance(caught.value, TrustExpiredError) is (code is LightCode.TRUST_EXPIRED)
    may_become_known = code in (LightCode.VALIDATORS_NEEDED, LightCode.TOO_LITTLE_TRUST)
    assert isinstance(caught.value, HeaderUnknownError) is may_become_known
    if isinstance(caught.value, HeaderUnknownError):
        assert caught.value.signed_header == signed


def test_an_answer_as_nodes_write_it(world: World) -> None:
    digest = digest_of(world.valid)
    told = world.answer(digest)
    member = MemberForm(told["member"]["record"], told["member"]["proof"])
    evidence = EvidenceForm(
        record=told["record"], proof=told["proof"], member=member, certificate=told["certificate"]
    )
    tail = tail_bytes(4, json.dumps(told["signed_header"]).encode())
    data = answer_bytes(digest, CertStatus.VALID, msgspec.json.encode(evidence), tail)
    assert json.loads(data) == {**told, "status": "valid", "height": 4}
    assert world.verify(data, digest).certificate == world.valid


def test_the_size_of_an_answer(world: World) -> None:
    digest = digest_of(world.valid)
    widest = json.dumps(world.answer(digest)).encode().ljust(262_144)
    assert world.verify(widest, digest).status is CertStatus.VALID
    with pytest.raises(InquiryError, match="more than 262144 bytes") as caught:
        world.verify(widest + b" ", digest)
    assert caught.value.code is InquiryCode.MALFORMED


def test_a_changed_byte_changes_nothing_or_is_refused(world: World) -> None:
    digest = digest_of(world.revoked)
    sound = json.dumps(world.answer(digest)).encode()

    @given(st.integers(0, len(sound) - 1), st.integers(0, 255))
    def fuzz(at: int, value: int) -> None:
        changed = bytearray(sound)
        changed[at] = value
        try:
            found = world.verify(bytes(changed), digest)
        except InquiryError:
            return
        assert found.status is CertStatus.REVOKED
        assert found.member == world.state.member("Operator A")

    fuzz()


def test_old_answers_are_stale(world: World) -> None:
    digest = digest_of(world.valid)
    answer = world.answer(digest)
    world.verify(answer, digest, now_s=world.now_s + 26)
    assert world.refused(answer, digest, now_s=world.now_s + 28) is InquiryCode.STALE


def test_an_answer_from_before_what_was_seen_is_refused(world: World) -> None:
    digest = digest_of(world.valid)
    old = world.answer(digest)
    world.verify(old, digest)
    world.chain.take(world.chain.next_block())
    world.verify(world.answer(digest), digest)
    assert world.refused(old, digest) is InquiryCode.UNPROVEN
    assert world.verify(old, digest, min_height=4).height == 4


def test_another_ledgers_answer_is_refused(world: World, federation: Any) -> None:
    genesis = replace(federation.genesis, chain_id="other")
    other = AnswerVerifier(light_client(genesis), max_age_s=30)
    world.verifier = other
    digest = digest_of(world.valid)
    assert world.refused(world.answer(digest), digest) is InquiryCode.UNPROVEN
