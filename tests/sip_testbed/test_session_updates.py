"""New keys in mid-call by updates of the bundle, over a real proxy and with real media."""

import asyncio

import pytest

from sip_testbed.session import Session
from sip_testbed.updating import NoUpdateError, Updating
from tests.sip_testbed.test_phones import TIMEOUT_S
from tests.sip_testbed.test_phones import domain as domain  # a fixture
from tests.sip_testbed.test_session import Begin, leg_of
from tests.sip_testbed.test_session import begin as begin  # a fixture
from voice_dpki.mikey.message import Message
from voice_dpki.mikey.payloads import Rand
from voice_dpki.mikey.sdp import key_mgmt_value, mikey_message
from voice_dpki.sip.sdp import SessionDescription
from voice_dpki.wire.sip import changes
from voice_dpki.wire.sip.changes import Reinvite


def updating_of(session: Session) -> Updating:
    assert session._keying is not None
    return session._keying.updating


def message_of(session: Session) -> Message:
    """The MIKEY message that an end sent last."""
    return Message.parse(mikey_message(session._now.own_keys))


async def test_the_caller_renews_keys_by_an_update_and_the_callee_by_an_agreement(begin: Begin) -> None:
    """RFC 3830 §4.5: an update has the bundle's CSB ID and no RAND; only the bundle's Initiator sends one."""
    talk = await begin()
    await talk.flows("caller", "callee")
    first = message_of(talk.caller)
    await talk.caller.rekey()
    await talk.flows("caller", "callee")
    update = message_of(talk.caller)
    assert (update.header.csb_id, len(first.all(Rand)), len(update.all(Rand))) == (first.header.csb_id, 1, 0)
    await talk.callee.rekey()
    await talk.flows("caller", "callee")
    agreement = message_of(talk.callee)
    assert agreement.header.csb_id != first.header.csb_id
    await talk.callee.rekey()
    assert message_of(talk.callee).header.csb_id == agreement.header.csb_id
    await talk.flows("caller", "callee")
    assert len({packet.ssrc for packet in talk.sent("caller")}) == 4
    assert talk.caller._media.statistics().unauthentic == talk.callee._media.statistics().unauthentic == 0


async def test_an_older_update_is_refused_and_the_call_goes_on(begin: Begin) -> None:
    talk = await begin()
    await talk.caller.rekey()
    older = talk.caller._now.own_keys
    await talk.caller.rekey()
    sdp = talk.caller.describe(talk.caller._now.codec, 0, older)
    answer = await leg_of(talk.caller).reinvite(lambda: sdp.serialize())
    assert answer.status == 488
    assert "accepted before" in str(answer.headers.get("Warning"))
    await talk.flows("caller", "callee")


async def test_a_refused_update_is_followed_by_an_agreement(begin: Begin) -> None:
    """The other side may have lost its bundle, or know no updates: the keys change all the same."""
    talk = await begin()
    first = message_of(talk.caller)
    updating_of(talk.callee).forget()
    await talk.caller.rekey()
    assert talk.caller.done == talk.callee.done == ["rekey"]
    assert message_of(talk.caller).header.csb_id != first.header.csb_id
    await talk.flows("caller", "callee")


async def test_keys_of_a_refused_change_are_forgotten(begin: Begin) -> None:
    """The caller has not got the answer, so its next update is of the bundle from before."""
    talk = await begin()
    await talk.flows("caller", "callee")
    session, first = talk.caller, message_of(talk.caller)
    assert session._keying is not None
    values = (key_mgmt_value(session._keying.offer(session.peer_uri).message),)
    sdp = session.describe(session._now.codec, 0, values).serialize().replace(b"c=IN IP4 127", b"c=IN IP4 224")
    assert (await leg_of(session).reinvite(lambda: sdp)).status == 488
    await session.rekey()
    assert message_of(session).header.csb_id == first.header.csb_id
    await talk.flows("caller", "callee")


@pytest.mark.parametrize("updates", [True, False])
async def test_a_change_that_is_to_be_tried_again_has_another_message(
    begin: Begin, monkeypatch: pytest.MonkeyPatch, *, updates: bool
) -> None:
    """The other side may have looked at the first one, as a gateway does before it asks its telephone."""
    monkeypatch.setattr(changes, "glare_wait_s", lambda _random, owns_call_id: 0.0)
    talk = await begin()
    sender, receiver = (talk.caller, talk.callee) if updates else (talk.callee, talk.caller)
    tries: list[bytes] = []

    async def answer_later(change: Reinvite) -> None:
        tries.append(mikey_message(SessionDescription.parse(change.sdp).audio_key_mgmt))
        if len(tries) < 3:
            change.refuse(491)
        else:
            await receiver._reinvited(change)

    leg_of(receiver).on_reinvite(answer_later)
    await sender.rekey()
    assert len(set(tries)) == 3
    assert all(bool(Message.parse(each).all(Rand)) is not updates for each in tries)
    assert sender.done == receiver.done == ["rekey"]
    await talk.flows("caller", "callee")


async def test_a_call_that_is_over_leaves_no_bundle(begin: Begin) -> None:
    talk = await begin()
    await leg_of(talk.caller).bye()
    await asyncio.wait_for(talk.call, TIMEOUT_S)
    with pytest.raises(NoUpdateError):
        updating_of(talk.caller).offer()
