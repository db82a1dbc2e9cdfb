"""A federation's answers, judged by the client and by the second verifier: equal verdicts, also on altered answers.

Four operators on CometBFT have members and certificates in every state, and one operator leaves, and with it its
validator. Then 10,000 copies of real answers, each with one bit changed, are judged by both.
"""

import asyncio
import itertools
import json
import time
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from typing import Any

import httpx
import pytest

from tests.altered_answers import altered, parts
from tests.campaign import FUZZ_SEED
from tests.judge import Judge
from voice_dpki.ledger.answers import AnswerVerifier, InquiryCode, InquiryError
from voice_dpki.ledger.light import LightBlock, LightClient, TrustPoint
from voice_dpki.ledger.members import Member, MemberKind, member_key
from voice_dpki.ledger.proposals import Change, RemoveMember, SetMember, SuspendMember
from voice_dpki.ledger.transactions import Batch, ChangeStatus
from voice_dpki.names import CertDigest
from voice_dpki.wire.ledger.client import LedgerClient
from voice_dpki.x509.keys import LocalSigner, generate_es256
from voice_dpki.x509.profile import digest_of

from .operators import require_cometbft
from .test_rogue_operator import ROGUE as LEAVING
from .test_rogue_operator import A, Federation, running

NETWORK = "127.0.13"
MAX_AGE_S = 3600.0
SOON_S, LATER_S = 600, 1200

SUSPENDED, REMOVED, RETURNED = "Suspended Vendor", "Removed Vendor", "Returned Vendor"
VENDORS = (SUSPENDED, REMOVED, RETURNED)

EXPECTED = {
    "valid": "valid",
    "suspended": "suspended",
    "revoked": "revoked",
    "expired": "expired",
    "not yet valid": "not-yet-valid",
    "not recorded": "unknown",
    "of a suspended member": "suspended",
    "of a removed member": "revoked",
    "of a removed operator": "revoked",
    "of a member that was removed and returned": "revoked",
    "of a member that returned": "valid",
}
"""The status of each certificate in the end, at a time between SOON_S and LATER_S."""

pytestmark = pytest.mark.timeout(300)


@dataclass(frozen=True)
class Given:
    """An answer in the bytes that the node sent, and what the second verifier has besides."""

    digest: CertDigest
    raw: bytes
    height: int


class History:
    """What was recorded in a federation, and the answers that its nodes gave."""

    def __init__(self, federation: Federation) -> None:
        self.federation = federation
        self.chain_id = federation.genesis.chain_id
        self.start_s = int(time.time())
        self.now_s = self.start_s + (SOON_S + LATER_S) / 2
        self.ders: dict[str, bytes] = {}
        self.before: dict[str, Given] = {}
        self.after: dict[str, Given] = {}
        self.headers: dict[int, Any] = {}

    def certificate(self, name: str, organization: str, **options: Any) -> bytes:
        self.ders[name] = self.federation.certificate(organization, **options)
        return self.ders[name]

    def recorded(self, organization: str, *ders: bytes) -> bytes:
        return self.federation.endorsed(Batch(self.chain_id, organization, ders))

    def changed(self, name: str, status: str) -> bytes:
        body = ChangeStatus(self.chain_id, A, digest_of(self.ders[name]), 0, status, "unspecified")
        return self.federation.endorsed(body)

    async def decide(self, *changes: Change) -> None:
        await asyncio.gather(*map(self.federation.decide, changes))

    async def happen(self) -> None:
        """Bring everything about, with answers from before the validators change and after."""
        self.federation.keys |= {vendor: generate_es256() for vendor in VENDORS}
        await self.decide(*(SetMember(member(vendor, self.federation.keys[vendor]), None) for vendor in VENDORS))
        await self.until(dict.fromkeys(VENDORS, True))
        self.certificate("not recorded", A)
        later = {"not_before_s": self.start_s + LATER_S, "not_after_s": self.start_s + 2 * LATER_S}
        of_a = [self.certificate(name, A) for name in ("valid", "suspended", "revoked")]
        of_a.append(self.certificate("expired", A, not_after_s=self.start_s + SOON_S))
        of_a.append(self.certificate("not yet valid", A, **later))
        await self.federation.send(self.recorded(A, *of_a))
        for name, organization in (
            ("of a suspended member", SUSPENDED),
            ("of a removed member", REMOVED),
            ("of a member that was removed and returned", RETURNED),
            ("of a removed operator", LEAVING),
        ):
            await self.federation.send(self.recorded(organization, self.certificate(name, organization)))
        await self.federation.send(self.changed("suspended", "suspended"), self.changed("revoked", "revoked"))
        self.before = {name: await self.ask(name) for name in self.ders}
        await self.decide(SuspendMember(SUSPENDED), *map(RemoveMember, (REMOVED, RETURNED, LEAVING)))
        await self.until({REMOVED: False, RETURNED: False, LEAVING: False})
        again = member(RETURNED, self.federation.keys[RETURNED])
        await self.decide(SetMember(again, None))
        await self.until({RETURNED: True})
        new = self.certificate("of a member that returned", RETURNED)
        await self.federation.send(self.recorded(RETURNED, new))
        await self.validators_are(3)
        self.after = {name: await self.ask(name) for name in self.ders}
        await self.fetch_headers()

    def client(self) -> LedgerClient:
        url = self.federation.nodes[0].url
        return LedgerClient.of_genesis(url, self.federation.genesis, max_age_s=MAX_AGE_S, timeout_s=30)

    async def until(self, members: dict[str, bool]) -> None:
        """Wait until these are members, or are not."""
        async with self.client() as client:
            while [value is not None for value in await client.leaves([*map(member_key, members)])] != [
                *members.values()
            ]:
                await asyncio.sleep(0.1)

    async def validators_are(self, count: int) -> None:
        async with self.client() as client:
            while True:
                height = (await client.node_info()).height
                if height and len((await client.light_block(height)).validators.validators) == count:
                    return
                await asyncio.sleep(0.1)

    async def ask(self, name: str) -> Given:
        """Ask as a user does: with a client that trusts the genesis and verifies what comes."""
        digest = digest_of(self.ders[name])
        async with self.client() as client:
            resolution, raw = await client.resolve_raw(digest)
        return Given(digest, raw, resolution.height)

    async def fetch_headers(self) -> None:
        async with httpx.AsyncClient(base_url=self.federation.nodes[0].url, trust_env=False) as http:
            for height in range(1, max(given.height for given in self.after.values()) + 1):
                self.headers[height] = (await http.get(f"/ledger/v1/headers/{height}")).raise_for_status().json()

    def kept(self, given: Given) -> TrustPoint:
        """Trust the header before an answer's, which knows the answer's validators."""
        block = LightBlock.from_json(self.headers[given.height - 1])
        return TrustPoint.at(block.signed_header, block.validators)


def member(organization: str, key: LocalSigner) -> Member:
    return Member(organization, MemberKind.VENDOR, endorsing_keys=(key.public_key_der,))


@pytest.fixture(scope="module")
def history(tmp_path_factory: pytest.TempPathFactory) -> History:
    require_cometbft()
    with running(Federation(tmp_path_factory.mktemp("s") / "net", NETWORK)) as federation:
        history = History(federation)
        asyncio.run(history.happen())
    return history


@dataclass(frozen=True)
class Question:
    """What was asked about an answer: also one whose bytes are altered at a place."""

    given: Given
    with_certificate: bool
    raw: bytes
    place: str = ""


def by_the_client(history: History, question: Question) -> str:
    """Have the client judge: the status, or the code of its error."""
    verifier = AnswerVerifier(LightClient(history.chain_id, history.kept(question.given)), max_age_s=MAX_AGE_S)
    try:
        return verifier.verify(
            question.raw,
            question.given.digest,
            history.now_s,
            min_height=question.given.height,
            with_certificate=question.with_certificate,
        ).status
    except InquiryError as error:
        return error.code


def ask(judge: Judge, history: History, question: Question, context: str) -> None:
    judge.ask(
        "answer",
        context=context,
        digest=question.given.digest.hex(),
        answer=question.raw,
        now_s=history.now_s,
        max_age_s=MAX_AGE_S,
        min_height=question.given.height,
        with_certificate=question.with_certificate,
    )


def words(judge: Judge) -> list[str]:
    return [next(iter(verdict.values())) for verdict in judge.verdicts()]


def test_both_come_to_the_same_status(history: History, second_verifier: Path) -> None:
    """Before the validators change and after. The second verifier goes from the genesis by headers it is given."""
    judge = Judge(second_verifier)
    genesis = json.loads(history.federation.file.read_bytes())
    judge.context("genesis", genesis_file=genesis, headers=[*history.headers.values()], now_s=history.now_s)
    questions = [Question(given, True, given.raw) for given in (*history.before.values(), *history.after.values())]
    for question in questions:
        ask(judge, history, question, "genesis")
    found = words(judge)
    assert found == [by_the_client(history, question) for question in questions]
    assert dict(zip(history.after, found[len(history.before) :], strict=True)) == EXPECTED
    early = dict(zip(history.before, found[: len(history.before)], strict=True))
    changed = ("of a suspended member", "of a removed member", "of a removed operator")
    assert {early[name] for name in changed} == {"valid"}


CHANGES = 10_000

VOTE = ("block_id_flag", "timestamp", "signature")
"""What may change in one vote if the others are enough: it counts no more."""


def meaningless(question: Question) -> set[str]:
    """Name the places of an answer whose bits may change without changing what it proves."""
    members = ["digest", "status", "height", *([] if question.with_certificate else ["certificate"])]
    votes = json.loads(question.given.raw)["signed_header"]["commit"]["signatures"]
    for_block = sum(vote["block_id_flag"] == 2 for vote in votes)
    spare = VOTE if 3 * (for_block - 1) > 2 * len(votes) else ()
    return {name + mark for name in members for mark in ("", ":")} | {
        f"signed_header.commit.signatures.*.{name}" for name in spare
    }


def unaltered(history: History) -> list[Question]:
    """Choose the answers that are altered."""
    before = [history.before[name] for name in ("valid", "not recorded")]
    after = [
        history.after[name]
        for name in ("suspended", "not recorded", "of a suspended member", "of a removed member", "valid")
    ]
    return [Question(given, asks, given.raw) for given in before + after for asks in (True, False)]


def alter(originals: list[Question], chance: Random) -> list[Question]:
    """Change one bit of each place of each answer in turn, a long one's more often, until there are CHANGES."""
    pool = [
        (original, part)
        for original in originals
        for part in parts(original.raw)
        for _ in range(1 + (part.end - part.start) // 16)
    ]
    assert len(pool) < CHANGES, "every place has its turn"
    return [
        replace(original, raw=altered(original.raw, part, chance), place=part.place)
        for original, part in itertools.islice(itertools.cycle(pool), CHANGES)
    ]


def test_no_changed_bit_gives_another_verdict(history: History, second_verifier: Path) -> None:
    """What still proves something was changed where nothing is proved, and proves the same. Both say so."""
    questions = alter(unaltered(history), Random(FUZZ_SEED))
    judge = Judge(second_verifier)
    for height in {question.given.height for question in questions}:
        kept = history.headers[height - 1]
        judge.context(f"{height}", chain_id=history.chain_id, kept=kept, now_s=history.now_s)
    for question in questions:
        ask(judge, history, question, f"{question.given.height}")
    found = list(zip(questions, words(judge), strict=True))
    accepted = [(question, verdict) for question, verdict in found if verdict not in set(InquiryCode)]
    spare = Counter(question.place for question, _ in accepted)
    print(f"FUZZ_SEED={FUZZ_SEED}: {spare.total()} of {CHANGES} changed bits have no meaning: {dict(spare)}")
    assert {"digest", "status", "height", "certificate"} <= spare.keys()
    for question, verdict in accepted:
        original = replace(question, raw=question.given.raw)
        assert question.place in meaningless(question), (question, verdict)
        assert verdict == by_the_client(history, original), question
    differ = [(*pair, by_the_client(history, pair[0])) for pair in found if disagree(history, *pair)]
    assert not differ


def disagree(history: History, question: Question, verdict: str) -> bool:
    """Tell whether the client says something else. It does not look at the encoding of what it ignores."""
    try:
        question.raw.decode()
    except UnicodeDecodeError:
        return verdict != InquiryCode.MALFORMED
    return by_the_client(history, question) != verdict
