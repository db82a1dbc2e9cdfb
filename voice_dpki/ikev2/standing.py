"""An established IKE SA: its child SAs, and the rekeying of both by either end (RFC 7296 §2.8, §2.25).

Rekeying an IKE SA makes a new object, which takes over the child SAs. The end that has rekeyed then deletes the old
SA. If both ends rekey at once, both new SAs exist for a moment, and the nonces decide which one stays.
"""

from collections.abc import Callable
from dataclasses import dataclass
from math import inf

from voice_dpki.effects import Random
from voice_dpki.ikev2 import rekey
from voice_dpki.ikev2.child import ChildError
from voice_dpki.ikev2.events import Child, ChildClosed, ChildRekeyed, Judged, Path, Rekeyed, SaName
from voice_dpki.ikev2.failures import Failure, IkeError
from voice_dpki.ikev2.payloads import Delete, Notify, Payload, SecurityAssociation, notify_named
from voice_dpki.ikev2.reading import check_not_refused, only
from voice_dpki.ikev2.registry import ExchangeType, NotifyType, Protocol
from voice_dpki.ikev2.rekey import ChildOffer, HeldChild, IkeOffer, Life, NewChild, NewIke
from voice_dpki.ikev2.sa import IkeSa, Party, Settings
from voice_dpki.ikev2.states import Move, State
from voice_dpki.ikev2.window import Responses

YOUNG_S = 1.0
"""Least age in seconds at which the peer may rekey an IKE SA; this bounds the number of replaced SAs."""

REPLACED_S = 30.0
"""Time in seconds for which a replaced SA waits for the peer's deletion; then we delete it."""

MAX_CHILDREN = 4
"""Most child SAs of one IKE SA: the current one, its successor, and those that wait for deletion."""


@dataclass(frozen=True, slots=True)
class _Rival:
    """The new IKE SA of the peer's rekeying, while we also rekey the old SA; `lowest` is its lower nonce."""

    sa: "StandingSa"
    lowest: bytes


class StandingSa(IkeSa):
    """The part of an IKE SA that is active once it is established.

    A caller that keeps the SA must also keep its `offspring` as soon as there are any.
    """

    def __init__(
        self, party: Party, settings: Settings, random: Random, name: SaName, path: Path, *, is_initiator: bool
    ) -> None:
        super().__init__(party, settings, random, name, path, is_initiator=is_initiator)
        self.children: dict[bytes, HeldChild] = {}
        """Child SAs by our inbound SPI."""
        self.offspring: list[StandingSa] = []
        """SAs made by rekeying this one; closed ones are removed at the next rekeying."""
        self._successor: StandingSa | None = None
        self._predecessor: StandingSa | None = None
        self._lost: HeldChild | None = None
        """The last child SA that ended without a successor; the peer can make a new one like it (§1.3.1)."""
        self._release: Callable[[], None] | None = None
        """Callback at the SA's end, which frees the device's inner address; a successor takes the callback over."""
        self._life = Life()
        self._since_s = 0.0
        self._ike_offer: IkeOffer | None = None
        self._ike_rival: _Rival | None = None
        self._child_offer: ChildOffer | None = None
        self._child_rival: HeldChild | None = None

    @property
    def current(self) -> "StandingSa":
        """The latest successor of this SA; the SA itself if it has none."""
        sa: StandingSa = self
        while sa._successor is not None:
            sa = sa._successor
        return sa

    def timer_s(self) -> float | None:
        """Return when to call `handle_timer` next, None if nothing is due."""
        due = [at for at in (super().timer_s(), *self._lives()) if at is not None and at != inf]
        return min(due, default=None)

    def _lives(self) -> tuple[float, ...]:
        if self.state is State.REPLACED:
            return (self._life.ends_s,)
        if self.state is not State.ESTABLISHED:
            return ()
        lives = (self._life, *(held.life for held in self.children.values() if not held.deleting))
        return tuple(min(life.rekey_at_s, life.ends_s) for life in lives)

    def handle_timer(self, now_s: float) -> None:
        """Do what is due: also rekey, and delete SAs whose lifetime ended before they were rekeyed."""
        super().handle_timer(now_s)
        if self.state not in (State.ESTABLISHED, State.REPLACED):
            return
        if now_s >= self._life.ends_s:
            self.delete("its lifetime is over", now_s)
            return
        for held in list(self.children.values()):
            if now_s >= held.life.ends_s and not held.deleting:
                self._delete_child(held, "its lifetime is over", now_s)
            elif now_s >= held.life.rekey_at_s and not held.deleting:
                self.rekey_child(held.inbound, now_s)
        if now_s >= self._life.rekey_at_s:
            self.rekey(now_s)

    def delete(self, reason: str, now_s: float) -> None:
        """Delete the SA, and also the peer's new SA if both ends are rekeying this one."""
        super().delete(reason, now_s)
        if self._ike_rival is not None:
            self._ike_rival.sa.delete(reason, now_s)

    def rekey(self, now_s: float) -> None:
        """Begin to rekey the IKE SA; during another exchange, leave it to the timer."""
        self._life = self._life.again(now_s)
        if self.state is State.ESTABLISHED and self._is_idle:
            self._ike_offer = IkeOffer.make(self._keys.suite, self._random)
            self._ask(ExchangeType.CREATE_CHILD_SA, self._ike_offer.payloads(), now_s, self._ike_answered)

    def rekey_child(self, spi: bytes, now_s: float) -> None:
        """Begin to rekey the child SA of our inbound `spi`; during another exchange, leave it to the timer."""
        held = self.children.get(spi)
        if held is None or held.replaced:
            return
        held.life = held.life.again(now_s)
        if self.state is State.ESTABLISHED and self._is_idle:
            self._offer_child(ChildOffer.make(held, self._keys.suite.group, self._random), now_s)

    def _offer_child(self, offer: ChildOffer, now_s: float) -> None:
        self._child_offer = offer
        self._ask(ExchangeType.CREATE_CHILD_SA, offer.payloads(), now_s, self._child_answered)

    def judge(self, verdict: Judged, now_s: float) -> None:
        """Do nothing: only IKE_AUTH waits for a verdict."""

    # --- answering the peer ---------------------------------------------------------------------------------------

    def _create_child(self, payloads: tuple[Payload, ...], now_s: float) -> None:
        try:
            answer = self._renewal(payloads, now_s)
        except ChildError as error:
            answer = (Notify(error.notify),)
        except IkeError as error:
            answer = (Notify(error.notify, error.data),)
        self._answer(ExchangeType.CREATE_CHILD_SA, answer)

    def _renewal(self, payloads: tuple[Payload, ...], now_s: float) -> tuple[Payload, ...]:
        """Execute a CREATE_CHILD_SA request and return the answer; raises IkeError."""
        rekeyed = notify_named(payloads, NotifyType.REKEY_SA)
        if self.state is not State.ESTABLISHED:
            raise _busy()
        if rekeyed is not None:
            return self._renew_child(rekeyed, payloads, now_s)
        if any(each.protocol == Protocol.IKE for each in only(payloads, SecurityAssociation).proposals):
            return self._renew_ike(payloads, now_s)
        if not self.children and self._lost is not None and self._ike_offer is None:
            return self._answer_child(self._lost, payloads, now_s)
        raise ChildError(NotifyType.NO_ADDITIONAL_SAS, "one child SA is all that there is")

    def _renew_ike(self, payloads: tuple[Payload, ...], now_s: float) -> tuple[Payload, ...]:
        child_under_way = self._child_offer or any(held.deleting for held in self.children.values())
        is_young = now_s < self._since_s + YOUNG_S
        if child_under_way or self._ike_rival or self._predecessor or is_young:
            raise _busy()
        new, answer = rekey.answer_ike(payloads, self.settings.ike_suites, self._random, self._keys)
        self._check_new_ike(new.name.spi_i)
        successor = self._made(new, created=False, now_s=now_s)
        if self._ike_offer is None:
            self._replace_by(successor, now_s)
        else:
            self._ike_rival = _Rival(successor, new.lowest)
        return answer

    def _renew_child(self, rekeyed: Notify, payloads: tuple[Payload, ...], now_s: float) -> tuple[Payload, ...]:
        old = self._peers_child(rekeyed.spi) if rekeyed.protocol == Protocol.ESP else None
        if old is None:
            return (Notify(NotifyType.CHILD_SA_NOT_FOUND, protocol=rekeyed.protocol, spi=rekeyed.spi),)
        if (
            self._ike_offer
            or old.deleting
            or old.replaced
            or self._child_rival
            or len(self.children) >= MAX_CHILDREN
        ):
            raise _busy()
        return self._answer_child(old, payloads, now_s)

    def _answer_child(self, old: HeldChild, payloads: tuple[Payload, ...], now_s: float) -> tuple[Payload, ...]:
        suites, sk_d = self.settings.esp_suites, self._keys.sk_d
        new, answer = rekey.answer_child(payloads, old, suites, self._random, sk_d)
        self._check_new_child(new.child.spi_i)
        held = self._hold_new(new, created=False, now_s=now_s)
        if self._child_offer is not None and self._child_offer.old is old:
            self._child_rival = held
        else:
            self._replace_child(old, held, now_s)
        return answer

    def _deleted_children(self, spis: tuple[bytes, ...]) -> tuple[Payload, ...]:
        gone = [held for spi in spis if (held := self._peers_child(spi)) is not None]
        for held in gone:
            del self.children[held.inbound]
            rekeying = self._child_offer is not None and self._child_offer.old is held
            if not (held.replaced or held.deleting or rekeying or held is self._child_rival):
                self._child_gone(held, "deleted by the peer")
        ours = tuple(dict.fromkeys(held.inbound for held in gone if not held.deleting))
        return (Delete(Protocol.ESP, ours),) if ours else ()

    def _deleted_by_peer(self, now_s: float) -> None:
        rival, self._ike_rival = self._ike_rival, None
        if rival is not None and self.state is State.ESTABLISHED and rival.sa.state is not State.CLOSED:
            self._replace_by(rival.sa, now_s)  # the peer already knows that its rekeying has won

    # --- the peer's answers ---------------------------------------------------------------------------------------

    def _ike_answered(self, payloads: tuple[Payload, ...], now_s: float) -> None:
        offer, self._ike_offer = self._ike_offer, None
        rival, self._ike_rival = self._ike_rival, None
        assert offer is not None
        if rival is not None and rival.sa.state is State.CLOSED:
            rival = None
        try:
            check_not_refused(payloads)
            new = offer.complete(payloads, self._keys)
            self._check_new_ike(new.name.spi_r)
        except IkeError:
            if rival is not None and self.state is State.ESTABLISHED:
                self._replace_by(rival.sa, now_s)
            return  # the timer retries
        ours = self._made(new, created=True, now_s=now_s)
        if self.state is not State.ESTABLISHED:
            ours.delete(self._close_reason, now_s)
        elif rival is not None and new.lowest < rival.lowest:
            ours.delete("the peer has rekeyed at the same time", now_s)
            self._replace_by(rival.sa, now_s)
        else:
            self._replace_by(ours, now_s)
            self.delete("rekeyed", now_s)

    def _child_answered(self, payloads: tuple[Payload, ...], now_s: float) -> None:
        offer, self._child_offer = self._child_offer, None
        assert offer is not None
        if self.state is not State.ESTABLISHED:
            return
        group = offer.other_group(payloads)
        if group is None:
            self._child_decided(offer, payloads, now_s)
        else:
            self._offer_child(ChildOffer.make(offer.old, group, self._random, second=True), now_s)

    def _child_decided(self, offer: ChildOffer, payloads: tuple[Payload, ...], now_s: float) -> None:
        rival, self._child_rival = self._child_rival, None
        if rival is not None and rival.inbound not in self.children:
            rival = None
        if notify_named(payloads, NotifyType.CHILD_SA_NOT_FOUND) is not None:
            self.children.pop(offer.old.inbound, None)
        try:
            check_not_refused(payloads)
            new = offer.complete(payloads, self._keys.sk_d)
            self._check_new_child(new.child.spi_r)
        except IkeError:
            if rival is not None:
                self._replace_child(offer.old, rival, now_s)
            elif offer.old.inbound not in self.children:
                self._child_gone(offer.old, "deleted by the peer")
            return  # the timer retries
        ours = self._hold_new(new, created=True, now_s=now_s)
        if rival is not None and ours.lowest < rival.lowest:
            ours.replaced = True
            self._replace_child(offer.old, rival, now_s)
            self._delete_child(ours, "", now_s)
        else:
            self._replace_child(offer.old, ours, now_s)
            if rival is not None:
                _retire(rival, now_s)
            if offer.old.inbound in self.children:
                self._delete_child(offer.old, "", now_s)

    # --- replacing one SA by another ------------------------------------------------------------------------------

    def _made(self, new: NewIke, *, created: bool, now_s: float) -> "StandingSa":
        """Make and keep the new IKE SA of a rekeying; it raises no event until it replaces this one."""
        sa = RekeyedSa(self, new, created=created, now_s=now_s)
        self.offspring = [each for each in self.offspring if each.state is not State.CLOSED] + [sa]
        return sa

    def _replace_by(self, new: "StandingSa", now_s: float) -> None:
        self._move(Move.REPLACE)
        self._successor, new._predecessor = new, self
        new.children, self.children = self.children, {}
        new._lost = self._lost
        new._release, self._release = self._release, None
        new._quiet, self._quiet = False, True
        self._life = Life(ends_s=now_s + REPLACED_S)
        new._begin_life(now_s)
        self._events.append(Rekeyed(self.name, new.name, self.peer_identity, new._keys.suite))

    def _begin_life(self, now_s: float) -> None:
        self._since_s = now_s
        self._life = Life.of(self.settings.lifetimes.ike_s, now_s, self._random)

    def _hold(self, child: Child, *, created: bool, now_s: float) -> HeldChild:
        life = Life.of(self.settings.lifetimes.child_s, now_s, self._random)
        held = HeldChild(child, created, life)
        self.children[held.inbound] = held
        return held

    def _hold_new(self, new: NewChild, *, created: bool, now_s: float) -> HeldChild:
        held = self._hold(new.child, created=created, now_s=now_s)
        held.lowest = new.lowest
        return held

    def _replace_child(self, old: HeldChild, new: HeldChild, now_s: float) -> None:
        _retire(old, now_s)
        self._events.append(ChildRekeyed(self.name, self.peer_identity, old.inbound, new.child))

    def _delete_child(self, held: HeldChild, reason: str, now_s: float) -> None:
        def answered(_payloads: tuple[Payload, ...], _now_s: float) -> None:
            self.children.pop(held.inbound, None)

        held.deleting = True
        if not held.replaced:
            self._child_gone(held, reason)
        self._ask(ExchangeType.INFORMATIONAL, (Delete(Protocol.ESP, (held.inbound,)),), now_s, answered)

    def _child_gone(self, held: HeldChild, reason: str) -> None:
        self._lost = held
        self._events.append(ChildClosed(self.name, self.peer_identity, held.inbound, reason))

    def _check_new_child(self, spi: bytes) -> None:
        """Check that the peer names a new SPI for a new child SA; otherwise a Delete would be ambiguous."""
        if self._peers_child(spi) is not None:
            raise IkeError(Failure.PAYLOADS, "the peer names the SPI of a child SA that stands for a new one")

    def _check_new_ike(self, spi: bytes) -> None:
        """Check that the peer names a new SPI for the new IKE SA (RFC 7296 §1.3.2)."""
        if spi == (self.name.spi_r if self.is_initiator else self.name.spi_i):
            raise IkeError(Failure.PAYLOADS, "the peer names its old SPI for the new IKE SA")

    def _peers_child(self, spi: bytes) -> HeldChild | None:
        return next((held for held in self.children.values() if held.outbound == spi), None)

    def _gone(self) -> None:
        super()._gone()
        self.children.clear()
        if self._successor is not None:
            self._successor._predecessor = None
        release, self._release = self._release, None
        if release is not None:
            release()


class RekeyedSa(StandingSa):
    """An IKE SA made by rekeying `old`; the end that requested the rekeying is its Initiator (§2.18)."""

    def __init__(self, old: StandingSa, new: NewIke, *, created: bool, now_s: float) -> None:
        super().__init__(old.party, old.settings, old._random, new.name, old.path, is_initiator=created)
        self.state = State.ESTABLISHED
        self.peer_identity, self._certificate = old.peer_identity, old._certificate
        self._stood = self._quiet = True
        self._responses = Responses()
        self._peer_fragments = old._peer_fragments
        self._heard_s = now_s
        self._life = Life(ends_s=now_s + REPLACED_S)
        self._protect_with(new.keys)


def _busy() -> ChildError:
    return ChildError(NotifyType.TEMPORARY_FAILURE, "something else is under way")


def _retire(held: HeldChild, now_s: float) -> None:
    """Mark a child SA as replaced; it then waits REPLACED_S for the peer's deletion."""
    held.replaced = True
    held.life = Life(ends_s=now_s + REPLACED_S)
