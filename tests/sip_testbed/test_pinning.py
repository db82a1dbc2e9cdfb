"""A telephone's pins: which other key counts as a successor, what becomes of any other, and the file they are in.

The ledger is the real state with its rules; only the way to a node, with its proofs, is left out.
"""

import sqlite3
import stat
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from sip_testbed import pin_store
from sip_testbed.inquiry import Inquiry
from sip_testbed.main import main
from sip_testbed.pin_store import Pin, PinsFullError, PinStore
from sip_testbed.pinning import MAX_LINKS, Pinning, Standing
from sip_testbed.rivals import Party
from tests.ledger.conftest import CHAIN, START_S, chain, federation
from voice_dpki.effects import SystemClock
from voice_dpki.errors import LocalError
from voice_dpki.ledger.answers import InquiryCode, InquiryError, Resolution
from voice_dpki.ledger.standing import status_of
from voice_dpki.ledger.transactions import Renew, endorse, renewal_bytes
from voice_dpki.mikey.failures import Failure, MikeyError
from voice_dpki.mikey.steps import PeerClaim
from voice_dpki.names import CertDigest, Height, Tn
from voice_dpki.x509.keys import LocalSigner, generate_es256
from voice_dpki.x509.profile import digest_of, read_profile

__all__ = ["chain", "federation"]

CALLEE = Tn("442079460123")
URI = f"sip:+{CALLEE}@b.example"
B = "Operator B"


class Ledger:
    """A ledger of Operator B's certificates for one subscriber, and what a node would answer about them."""

    def __init__(self, federation: Any, chain: Any) -> None:
        self.federation, self.chain = federation, chain
        self.is_away = False
        self.asked = 0

    def record(self, key: LocalSigner | None = None) -> bytes:
        der = self.certificate(key)
        self.chain.add([self.federation.submission(der, B)])
        return der

    def certificate(self, key: LocalSigner | None = None) -> bytes:
        return bytes(self.federation.certificate(B, key=key or generate_es256(), uris=[URI]))

    def renew(self, owner: LocalSigner, old: bytes, new: bytes) -> None:
        signature = owner.sign(renewal_bytes(CHAIN, digest_of(old), digest_of(new)))
        body = Renew(CHAIN, B, new, digest_of(old), owner.public_key_der, signature)
        self.chain.add([endorse(body, [self.federation.keys[B]])])
        assert self.found(new).record, "the ledger refused the renewal"

    def revoke(self, der: bytes, reason: str) -> None:
        self.chain.add([self.federation.change(digest_of(der), "revoked", 0, B, reason)])

    def found(self, der: bytes) -> Resolution:
        return self._found(digest_of(der))

    def _found(self, digest: CertDigest) -> Resolution:
        record = self.chain.state.record(digest)
        member = self.chain.state.member(B)
        return Resolution(digest, status_of(record, member, START_S), None, record, member, Height(2), START_S, 0.0)

    async def resolve(self, digest: CertDigest, *, with_certificate: bool) -> Resolution:
        self.asked += 1
        assert not with_certificate, "a certificate's record is enough"
        if self.is_away:
            raise InquiryError(InquiryCode.UNREACHABLE, "the ledger node does not answer")
        return self._found(digest)


@pytest.fixture
def ledger(federation: Any, chain: Any) -> Ledger:
    return Ledger(federation, chain)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "pins.sqlite"


def claim(der: bytes, role: str = "Responder") -> PeerClaim:
    return PeerClaim(role, URI, cast(Any, None), read_profile(der))


Meet = Callable[..., Awaitable[tuple[Standing, tuple[str, ...]]]]


@pytest.fixture
def meet(ledger: Ledger, file: Path) -> Meet:
    """Agree with the party on keys, as the telephone does; each time as after a restart."""

    async def meet(der: bytes, *, called: bool = True, tells: bool = False) -> tuple[Standing, tuple[str, ...]]:
        pinning = Pinning(PinStore(file), cast(Any, ledger), tells=tells)
        given = claim(der, "Responder" if called else "Initiator")
        party: Party = "callee" if called else "caller"
        key = await pinning.check(given, ledger.found(der), party)
        return key.standing, (*key.remarks, *await pinning.keep(given, key, START_S, party))

    return meet


async def test_the_key_of_somebody_who_was_called_is_known_after_a_restart(ledger: Ledger, meet: Meet) -> None:
    der = ledger.record()
    assert await meet(der) == (Standing.FIRST, ())
    assert await meet(der) == (Standing.KNOWN, ())
    assert await meet(der, called=False) == (Standing.KNOWN, ())
    assert ledger.asked == 0


async def test_whoever_merely_calls_is_not_pinned(ledger: Ledger, meet: Meet, file: Path) -> None:
    assert await meet(ledger.record(), called=False) == (Standing.FIRST, ())
    assert PinStore(file).all() == []
    assert await meet(ledger.record()) == (Standing.FIRST, ())


async def test_another_certificate_for_the_same_key_is_the_same_party(ledger: Ledger, meet: Meet) -> None:
    key = generate_es256()
    await meet(ledger.record(key))
    assert await meet(ledger.record(key)) == (Standing.KNOWN, ())


@pytest.mark.parametrize("called", [True, False])
async def test_a_second_certificate_for_the_party_is_refused(ledger: Ledger, meet: Meet, called: bool) -> None:
    first, second = ledger.record(), ledger.record()
    await meet(first)
    for _ in range(2):
        with pytest.raises(MikeyError) as caught:
            await meet(second, called=called)
        assert caught.value.failure is Failure.PIN
        assert caught.value.sentence == (
            f"the {'Responder' if called else 'Initiator'}'s key is not the one of earlier calls, "
            "which has not signed for it; its certificate is valid on the ledger, too"
        )
    assert await meet(first) == (Standing.KNOWN, ())


async def test_a_renewal_on_the_ledger_moves_the_pin(ledger: Ledger, meet: Meet) -> None:
    key, new = generate_es256(), ledger.certificate()
    old = ledger.record(key)
    await meet(old)
    ledger.renew(key, old, new)
    assert await meet(new, called=False) == (Standing.RENEWED, ())
    assert await meet(new) == (Standing.KNOWN, ())
    with pytest.raises(MikeyError, match="key is not the one of earlier calls"):
        await meet(old)


async def renewed_often(ledger: Ledger, times: int) -> tuple[bytes, bytes]:
    key = generate_es256()
    first = der = ledger.record(key)
    for _ in range(times):
        next_key = generate_es256()
        new = ledger.certificate(next_key)
        ledger.renew(key, der, new)
        key, der = next_key, new
    return first, der


async def test_renewals_between_two_calls_are_followed_so_far(ledger: Ledger, meet: Meet, file: Path) -> None:
    first, last = await renewed_often(ledger, MAX_LINKS)
    await meet(first)
    assert await meet(last) == (Standing.RENEWED, ())
    PinStore(file).forget(CALLEE)
    first, last = await renewed_often(ledger, MAX_LINKS + 1)
    await meet(first)
    with pytest.raises(MikeyError, match="has not signed for it"):
        await meet(last)


async def test_a_renewal_of_another_certificate_for_the_pinned_key_counts(ledger: Ledger, meet: Meet) -> None:
    key, last = generate_es256(), ledger.certificate()
    await meet(ledger.record(key))
    again = ledger.record(key)
    ledger.renew(key, again, last)
    assert await meet(last) == (Standing.RENEWED, ())


@pytest.mark.parametrize(
    ("reason", "told"),
    [("keyCompromise", "its certificate is revoked on the ledger"), ("superseded", "its certificate is revoked")],
)
async def test_the_operators_revocation_of_the_old_certificate_frees_nobody(
    ledger: Ledger, meet: Meet, reason: str, told: str
) -> None:
    """The callee's operator could revoke it, and so let its own key in."""
    first, second = ledger.record(), ledger.record()
    await meet(first)
    ledger.revoke(first, reason)
    with pytest.raises(MikeyError, match=told):
        await meet(second)


async def test_a_certificate_of_another_operator_is_told_as_that(ledger: Ledger, meet: Meet, file: Path) -> None:
    first = ledger.record()
    await meet(first)
    pin = PinStore(file).all()[0]
    PinStore(file).keep(replace(pin, organization="Operator C", digest=CertDigest(bytes(32))))
    with pytest.raises(MikeyError) as caught:
        await meet(ledger.record())
    assert caught.value.sentence.endswith(
        "its certificate is no longer on the ledger, and was recorded by Operator C, this one by Operator B"
    )


async def test_a_changed_key_is_told_each_time_where_that_is_configured(ledger: Ledger, meet: Meet) -> None:
    first, second = ledger.record(), ledger.record()
    await meet(first)
    for _ in range(2):
        standing, (remark,) = await meet(second, tells=True)
        assert standing is Standing.CHANGED
        assert remark.startswith("the callee's key is not the one of earlier calls")
    assert await meet(first) == (Standing.KNOWN, ())


async def test_without_the_ledger_another_key_is_refused(ledger: Ledger, meet: Meet) -> None:
    first, second = ledger.record(), ledger.record()
    await meet(first)
    ledger.is_away = True
    assert await meet(first) == (Standing.KNOWN, ())
    for tells in (False, True):
        with pytest.raises(MikeyError, match="whether it follows is not known: the ledger node does not answer"):
            await meet(second, tells=tells)


async def test_pins_that_cannot_be_read_refuse_the_call(ledger: Ledger, file: Path) -> None:
    der = ledger.record()
    pinning = Pinning(PinStore(file), cast(Any, ledger))
    file.write_bytes(b"no database" * 100)
    with pytest.raises(MikeyError, match="the keys of earlier calls cannot be read here") as caught:
        await pinning.check(claim(der), ledger.found(der), "callee")
    assert caught.value.failure is Failure.PIN


async def test_a_key_that_cannot_be_pinned_is_told(
    ledger: Ledger, meet: Meet, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(pin_store, "MAX_PINS", 0)
    assert await meet(ledger.record()) == (
        Standing.FIRST,
        ("the callee's key could not be pinned: the log says why",),
    )
    assert "a key cannot be pinned" in caplog.text


def a_pin(number: int = 1) -> Pin:
    return Pin(Tn(str(number)), f"sip:+{number}@b.example", CertDigest(bytes(32)), bytes(32), B, START_S)


class TestFile:
    def test_is_for_its_owner_alone(self, file: Path) -> None:
        PinStore(file).keep(a_pin())
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        file.chmod(0o640)
        with pytest.raises(LocalError, match=r"pins\.sqlite: others may read or write it"):
            PinStore(file)

    def test_is_bounded(self, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(pin_store, "MAX_PINS", 3)
        store = PinStore(file)
        for number in range(3):
            store.keep(a_pin(number))
        with pytest.raises(PinsFullError, match="holds 3 pins"):
            store.keep(a_pin(3))
        store.keep(replace(a_pin(2), organization="Operator C"))
        assert [pin.organization for pin in store.all()] == [B, B, "Operator C"]
        assert (store.forget(Tn("0")), store.forget(Tn("0"))) == (True, False)
        store.keep(a_pin(3))
        assert (store.find(Tn("0")), store.find(Tn("3"))) == (None, a_pin(3))

    @pytest.mark.parametrize(
        ("make", "message"),
        [
            (lambda file: file.write_bytes(b"no database" * 100), "the pins cannot be used"),
            (lambda file: file.mkdir(), "the pins cannot be used"),
            (lambda file: of_another_program(file), "holds no pins that this release can read"),
            (lambda file: damage(file), "the pins are damaged|cannot be used"),
        ],
        ids=["no database", "folder", "another's", "damaged"],
    )
    def test_that_cannot_be_used_is_refused_before_a_call(
        self, file: Path, make: Callable[[Path], object], message: str
    ) -> None:
        make(file)
        file.chmod(0o700)
        with pytest.raises(LocalError, match=message):
            PinStore(file)

    @pytest.mark.parametrize("column", ["digest", "key_id", "organization", "since_s"])
    def test_with_a_damaged_pin_protects_that_party_still(self, file: Path, column: str) -> None:
        store = PinStore(file)
        store.keep(a_pin())
        with sqlite3.connect(file) as database:
            database.execute(f"UPDATE pins SET {column} = x'00'")
        database.close()
        with pytest.raises(LocalError, match="a pin is damaged"):
            store.find(Tn("1"))


def of_another_program(file: Path) -> None:
    with sqlite3.connect(file) as database:
        database.execute("CREATE TABLE notes (text)")
    database.close()


def damage(file: Path) -> None:
    store = PinStore(file)
    for number in range(200):
        store.keep(a_pin(number))
    data = bytearray(file.read_bytes())
    data[8192:12288] = bytes(4096)
    file.write_bytes(data)


class TestCommand:
    def test_lists_and_forgets(self, file: Path, capsys: pytest.CaptureFixture[str]) -> None:
        PinStore(file).keep(a_pin(442079460123))
        assert main(["pins", str(file)]) == 0
        listed = capsys.readouterr().out
        assert listed.startswith("+442079460123  20")
        assert listed.endswith(f"UTC  {'00' * 32}  {B}\n")
        assert main(["pins", str(file), "--forget", "+44 20"]) == 2
        assert main(["pins", str(file), "--forget", "+44-20-7946-0123"]) == 0
        assert PinStore(file).all() == []
        assert main(["pins", str(file), "--forget", "+442079460123"]) == 2
        assert "this number is not pinned" in capsys.readouterr().err

    def test_makes_no_file(self, file: Path) -> None:
        assert main(["pins", str(file)]) == 2
        assert not file.exists()


class TestCall:
    """All agreements of one call are with one key, whether keys are pinned or not."""

    @pytest.fixture(params=[False, True], ids=["without pins", "with pins"])
    def inquiry(self, request: pytest.FixtureRequest, ledger: Ledger, file: Path) -> Inquiry:
        access = SimpleNamespace(client=lambda clock: ledger)
        party = SimpleNamespace(certificate=ledger.record(), uri="sip:+493023125001@a.example")
        pins = PinStore(file) if request.param else None
        credentials = SimpleNamespace(party=party, ledger=access, pins=pins, tells_changed_keys=True)
        tracer = SimpleNamespace(note=lambda *given, **more: None)
        return Inquiry(cast(Any, credentials), cast(Any, tracer), SystemClock())

    @pytest.mark.parametrize("party", ["caller", "callee"])
    @pytest.mark.parametrize("role", ["Initiator", "Responder"])
    async def test_keeps_the_key_that_it_began_with(
        self, inquiry: Inquiry, ledger: Ledger, party: Party, role: str
    ) -> None:
        first, second = ledger.record(), ledger.record()
        inquiry.begin_call(party)
        for _ in range(2):
            await inquiry.compare(claim(first, role), ledger.found(first))
        with pytest.raises(MikeyError, match="key is not the one with which the call began") as caught:
            await inquiry.compare(claim(second, role), ledger.found(second))
        assert caught.value.failure is Failure.PIN
        await inquiry.compare(claim(first, role), ledger.found(first))
        inquiry.begin_call(party)
        await inquiry.compare(claim(second, role), ledger.found(second))

    async def test_pins_whom_we_called_whoever_offered_the_keys(
        self, inquiry: Inquiry, ledger: Ledger, file: Path
    ) -> None:
        der, is_pinned = ledger.record(), file.exists()
        inquiry.begin_call("caller")
        await inquiry.compare(claim(der, "Responder"), ledger.found(der))
        assert await inquiry.keep_key() == ()
        assert not (is_pinned and PinStore(file).all())
        inquiry.begin_call("callee")
        await inquiry.compare(claim(der, "Initiator"), ledger.found(der))
        assert not (is_pinned and PinStore(file).all()), "nobody has answered"
        assert await inquiry.keep_key() == ()
        assert not is_pinned or [pin.digest for pin in PinStore(file).all()] == [digest_of(der)]

    async def test_pins_who_agreed_on_keys_last(self, inquiry: Inquiry, ledger: Ledger, file: Path) -> None:
        """Several telephones ring, and one answers; after a refused agreement there is nobody to pin."""
        first, second, is_pinned = ledger.record(), ledger.record(), file.exists()
        for der in (first, second):
            inquiry.begin_call("callee")
            await inquiry.compare(claim(der), ledger.found(der))
        with pytest.raises(MikeyError):
            await inquiry.compare(claim(first), ledger.found(first))
        await inquiry.keep_key()
        assert not (is_pinned and PinStore(file).all())
        await inquiry.compare(claim(second), ledger.found(second))
        await inquiry.keep_key()
        assert not is_pinned or [pin.digest for pin in PinStore(file).all()] == [digest_of(second)]

    async def test_leaves_the_pin_that_another_call_has_written_meanwhile(
        self, inquiry: Inquiry, ledger: Ledger, file: Path
    ) -> None:
        """Two lines ring at once; the key that was answered first stays."""
        if not file.exists():
            return
        first, second = ledger.record(), ledger.record()
        beside = inquiry.of_call()
        for each, der in ((inquiry, first), (beside, second)):
            each.begin_call("callee")
            await each.compare(claim(der), ledger.found(der))
        assert await beside.keep_key() == ()
        (told,) = await inquiry.keep_key()
        assert "could not be pinned" in told
        assert [pin.digest for pin in PinStore(file).all()] == [digest_of(second)]
