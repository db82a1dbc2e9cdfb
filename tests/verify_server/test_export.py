import csv
import json
from pathlib import Path

import pytest

from tests.present import made
from verify_server.config import EXAMPLE, load_setup
from verify_server.export import COLUMNS, ExportConfig, Numbers
from voice_dpki.errors import LocalError
from voice_dpki.names import CertDigest, Tn
from voice_dpki.stir.call import Call, Source
from voice_dpki.stir.passport import Destinations
from voice_dpki.stir.treatment import Act, Treatment
from voice_dpki.stir.verdict import Trust, Verdict, Verstat

from .conftest import Site, verification
from .test_service import Domain, domain, serving  # noqa: F401 - the fixture

CALL = Call(
    Tn("493023125001"),
    Destinations((Tn("442079460001"), Tn("33")), ("sip:alice@b.example",)),
    1_790_000_000,
    ("e30",),
    source=Source("proxy", "=trunk,1"),
)
TREATMENT = Treatment(Act.TAG, rule="one", status=437, instead_of=Act.REJECT, is_emergency=True)
FAILED = Verdict(
    Verstat.FAILED,
    437,
    step="E17",
    signer="Operator A",
    certificate=CertDigest(b"\1" * 32),
    treatment=TREATMENT,
    trust=Trust.LIST,
)
NOW_S = 1_790_000_000.5


def written(folder: Path, config: ExportConfig, *verdicts: Verdict) -> str:
    export = config.open(folder / "verify.toml")
    for verdict in verdicts:
        export.add(CALL, [verdict], NOW_S)
    export.close()
    return (folder / config.file).read_text()


def test_json(tmp_path: Path) -> None:
    lines = written(tmp_path, ExportConfig(file="a.jsonl"), FAILED, Verdict(Verstat.PASSED)).splitlines()
    failed, passed = map(json.loads, lines)
    assert failed == {
        "time": "2026-09-21T14:13:20.500Z",
        "peer": "proxy",
        "trunk": "=trunk,1",
        "orig": "",
        "dest": "",
        "identities": "1",
        "verstat": "TN-Validation-Failed",
        "code": "437",
        "step": "E17",
        "signer": "Operator A",
        "certificate": "01" * 32,
        "attest": "",
        "act": "tag",
        "rule": "one",
        "status": "437",
        "instead_of": "reject",
        "emergency": "yes",
        "trust": "list",
        "bypass": "",
        "out_of_band": "",
    }
    assert (passed["code"], passed["act"], passed["certificate"], passed["emergency"]) == ("", "", "", "")


def test_csv_is_read_back_and_holds_no_formula(tmp_path: Path) -> None:
    written(tmp_path, ExportConfig(file="a.csv", format="csv"), FAILED)
    with (tmp_path / "a.csv").open(newline="") as file:
        (row,) = csv.DictReader(file)
    assert tuple(row) == COLUMNS
    assert (row["trunk"], row["signer"], row["code"]) == ("'=trunk,1", "Operator A", "437")


@pytest.mark.parametrize(
    ("numbers", "orig", "dest"),
    [
        (Numbers.NONE, "", ""),
        (Numbers.BEGINNING, "49302312xxxx", "44207946xxxx xx"),
        (Numbers.FULL, "493023125001", "442079460001 33 sip:alice@b.example"),
    ],
)
def test_numbers_are_told_only_where_it_is_configured(
    tmp_path: Path, numbers: Numbers, orig: str, dest: str
) -> None:
    row = json.loads(written(tmp_path, ExportConfig(file="a.jsonl", numbers=numbers), FAILED))
    assert (row["orig"], row["dest"]) == (orig, dest)


async def test_the_service_writes_each_call(domain: Domain, tmp_path: Path) -> None:  # noqa: F811
    domain.resolver.tell(domain.digest, domain.der)
    export = ExportConfig(file="a.jsonl").open(tmp_path / "verify.toml")
    with serving(domain) as service:
        service._exports = (export,)
        await made(service.verify(json.dumps(verification(domain.caller.identity(domain.der))).encode(), "proxy"))
        await made(service.verify(json.dumps(verification("e30.e30.c2ln")).encode()))
    export.close()
    passed, failed = map(json.loads, (tmp_path / "a.jsonl").read_text().splitlines())
    assert (passed["verstat"], passed["peer"], passed["attest"]) == ("TN-Validation-Passed", "proxy", "A")
    assert (failed["verstat"], failed["code"]) == ("No-TN-Validation", "436")


def test_two_exports_have_two_files(site: Site) -> None:
    one = '[[export]]\nfile = "a.jsonl"\n'
    assert len(load_setup(site.write(EXAMPLE + one).config).config.export) == 1
    with pytest.raises(LocalError, match=r"export: a\.jsonl is named twice"):
        load_setup(site.write(EXAMPLE + one + one).config)
