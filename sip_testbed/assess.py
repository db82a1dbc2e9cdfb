"""Assessment of a call's traces and recordings: how it ended, whether expectations held, and the chain of trust.

These are pure functions of `Evidence`, independent of how it was collected.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any, Final

from sip_testbed.conversation import SILENCE
from sip_testbed.events import RtpEvent, SipEvent
from sip_testbed.evidence import Evidence
from sip_testbed.likeness import likeness_of
from sip_testbed.pinning import Standing
from sip_testbed.provision import OPERATORS
from sip_testbed.remarks import who_refused
from sip_testbed.report import Connected, Direction, Outcome, TrustLink
from sip_testbed.scenarios import PASSED
from voice_dpki.stage.events import NoteEvent
from voice_dpki.stage.report import Check

MIN_CORRELATION = 0.99
"""Least correlation of heard with said speech in a good call."""

MAX_LOSS = 0.01
"""Largest share of lost or late packets in a good call: a loaded machine drops some even on loopback."""

ENDS = (("caller", "callee"), ("callee", "caller"))
"""Speaker and listener of each direction."""

_NAMES = {
    "proxy-a": "Operator A's proxy",
    "proxy-b": "Operator B's proxy",
    "path": "The attacker on the path",
    "caller": "The caller's telephone",
    "callee": "The callee's telephone",
}


# --- how it ended ---------------------------------------------------------------------------------------------


def seen(evidence: Evidence) -> Outcome:
    """Return how the call ended, for comparison with the expected outcome, including the telephones' remarks."""
    outcome = _seen(evidence)
    remarked = [r for role in ("caller", "callee") for r in evidence.result(role).get("remarks") or ()]
    sentences = dict.fromkeys(_sentence(remark) for remark in remarked)  # both ends can have the same remark
    return replace(outcome, sentence=" ".join([outcome.sentence, *sentences]))


def _seen(evidence: Evidence) -> Outcome:
    caller, callee = evidence.result("caller"), evidence.result("callee")
    status: int | None = caller.get("status")
    refusal = _stir_refusal(evidence)
    if refusal is not None:
        verstat, sentence = _text(refusal.data.get("verstat")), _sentence(refusal.text)
        return Outcome(verstat, _reasoncode(refusal), refusal.step, status, sentence)
    verstat = _text(callee.get("verstat")) or _last_verstat(evidence)
    for result in (callee, caller):
        if result.get("refused_by"):
            code = status if status and status >= 300 else None
            return Outcome(verstat, code, result["refused_by"], status, _sentence(result["reason"]))
    return Outcome(verstat, None, None, status, _ending(evidence, status, caller))


_WHOSE_KEY: Final = {
    Standing.FIRST: "Whose key the callee's is, Operator B says: there was no earlier call to compare it with.",
    Standing.KNOWN: "The callee's key is the one of earlier calls.",
    Standing.RENEWED: "The callee's key follows the one of earlier calls, which has signed for it.",
    Standing.CHANGED: "The callee's key is not the one of earlier calls.",
}
"""Sentence for each standing of the callee's key; docs/trust.md explains what it is worth."""


def connected(evidence: Evidence) -> Connected | None:
    """Return the verdict on the number that answered, and its signer; None if the caller got no verdict."""
    verstat = _text(evidence.result("caller").get("verstat"))
    if verstat is None:
        return None
    signers = [note.data["signer"] for note in evidence.notes("proxy-a") if note.ok and "signer" in note.data]
    return Connected(verstat, _text(signers[-1]) if signers else None)


def _stir_refusal(evidence: Evidence) -> NoteEvent | None:
    """Return the verifier's refusal, or the proxy's if it asked no verifier; None without refusal."""
    refusals = [
        note for note in evidence.notes("verify-b", "proxy-b") if note.ok is False and "verstat" in note.data
    ]
    return refusals[0] if refusals else None


def _last_verstat(evidence: Evidence) -> str | None:
    told = [note.data["verstat"] for note in evidence.notes("proxy-b") if "verstat" in note.data]
    return _text(told[-1]) if told else None


def _reasoncode(refusal: NoteEvent) -> int | None:
    code = refusal.data.get("reasoncode")
    if isinstance(code, int):
        return code
    found = re.match(r"([4-6][0-9][0-9]) ", refusal.text)
    return int(found[1]) if found else None


def _sentence(text: str) -> str:
    """Return a note's text as a sentence: without status or step in front, with a capital and a full stop."""
    text = re.sub(r"^([4-6][0-9][0-9] [^:]*|step [A-Za-z]+): ", "", text).strip()
    return text[:1].upper() + text[1:].rstrip(".") + "." if text else text


def _ending(evidence: Evidence, status: int | None, caller: Mapping[str, Any]) -> str:
    if status is None:
        return "The call was not placed."
    if not caller.get("established") and status >= 300:
        sent = [event for event in evidence.events if isinstance(event, SipEvent)]
        return f"{who_refused(sent, _NAMES)} refused the call with {caller.get('reason') or status}."
    if not caller.get("established"):
        return _sentence(str(caller.get("reason") or f"The call ended with status {status}"))
    if not evidence.scenario.protected:
        return "The call was answered, and nobody knows who called or who listened."
    key = _text(caller.get("peer_key"))
    agreed = (
        "Operator A signed for its caller, Operator B had the proof from the ledger, and both telephones agreed "
    )
    return f"{agreed}on keys." if key is None else f"{agreed}on keys. {_WHOSE_KEY[Standing(key)]}"


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value else None


# --- the media ------------------------------------------------------------------------------------------------


def directions(evidence: Evidence) -> dict[str, Direction]:
    """Return both directions of the media as their receivers counted them; empty if no media flowed."""
    if not evidence.rtp():
        return {}
    return {f"{speaker}_to_{listener}": _direction(evidence, speaker, listener) for speaker, listener in ENDS}


def _direction(evidence: Evidence, speaker: str, listener: str) -> Direction:
    media = evidence.result(listener).get("media") or {}
    said, heard = evidence.recordings.get(f"{speaker}.said"), evidence.recordings.get(f"{listener}.heard")
    parts = 1 if evidence.transfer else len(evidence.changes) + 1  # after the hold nothing more is said
    streams_s = (evidence.result(speaker).get("media") or {}).get("said_s", ())
    likeness = likeness_of(said, heard, parts, streams_s) if said and heard else None
    return Direction(
        packets=media.get("received", 0),
        lost=sum(media.get(name, 0) for name in ("lost", "late", "overflow")),
        correlation=None if likeness is None else round(likeness, 5),
        mos=_rounded(media.get("mos"), 2),
        jitter_ms=_rounded(media.get("jitter_ms"), 2),
    )


def _rounded(value: float | None, digits: int) -> float | None:
    return None if value is None else round(value, digits)


# --- the expectations -----------------------------------------------------------------------------------------


def checks(evidence: Evidence, outcome: Outcome, media: Mapping[str, Direction]) -> tuple[Check, ...]:
    """Return a check for each expectation of the scenario."""
    expected = evidence.scenario.expected
    verdict = [
        _same("Verdict on the caller's number", expected.verstat, outcome.verstat),
        _same("Reason code", expected.reasoncode, outcome.reasoncode),
        _same("Step that refused", expected.refused_by, outcome.refused_by),
        _same("SIP status that the caller got", expected.sip_status, outcome.sip_status),
    ]
    if expected.refused_by is None:
        return (*verdict, *_good_call(evidence, media))
    return (*verdict, *_refused_call(evidence))


def _same(name: str, expected: object, found: object) -> Check:
    if expected == found:
        return Check(name, True, str(found) if found is not None else "none")
    return Check(name, False, f"{found if found is not None else 'none'}, expected {expected or 'none'}")


def _good_call(evidence: Evidence, media: Mapping[str, Direction]) -> Iterable[Check]:
    for role in ("caller", "callee"):
        established = bool(evidence.result(role).get("established"))
        detail = "yes" if established else f"no: {evidence.result(role).get('reason') or 'it took no part'}"
        yield Check(f"The {role} spoke to the end", established, detail)
    for name, direction in media.items():
        yield heard(name.replace("_", " "), direction)
    if evidence.changes:
        yield _changed(evidence)
    if evidence.early_s:
        heard_s = evidence.result("caller").get("early_s") or 0.0
        yield Check("Media were heard before the answer", heard_s > 0, f"{heard_s:g} of {evidence.early_s:g} s")
    if evidence.scenario.protected:
        yield _bound(evidence)
        answered = connected(evidence)
        yield _same("Verdict on the number that answered", PASSED, answered and answered.verstat)
    if evidence.srtp:
        yield _keyed(evidence)
        yield _unreadable(evidence)
    if not media:
        yield Check("Speech was heard", False, "no RTP was sent")


def heard(name: str, direction: Direction) -> Check:
    """Return the check that speech was heard well in a direction of this name."""
    likeness, total = direction.correlation or 0.0, direction.packets + direction.lost
    held = likeness >= MIN_CORRELATION and direction.packets > 0 and direction.lost <= MAX_LOSS * total
    detail = f"correlation {likeness:.4f} (at least {MIN_CORRELATION}), {direction.lost} of {total} packets lost"
    return Check(f"Speech was heard, {name}", held, detail)


def _changed(evidence: Evidence) -> Check:
    made = {role: ", ".join(evidence.result(role).get("changes") or ()) or "none" for role in ("caller", "callee")}
    held = set(made.values()) == {", ".join(evidence.changes)}
    detail = made["caller"] if held else ", ".join(f"{role}: {names}" for role, names in made.items())
    return Check("Both telephones made the changes of the call", held, detail)


def _bound(evidence: Evidence) -> Check:
    found = [note.data["sdp"] for note in evidence.notes("verify-b") if note.ok and "sdp" in note.data]
    # With a transfer, the first verdict is that on the call to the callee.
    told = str(found[0 if evidence.transfer else -1]) if found else "no verdict"
    attack = evidence.scenario.attack
    due = "not-signed" if attack is not None and attack.rewrites_sdp else "verified"
    return Check("What was signed of the session description", told == due, told)


def _keyed(evidence: Evidence) -> Check:
    profiles = {role: evidence.result(role).get("srtp") for role in ("caller", "callee")}
    held = set(profiles.values()) == {evidence.srtp}
    detail = (
        f"{evidence.srtp} at both ends" if held else ", ".join(f"{role}: {got}" for role, got in profiles.items())
    )
    return Check("Both telephones agreed on keys with MIKEY", held, detail)


def _unreadable(evidence: Evidence) -> Check:
    packets = [event for event in evidence.events if isinstance(event, RtpEvent)]
    readable = sum(packet.clear[8 if packet.is_control else 12 :] in packet.wire for packet in packets)
    detail = f"speech, a report or a goodbye shows in {readable} of {len(packets)} packets"
    return Check("RTP and RTCP on the wire cannot be read", bool(packets) and not readable, detail)


def _refused_call(evidence: Evidence) -> Iterable[Check]:
    if evidence.scenario.expected.refused_by == SILENCE:
        yield from _silent_call(evidence)
        return
    if evidence.scenario.expected.sip_status == 200:
        yield from _refused_by_caller(evidence)
        return
    sent = len(evidence.rtp())
    yield Check("No speech was sent", sent == 0, f"{sent} RTP packets")
    rang = len(evidence.invites("proxy-b", "callee"))
    yield Check("The callee's telephone did not ring", rang == 0, f"{rang} INVITEs reached it")


def _silent_call(evidence: Evidence) -> Iterable[Check]:
    """Yield the checks of a redirected call: neither telephone may hear anything, and one must end the call."""
    for role, _ in ENDS:
        received = (evidence.result(role).get("media") or {}).get("received", 0)
        yield Check(f"The {role} heard nothing", received == 0, f"{received} packets received")
        established = bool(evidence.result(role).get("established"))
        yield Check(f"The {role} takes it for no call", not established, evidence.result(role).get("reason") or "")
    noticed = [role for role, _ in ENDS if evidence.result(role).get("refused_by") == SILENCE]
    yield Check("A telephone noticed and hung up", bool(noticed), " and ".join(noticed) or "none")


def _refused_by_caller(evidence: Evidence) -> Iterable[Check]:
    """Yield the checks of a call whose answer the caller refused: speech may arrive, but must not be played."""
    sent = sum(packet.actor == "caller" for packet in evidence.rtp())
    yield Check("The caller said nothing", sent == 0, f"{sent} RTP packets")
    heard = evidence.result("caller").get("media") is not None
    yield Check("The caller heard nothing", not heard, "it played speech" if heard else "it started no media")


# --- the chain of trust ---------------------------------------------------------------------------------------


def trust(evidence: Evidence, outcome: Outcome) -> tuple[TrustLink, ...]:
    """Return the chain of trust from the caller to the callee, with the facts of each station."""
    if not evidence.scenario.protected:
        return ()
    links = [
        _caller(evidence),
        _signs(evidence),
        _ledger(evidence),
        _verifies(evidence, outcome),
        _callee(evidence),
    ]
    attack = evidence.scenario.attack
    if attack is not None:
        does = attack.does[:1].upper() + attack.does[1:]
        place, who = (2, "Attacker on the path") if attack.mode else (4, "The callee's operator")
        links.insert(place, TrustLink(does, who, _attack_facts(evidence), "attack"))
    return tuple(links)


def _caller(evidence: Evidence) -> TrustLink:
    aor = _aor(evidence, "caller", b"From")
    return TrustLink(aor, "Caller", ("registered at Operator A", "authenticated by digest, SHA-256"), "ok")


def _signs(evidence: Evidence) -> TrustLink:
    note = next((note for note in evidence.notes("authn-a") if note.ok is not None), None)
    if note is None:
        return TrustLink(OPERATORS[0].organization, "Signs", ("signed nothing",), "idle")
    facts = [OPERATORS[0].domain, f"PASSporT shaken, attestation {note.data.get('attest', '')}"]
    facts += [f"signed in {note.ms:.1f} ms"] if note.ms is not None else []
    return TrustLink(OPERATORS[0].organization, "Signs", tuple(facts), "ok" if note.ok else "refused")


def _attack_facts(evidence: Evidence) -> tuple[str, ...]:
    attack = evidence.scenario.attack
    assert attack is not None
    notes = tuple(dict.fromkeys(note.text for note in evidence.notes("path")))
    return (f"holds {attack.key.value}", *notes[:3])


def _ledger(evidence: Evidence) -> TrustLink:
    found = [note for note in evidence.notes("verify-b") if "height" in note.data]
    if not found:
        return TrustLink("Not asked", "Ledger", ("the call was refused before",), "idle")
    note = found[-1]
    facts = (note.text, "proof and validators' signatures checked", f"answered in {note.ms or 0:.1f} ms")
    return TrustLink(f"Height {note.data['height']}", "Ledger", facts, "ok" if note.ok else "refused")


def _verifies(evidence: Evidence, outcome: Outcome) -> TrustLink:
    refused = _stir_refusal(evidence)
    if refused is not None:
        told, state = [f"{outcome.refused_by}: {outcome.sentence}"], "refused"
    else:
        told = [note.text for note in evidence.notes("proxy-b") if note.ok and "verstat" in note.data]
        state = "ok" if outcome.verstat else "idle"
    return TrustLink(OPERATORS[1].organization, "Verifies", (OPERATORS[1].domain, *dict.fromkeys(told)), state)


def _callee(evidence: Evidence) -> TrustLink:
    aor, result = _aor(evidence, "caller", b"To"), evidence.result("callee")
    if not result:
        return TrustLink(aor, "Callee", ("the telephone did not ring",), "idle")
    keys = [note.text for note in evidence.notes("callee") if (note.step or "").startswith("MIKEY")]
    facts = (f"sees {result.get('verstat') or 'no verdict'}", *keys, *_known_by(evidence.result("caller")))
    return TrustLink(aor, "Callee", facts, "refused" if result.get("refused_by") else "ok")


def _known_by(caller: Mapping[str, Any]) -> tuple[str, ...]:
    """Return how the caller's telephone knows the callee's key; empty if it pins none or began no media."""
    key = _text(caller.get("peer_key"))
    return () if key is None else (f"the caller's telephone knows this key: {Standing(key).about}",)


def _aor(evidence: Evidence, actor: str, header: bytes) -> str:
    """Return the user part of an INVITE's From or To, or the header field's name if it is not found."""
    for event in evidence.events:
        if isinstance(event, SipEvent) and event.actor == actor and event.data.startswith(b"INVITE "):
            found = re.search(rb"^" + header + rb":[^\r\n]*sips?:([^@>\r\n]+)@", event.data, re.MULTILINE)
            return found[1].decode("utf-8", "replace") if found else header.decode()
    return header.decode()
