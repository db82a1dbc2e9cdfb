"""Placing one call in a testbed, and writing its captures, recordings and report into one folder."""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from importlib.resources import files
from pathlib import Path

from sip_testbed import assess, assess_digits, assess_transfer, assess_video, capture, ladder, report
from sip_testbed.assess_capture import checks as checks_of_capture
from sip_testbed.call_files import FILES, RECORDINGS, VIDEOS, WAV_HEADER_BYTES
from sip_testbed.events import RtpEvent, SipEvent
from sip_testbed.evidence import Evidence
from sip_testbed.network import Testbed
from sip_testbed.network_config import DH_SIGN, HYBRID, MODERN, PKE, RSA_R, Sections, user_agent_config
from sip_testbed.provision import (
    CALLEE,
    CALLEE_IMPERSONATED,
    CALLEE_OVER_SBC,
    CALLEE_OVER_TRANSIT,
    CALLER,
    OPERATORS,
    THIRD,
    aor,
)
from sip_testbed.scenarios import Key, Scenario
from sip_testbed.transfer import ATTENDED, TRANSFER
from voice_dpki.media.pcm import SAMPLE_BYTES, Pcm
from voice_dpki.media.recording import read_wav, write_wav
from voice_dpki.names import Tn
from voice_dpki.shell.files import write_file
from voice_dpki.stage.events import Event, ResultEvent
from voice_dpki.stage.ladder import Ladder, render_text
from voice_dpki.stage.processes import Running

CODECS: Mapping[str, str] = {"pcmu": "PCMU", "pcma": "PCMA", "opus": "opus"}
"""Command-line name of each codec to its name in SDP."""

SRTP_PROFILES = ("AES_CM_128_HMAC_SHA1_80", "AEAD_AES_128_GCM")

MIKEY_MODES: Mapping[str, str] = {
    MODERN: "MIKEY's modern mode (X25519), certificates on the ledger",
    HYBRID: "MIKEY's modern mode (X25519MLKEM768), certificates on the ledger",
    DH_SIGN: "MIKEY DH-SIGN, certificates on the ledger",
    PKE: "MIKEY PKE, encrypted to the callee's certificate on the ledger",
    RSA_R: "MIKEY RSA-R, encrypted to the caller's certificate on the ledger",
    "dhhmac": "MIKEY DHHMAC, a key that both telephones share",
    "psk": "MIKEY PSK, a key that both telephones share",
}
"""How media keys are agreed, by the mode's name on the command line."""

SIGNED_MODES = (MODERN, HYBRID, DH_SIGN, RSA_R)
"""The modes whose answers are signed by keys with certificates."""

CHANGES: Mapping[str, tuple[str, ...]] = {
    "hold": ("hold", "resume"),
    "rekey": ("rekey",),
    **{codec: (codec,) for codec in CODECS},
    TRANSFER: ("hold", TRANSFER),
    ATTENDED: ("hold", ATTENDED),
}
"""Command-line name of each change, and what the telephone then does."""

CALL_TIMEOUT_S = 60.0
AFTERWARDS_TIMEOUT_S = 15.0
"""Timeout, from the end of the caller, for the callee to write its recording and result."""

REFUSED_SAY_S = 1.0
"""Length of speech for calls that are expected to be refused."""


@dataclass(frozen=True, slots=True)
class CallOptions:
    """Options of a call: `codec` of CODECS, `srtp` of SRTP_PROFILES, `mikey` of MIKEY_MODES, `say_s` of speech."""

    codec: str = "pcmu"
    srtp: str = SRTP_PROFILES[0]
    say_s: float | None = None
    mikey: str = MODERN
    changes: tuple[str, ...] = ()
    """What the caller changes in the middle of its speech, of CHANGES."""
    early_s: float = 0.0
    """Seconds of its speech that the callee plays before it answers."""
    video: bool = False
    """Whether both send pictures beside their speech."""
    dtmf: str = ""
    """Digits that the caller dials during its speech."""
    comfort_noise: bool = False
    """Whether both send the pauses of their speech as comfort noise."""


@dataclass(frozen=True, slots=True)
class PlacedCall:
    """A call that was placed: its report, its ladder, and the folder with its files."""

    report: report.Report
    ladder: Ladder
    folder: Path


@dataclass(slots=True)
class Stages:
    """Announces each stage as it begins, and records how long it took."""

    tell: Callable[[str], None] = lambda stage: None
    took_ms: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Announce the stage `name` and record the time of the block under it."""
        self.tell(name)
        began = time.perf_counter()
        yield
        self.took_ms[name] = round((time.perf_counter() - began) * 1000, 1)


def place_call(
    testbed: Testbed, scenario: Scenario, options: CallOptions, folder: Path, stages: Stages | None = None
) -> PlacedCall:
    """Place a call in a running testbed whose certificates are recorded; write its files into `folder`.

    Raises ProcessError if a program fails; the report tells how the call itself ended.
    """
    return _Placement(testbed, scenario, options, folder, stages or Stages()).place()


class _Placement:
    """One call from its first process to its last file."""

    def __init__(
        self, testbed: Testbed, scenario: Scenario, options: CallOptions, folder: Path, stages: Stages
    ) -> None:
        self._testbed = testbed
        self._scenario = scenario
        self._options = options
        self._folder = folder
        self._stages = stages
        self._srtp = options.srtp if scenario.protected else None
        self._memory_mb: dict[str, float] = {}

    def place(self) -> PlacedCall:
        started_at = datetime.now(UTC)
        self._prepare_folder()
        self._testbed.new_events()
        earlier: list[Event] = []
        try:
            with self._stages.stage("prepare the attack" if self._is_on_the_path() else "prepare the telephones"):
                callee = self._answering_side()
                third = self._third() if self._transfer else None
            if self._listened():
                with self._stages.stage("earlier call"):
                    self._call(callee)
                    earlier = self._testbed.end(("caller",))
                    self._prepare_folder()  # removes the earlier call's recordings
                if self._is_impersonated():
                    with self._stages.stage("prepare the attack"):
                        earlier += self._testbed.end(("callee",))
                        callee = self._impostor()
            began_s = time.time()
            with self._stages.stage("call and talk"):
                self._call(callee)
                if third is not None:
                    self._transferred(callee, third)
        finally:
            ended = self._testbed.end(("caller", "callee", "third", "path"))
        with self._stages.stage("report"):
            events = sorted([*earlier, *ended, *self._testbed.new_events()], key=lambda event: event.time_s)
            return self._report(started_at, events, began_s)

    @property
    def _changes(self) -> tuple[str, ...]:
        return tuple(act for change in self._options.changes for act in CHANGES[change])

    @property
    def _transfer(self) -> str | None:
        """The kind of transfer that the caller makes, if any."""
        return next((name for name in (TRANSFER, ATTENDED) if name in self._changes), None)

    def _listened(self) -> bool:
        return self._scenario.attack is not None and self._scenario.attack.listens_first

    def _is_on_the_path(self) -> bool:
        return self._scenario.attack is not None and self._scenario.attack.mode is not None

    def _is_impersonated(self) -> bool:
        return self._scenario.attack is not None and self._scenario.attack.key is Key.SECOND

    def _prepare_folder(self) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        for name in FILES:
            (self._folder / name).unlink(missing_ok=True)

    # --- the processes ---------------------------------------------------------------------------------------

    def _answering_side(self) -> Running:
        callee = self._testbed.launch("callee", self._telephone("callee", number=_called(self._scenario)))
        if self._scenario.attack and self._is_on_the_path():
            self._testbed.attack(self._scenario.attack)
        callee.wait_ready()
        return callee

    def _third(self) -> Running:
        """Start the telephone to which the caller transfers the callee."""
        telephone = self._testbed.third_telephone(self._options.mikey) if self._srtp else None
        third = self._testbed.launch("third", self._telephone("third", number=THIRD, telephone=telephone))
        third.wait_ready()
        return third

    def _transferred(self, callee: Running, third: Running) -> None:
        """Wait until both ends of the call that the transfer made report its end, if it was made."""
        callee.trace.poll()
        transfer = self._transfer
        if transfer is not None and any(_made(event, transfer) for event in callee.trace.events):
            for end, purpose in ((callee, "transferred"), (third, assess_transfer.third_is(transfer))):
                end.wait_for(partial(_ends_call, purpose=purpose), "end", CALL_TIMEOUT_S)

    def _impostor(self) -> Running:
        """Start the telephone with which the callee's operator answers in the callee's place."""
        second = self._testbed.second_telephone(self._options.mikey)
        sections = self._telephone("callee", number=_called(self._scenario), telephone=second)
        callee = self._testbed.launch("callee", sections)
        callee.wait_ready()
        return callee

    def _call(self, callee: Running) -> None:
        began_s = time.time()
        target = aor(_called(self._scenario), OPERATORS[1])
        caller = self._testbed.launch(
            "caller", self._telephone("caller", number=CALLER, target=target, changes=self._changes)
        )
        caller.wait_for(_talks_or_ends, "place the call", CALL_TIMEOUT_S)
        self._memory_mb = self._testbed.memory_mb()
        caller.wait_end(CALL_TIMEOUT_S)
        callee.trace.poll()
        if any(_answers(event) and event.time_s >= began_s for event in callee.trace.events):
            callee.wait_for(lambda event: _ends(event) and event.time_s >= began_s, "end", AFTERWARDS_TIMEOUT_S)

    def _telephone(self, role: str, **particulars: object) -> Sections:
        return user_agent_config(
            self._testbed.site,
            role,
            codec=CODECS[self._options.codec],
            srtp=self._srtp,
            mikey=self._options.mikey,
            say=self._speech(role),
            out=self._folder.resolve(),
            video=self._options.video,
            early_s=0.0 if role == "caller" else self._options.early_s,
            transfers=self._transfer is not None,
            dtmf=self._options.dtmf,
            comfort_noise=self._options.comfort_noise,
            **particulars,  # type: ignore[arg-type]
        )

    def _speech(self, role: str) -> Path:
        """Write that side's speech, which is the project's recording or its beginning, and return the file."""
        speaker = "caller" if role == "third" else role
        pcm = read_wav(files("sip_testbed").joinpath("speech", f"{speaker}.wav").read_bytes())
        say_s = self._options.say_s or (REFUSED_SAY_S if self._scenario.attack else None)
        if say_s is not None:
            pcm = Pcm(pcm.rate, pcm.data[: int(say_s * pcm.rate) * SAMPLE_BYTES])
        path = self._testbed.folder / f"{role}.wav"
        write_file(path, write_wav(pcm))
        return path

    # --- the files -------------------------------------------------------------------------------------------

    def _report(self, started_at: datetime, events: list[Event], began_s: float) -> PlacedCall:
        """Write the report of the call that began at `began_s`; an earlier call is in the captures only."""
        shown = [event for event in events if not self._listened() or event.time_s >= began_s]
        options, recordings = self._options, self._recordings()
        kinds = (options.codec, self._srtp)
        evidence = Evidence(self._scenario, *kinds, shown, recordings, self._changes, options.early_s)
        outcome, speech = assess.seen(evidence), assess.directions(evidence)
        media = speech | assess_transfer.directions(evidence)
        video = assess_video.directions(evidence)
        checks = (*assess.checks(evidence, outcome, speech), *assess_transfer.checks(evidence))
        checks += tuple(assess_digits.checks(evidence, options.dtmf))
        checks += tuple(checks_of_capture(evidence, *capture.write(self._folder, events)))
        if options.video and self._scenario.expected.refused_by is None:
            checks = (*checks, *assess_video.checks(video))
        drawn = ladder.build(shown, ladder.figures(media) | ladder.video_figures(video))
        self._write("ladder.txt", render_text(drawn).encode("utf-8"))
        described = report.Report(
            scenario=self._scenario.name,
            shows=self._scenario.shows,
            started_at=f"{started_at:%Y-%m-%d %H:%M:%S} UTC",
            held=all(check.held for check in checks),
            expected=self._scenario.expected,
            seen=outcome,
            setup_ms=_setup_ms(evidence),
            codec=options.codec,
            srtp=self._srtp,
            keying=MIKEY_MODES[self._options.mikey] if self._srtp else None,
            ledger=self._testbed.site.ledger if self._testbed.protected else None,
            directions=media,
            video=video,
            connected=assess.connected(evidence),
            checks=checks,
            trust=assess.trust(evidence, outcome),
            timings_ms={**self._stages.took_ms, **_timings(evidence)},
            processes=tuple(report.Process(ladder.ACTORS[actor], size) for actor, size in self._memory_mb.items()),
            files=self._files(),
        )
        self._write("report.json", report.to_json(described))
        self._write("report.html", report.to_html(described, drawn, recordings))
        return PlacedCall(described, drawn, self._folder)

    def _recordings(self) -> dict[str, bytes]:
        """Return the recordings that contain any sound, by name."""
        paths = {name: self._folder / f"{name}.wav" for name in RECORDINGS}
        paths |= {name: self._folder / f"{name}.webm" for name in VIDEOS}
        found = {name: path.read_bytes() for name, path in paths.items() if path.exists()}
        return {name: data for name, data in found.items() if len(data) > WAV_HEADER_BYTES}

    def _files(self) -> tuple[report.OutputFile, ...]:
        """Return the files that exist, and the two reports, which are written last."""
        found = []
        for name, what in FILES.items():
            path = self._folder / name
            if path.exists():
                found.append(report.OutputFile(name, path.stat().st_size, what))
            elif name.startswith("report."):
                found.append(report.OutputFile(name, None, what))
        return tuple(found)

    def _write(self, name: str, data: bytes) -> None:
        write_file(self._folder / name, data)


def _called(scenario: Scenario) -> Tn:
    """Return the callee's number, which determines the route of the call."""
    if scenario.attack is None:
        return CALLEE
    if scenario.attack.mode is None:
        return CALLEE_IMPERSONATED
    return CALLEE_OVER_SBC if scenario.attack.rewrites_sdp else CALLEE_OVER_TRANSIT


def _talks_or_ends(event: Event) -> bool:
    return isinstance(event, RtpEvent | ResultEvent)


def _ends(event: Event) -> bool:
    return isinstance(event, ResultEvent)


def _made(event: Event, change: str) -> bool:
    """Return whether an event is a result that lists a change as made."""
    changes = event.data["changes"] if isinstance(event, ResultEvent) else None
    return isinstance(changes, list) and change in changes


def _ends_call(event: Event, purpose: str) -> bool:
    return isinstance(event, ResultEvent) and event.data["purpose"] == purpose


def _answers(event: Event) -> bool:
    """Return whether a telephone answered a request, which can only belong to a call."""
    return isinstance(event, SipEvent) and event.data.startswith(b"SIP/2.0 ")


def _setup_ms(evidence: Evidence) -> float | None:
    result = evidence.result("caller")
    setup_ms = result.get("setup_ms")
    return round(setup_ms, 1) if setup_ms is not None and result.get("status") == 200 else None


def _timings(evidence: Evidence) -> dict[str, float]:
    """Return the times that the actors measured themselves in milliseconds, by name."""
    names = {"authn-a": "sign", "verify-b": "verify", "authn-b": "sign the answer", "verify-a": "verify the answer"}
    names |= {"caller": "MIKEY, caller", "callee": "MIKEY, callee"}
    setup_ms = _setup_ms(evidence)
    found = {} if setup_ms is None else {"set-up, INVITE to 200": setup_ms}
    for actor, name in names.items():
        times = [note.ms for note in evidence.notes(actor) if note.ms is not None and note.ok is not None]
        if times:
            found[name] = round(times[-1], 2)
    return found
