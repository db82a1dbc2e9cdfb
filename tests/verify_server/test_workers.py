"""Several workers of one verification server know what the others have seen."""

from pathlib import Path

import httpx
import pytest

from tests.one_operator import OneOperator, Service, until
from tests.ports import free_port
from verify_server.config import EXAMPLE, load_setup
from voice_dpki.errors import LocalError
from voice_dpki.stage.events import ReadyEvent
from voice_dpki.stage.patience import children

from .conftest import TOKEN, Caller, Site, verification

PATH = "/stir/v1/verification"


def several(text: str) -> str:
    return text.replace("workers = 1 ", "workers = 3 ")


def test_a_replay_is_told_by_whichever_worker_gets_it(tmp_path: Path) -> None:
    ledger, caller = OneOperator(tmp_path), Caller()
    port = free_port()
    config = several(EXAMPLE).replace("http://127.0.0.1:26680", ledger.url).replace("port = 8092", f"port = {port}")
    config = config.replace("genesis.json", "net/genesis.json")
    config += f'\n[replay.store]\nurl = "file://{tmp_path}"\n[trace]\nfile = "verify-b.jsonl"\n'
    (tmp_path / "verify.toml").write_text(config)
    (tmp_path / "proxy.tokens").write_text(TOKEN)
    der = caller.der()
    ledger.submit(der)
    server = Service("verify_server", tmp_path / "verify.toml", tmp_path / "verify-b.jsonl")
    until(lambda: sum(isinstance(event, ReadyEvent) for event in server.events()) == 3)
    assert len(children(server.pid)) == 3
    identity = caller.identity(der)

    def ask(call_id: str) -> str:
        """Ask over a connection of its own, which any worker may get."""
        headers = {"Authorization": f"Bearer {TOKEN}"}
        request = verification(identity, callId=call_id)
        answer = httpx.post(f"{server.url}{PATH}", json=request, headers=headers, trust_env=False)
        verdict = answer.json()["verificationResponse"]
        return str(verdict.get("step", verdict["verstat"]))

    assert {ask("c1") for _ in range(8)} == {"TN-Validation-Passed"}
    assert {ask("c2") for _ in range(8)} == {"E21 replay"}
    assert server.stop() == 0
    assert ledger.stop() == 0


@pytest.mark.parametrize(
    ("more", "why"),
    [
        ("", "used signatures by a replay.store alone"),
        ('[replay.store]\nurl = "file:///run"\n[[export]]\nfile = "v.jsonl"\n', "no [[export]]"),
    ],
)
def test_what_several_cannot_share(site: Site, more: str, why: str) -> None:
    site.write(several(EXAMPLE).replace("port = 8092", "port = 18092") + more)
    with pytest.raises(LocalError) as refused:
        load_setup(site.config)
    assert why in str(refused.value)
