"""The STIR servers do what their OpenAPI documents say: schemathesis makes requests from the documents.

It judges each answer: no 5xx, a documented status, type and body, and what the document forbids is refused. Whether
all that the document allows is accepted cannot be asked: a schema does not tell an INVITE from other text, nor that
header fields are protected by the Identities beside them.
"""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from sip_testbed.network import Testbed

CONFIGURATION = """\
[checks]
positive_data_acceptance.enabled = false
negative_data_rejection.expected-statuses = ["400", "401", "403", "404", "405", "406", "411", "413", "415"]
"""
SERVERS = {"authn-a": "sign-a.token", "verify-b": "verify-b.token"}


@pytest.fixture(scope="module")
def testbed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Testbed]:
    with Testbed(tmp_path_factory.mktemp("logs")) as testbed:
        testbed.start()
        testbed.record_all()
        yield testbed


@pytest.mark.parametrize("examples", [20, pytest.param(2000, marks=pytest.mark.long)])
@pytest.mark.parametrize("server", SERVERS)
def test_answers_are_as_documented(testbed: Testbed, tmp_path: Path, server: str, examples: int) -> None:
    token = (testbed.folder / SERVERS[server]).read_text().split()[0]
    (tmp_path / "schemathesis.toml").write_text(CONFIGURATION)
    options = [f"--max-examples={examples}", "--continue-on-failure", "--no-color", "--generation-database=none"]
    command = [str(Path(sys.executable).with_name("schemathesis")), "run", *options]
    command += ["--header", f"Authorization: Bearer {token}", f"http://{testbed.addresses[server]}/openapi.json"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
