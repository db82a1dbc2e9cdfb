"""Keys in a token of SoftHSM2: used by threads, refused, taken away, and come back."""

import asyncio
import re
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.hashes import SHA256, SHA384
from pkcs11 import Attribute, PKCS11Error, Session, Token, TokenFlag
from pkcs11.exceptions import PinExpired, PinIncorrect, PinInvalid, PinLenRange, PinLocked
from prometheus_client import REGISTRY

from tests.clocks import SettableClock
from tests.soft_hsm import MODULE, PIN, SoftHsm
from voice_dpki.errors import LocalError
from voice_dpki.shell import signing
from voice_dpki.shell.credentials import read_signer
from voice_dpki.shell.signing import HsmConfig, SigningThreads
from voice_dpki.shell.token_key import RETRY_S, TokenEcKey, TokenKey
from voice_dpki.shell.token_module import TokenModule, module_at
from voice_dpki.shell.token_uri import TokenUri, key_place
from voice_dpki.shortfalls import SHORTFALLS
from voice_dpki.x509.keys import (
    KeyUnavailableError,
    LocalSigner,
    PinRefusedError,
    fault_of,
    generate_es256,
    is_elsewhere,
    to_pem,
    verify_signature,
)
from voice_dpki.x509.p256 import fastest

pytestmark = [pytest.mark.peer("softhsm2-util"), pytest.mark.peer("pkcs11-tool")]


def uri(hsm: SoftHsm, label: str = "sti", token: str = "calls") -> TokenUri:
    place = key_place(hsm.uri(label, token))
    assert isinstance(place, TokenUri)
    return place


def key_with(hsm: SoftHsm, clock: SettableClock) -> TokenKey:
    return TokenKey(uri(hsm), clock)


def check_signs(key: TokenKey) -> None:
    signer = LocalSigner(TokenEcKey(key))
    verify_signature(signer.public_key_der, "ES256", b"data", signer.sign(b"data"))


def test_a_key_on_p256_signs_as_one_in_a_file_does(hsm: SoftHsm) -> None:
    signer = read_signer(uri(hsm))
    assert (signer.algorithm, is_elsewhere(signer), is_elsewhere(generate_es256())) == ("ES256", True, False)
    assert fastest(signer) is signer
    signatures = {signer.sign(b"data") for _ in range(20)}
    for signature in signatures:
        assert len(signature) == 64
        verify_signature(signer.public_key_der, "ES256", b"data", signature)


def test_an_rsa_key_signs_both_ways(hsm: SoftHsm) -> None:
    hsm.make_key("ca", "rsa:2048", "02")
    signer = read_signer(uri(hsm, "ca"))
    verify_signature(signer.public_key_der, "PS256", b"data", signer.sign(b"data"))
    key = signer.private_key
    assert isinstance(key, rsa.RSAPrivateKey)
    key.public_key().verify(key.sign(b"data", padding.PKCS1v15(), SHA256()), b"data", padding.PKCS1v15(), SHA256())
    with pytest.raises(LocalError, match="SHA-256"):
        key.sign(b"data", padding.PKCS1v15(), SHA384())
    with pytest.raises(LocalError, match="signatures only"):
        key.decrypt(b"", padding.PKCS1v15())


def test_the_key_does_not_leave_the_token(hsm: SoftHsm) -> None:
    signer = read_signer(uri(hsm))
    with pytest.raises(LocalError, match="does not leave its token"):
        to_pem(signer)
    assert isinstance(signer.private_key, ec.EllipticCurvePrivateKey)
    with pytest.raises(LocalError, match="SHA-256"):
        signer.private_key.sign(b"data", ec.ECDSA(SHA384()))


def test_threads_sign_at_once_with_a_session_each(hsm: SoftHsm) -> None:
    key = key_with(hsm, SettableClock(0))
    check_signs(key)
    together, failed = threading.Barrier(8), list[BaseException]()

    def work() -> None:
        try:
            together.wait(30)
            for _ in range(100):
                check_signs(key)
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed
    assert 1 <= len(key._idle) <= 8
    sessions = {opened.session.handle for opened in key._idle}  # type: ignore[attr-defined]
    assert len(sessions) == len(key._idle)


def test_sessions_that_were_lost_are_replaced_without_a_failure(hsm: SoftHsm) -> None:
    key = key_with(hsm, SettableClock(0))
    hsm.end_sessions()
    check_signs(key)
    module = module_at(MODULE)
    module._functions.finalize()
    check_signs(key)
    assert key.shortfall() == ""


def test_a_token_that_is_gone_is_told_and_comes_back(hsm: SoftHsm, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    clock = SettableClock(1000)
    key = key_with(hsm, clock)
    hsm.take_away()
    with pytest.raises(KeyUnavailableError):
        key.probe()
    assert SHORTFALLS.notes() == [key.shortfall()]
    assert key.shortfall() == "a key in a token cannot be used: the token's module does not work"
    hsm.bring_back()
    with pytest.raises(KeyUnavailableError):  # nobody asks the token again before RETRY_S
        check_signs(key)
    clock.elapse(RETRY_S)
    check_signs(key)
    assert (key.shortfall(), SHORTFALLS.notes()) == ("", [])
    assert [record.message for record in caplog.records if record.name.endswith("token_key")] == [
        "a key cannot be used",
        "a key can be used again",
    ]


def refuse_pin(hsm: SoftHsm) -> None:
    hsm.write_pin("0817")  # tokens of other tests, which have the same name, have refused others
    hsm.end_module()


def hide_pin(hsm: SoftHsm) -> None:
    hsm.pin_file.unlink()
    hsm.end_module()


def open_pin(hsm: SoftHsm) -> None:
    hsm.pin_file.chmod(0o644)
    hsm.end_module()


FAULTS = (
    ("the token refuses the PIN", refuse_pin),
    ("the PIN cannot be read", hide_pin),
    ("the PIN cannot be read", open_pin),
    ("the token's module does not work", SoftHsm.take_away),
)
"""What strangers are told, by what happens to the token of a process that runs."""


@pytest.mark.parametrize(("told", "happen"), FAULTS)
def test_strangers_are_told_what_fails_and_the_log_where(
    hsm: SoftHsm, told: str, happen: Callable[[SoftHsm], None], caplog: pytest.LogCaptureFixture
) -> None:
    key = key_with(hsm, SettableClock(0))
    happen(hsm)
    for _ in range(2):  # the second time by what is remembered
        with pytest.raises(KeyUnavailableError) as refused:
            check_signs(key)
        assert refused.value.told == told
    assert SHORTFALLS.notes() == [f"a key in a token cannot be used: {told}"]
    (said,) = (vars(record)["fields"] for record in caplog.records if record.message == "a key cannot be used")
    assert said["key"] == "key 'sti' of token 'calls'"
    if "PIN" in told:
        assert str(hsm.pin_file) in said["reason"]


def test_metrics_tell_signatures_and_faults(hsm: SoftHsm) -> None:
    def value(name: str, **labels: str) -> float:
        return REGISTRY.get_sample_value(f"voice_dpki_{name}", labels) or 0

    signer = read_signer(uri(hsm))
    made, failed = (value("token_signatures_total", outcome=each) for each in ("made", "failed"))
    signer.sign(b"data")
    assert value("token_keys_usable") == 1
    hsm.take_away()
    with pytest.raises(KeyUnavailableError):
        signer.sign(b"data")
    assert value("token_keys_usable") == 0
    assert "cannot be used" in fault_of(signer)
    assert value("token_signatures_total", outcome="made") == made + 1
    assert value("token_signatures_total", outcome="failed") == failed + 1


def test_the_module_is_asked_for_no_more_than_signatures(
    hsm: SoftHsm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As OpenSC's pkcs11-spy sees it: initialised for threads, one login, one search for each session."""
    (spy,) = Path("/usr/lib").glob("*/pkcs11-spy.so")
    monkeypatch.setenv("PKCS11SPY", str(MODULE))
    monkeypatch.setenv("PKCS11SPY_OUTPUT", str(tmp_path / "spy.log"))
    hsm.end_module()  # the spy hands its own C_Initialize on
    signer = read_signer(key_place(hsm.uri("sti").replace(str(MODULE), str(spy))))
    for _ in range(5):
        signer.sign(b"data")
    log = (tmp_path / "spy.log").read_text()
    calls = Counter(re.findall(r"^\d+: (C_\w+)$", log, re.MULTILINE))
    assert "CKF_OS_LOCKING_OK" in log
    assert (calls["C_Initialize"], calls["C_Login"], calls["C_SignInit"]) == (1, 1, 5)
    assert calls["C_FindObjectsInit"] == 2  # the private key, and the public one


def test_a_pin_that_was_refused_is_not_tried_again(hsm: SoftHsm) -> None:
    """Tokens count wrong PINs and lock themselves, so a service that starts again and again would lock its own."""
    hsm.write_pin("0815")
    for expected in ("refuses the PIN", "not tried again"):
        with pytest.raises(LocalError, match=expected) as refused:
            read_signer(uri(hsm))
        assert "0815" not in str(refused.value)
    hsm.write_pin(PIN)
    check_signs(key_with(hsm, SettableClock(0)))


class Guarded:
    """A token whose flags and whose answer to a PIN are given; it counts the tries."""

    def __init__(self, token: Token, flags: TokenFlag, answer: type[PKCS11Error] | None = None) -> None:
        self.label, self.serial, self.slot = token.label, token.serial, self
        self.tries = 0
        self.token, self.flags, self.answer = token, flags, answer

    def get_token(self) -> "Guarded":
        return self

    def open(self, user_pin: str) -> Session:
        self.tries += 1
        if self.answer is not None:
            raise self.answer
        return self.token.open(user_pin=user_pin)


def log_in(hsm: SoftHsm, flags: TokenFlag, answer: type[PKCS11Error] | None = None) -> Guarded:
    """Log in to the token by a module of its own; raises AssertionError where a second attempt would differ."""
    module = TokenModule(MODULE)
    token = Guarded(module._library.get_token(token_label="calls"), flags, answer)
    for _ in range(2):
        with pytest.raises(PinRefusedError):
            module._log_in(token, hsm.pin_file)  # type: ignore[arg-type]  # what it uses of a token
    return token


@pytest.mark.parametrize("flag", [TokenFlag.USER_PIN_FINAL_TRY, TokenFlag.USER_PIN_LOCKED])
def test_the_last_try_of_a_token_is_not_spent(hsm: SoftHsm, flag: TokenFlag) -> None:
    """Not even with the right PIN, for nobody knows here that it is; another process may have spent the others."""
    assert log_in(hsm, TokenFlag.LOGIN_REQUIRED | flag).tries == 0


@pytest.mark.parametrize("answer", [PinExpired, PinIncorrect, PinInvalid, PinLenRange, PinLocked])
def test_whatever_a_token_says_against_a_pin_is_a_refusal(hsm: SoftHsm, answer: type[PKCS11Error]) -> None:
    assert log_in(hsm, TokenFlag.LOGIN_REQUIRED, answer).tries == 1


def test_a_pin_that_others_may_read_is_not_taken(hsm: SoftHsm) -> None:
    hsm.pin_file.chmod(0o640)
    with pytest.raises(LocalError, match="others than its owner"):
        read_signer(uri(hsm))


@pytest.mark.parametrize(
    ("label", "token", "why"),
    [("sti", "others", "there is no such token"), ("stj", "calls", "the token has no such key")],
)
def test_what_the_uri_names_must_be_there(hsm: SoftHsm, label: str, token: str, why: str) -> None:
    with pytest.raises(LocalError, match=f"key '{label}' of token '{token}': {why}"):
        read_signer(uri(hsm, label, token))


def test_a_label_that_two_keys_have_is_refused(hsm: SoftHsm) -> None:
    hsm.make_key("sti", key_id="07")
    with pytest.raises(LocalError, match="several such keys"):
        read_signer(uri(hsm))
    assert read_signer(key_place(hsm.uri("sti").replace("?", ";id=%07?"))).algorithm == "ES256"


@pytest.mark.parametrize(
    ("said", "is_it"),
    [
        ("manufacturer=SoftHSM%20project", True),
        ("model=SoftHSM%20v2;manufacturer=SoftHSM%20project", True),
        ("manufacturer=SoftHSM", False),
        ("model=SoftHSM%20v3", False),
        ("model=SoftHSM%20v2;manufacturer=Another", False),
    ],
)
def test_the_token_is_of_the_maker_and_the_model_that_the_uri_names(hsm: SoftHsm, said: str, is_it: bool) -> None:
    """Another token can have the same label (RFC 7512 §2.5)."""
    place = key_place(hsm.uri("sti").replace("?", f";{said}?"))
    if is_it:
        assert read_signer(place).algorithm == "ES256"
        return
    with pytest.raises(LocalError, match="there is no such token"):
        read_signer(place)


def test_a_module_that_is_none_is_refused(tmp_path: Path) -> None:
    (tmp_path / "no.so").write_text("no module")
    with pytest.raises(LocalError, match="cannot be loaded"):
        read_signer(key_place(f"pkcs11:token=a;object=b?module-path={tmp_path}/no.so"))


def test_the_same_uri_is_the_same_key(hsm: SoftHsm) -> None:
    """A reload opens no sessions beside those that there are."""
    one, other = read_signer(uri(hsm)).private_key, read_signer(uri(hsm)).private_key
    assert isinstance(one, TokenEcKey)
    assert isinstance(other, TokenEcKey)
    assert one.token_key is other.token_key


def test_a_key_that_was_replaced_gives_its_sessions_back(hsm: SoftHsm) -> None:
    """Not where it is dropped, which may be the event loop, but where the next session is opened."""
    key = key_with(hsm, SettableClock(0))
    module, (opened,) = key._module, list(key._idle)
    del key
    assert [session for session, _ in module._retired] == [opened.session]
    other = key_with(hsm, SettableClock(0))
    assert not module._retired
    check_signs(other)
    with pytest.raises(PKCS11Error):
        opened.key[Attribute.LABEL]


async def test_a_token_that_does_not_answer_holds_nobody_for_long(hsm: SoftHsm) -> None:
    signer, release = read_signer(uri(hsm)), threading.Event()
    threads = SigningThreads(HsmConfig(threads=1, waiting=1, timeout_s=0.05))
    asked: list[bool] = []
    with pytest.raises(KeyUnavailableError, match="within"):
        await threads.run(signer, lambda: release.wait(60))
    with pytest.raises(KeyUnavailableError, match="within"):
        await threads.run(signer, lambda: asked.append(True))
    for _ in range(3):  # one is with the token, and the other keeps its place
        with pytest.raises(KeyUnavailableError, match="too many"):
            await threads.run(signer, lambda: asked.append(True))
    release.set()
    while threads._room._value != 2:
        await asyncio.sleep(0.001)
    assert asked == [], "nobody waited for it any more"
    patient = SigningThreads(HsmConfig(threads=1, waiting=0, timeout_s=60))
    assert len(await patient.run(signer, lambda: signer.sign(b"data"))) == 64


async def test_health_tells_of_a_token_that_does_not_answer(hsm: SoftHsm, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(signing, "PROBE_S", 0.01)
    signer, release = read_signer(uri(hsm)), threading.Event()
    threads = SigningThreads(HsmConfig(threads=1, waiting=0, timeout_s=0.05))
    hanging = asyncio.create_task(threads.run(signer, lambda: release.wait(60)))
    with pytest.raises(KeyUnavailableError, match="within"):
        await hanging
    release.set()
    monkeypatch.setattr(TokenKey, "probe", lambda _: release.wait(60))
    release.clear()
    watching = asyncio.create_task(threads.watch(lambda: signer))
    while "has not signed within" not in fault_of(signer):
        await asyncio.sleep(0.001)
    monkeypatch.undo()
    release.set()
    watching.cancel()


async def test_only_so_many_wait_for_a_token(hsm: SoftHsm) -> None:
    signer, release = read_signer(uri(hsm)), threading.Event()
    threads = SigningThreads(HsmConfig(threads=1, waiting=0, timeout_s=0.05))
    try:
        with pytest.raises(KeyUnavailableError, match="within"):
            await threads.run(signer, lambda: release.wait(60))
        with pytest.raises(KeyUnavailableError, match="too many"):
            await threads.run(signer, lambda: signer.sign(b"data"))
        assert await threads.run(generate_es256(), lambda: "at once") == "at once"
    finally:
        release.set()
