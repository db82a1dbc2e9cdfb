"""The report of a run: each attachment compared with the expected result, and the files that prove it."""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field

from segw_agent.attachment.events import AskEvent, IkeEvent, KeysEvent
from segw_agent.attachment.network import BOUND_S
from segw_agent.attachment.scenarios import REKEYED, Expected, Scenario
from voice_dpki.stage.events import Event, NoteEvent, ResultEvent
from voice_dpki.stage.pcap import datagram, endpoint, pcap
from voice_dpki.stage.report import Check, encode_report

VERSION = 1
"""Version of the format of report.json."""

_WIRESHARK_CIPHERS = {
    "AES-GCM-16-128": ("AES-GCM-128 with 16 octet ICV [RFC5282]", "NONE [RFC4306]"),
    "AES-GCM-16-256": ("AES-GCM-256 with 16 octet ICV [RFC5282]", "NONE [RFC4306]"),
    "AES-CBC-128-HMAC-SHA-256-128": ("AES-CBC-128 [RFC3602]", "HMAC_SHA2_256_128 [RFC4868]"),
    "AES-CBC-256-HMAC-SHA-256-128": ("AES-CBC-256 [RFC3602]", "HMAC_SHA2_256_128 [RFC4868]"),
}


@dataclass(frozen=True, slots=True)
class Attachment:
    """One attachment as observed: who refused (if anybody), the judge's code and step, and how long it took."""

    refused_by: str | None
    code: str | None
    step: str | None
    sentence: str
    setup_ms: float | None
    address: str | None = None


@dataclass(frozen=True, slots=True)
class Report:
    """The whole report of one run."""

    scenario: str
    shows: str
    started_at: str
    held: bool
    expected: tuple[Expected, ...]
    attachments: tuple[Attachment, ...]
    checks: tuple[Check, ...]
    files: dict[str, str] = field(default_factory=dict)

    def to_json(self) -> bytes:
        """Return report.json."""
        return encode_report({"version": VERSION, **asdict(self)})


def assess(scenario: Scenario, events: Sequence[Event], started_at: str, files: dict[str, str]) -> Report:
    """Compare what was observed with what the scenario expects."""
    attachments = tuple(_attachments(events))
    checks = tuple(_checks(scenario, attachments, events))
    held = all(check.held for check in checks)
    return Report(scenario.name, scenario.shows, started_at, held, scenario.expected, attachments, checks, files)


def wire_capture(events: Iterable[Event]) -> bytes:
    """Return the pcap file of IKE's datagrams."""
    sent = (event for event in events if isinstance(event, IkeEvent))
    return pcap((each.time_s, datagram(endpoint(each.src), endpoint(each.dst), each.data)) for each in sent)


def decryption_table(events: Iterable[Event]) -> bytes:
    """Return Wireshark's ikev2_decryption_table, with which it decrypts the capture."""
    lines = [_table_line(event) for event in events if isinstance(event, KeysEvent) and event.actor == "gateway"]
    return "".join(f"{line}\n" for line in dict.fromkeys(lines)).encode("ascii")


def _table_line(event: KeysEvent) -> str:
    encryption, integrity = _WIRESHARK_CIPHERS[event.cipher]
    keys = [event.values[name] or '""' for name in ("spi_i", "spi_r", "sk_ei", "sk_er", "sk_ai", "sk_ar")]
    return ",".join((*keys[:4], f'"{encryption}"', *keys[4:], f'"{integrity}"'))


def _attachments(events: Sequence[Event]) -> Iterable[Attachment]:
    """Split the events into attachments, each of which ends with a result of the device."""
    started_s: float | None = None
    refusal: NoteEvent | None = None
    for event in events:
        if isinstance(event, IkeEvent) and event.exchange == "IKE_SA_INIT" and started_s is None:
            started_s, refusal = event.time_s, None
        elif isinstance(event, NoteEvent) and event.ok is False and "code" in event.data:
            refusal = event
        elif isinstance(event, ResultEvent) and event.actor == "device":
            ms = None if started_s is None else round((event.time_s - started_s) * 1000, 1)
            yield _attachment(event, refusal, ms)
            started_s = refusal = None


def _attachment(result: ResultEvent, refusal: NoteEvent | None, ms: float | None) -> Attachment:
    told = {name: str(value) for name, value in result.data.items()}
    if result.data["attached"]:
        sentence = f"attached to {told['identity']}, inner address {told['address']}, {told['suite']}"
        return Attachment(None, None, None, sentence, ms, told["address"])
    if refusal is None:
        return Attachment("device", told["code"], told["step"], told["sentence"], ms)
    return Attachment(refusal.actor, str(refusal.data["code"]), refusal.step, refusal.text, ms)


def _checks(scenario: Scenario, attachments: Sequence[Attachment], events: Sequence[Event]) -> Iterable[Check]:
    same = len(attachments) == len(scenario.expected)
    yield Check("Attachments", same, f"{len(attachments)} of {len(scenario.expected)}")
    for number, (expected, seen) in enumerate(zip(scenario.expected, attachments, strict=False), 1):
        found = Expected(seen.refused_by, seen.code, seen.step)
        outcome = "accepted" if expected.refused_by is None else f"refused, {expected.code}"
        name = f"Attachment {number}: {outcome}"
        yield Check(name, found == expected, seen.sentence)
    yield from _on_the_wire(scenario, events)
    if any(expected.refused_by is None for expected in scenario.expected):
        yield from _good(events)
    if scenario.ends_live_sa:
        yield _ended_in_time(events)
    if scenario.name == "rekeyed-live":
        for text in REKEYED:
            count = _texts(events).count(text)
            yield Check(f"{text[0].upper()}{text[1:]}", count >= 2, f"noted {count} times by both ends")
    if scenario.name == "attached":
        yield _old_sa_deleted(events)


def _old_sa_deleted(events: Sequence[Event]) -> Check:
    """Check step 9: the device deletes its old SA, after it has verified the gateway's certificate once more."""
    name = "Step 9: the device deletes its old IKE SA"
    notes = [event.text for event in events if isinstance(event, NoteEvent) and event.actor == "device"]
    verified = [at for at, text in enumerate(notes) if text.startswith("8 SeGW's certificate verified")]
    deleted = [at for at, text in enumerate(notes) if text.startswith("9 the old IKE SA is deleted")]
    if not deleted:
        return Check(name, False, "it does not")
    in_order = len(verified) > 1 and verified[1] < deleted[0]
    return Check(name, in_order, "after step 8" if in_order else "before step 8")


def _on_the_wire(scenario: Scenario, events: Sequence[Event]) -> Iterable[Check]:
    for actor in ("gateway", "device"):
        wanted = sum(expected.refused_by == actor for expected in scenario.expected)
        sent = [event for event in events if isinstance(event, IkeEvent) and event.actor == actor]
        refusals = [each for each in sent if "N(AUTHENTICATION_FAILED)" in each.payloads and not each.repeated]
        if wanted:
            detail = f"{len(refusals)} times, from the {actor}"
            yield Check("AUTHENTICATION_FAILED on the wire", len(refusals) == wanted, detail)


def _good(events: Sequence[Event]) -> Iterable[Check]:
    for step in ("5.1", "5.3", "5.4", "6 INTEGRITY_INFO verified"):
        seen = any(text.startswith(step) for text in _texts(events))
        yield Check(f"Step {step}", seen, "in the ladder" if seen else "missing")


def _ended_in_time(events: Sequence[Event]) -> Check:
    """Check that the gateway ended the SA: within BOUND_S of a change of status, or at all for an expiry."""
    notes = [event for event in events if isinstance(event, NoteEvent)]
    ended = next((note for note in notes if note.text.startswith("live SA ended")), None)
    if ended is None:
        return Check("The live IKE SA was ended", False, "it was not")
    change = next((note for note in notes if note.text.startswith("status change")), None)
    if change is None:
        return Check("The live IKE SA was ended", True, ended.text)
    seconds = ended.time_s - change.time_s
    detail = f"{seconds * 1000:.0f} ms after the change, at most {BOUND_S:g} s"
    return Check("The live IKE SA was ended in time", seconds <= BOUND_S, detail)


def _texts(events: Sequence[Event]) -> list[str]:
    """Return the texts of notes, inquiries and answers."""
    return [event.text for event in events if isinstance(event, NoteEvent | AskEvent)]
