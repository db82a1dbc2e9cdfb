"""Calls over the ledger of a federation: four operators' validators on CometBFT, asked by two of them."""

import json
import os
import shutil
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import jsonschema  # type: ignore[import-untyped]
import pytest

from sip_testbed.network import Testbed
from sip_testbed.network_config import witnesses
from sip_testbed.placing import CallOptions, PlacedCall, place_call
from sip_testbed.provision import FEDERATION, OPERATORS, LedgerKind
from sip_testbed.report import schema
from sip_testbed.scenarios import DEFAULT, SCENARIOS
from voice_dpki.effects import SystemClock
from voice_dpki.errors import LocalError
from voice_dpki.shell.ledger import LedgerAccess, read_genesis
from voice_dpki.stage.processes import ProcessError


@pytest.fixture(scope="module")
def testbed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Testbed]:
    with federation(tmp_path_factory.mktemp("logs")) as testbed:
        yield testbed


@contextmanager
def federation(logs: Path) -> Iterator[Testbed]:
    try:
        testbed = Testbed(logs, ledger=LedgerKind.FEDERATION)
    except LocalError as error:
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(str(error))
    with testbed:
        testbed.start()
        testbed.record_all()
        yield testbed


def place(testbed: Testbed, name: str, folder: Path) -> PlacedCall:
    call = place_call(testbed, SCENARIOS[name], CallOptions(say_s=1.0), folder)
    assert not [f"{check.name}: {check.detail}" for check in call.report.checks if not check.held]
    jsonschema.validate(json.loads((folder / "report.json").read_bytes()), schema())
    return call


def test_a_good_call_over_four_operators_validators(testbed: Testbed, tmp_path: Path) -> None:
    report = place(testbed, DEFAULT, tmp_path).report
    assert report.seen.verstat == "TN-Validation-Passed"
    assert report.ledger == "federation"
    assert [link.state for link in report.trust] == ["ok"] * 5
    sizes = {process.name: process.pss_mb for process in report.processes}
    nodes = {f"{node} {operator.letter.upper()}" for operator in FEDERATION for node in ("validator", "CometBFT")}
    assert nodes < sizes.keys()
    assert len(sizes) == 18
    assert all(size > 5 for size in sizes.values())


@pytest.mark.parametrize(
    ("name", "step"),
    [
        ("signer-revoked", "E17 certificate"),
        ("signer-not-recorded", "E17 certificate"),
        ("number-outside-range", "E17 authority"),
    ],
)
def test_what_the_ledger_does_not_allow_is_refused(name: str, step: str, testbed: Testbed, tmp_path: Path) -> None:
    """A revocation is of a moment ago: the other operator knows of it."""
    seen = place(testbed, name, tmp_path).report.seen
    assert (seen.refused_by, seen.reasoncode) == (step, 437)


async def test_the_verifier_keeps_the_newest_header_and_other_operators_have_the_same(testbed: Testbed) -> None:
    kept = testbed.folder / "trust-verify-b.json"
    shutil.copy(kept, testbed.folder / "trust-restarted.json")
    access = LedgerAccess(
        f"http://{testbed.addresses['ledger-b']}",
        read_genesis(testbed.site.genesis),
        testbed.folder / "trust-restarted.json",
        witnesses=tuple(witnesses(testbed.site, OPERATORS[1])),
    )
    async with access.client(SystemClock()) as client:
        await client.resolve(testbed.site.signer.digest)
        assert len(access.witnesses) == 3
        for each in access.witness_clients(SystemClock()):
            async with each as witness:
                await client.compare(witness)


def test_a_call_while_one_validator_is_dead_and_no_record_once_two_are(tmp_path: Path) -> None:
    """Three of four go on, also with what is new. Two cannot agree any more, and are not waited for."""
    with federation(tmp_path / "logs") as testbed:
        dead = testbed.running["validator-d"]
        dead.send(signal.SIGKILL)
        assert dead.wait_end(60) == -signal.SIGKILL
        new = testbed.site.signing_credential("while one is dead")
        assert testbed.record({"a": (new,)}) > 0
        report = place(testbed, DEFAULT, tmp_path / "call").report
        assert report.seen.verstat == "TN-Validation-Passed"
        sizes = {process.name: process.pss_mb for process in report.processes}
        assert sizes["validator D"] == sizes["CometBFT D"] == 0

        testbed.running["validator-c"].send(signal.SIGKILL)
        late = testbed.site.signing_credential("two are dead")
        with pytest.raises(ProcessError, match=r"validator-[cd] ended with status -9, and is still needed"):
            testbed.record({"a": (late,)})
