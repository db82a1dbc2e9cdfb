"""Calls over the ledger of a federation: four operators' validators on CometBFT, asked by two of them."""

import json
import os
from collections.abc import Iterator
from pathlib import Path

import jsonschema  # type: ignore[import-untyped]
import pytest

from sip_testbed.network import Testbed
from sip_testbed.placing import CallOptions, PlacedCall, place_call
from sip_testbed.provision import FEDERATION, LedgerKind
from sip_testbed.report import schema
from sip_testbed.scenarios import DEFAULT, SCENARIOS
from voice_dpki.errors import LocalError


@pytest.fixture(scope="module")
def testbed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Testbed]:
    try:
        testbed = Testbed(tmp_path_factory.mktemp("logs"), ledger=LedgerKind.FEDERATION)
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
    assert len(sizes) == 16
    assert all(size > 5 for size in sizes.values())


def test_a_revocation_of_a_moment_ago_is_known_to_the_other_operator(testbed: Testbed, tmp_path: Path) -> None:
    seen = place(testbed, "signer-revoked", tmp_path).report.seen
    assert (seen.refused_by, seen.reasoncode) == ("E17 certificate", 437)
