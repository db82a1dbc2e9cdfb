"""An edge's contact with its node: who waits when it is lost, and who is turned away after."""

import asyncio

import pytest

from ledger_node.answer.contact import Contact
from voice_dpki.ledger.answers import InquiryCode, InquiryError
from voice_dpki.wire.http_client import HttpAnswerError, HttpTimeoutError, HttpUnreachableError
from voice_dpki.wire.ledger.client import NodeSilentError


async def ask(contact: Contact, outcome: Exception | None = None) -> str:
    async with contact.asking():
        if outcome is not None:
            raise outcome
        return "answered"


async def hang(contact: Contact) -> None:
    async with contact.asking():
        await asyncio.Event().wait()


SILENT = NodeSilentError(HttpTimeoutError("no answer in time"))


@pytest.mark.parametrize("silence", [SILENT, HttpTimeoutError("late"), HttpUnreachableError("refused")])
async def test_who_waits_is_told_at_once_and_so_is_who_comes_after(silence: Exception) -> None:
    contact = Contact()
    waiting = [asyncio.create_task(hang(contact)) for _ in range(3)]
    await asyncio.sleep(0)
    with pytest.raises(type(silence)):
        await ask(contact, silence)
    async with asyncio.timeout(60):
        for task in waiting:
            with pytest.raises(InquiryError, match="cut off") as told:
                await task
            assert told.value.code is InquiryCode.UNREACHABLE
    with pytest.raises(InquiryError, match="cut off"):
        await ask(contact)
    assert contact.shortfall()


async def test_contact_that_is_regained() -> None:
    contact = Contact()
    contact.lose("no answer in time")
    contact.lose("said once more")
    contact.regain()
    assert (contact.lost, contact.shortfall()) == (False, "")
    assert await ask(contact) == "answered"


async def test_an_answer_regains_contact_that_was_lost_meanwhile() -> None:
    contact = Contact()
    async with contact.asking():
        contact._asking.clear()  # as for a question whose answer is there already
        contact.lose("the inquiry for headers came late")
    assert not contact.lost


@pytest.mark.parametrize(
    "answered",
    [InquiryError(InquiryCode.UNPROVEN, "no proof"), HttpAnswerError("not HTTP"), asyncio.CancelledError()],
)
async def test_what_is_no_silence(answered: Exception) -> None:
    """A node that lies is there, and whoever leaves says nothing of the node."""
    contact = Contact()
    with pytest.raises(type(answered)):
        await ask(contact, answered)
    assert not contact.lost
