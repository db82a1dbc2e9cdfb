import contextlib
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from voice_dpki.errors import MalformedError
from voice_dpki.shell.trace import Tracer
from voice_dpki.stage.events import (
    COMMON_KINDS,
    Event,
    NoteEvent,
    ReadyEvent,
    ResultEvent,
    ends,
    host_port,
    merge,
    octets,
    parse_line,
    parse_lines,
)


class Stopped:
    """A clock that stands."""

    def now_s(self) -> float:
        return 1.5

    def steady_s(self) -> float:
        return 1.5


def test_what_is_traced_reads_back(tmp_path: Path) -> None:
    path = tmp_path / "trace.jsonl"
    tracer = Tracer(path, "a", Stopped())
    tracer.ready(sip="127.0.0.1:5060")
    tracer.note("signed", ms=2, step="E17")
    tracer.write("ring", times=2)
    tracer.result(status=200)
    tracer.close()

    def ring(time_s: float, actor: str, members: dict[str, object]) -> Event:
        return NoteEvent(time_s, actor, "ring", members)

    assert parse_lines(path.read_bytes(), {**COMMON_KINDS, "ring": ring}) == [
        ReadyEvent(1.5, "a", {"sip": "127.0.0.1:5060"}),
        NoteEvent(1.5, "a", "signed", {"ms": 2, "step": "E17"}),
        NoteEvent(1.5, "a", "ring", {"times": 2}),
        ResultEvent(1.5, "a", {"status": 200}),
    ]


def test_a_kind_that_is_not_known_is_malformed() -> None:
    with pytest.raises(MalformedError, match="KeyError 'ring'"):
        parse_line(b'{"t": 1, "actor": "a", "kind": "ring"}', COMMON_KINDS)


@given(st.binary(max_size=200))
def test_any_line_parses_or_is_malformed(data: bytes) -> None:
    with contextlib.suppress(MalformedError):
        parse_line(data, COMMON_KINDS)


@given(
    st.dictionaries(
        st.sampled_from(["t", "actor", "kind", "text"]),
        st.one_of(
            st.text(max_size=12), st.integers(), st.none(), st.sampled_from(["note", "ready", "result", 10**400])
        ),
    )
)
def test_any_object_parses_or_is_malformed(members: dict[str, object]) -> None:
    with contextlib.suppress(MalformedError):
        parse_line(json.dumps(members).encode(), COMMON_KINDS)


def test_a_line_has_a_bound() -> None:
    with pytest.raises(MalformedError, match="longer than"):
        parse_line(b" " * ((1 << 20) + 1), COMMON_KINDS)


def test_a_line_still_being_written_is_left_out() -> None:
    line = b'{"t": 1.5, "actor": "a", "kind": "note", "text": "x", "ms": 2, "ok": true, "step": "E17"}\n'
    (event,) = parse_lines(line + b'{"t": 1', COMMON_KINDS)
    assert isinstance(event, NoteEvent)
    assert (event.text, event.ms, event.ok, event.step) == ("x", 2.0, True, "E17")


def test_traces_are_merged_by_time() -> None:
    first, second, third = (NoteEvent(time_s, "a", "x") for time_s in (1.0, 2.0, 3.0))
    assert merge([[first, third], [second]]) == [first, second, third]


def test_what_was_sent_has_two_ends_and_octets() -> None:
    assert ends({"src": "127.0.0.1:1", "dst": "127.0.0.2:65535"}) == ("127.0.0.1:1", "127.0.0.2:65535")
    assert octets("AAE=") == b"\0\1"


@pytest.mark.parametrize(
    "address", ["", "127.0.0.1", ":", "127.0.0.1:", "127.0.0.1:65536", "127.0.0.1:-1", "127.0.0.1:²"]
)
def test_other_addresses_are_malformed(address: str) -> None:
    with pytest.raises(MalformedError, match="is not host:port"):
        host_port(address)
