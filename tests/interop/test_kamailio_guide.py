"""docs/kamailio.md: its blocks, one after the other in one shell, lead from nothing to a call that is verified."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from .kamailio.operators import ROOT

GUIDE = (ROOT / "docs/kamailio.md").read_text()
BEGINNING = "set -eu\ntrap 'kill $(jobs -p) || true; wait' EXIT\n"
PATIENCE_S = 100


@pytest.mark.netns
@pytest.mark.peer("kamailio")
@pytest.mark.peer("sipp")
@pytest.mark.peer("unshare")
def test_from_nothing_to_a_signed_call(tmp_path: Path) -> None:
    blocks = re.findall(r"```sh\n(.*?)```", GUIDE, re.DOTALL)
    (told,) = re.findall(r"```text\n(.*?)```", GUIDE, re.DOTALL)
    environment = {
        **os.environ,
        "REPOSITORY": str(ROOT),
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    }
    command = ["unshare", "--net", "bash", "-c", "ip link set lo up\n" + BEGINNING + "".join(blocks)]
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=PATIENCE_S
    )
    assert done.returncode == 0, (done.stdout[-2000:], done.stderr[-2000:])
    assert done.stdout.replace("\r", "").endswith(told), done.stdout[-2000:]
