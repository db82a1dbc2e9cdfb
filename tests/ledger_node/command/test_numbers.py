"""`voice-dpki ledger numbers` against running nodes: numbers change hands, and relying parties follow."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from ledger_node.command import number_files
from ledger_node.command.number_files import read_numbers
from ledger_node.command.sending import Sender
from ledger_node.command.session import CONSOLE
from voice_dpki.errors import LocalError
from voice_dpki.names import CertDigest, Tn
from voice_dpki.wire.ledger.client import LedgerClient
from voice_dpki.wire.ledger.numbers import ask_number
from voice_dpki.wire.ledger.subscription import Subscription
from voice_dpki.x509.profile import digest_of
from voice_dpki.x509.recorded import CertificateRefused, Distrust, RecordedCertificate, Use, judge
from voice_dpki.x509.tnauthlist import TnAuthList, TnRange

from .test_admission import A, B, refused
from .test_decisions import asked
from .test_ledger import Terminal, until
from .test_rules import agreed

PORTED = Tn("493023125007")
STAYS = Tn("493023125999")
RANGE_A = TnAuthList(ranges=(TnRange(Tn("493023125000"), 1000),))


@pytest.fixture
def terminal(
    tmp_path: Path, network_in: Any, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Terminal]:
    """Two operators on a ledger of their own that follows version 5 of the rules, with an engine and a follower."""
    monkeypatch.setattr(CONSOLE, "_file", None)
    network = network_in(tmp_path, "[parameters]\ndelay_s = 0\n\n")
    engine = network.engine(heartbeat_s=0.1).start()
    network.follower("operator-b", engine.url, B).start().reaches(1)
    yield Terminal(network, capsys)
    network.end()


def begin_version_5(terminal: Terminal) -> None:
    agreed(terminal, 5, "--from", asked(terminal, "rules")["height"] + 50)
    until(lambda: asked(terminal, "rules")["present"] == 5)


def listed(folder: Path, *numbers: str) -> Path:
    path = folder / "ported.csv"
    path.write_text("number;from\n" + "".join(f"+{number},donor\n" for number in numbers))
    return path


def test_numbers_change_hands(terminal: Terminal, tmp_path: Path) -> None:
    file = listed(tmp_path, *(f"{int(PORTED) + each}" for each in range(200)))
    status, said = terminal("numbers", "take", by=B)
    assert (status, "follows version 1 of its rules, and this needs version 5" in said) == (2, True), said
    begin_version_5(terminal)
    for arguments, what in ((("give",), "a file, --to"), (("give", file), "--to"), (("holder",), "a number")):
        assert f"needs {what}" in terminal("numbers", *arguments, by=A)[1]
    assert "needs --organization, --key" in terminal("numbers", "take")[1]
    status, said = terminal("numbers", "give", file, "--to", B, by=A)
    assert (status, "no-recipient" in said) == (2, True), said
    mine, wide = (terminal.network.certificate(**each) for each in certificates())
    assert refused(terminal, tmp_path / "a", {"wide": wide}) == {}
    assert refused(terminal, tmp_path / "before", {"mine": mine}, by=B) == {"mine": "numbers-outside-ranges"}
    asked(terminal, "numbers", "take", by=B)
    found = asked(terminal, "numbers", "give", file, "--to", B, by=A)
    assert (found["given"], found["already"]) == (200, 0)
    again = asked(terminal, "numbers", "give", file, "--to", B, by=A)
    assert (again["given"], again["already"], again["height"]) == (0, 200, None)
    assert refused(terminal, tmp_path / "after", {"mine": mine}, by=B) == {}
    assert asked(terminal, "numbers", "holder", f"+{PORTED}") == {"holder": B, "by": "leaf", "counts": True}
    assert asked(terminal, "numbers", "holder", STAYS) == {"holder": A, "by": "range", "counts": True}
    assert terminal("numbers", "holder", "441632960000")[1].strip() == "nobody"
    assert asked(terminal, "show", "numbers", f"+{PORTED}")["organization"] == B
    status, said = terminal("show", "numbers", STAYS)
    assert (status, "holds no number of this name" in said) == (2, True), said
    assert asked(terminal, "members", B)["by_number"] is True
    back = listed(tmp_path, PORTED)
    assert terminal("numbers", "give", back, "--to", B, by=A)[0] == 0, "it is B's already"
    assert terminal("numbers", "give", back, "--to", A, by=B)[0] == 0
    assert asked(terminal, "numbers", "holder", PORTED)["holder"] == A
    assert "revoked" in terminal("status", digest_of(mine).hex())[1]


def certificates() -> list[dict[str, Any]]:
    """Return what makes a certificate of B that names the ported number, and one of A for its whole range."""
    return [
        {"organization": B, "tn_auth_list": TnAuthList(tns=(PORTED,)), "uris": (f"sip:+{PORTED}@b.example",)},
        {"organization": A, "tn_auth_list": RANGE_A},
    ]


@asynccontextmanager
async def subscribed(terminal: Terminal, node: int) -> AsyncIterator[tuple[LedgerClient, Subscription]]:
    client = terminal.network.client(terminal.network.nodes[node], timeout_s=30, max_age_s=60)
    async with client:
        subscription = Subscription(client)
        async with subscription.following():
            yield client, subscription


def authority(recorded: RecordedCertificate, number: Tn) -> Distrust | None:
    try:
        judge(recorded, Use.SIGN_CALLS, recorded.not_before_s + 3601).check_number(number)
    except CertificateRefused as why:
        return why.code
    return None


async def looked_up(subscription: Subscription, digest: CertDigest) -> RecordedCertificate:
    """Look a certificate up until it is held."""
    while (recorded := subscription.recorded(digest)) is None:
        await subscription.look_up(digest)
        await asyncio.sleep(0.05)
    return recorded


async def held(subscription: Subscription, recorded: RecordedCertificate, number: Tn) -> None:
    """Ask for a number until the answer is held."""
    while subscription.with_numbers(recorded, [number]) is None:
        await subscription.ask_numbers(recorded, [number])
        await asyncio.sleep(0.05)


async def test_relying_parties_ask_for_the_callers_number(terminal: Terminal, tmp_path: Path) -> None:
    """They ask once, hold the leaf or its absence, and notice when it changes."""
    wide = terminal.network.certificate(**certificates()[1])
    await asyncio.to_thread(begin_version_5, terminal)
    async with Sender(terminal.url) as sender:
        await sender.send(terminal.network.submission_of(wide))
    async with subscribed(terminal, 0) as (client, subscription):
        recorded = await looked_up(subscription, digest_of(wide))
        assert subscription.with_numbers(recorded, [PORTED]) is recorded, "nobody holds numbers one by one"
        assert authority(recorded, PORTED) is None
        await asyncio.to_thread(terminal, "numbers", "take", by=B)
        await asyncio.to_thread(terminal, "numbers", "give", listed(tmp_path, PORTED), "--to", B, by=A)
        recorded = (await client.resolve(digest_of(wide))).recorded
        assert authority(recorded, PORTED) is authority(recorded, STAYS) is Distrust.NOT_ASKED
        told = await subscription.ask_numbers(recorded, [PORTED, STAYS])
        assert (authority(told, PORTED), authority(told, STAYS)) == (Distrust.AUTHORITY, None)
        alone = await ask_number(client, recorded, PORTED)
        assert authority(alone, PORTED) is Distrust.AUTHORITY
        await held(subscription, recorded, PORTED)
        await asyncio.to_thread(terminal, "numbers", "give", listed(tmp_path, PORTED), "--to", A, by=B)
        while subscription.with_numbers(recorded, [PORTED]) is not None:
            await asyncio.sleep(0.05)
        told = await subscription.ask_numbers(recorded, [PORTED])
        assert authority(told, PORTED) is None


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ("493012\n493011\n493012\n", ["493011", "493012"]),
        ("\ufeffNumber,Since\r\n+493011,2026\r\n\r\n", ["493011"]),
        ("", []),
        ('"493011"\n', ["493011"]),
    ],
)
def test_a_file_has_numbers_in_its_first_column(tmp_path: Path, text: str, numbers: list[str]) -> None:
    path = tmp_path / "numbers.csv"
    path.write_text(text, encoding="utf-8", newline="")
    assert read_numbers(path) == numbers


@pytest.mark.parametrize("text", ["493011\n49 3012\n", "493011\nnumber\n", "4930123456789012\n", "0x1\n"])
def test_a_line_without_a_number_is_named_and_its_number_is_not_told(tmp_path: Path, text: str) -> None:
    path = tmp_path / "numbers.csv"
    path.write_text(text)
    with pytest.raises(LocalError, match=r"line [12]: the first column") as caught:
        read_numbers(path)
    assert not any(each in str(caught.value) for each in ("3012", "0123456789"))


def test_files_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "numbers.csv"
    path.write_text("493011\n493012\n")
    monkeypatch.setattr(number_files, "MAX_NUMBERS", 1)
    with pytest.raises(LocalError, match="more than 1 numbers"):
        read_numbers(path)
    monkeypatch.setattr(number_files, "MAX_FILE_BYTES", 5)
    with pytest.raises(LocalError, match="more than 5 bytes"):
        read_numbers(path)
    with pytest.raises(LocalError, match="cannot be read"):
        read_numbers(tmp_path / "none.csv")
