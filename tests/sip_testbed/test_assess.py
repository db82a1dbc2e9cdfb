import random
from dataclasses import replace
from typing import Any, ClassVar

import pytest

from sip_testbed import assess
from sip_testbed.events import RtpEvent, SipEvent
from sip_testbed.evidence import Evidence
from sip_testbed.report import Connected
from sip_testbed.scenarios import SCENARIOS
from voice_dpki.media.pcm import Pcm
from voice_dpki.media.recording import write_wav
from voice_dpki.stage.events import Event, NoteEvent, ResultEvent

PROFILE = "AES_CM_128_HMAC_SHA1_80"
BOUND = "What was signed of the session description"
KEYED = "Both telephones agreed on keys with MIKEY"
MEDIA = {"received": 100, "lost": 0, "late": 0, "jitter_ms": 0.4, "mos": 4.412}
SPEECH = random.Random(1).randbytes(16_000)


def wav(data: bytes) -> bytes:
    return write_wav(Pcm(8000, data))


def result(role: str, **data: object) -> ResultEvent:
    return ResultEvent(9.0, role, {"role": role, "established": True, "status": 200, "srtp": PROFILE, **data})


def told_caller(**data: object) -> ResultEvent:
    return result("caller", verstat="TN-Validation-Passed", **data)


def packet(actor: str, wire: bytes = b"x" * 40, clear: bytes = b"\x80\x00" + b"s" * 30) -> RtpEvent:
    return RtpEvent(2.0, actor, "127.0.0.6:4000", "127.0.0.7:4000", wire, clear)


def note(actor: str, text: str, **data: object) -> NoteEvent:
    return NoteEvent(1.5, actor, text, data)


def evidence(name: str, *events: Event, heard: bytes = SPEECH) -> Evidence:
    recordings = {f"{role}.said": wav(SPEECH) for role in ("caller", "callee")}
    recordings |= {f"{role}.heard": wav(heard) for role in ("caller", "callee")}
    return Evidence(SCENARIOS[name], "pcmu", PROFILE, events, recordings)


GOOD: list[Event] = [
    note("proxy-b", "Identity valid", ok=True, verstat="TN-Validation-Passed", step="verify"),
    packet("caller"),
    packet("callee"),
    result("caller", media=MEDIA, verstat="TN-Validation-Passed"),
    result("callee", media=MEDIA, verstat="TN-Validation-Passed"),
    note("verify-b", "Identity A valid, SDP as signed", ok=True, verstat="TN-Validation-Passed", sdp="verified"),
]
REFUSAL = note(
    "verify-b",
    "The certificate was revoked.",
    ok=False,
    step="E17 certificate",
    reasoncode=437,
    verstat="TN-Validation-Failed",
)


def failed(evidence: Evidence) -> set[str]:
    outcome, media = assess.seen(evidence), assess.directions(evidence)
    return {check.name for check in assess.checks(evidence, outcome, media) if not check.held}


class TestGoodCall:
    def test_everything_holds(self) -> None:
        assert failed(evidence("authenticated", *GOOD)) == set()

    def test_figures_are_the_receivers(self) -> None:
        direction = assess.directions(evidence("authenticated", *GOOD))["caller_to_callee"]
        assert (direction.packets, direction.lost, direction.mos, direction.correlation) == (100, 0, 4.41, 1.0)

    @pytest.mark.parametrize(
        ("events", "names"),
        [
            ([*GOOD[1:4], GOOD[5], result("callee", media=MEDIA)], {"Verdict on the caller's number"}),
            (GOOD[:5], {BOUND}),
            ([*GOOD, note("verify-b", "Identity A valid", ok=True, sdp="not-signed")], {BOUND}),
            (
                [*GOOD[:3], told_caller(media=MEDIA, established=False), *GOOD[4:]],
                {"The caller spoke to the end"},
            ),
            ([*GOOD[:3], told_caller(media=MEDIA, srtp=None), *GOOD[4:]], {KEYED}),
            ([*GOOD[:3], result("caller", media=MEDIA), *GOOD[4:]], {"Verdict on the number that answered"}),
            (
                [*GOOD[:3], result("caller", media=MEDIA, verstat="TN-Validation-Failed"), *GOOD[4:]],
                {"Verdict on the number that answered"},
            ),
            ([*GOOD, packet("caller", wire=b"\x80\x00" + b"s" * 30)], {"RTP and RTCP on the wire cannot be read"}),
            (
                [*GOOD[:3], told_caller(media={**MEDIA, "lost": 5}), *GOOD[4:]],
                {"Speech was heard, callee to caller"},
            ),
            ([*GOOD[:3], told_caller(status=486, media=MEDIA), *GOOD[4:]], {"SIP status that the caller got"}),
        ],
    )
    def test_each_failing_is_seen(self, events: list[Event], names: set[str]) -> None:
        assert failed(evidence("authenticated", *events)) == names

    def test_who_answered(self) -> None:
        signed = note("proxy-a", "answer valid", ok=True, verstat="TN-Validation-Passed", signer="Operator B")
        told = assess.connected(evidence("authenticated", *GOOD, signed))
        assert told == Connected("TN-Validation-Passed", "Operator B")
        assert assess.connected(evidence("authenticated", *GOOD)) == Connected("TN-Validation-Passed", None)
        assert assess.connected(evidence("authenticated", result("caller"))) is None

    def test_what_was_not_heard_is_seen(self) -> None:
        other = random.Random(2).randbytes(len(SPEECH))
        names = {"Speech was heard, caller to callee", "Speech was heard, callee to caller"}
        assert failed(evidence("authenticated", *GOOD, heard=other)) == names

    def test_silence_is_no_call(self) -> None:
        events = [event for event in GOOD if not isinstance(event, RtpEvent)]
        assert "Speech was heard" in failed(evidence("authenticated", *events))

    def test_no_media_have_no_figures(self) -> None:
        none = {"received": 0, "lost": 0, "late": 0, "jitter_ms": None, "mos": None}
        given = evidence("authenticated", *GOOD[:3], *(result(role, media=none) for role in ("caller", "callee")))
        given = replace(given, recordings={f"{role}.said": wav(SPEECH) for role in ("caller", "callee")})
        for direction in assess.directions(given).values():
            assert (direction.packets, direction.correlation, direction.mos) == (0, None, None)
        assert "Speech was heard, caller to callee" in failed(given)

    def test_silence_correlates_with_nothing(self) -> None:
        given = evidence("authenticated", *GOOD)
        silent = replace(given, recordings={name: wav(bytes(1600)) for name in given.recordings})
        assert [d.correlation for d in assess.directions(silent).values()] == [None, None]

    def test_no_call_at_all(self) -> None:
        assert assess.seen(evidence("authenticated")).sentence == "The call was not placed."


class TestRefusals:
    def test_the_verifier_names_step_code_and_verdict(self) -> None:
        outcome = assess.seen(evidence("signer-revoked", REFUSAL, result("caller", status=437, established=False)))
        assert (outcome.refused_by, outcome.reasoncode, outcome.verstat, outcome.sip_status, outcome.sentence) == (
            "E17 certificate",
            437,
            "TN-Validation-Failed",
            437,
            "The certificate was revoked.",
        )

    def test_a_proxy_that_asked_nobody_says_it_in_its_note(self) -> None:
        text = "428 Use Identity Header: The INVITE has no Identity header field."
        refusal = note("proxy-b", text, ok=False, step="E2 Identity present", verstat="No-TN-Validation")
        outcome = assess.seen(evidence("no-identity", refusal, result("caller", status=428)))
        assert (outcome.reasoncode, outcome.sentence) == (428, "The INVITE has no Identity header field.")

    def test_a_telephone_that_refuses(self) -> None:
        events: list[Event] = [
            GOOD[0],
            result("callee", verstat="TN-Validation-Passed"),
            result("caller", refused_by="MIKEY SIGN", reason="step SIGN: the signature does not verify"),
        ]
        outcome = assess.seen(evidence("mikey-answer-changed", *events))
        assert (outcome.refused_by, outcome.reasoncode) == ("MIKEY SIGN", None)
        assert outcome.sentence == "The signature does not verify."
        assert failed(evidence("mikey-answer-changed", *events)) == set()
        assert failed(evidence("mikey-answer-changed", *events, packet("caller"))) == {"The caller said nothing"}

    def test_an_attack_that_gets_through_is_a_failure(self) -> None:
        names = failed(evidence("signer-revoked", *GOOD))
        assert names >= {"Verdict on the caller's number", "Step that refused", "No speech was sent"}

    def test_a_telephone_that_rings_is_a_failure(self) -> None:
        invite = SipEvent(
            1.0, "proxy-b", "udp", "127.0.0.3:5060", "127.0.0.7:5060", b"INVITE sip:b SIP/2.0\r\n\r\n"
        )
        ringing = SipEvent(1.1, "callee", "udp", "127.0.0.7:5060", "127.0.0.3:5060", b"SIP/2.0 180 Ringing\r\n\r\n")
        refused: list[Event] = [REFUSAL, result("caller", status=437, established=False)]
        assert failed(evidence("signer-revoked", *refused)) == set()
        names = failed(evidence("signer-revoked", *refused, invite, ringing))
        assert names == {"The callee's telephone did not ring"}


class TestSilence:
    SENTENCE = "no authenticated SRTP or SRTCP came within 2 s of the ACK"
    NONE: ClassVar[dict[str, object]] = {"received": 0, "mos": None, "jitter_ms": None}

    def events(self, **caller: object) -> list[Event]:
        silent = {"refused_by": "media silence", "reason": self.SENTENCE, "established": False, "media": self.NONE}
        hung_up = {"reason": "the other side hung up", "established": False, "media": self.NONE}
        passed = {"verstat": "TN-Validation-Passed"}
        return [GOOD[0], result("callee", **silent, **passed), result("caller", **{**hung_up, **caller})]

    def test_the_end_that_noticed_names_the_step(self) -> None:
        outcome = assess.seen(evidence("media-redirected", *self.events()))
        assert (outcome.refused_by, outcome.reasoncode, outcome.sip_status) == ("media silence", None, 200)
        assert outcome.sentence == f"N{self.SENTENCE[1:]}."
        assert failed(evidence("media-redirected", *self.events())) == set()

    def test_a_telephone_that_heard_or_was_content_is_a_failure(self) -> None:
        heard = self.events(media={**self.NONE, "received": 3}, established=True)
        names = {"The caller heard nothing", "The caller takes it for no call"}
        assert failed(evidence("media-redirected", *heard)) == names

    def test_a_call_that_nobody_ended_is_a_failure(self) -> None:
        assert failed(evidence("media-redirected", *GOOD)) >= {
            "A telephone noticed and hung up",
            "Step that refused",
        }


class TestTrust:
    def links(self, name: str, *events: Event) -> dict[str, Any]:
        given = evidence(name, *events)
        return {link.role: link for link in assess.trust(given, assess.seen(given))}

    def test_of_a_good_call_goes_over_the_ledger(self) -> None:
        looked_up = note("verify-b", "signer on the ledger: valid", ok=True, height=7, ms=2.0)
        signed = note("authn-a", "sign", ok=True, ms=0.5, attest="A")
        links = self.links("authenticated", *GOOD, looked_up, signed)
        assert list(links) == ["Caller", "Signs", "Ledger", "Verifies", "Callee"]
        assert {link.state for link in links.values()} == {"ok"}
        assert links["Ledger"].name == "Height 7"

    def test_of_an_attack_shows_where_it_ends(self) -> None:
        links = self.links(
            "no-identity", note("proxy-b", "428 Use", ok=False, step="E2", verstat="No-TN-Validation")
        )
        assert list(links)[2] == "Attacker on the path"
        states = {role: link.state for role, link in links.items()}
        assert (states["Ledger"], states["Verifies"], states["Callee"]) == ("idle", "refused", "idle")

    def test_there_is_none_without_protection(self) -> None:
        assert assess.trust(evidence("plain"), assess.seen(evidence("plain"))) == ()


@pytest.mark.parametrize(
    ("caller", "callee", "held"),
    [
        (["hold", "resume"], ["hold", "resume"], True),
        (["hold"], ["hold"], False),
        (["hold", "resume"], ["hold"], False),
        ([], [], False),
    ],
)
def test_the_changes_of_a_call_are_those_that_were_wanted(caller: list[str], callee: list[str], held: bool) -> None:
    events = [result("caller", changes=caller), result("callee", changes=callee)]
    given = replace(evidence("authenticated", *events), changes=("hold", "resume"))
    checks = {check.name: check.held for check in assess.checks(given, assess.seen(given), {})}
    assert checks["Both telephones made the changes of the call"] is held


@pytest.mark.parametrize(("heard_s", "held"), [(1.9, True), (0.0, False), (None, False)])
def test_early_media_are_heard_where_they_were_wanted(heard_s: float | None, held: bool) -> None:
    events = [result("caller", early_s=heard_s), result("callee", early_s=2.0)]
    given = replace(evidence("authenticated", *events), early_s=2.0)
    checks = {check.name: check.held for check in assess.checks(given, assess.seen(given), {})}
    assert checks["Media were heard before the answer"] is held
