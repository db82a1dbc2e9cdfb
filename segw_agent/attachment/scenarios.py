"""Scenarios: the good attachment, and those that must be refused, by whom and at which step.

Gateway and device have no test switches: certificates are really recorded, suspended, revoked or expired, and a
device that lies is another program (`segw_agent.attachment.rogue`).
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from time import monotonic

from segw_agent.attachment.network import BOUND_S, Testbed
from segw_agent.attachment.site import DEVICE_NAME, GATEWAY_NAME, OPERATOR, OTHER_DEVICE_NAME, OTHER_VENDOR, VENDOR
from voice_dpki.ledger.records import CertStatus
from voice_dpki.stage.events import Event, NoteEvent, ResultEvent
from voice_dpki.stage.processes import Running
from voice_dpki.stage.site import LIFETIME_S, Credential

ATTACH_TIMEOUT_S = 30.0
"""Time for a device to attach or to give up."""

EXPIRES_IN_S = 3
"""Least lifetime of the certificate that expires during its scenario."""

LIVES_STARTS = 4
"""How many times as long as the gateway's start that certificate lives too, so that its device attaches in time."""

REKEYED = ("child SA rekeyed", "IKE SA rekeyed")
"""Texts of the notes that a device traces when it rekeys."""


@dataclass(frozen=True, slots=True)
class Expected:
    """The expected end of one attachment: attached, or refused by whom, with the judge's code, at which step."""

    refused_by: str | None = None
    code: str | None = None
    step: str | None = None


ATTACHED = Expected()


def _by_gateway(code: str, step: str) -> Expected:
    return Expected("gateway", code, step)


@dataclass(frozen=True, slots=True)
class Scenario:
    """A scenario: what it shows, the expected end of each attachment, and whether a live SA must be ended."""

    name: str
    shows: str
    expected: tuple[Expected, ...]
    play: Callable[[Testbed], None]
    ends_live_sa: bool = False


def _gateway(testbed: Testbed, *, recorded: bool = True, **options: object) -> None:
    gateway = testbed.site.credential("segw", GATEWAY_NAME, OPERATOR)
    if recorded:
        testbed.record(gateway)
    testbed.start_gateway(gateway, **options)  # type: ignore[arg-type]


def _device(testbed: Testbed, file: str = "enb1", lifetime_s: int = LIFETIME_S) -> Credential:
    return testbed.site.credential(file, DEVICE_NAME, VENDOR, lifetime_s=lifetime_s)


def _recorded_device(testbed: Testbed, file: str = "enb1", lifetime_s: int = LIFETIME_S) -> Credential:
    device = _device(testbed, file, lifetime_s)
    testbed.record(device)
    return device


def _run(testbed: Testbed, device: Credential, **options: object) -> None:
    """Run a device until it ends by itself, after one attachment or as many as `attach` says."""
    testbed.start_device(device, **options).wait_end(ATTACH_TIMEOUT_S)  # type: ignore[arg-type]
    testbed.end(["device"])


def _wait_attached(running: Running) -> None:
    running.wait_for(lambda event: isinstance(event, ResultEvent), "attach", ATTACH_TIMEOUT_S)


def _attached(testbed: Testbed) -> None:
    _gateway(testbed)
    _run(testbed, _recorded_device(testbed), attach=2)


def _asks_itself(testbed: Testbed) -> None:
    _gateway(testbed, staple=False)
    _run(testbed, _recorded_device(testbed), asks=True)


def _roll_over(testbed: Testbed) -> None:
    _gateway(testbed)
    old, new = _recorded_device(testbed, "enb1-old"), _recorded_device(testbed, "enb1-new")
    for device in (old, new, old):
        _run(testbed, device)


def _not_recorded(testbed: Testbed) -> None:
    _gateway(testbed)
    _run(testbed, _device(testbed))


def _revoked(testbed: Testbed) -> None:
    _gateway(testbed)
    device = _recorded_device(testbed)
    _run(testbed, device)
    testbed.change(device, CertStatus.REVOKED, "keyCompromise")
    _run(testbed, device)


def _revoked_live(testbed: Testbed) -> None:
    _gateway(testbed)
    device = _recorded_device(testbed)
    running = testbed.start_device(device, stay=True)
    _wait_attached(running)
    testbed.change(device, CertStatus.REVOKED, "keyCompromise")
    running.wait_end(ATTACH_TIMEOUT_S)


def _rekeyed_live(testbed: Testbed) -> None:
    _gateway(testbed)
    device = _recorded_device(testbed)
    running = testbed.start_device(device, stay=True, lifetime={"ike_s": 2.0, "child_s": 1.0})
    for text in REKEYED:
        running.wait_for(partial(_is_note, text), text, ATTACH_TIMEOUT_S)
    testbed.change(device, CertStatus.REVOKED, "keyCompromise")
    running.wait_end(ATTACH_TIMEOUT_S)


def _is_note(text: str, event: Event) -> bool:
    return isinstance(event, NoteEvent) and event.text == text


def _suspended(testbed: Testbed) -> None:
    _gateway(testbed)
    device = _recorded_device(testbed)
    testbed.change(device, CertStatus.SUSPENDED, "certificateHold")
    _run(testbed, device)
    testbed.change(device, CertStatus.VALID, "removeFromCRL")
    _run(testbed, device)


def _expired(testbed: Testbed) -> None:
    begun_s = monotonic()
    _gateway(testbed)
    lifetime_s = math.ceil(EXPIRES_IN_S + LIVES_STARTS * (monotonic() - begun_s))
    device = _recorded_device(testbed, lifetime_s=lifetime_s)
    running = testbed.start_device(device, stay=True)
    _wait_attached(running)
    running.wait_end(ATTACH_TIMEOUT_S + lifetime_s)
    _run(testbed, device)


def _identity(testbed: Testbed) -> None:
    _gateway(testbed)
    _run(testbed, _recorded_device(testbed), rogue=("--claim", "enb2.vendor.example"))


def _denied(testbed: Testbed) -> None:
    _gateway(testbed, deny=(DEVICE_NAME,))
    _run(testbed, _recorded_device(testbed))


def _other_vendor(testbed: Testbed) -> None:
    _gateway(testbed)
    device = testbed.site.credential("enb1-other", OTHER_DEVICE_NAME, OTHER_VENDOR)
    testbed.record(device)
    _run(testbed, device)


def _false_gateway(testbed: Testbed) -> None:
    _gateway(testbed, recorded=False)
    _run(testbed, _recorded_device(testbed))


def _no_word_of_the_gateway(testbed: Testbed) -> None:
    _gateway(testbed, staple=False)
    _run(testbed, _recorded_device(testbed))


def _integrity_missing(testbed: Testbed) -> None:
    _gateway(testbed)
    _run(testbed, _recorded_device(testbed), integrity=False)


def _integrity_forged(testbed: Testbed) -> None:
    _gateway(testbed)
    _run(testbed, _recorded_device(testbed), rogue=("--forge",))


def _unreachable(testbed: Testbed) -> None:
    _gateway(testbed)
    device = _recorded_device(testbed)
    testbed.freeze("ledger-a")
    _run(testbed, device)
    testbed.thaw("ledger-a")


_TABLE = (
    Scenario(
        "attached",
        "A device attaches by the ledger's word alone, and once more: then it deletes its old IKE SA (step 9).",
        (ATTACHED, ATTACHED),
        _attached,
    ),
    Scenario(
        "device-asks",
        "The gateway staples nothing: the device asks an inquiry node before it has a tunnel.",
        (ATTACHED,),
        _asks_itself,
    ),
    Scenario(
        "roll-over",
        "Two certificates of one identity are recorded at a time, and the device may use either.",
        (ATTACHED, ATTACHED, ATTACHED),
        _roll_over,
    ),
    Scenario(
        "not-recorded",
        "The device's certificate was never recorded.",
        (_by_gateway("not-recorded", "5.4 certificate"),),
        _not_recorded,
    ),
    Scenario(
        "revoked",
        "The device's certificate is revoked after it was attached, and the next attachment is refused.",
        (ATTACHED, _by_gateway("revoked", "5.4 certificate")),
        _revoked,
    ),
    Scenario(
        "revoked-live",
        f"The device's certificate is revoked while it is attached: its IKE SA ends within {BOUND_S:g} s.",
        (ATTACHED,),
        _revoked_live,
        ends_live_sa=True,
    ),
    Scenario(
        "rekeyed-live",
        "The device rekeys its child SA and its IKE SA; when it is revoked, the new IKE SA ends.",
        (ATTACHED,),
        _rekeyed_live,
        ends_live_sa=True,
    ),
    Scenario(
        "suspended",
        "The device's certificate is suspended, so that it is refused, and resumed, so that it may attach.",
        (_by_gateway("suspended", "5.4 certificate"), ATTACHED),
        _suspended,
    ),
    Scenario(
        "expired",
        "The device's certificate expires while it is attached: its IKE SA ends, and it may not come again.",
        (ATTACHED, _by_gateway("expired", "5.4 certificate")),
        _expired,
        ends_live_sa=True,
    ),
    Scenario(
        "identity-not-in-certificate",
        "A device claims to be another one than its certificate names.",
        (_by_gateway("identity", "4 IKE_AUTH"),),
        _identity,
    ),
    Scenario(
        "identity-denied",
        "The device is on the gateway's deny list, whatever the ledger says.",
        (_by_gateway("identity-denied", "4 IDi"),),
        _denied,
    ),
    Scenario(
        "wrong-organization",
        "The device is recorded by a vendor whose devices this operator does not admit.",
        (_by_gateway("organization", "5.4 certificate"),),
        _other_vendor,
    ),
    Scenario(
        "gateway-not-recorded",
        "The gateway's certificate is not on the ledger, as the answer that it staples proves: the device refuses.",
        (Expected("device", "not-recorded", "8 SeGW certificate"),),
        _false_gateway,
    ),
    Scenario(
        "gateway-unproved",
        "The gateway staples nothing, and the device has nobody to ask: it refuses.",
        (Expected("device", "ledger-unreachable", "8 SeGW inquiry"),),
        _no_word_of_the_gateway,
    ),
    Scenario(
        "integrity-missing",
        "The device sends no N(INTEGRITY_INFO), where the gateway requires it.",
        (_by_gateway("integrity-missing", "6 INTEGRITY_INFO"),),
        _integrity_missing,
    ),
    Scenario(
        "integrity-forged",
        "The device sends a statement of integrity that was made for another IKE SA.",
        (_by_gateway("integrity-forged", "6 INTEGRITY_INFO"),),
        _integrity_forged,
    ),
    Scenario(
        "ledger-unreachable",
        f"No inquiry node answers within {BOUND_S:g} s: nothing is known of the device, and it is refused.",
        (_by_gateway("ledger-unreachable", "5.3 inquiry"),),
        _unreachable,
    ),
)

SCENARIOS: Mapping[str, Scenario] = {scenario.name: scenario for scenario in _TABLE}
"""All scenarios by name, in the order of the list."""

DEFAULT = "attached"
