"""Verdicts by the operator whose certificate signed: members of the ledger alone, and so many at most."""

import pytest
from prometheus_client import REGISTRY

from verify_server import operators
from verify_server.operators import count_operator
from voice_dpki.stir.verdict import Trust, Verdict, Verstat


@pytest.fixture(autouse=True)
def none_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(operators, "_KNOWN", set())


def counted(operator: str) -> float:
    labels = {"operator": operator, "verstat": Verstat.PASSED}
    return REGISTRY.get_sample_value("voice_dpki_operator_verdicts_total", labels) or 0.0


def count(signer: str, trust: Trust | None = Trust.LEDGER) -> None:
    count_operator(Verdict(Verstat.PASSED, signer=signer, trust=trust))


def test_a_member_of_the_ledger_has_its_own_series() -> None:
    before = counted("Operator of test_operators")
    for _ in range(3):
        count("Operator of test_operators")
    assert counted("Operator of test_operators") == before + 3


@pytest.mark.parametrize("trust", [Trust.LIST, None])
def test_names_that_strangers_write_are_not_counted(trust: Trust | None) -> None:
    count("A stranger's name", trust)
    assert counted("A stranger's name") == 0


def test_operators_beyond_the_bound_count_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(operators, "MAX_OPERATORS", 2)
    before = counted("other")
    for number in range(5):
        count(f"Bounded operator {number}")
    assert [counted(f"Bounded operator {number}") for number in range(5)] == [1, 1, 0, 0, 0]
    assert counted("other") == before + 3
