"""Four operators' validators as real processes on CometBFT: agreement, crashes under load, too few validators."""

import asyncio
import contextlib
import json
import os
import signal
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest

from ledger_node.abci.cometbft import find, node_id, node_key
from ledger_node.command import federation
from ledger_node.command.federation import Processes, agree, node_info
from ledger_node.command.federation_folder import ADMITTED_FILE, OperatorNode, provision
from ledger_node.make.join import join
from tests.present import present
from voice_dpki.errors import LocalError
from voice_dpki.ledger.genesis import Genesis, load_genesis
from voice_dpki.ledger.header import Header, SignedHeader
from voice_dpki.ledger.members import Member, MemberKind
from voice_dpki.ledger.proposals import (
    Change,
    ProposalState,
    SetMember,
    SetStatus,
    encode_change,
    proposal_id,
    proposal_of,
)
from voice_dpki.ledger.records import CertStatus
from voice_dpki.ledger.replica import Replica
from voice_dpki.ledger.transactions import (
    Batch,
    Body,
    ChangeStatus,
    Propose,
    Renew,
    Submit,
    Transaction,
    Vote,
    endorse,
    renewal_bytes,
)
from voice_dpki.names import CertDigest
from voice_dpki.wire.ledger.client import light_client
from voice_dpki.x509.keys import LocalSigner, from_pem, generate_es256
from voice_dpki.x509.profile import digest_of

from .killing import kill_under_load, killed
from .operators import (
    DEADLINE_S,
    answers,
    at,
    blocks,
    certificate,
    host,
    load,
    reaches,
    require_cometbft,
    status,
    submit,
)

NETWORK = "127.0.5"
SNAPSHOT_BLOCKS = 20

pytestmark = pytest.mark.timeout(600)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    require_cometbft()
    return tmp_path_factory.mktemp("f") / "net"


@pytest.fixture(scope="module")
def nodes(folder: Path) -> list[OperatorNode]:
    nodes = provision(folder, 4, NETWORK)
    file = folder / "genesis.json"
    form = json.loads(file.read_bytes())
    form["app_state"]["parameters"]["delay_s"] = 86_400  # in a demonstration, decisions take effect soon
    file.write_text(json.dumps(form))
    for node in nodes:
        text = node.config.read_text()
        node.config.write_text(text.replace("[cometbft]\n", f"[cometbft]\nsnapshot_blocks = {SNAPSHOT_BLOCKS}\n"))
    return nodes


@pytest.fixture(scope="module")
def genesis(folder: Path, nodes: list[OperatorNode]) -> Genesis:
    return load_genesis((folder / "genesis.json").read_bytes())


@pytest.fixture(scope="module")
def processes(nodes: list[OperatorNode]) -> Iterator[Processes]:
    with Processes(nodes) as processes:
        asyncio.run(processes.ready())
        yield processes


async def test_certificates_recorded_at_one_are_proved_by_all(
    nodes: list[OperatorNode], processes: Processes, genesis: Genesis
) -> None:
    ders = [certificate(node, "first") for node in nodes]
    assert all(await asyncio.gather(*(submit(node, der) for node, der in zip(nodes, ders, strict=True))))
    await agree(nodes)
    for node in nodes:
        for der in ders:
            assert await status(node, genesis, digest_of(der)) is CertStatus.VALID
        assert await status(node, genesis, CertDigest(bytes(32))) is CertStatus.UNKNOWN


async def test_everyone_who_hands_over_the_same_transaction_hears_of_its_block(
    nodes: list[OperatorNode], processes: Processes, genesis: Genesis, folder: Path
) -> None:
    signer = endorsing_key(folder, nodes[0])
    raw = endorse(Submit(genesis.chain_id, "Operator A", certificate(nodes[0], "many ways")), [signer])
    async with httpx.AsyncClient(trust_env=False, timeout=30) as client:
        urls = [f"{node.url}/ledger/v1/transactions" for node in [nodes[0], *nodes]]
        answers = await asyncio.gather(*(client.post(url, content=raw) for url in urls))
        assert [answer.json()["code"] for answer in answers] == [0] * 5
        assert len({answer.json()["height"] for answer in answers}) == 1
        again = (await client.post(urls[3], content=raw)).json()
    assert (again["name"], again.get("height")) == ("already-recorded", None)


async def test_the_state_machine_alone_comes_to_the_same_app_hashes(
    nodes: list[OperatorNode], processes: Processes, genesis: Genesis, folder: Path
) -> None:
    """A replica without CometBFT takes CometBFT's blocks: every header's AppHash and results must be its own."""
    keys = {each.organization: endorsing_key(folder, each) for each in nodes}
    lived, statuses = lifecycle(genesis.chain_id, nodes)
    decided, states = governance(genesis.chain_id, nodes, next(iter(statuses)), keys)
    also, beside = (certificate(nodes[0], name) for name in ("in both", "in one"))
    both: list[Submit | Batch] = [
        Submit(genesis.chain_id, "Operator A", also),
        Batch(genesis.chain_id, "Operator A", (also, beside)),
    ]
    async with httpx.AsyncClient(trust_env=False, timeout=30) as client:
        for body in (*lived, *decided):
            answer = await hand_over(client, nodes[0], endorse(body, [keys[body.by]]))
            assert answer["code"] == 0, answer
        # Each passes at the node that takes it; where both come into blocks, one is refused there.
        raws = [endorse(body, [keys[body.by]]) for body in both]
        answers = await asyncio.gather(*(hand_over(client, *each) for each in zip(nodes[:2], raws, strict=True)))
        assert sorted(answer["name"] for answer in answers) == ["already-recorded", "ok"]
    app_hash = await agree(nodes)
    state = genesis.initial_state()
    replica = Replica(state, None)
    for block in await blocks(nodes[0]):
        for executed in replica.take(block).executed:
            state.commit(executed.outcome)
    assert replica.app_hash.hex() == app_hash
    assert {digest: present(state.record(digest)).status for digest in statuses} == statuses
    assert {identity: present(proposal_of(state, identity)).state for identity in states} == states


async def hand_over(client: httpx.AsyncClient, node: OperatorNode, raw: bytes) -> dict[str, Any]:
    return (await client.post(f"{node.url}/ledger/v1/transactions", content=raw)).json()


def lifecycle(chain_id: str, nodes: list[OperatorNode]) -> tuple[list[Body], dict[CertDigest, CertStatus]]:
    """Certificates alone and in a batch, renewed, suspended, resumed, revoked; the first is left to the quorum."""
    key, names = generate_es256(), [node.organization for node in nodes]
    old, new = (certificate(nodes[0], "renewed", key) for _ in range(2))
    batch = tuple(certificate(nodes[1], f"{number}") for number in range(20))
    signature = key.sign(renewal_bytes(chain_id, digest_of(old), digest_of(new)))
    bodies: list[Body] = [
        Submit(chain_id, names[0], old),
        Batch(chain_id, names[1], batch),
        Renew(chain_id, names[0], new, digest_of(old), key.public_key_der, signature),
        ChangeStatus(chain_id, names[0], digest_of(old), 0, "suspended", "unspecified"),
        ChangeStatus(chain_id, names[0], digest_of(old), 1, "valid", "unspecified"),
        ChangeStatus(chain_id, names[0], digest_of(new), 0, "revoked", "superseded"),
    ]
    statuses = {digest_of(der): CertStatus.VALID for der in (*batch, old)}
    return bodies, {**statuses, digest_of(batch[0]): CertStatus.REVOKED, digest_of(new): CertStatus.REVOKED}


def governance(
    chain_id: str, nodes: list[OperatorNode], digest: CertDigest, keys: dict[str, LocalSigner]
) -> tuple[list[Body], dict[bytes, ProposalState]]:
    """A certificate revoked by three of four; a vendor admitted by three, tomorrow; one that has one vote."""
    names, until_s = [node.organization for node in nodes], int(time.time()) + 600
    vendors = [
        Member(name, MemberKind.VENDOR, endorsing_keys=(generate_es256().public_key_der,)) for name in ("V", "W")
    ]
    changes: list[Change] = [
        SetStatus((digest,), CertStatus.REVOKED, "keyCompromise"),
        *(SetMember(each, None) for each in vendors),
    ]
    proposals = [Propose(chain_id, names[0], until_s, encode_change(change)) for change in changes]
    raws = [endorse(each, [keys[each.by]]) for each in proposals]
    identities = [proposal_id(Transaction.parse(raw).body_bytes) for raw in raws]
    votes = [Vote(chain_id, name, identity, True) for identity in identities[:2] for name in names[1:3]]
    states = (ProposalState.DONE, ProposalState.PASSED, ProposalState.OPEN)
    return [*proposals, *votes], dict(zip(identities, states, strict=True))


def endorsing_key(folder: Path, node: OperatorNode) -> LocalSigner:
    return from_pem((folder / "keys" / f"endorsing-{node.name}.pem").read_bytes())


async def test_a_follower_replays_cometbfts_blocks_and_answers_like_a_validator(
    nodes: list[OperatorNode], processes: Processes, genesis: Genesis, folder: Path
) -> None:
    """An inquiry node without CometBFT verifies the blocks of one operator's node with the light client."""
    config = folder / "inquiry.toml"
    config.write_text(
        '[node]\nname = "inquiry"\ndata_dir = "data-inquiry"\ngenesis = "genesis.json"\n'
        f'[listen]\nhost = "{NETWORK}.20"\nport = 26680\n[follow]\nurl = "{nodes[0].url}"\n'
    )
    inquiry = OperatorNode(config, "nobody", f"http://{NETWORK}.20:26680", "")
    der = certificate(nodes[1], "seen by the follower")
    with Processes([inquiry]) as follower:
        await follower.ready()
        assert await submit(nodes[1], der)
        await agree([*nodes, inquiry])
        assert await status(inquiry, genesis, digest_of(der)) is CertStatus.VALID


async def test_cometbfts_own_light_client_comes_to_the_same_headers(
    nodes: list[OperatorNode], processes: Processes, genesis: Genesis, tmp_path: Path
) -> None:
    assert await submit(nodes[0], certificate(nodes[0], "a block after the first"))
    await agree(nodes)
    ours = await blocks(nodes[0])
    assert len(ours) > 1
    rpcs = [node.url.replace("26680", "26657") for node in nodes]
    judge = f"{NETWORK}.30"
    arguments = [
        *(str(find()), "light", genesis.chain_id, "--primary", rpcs[0], "--witnesses", ",".join(rpcs[1:])),
        *("--height", "1", "--hash", ours[0].header.hash().hex()),
        *("--home-dir", str(tmp_path), "--laddr", f"tcp://{judge}:26657"),
    ]
    with (tmp_path / "light.log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(*arguments, stdout=log, stderr=log)
    try:
        light = light_client(genesis)
        for block in ours[1 :: max(1, len(ours) // 5)]:
            theirs = await verified_header(f"http://{judge}:26657", block.height)
            assert light.verify(block.signed_header, None, time.time()).hash() == theirs.hash()
    finally:
        process.terminate()
        await process.wait()


async def verified_header(url: str, height: int) -> Header:
    """Ask CometBFT's verifying proxy, which may still be starting."""
    end = time.monotonic() + DEADLINE_S
    async with httpx.AsyncClient(trust_env=False, timeout=20) as client:
        while True:
            try:
                answer = (await client.get(f"{url}/commit?height={height}")).json()
                return SignedHeader.from_json(answer["result"]["signed_header"]).header
            except (httpx.HTTPError, KeyError):
                assert time.monotonic() < end, "the light client does not verify the header"
                await asyncio.sleep(0.1)


async def test_a_validator_killed_under_load_loses_nothing(
    nodes: list[OperatorNode], processes: Processes, genesis: Genesis
) -> None:
    await kill_under_load(nodes, processes, genesis, kills=5)


async def test_with_two_of_four_down_writes_stop_and_inquiry_goes_on(
    nodes: list[OperatorNode], processes: Processes, genesis: Genesis
) -> None:
    der, late = certificate(nodes[0], "before"), certificate(nodes[0], "while too few are up")
    assert await submit(nodes[0], der)
    with killed(processes, nodes[2:]):
        assert not await submit(nodes[0], late, timeout_s=3)
        height = present(await node_info(nodes[0])).height
        for node in nodes[:2]:
            assert await status(node, genesis, digest_of(der)) is CertStatus.VALID
            info = await node_info(node)
            assert info is not None
            assert info.height <= height + 1
            assert present(info.age_s) > 2, "it says how old its answers are"
    await reaches(lambda: submit(nodes[0], late, timeout_s=5), "the certificate is recorded after all")
    await processes.ready()
    await agree(nodes)
    assert await status(nodes[3], genesis, digest_of(late)) is CertStatus.VALID


async def test_validators_that_stood_still_are_with_the_others_again(
    nodes: list[OperatorNode], processes: Processes, genesis: Genesis
) -> None:
    """Two validators stand still, so that neither half can decide; then all go on together."""
    still = [pid for node in nodes[:2] for pid in processes.pids(node)]
    der = certificate(nodes[3], "while two stand still")
    for pid in still:
        os.kill(pid, signal.SIGSTOP)
    try:
        assert not await submit(nodes[3], der, timeout_s=3)
    finally:
        for pid in still:
            os.kill(pid, signal.SIGCONT)
    await reaches(lambda: submit(nodes[3], der, timeout_s=5), "the certificate is recorded")
    await agree(nodes)
    for node in nodes:
        assert await status(node, genesis, digest_of(der)) is CertStatus.VALID


async def test_a_node_joins_by_state_sync(
    nodes: list[OperatorNode], processes: Processes, genesis: Genesis, folder: Path
) -> None:
    """A node that does not vote begins with a snapshot and proves what was recorded before and after."""
    old, new = certificate(nodes[0], "before the snapshot"), certificate(nodes[1], "after it joined")
    assert await submit(nodes[0], old)
    first = present(await node_info(nodes[0])).height
    async with load(nodes[1:2]):
        await reaches(lambda: at(nodes[0], first + 2 * SNAPSHOT_BLOCKS), "there is a snapshot")
    made = join(
        folder / "genesis.json",
        folder / "joiner",
        name="joiner",
        host=f"{NETWORK}.21",
        peers=[f"{node_id(node_key(folder / f'cometbft-{node.name}'))}@{host(node)}:26656" for node in nodes],
        rpc_servers=[f"http://{host(node)}:26657" for node in nodes[:2]],
    )
    with (folder / ADMITTED_FILE).open("a") as admitted:
        admitted.write(f"{made.peer.partition('@')[0]}@127.0.0.1\n")
    joiner = OperatorNode(made.config, "nobody", f"http://{NETWORK}.21:26680", "")
    with Processes([joiner]) as joining:
        await joining.ready()
        assert await submit(nodes[1], new)
        await agree([*nodes, joiner])
        for der in (old, new):
            assert await status(joiner, genesis, digest_of(der)) is CertStatus.VALID
        async with httpx.AsyncClient(base_url=joiner.url, trust_env=False) as client:
            assert (await client.get("/ledger/v1/blocks/1")).status_code == 410, "it has not replayed the history"


async def test_cometbft_ends_when_its_ledger_node_is_killed_and_the_other_way_round(
    nodes: list[OperatorNode], processes: Processes
) -> None:
    node = nodes[3]
    for end_child in (False, True):
        await reaches(lambda: has_cometbft(processes, node), "CometBFT is started")
        pids = processes.pids(node)
        os.kill(next(filter(_is_cometbft, pids)) if end_child else pids[0], 9)
        await reaches(partial(_gone, processes, pids), "all its processes have ended")
        processes.start(node)
        await reaches(lambda: answers(node), "it is back")
    await agree(nodes)


def test_check_command_records_and_compares(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    again = folder.with_name("again")
    provision(again, 2, "127.0.7")
    assert federation.command(["check", "--certificates", "20", "--folder", str(again)]) == 0
    printed = capsys.readouterr().out
    assert "Recorded 20 certificates" in printed
    assert "AppHash at all 2 nodes" in printed
    assert printed.count("is valid, proved at height") == 2
    assert federation.command(["check", "--certificates", "2", "--folder", str(again), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)["result"]
    assert (told["certificates"], len(told["app_hash"]), len(told["digest"])) == (2, 64, 64)
    assert [each["organization"] for each in told["nodes"]] == ["Operator A", "Operator B"]
    assert all(each["height"] > 0 for each in told["nodes"])


async def has_cometbft(processes: Processes, node: OperatorNode) -> bool:
    return any(map(_is_cometbft, processes.pids(node)))


def _is_cometbft(pid: int) -> bool:
    with contextlib.suppress(OSError):  # the process has ended since it was listed
        return Path(f"/proc/{pid}/comm").read_text() == "cometbft\n"
    return False


async def _gone(processes: Processes, pids: tuple[int, ...]) -> bool:
    with contextlib.suppress(LocalError):
        processes.check()
    return not any(Path(f"/proc/{pid}").exists() for pid in pids)
