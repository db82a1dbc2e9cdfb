"""The agent's socket protocol: round trips, bounds, and any bytes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from segw_agent.policy import IntegrityPolicy, Side
from segw_agent.protocol import AgentAnswer, Operation, Request
from voice_dpki.errors import MalformedError
from voice_dpki.ikev2.events import SaName
from voice_dpki.ikev2.payloads import Identification

spi = st.binary(min_size=8, max_size=8)
requests = st.builds(
    Request,
    operation=st.sampled_from(Operation),
    side=st.sampled_from(Side),
    sa=st.builds(SaName, spi, spi),
    certificate=st.binary(max_size=300),
    policy=st.sampled_from(IntegrityPolicy),
    unique_id=st.integers(0, 2**32 - 1),
    identification=st.builds(Identification, st.integers(0, 255), st.binary(max_size=40)),
    integrity_info=st.none() | st.binary(max_size=100),
    ledger_answer=st.none() | st.binary(max_size=100),
    connection=st.text(max_size=16),
)
answers = st.builds(
    AgentAnswer,
    yes=st.booleans(),
    code=st.from_regex(r"[a-z0-9-]{1,64}", fullmatch=True),
    sentence=st.text(st.characters(categories=("L", "N")), max_size=60),
    integrity_info=st.none() | st.binary(max_size=100),
    ledger_answer=st.none() | st.binary(max_size=100),
)


def body_of(frame: bytes) -> bytes:
    assert int.from_bytes(frame[:2], "big") == len(frame) - 2
    return frame[2:]


@given(requests)
def test_requests_are_read_back(request: Request) -> None:
    assert Request.parse(body_of(request.serialize())) == request


@given(answers)
def test_answers_are_read_back(answer: AgentAnswer) -> None:
    assert AgentAnswer.parse(body_of(answer.serialize())) == answer


@given(st.binary(max_size=200))
def test_any_bytes(body: bytes) -> None:
    for kind in (Request, AgentAnswer):
        try:
            kind.parse(body)
        except MalformedError:
            continue


@given(requests, st.data())
def test_bent_requests(request: Request, data: st.DataObject) -> None:
    body = bytearray(body_of(request.serialize()))
    body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
    try:
        Request.parse(bytes(body[: data.draw(st.integers(0, len(body)))]))
    except MalformedError:
        return


HEAD = b"\1\1\2\1" + bytes(4) + bytes(16)
CERTIFICATE, IDENTITY = b"\2\0\1c", b"\1\0\2\2a"


@pytest.mark.parametrize(
    "body",
    [
        b"",
        HEAD,
        HEAD + IDENTITY,
        HEAD + CERTIFICATE,
        HEAD + CERTIFICATE + IDENTITY,
        HEAD + IDENTITY + IDENTITY + CERTIFICATE,
        HEAD + IDENTITY + CERTIFICATE + b"\x09\0\0",
        HEAD + IDENTITY + b"\2\x20\x01" + bytes(8193),
        HEAD + b"\1\0\0" + CERTIFICATE,
        b"\2" + HEAD[1:] + IDENTITY + CERTIFICATE,
        b"\1\3" + HEAD[2:] + IDENTITY + CERTIFICATE,
        b"\1\1\3" + HEAD[3:] + IDENTITY + CERTIFICATE,
        b"\1\1\2\3" + HEAD[4:] + IDENTITY + CERTIFICATE,
    ],
)
def test_malformed_requests(body: bytes) -> None:
    with pytest.raises(MalformedError):
        Request.parse(body)


def test_a_sentence_fits() -> None:
    answer = AgentAnswer(yes=False, code="x", sentence="ä" * 600 + "\n")
    again = AgentAnswer.parse(body_of(answer.serialize()))
    assert again.sentence == "ä" * 256
    assert (
        "\n"
        not in AgentAnswer.parse(body_of(AgentAnswer(yes=False, code="x", sentence="a\nb").serialize())).sentence
    )
