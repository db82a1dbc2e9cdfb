"""Options that a running service reloads: on SIGHUP it reads its configuration again.

An option says in its declaration that it is reloadable; all others keep their values until a restart.

    class Section(Config, frozen=True, kw_only=True):
        tokens: Annotated[str, RELOADABLE]

    options = Options(partial(load_config, path, Section))
    tokens = options.live(lambda config: read_secrets(resolve(path, config.tokens)))
    ...
    tokens.value    # as of the last SIGHUP

A file that a reloadable option names is read again too, even if the option itself is unchanged.
"""

import logging
from collections.abc import Callable
from typing import Any, Generic, TypeVar, get_args, get_type_hints
from weakref import WeakSet

import msgspec

from voice_dpki.errors import LocalError
from voice_dpki.metrics import counters
from voice_dpki.shell.config import Config
from voice_dpki.shortfalls import SHORTFALLS

log = logging.getLogger(__name__)

RELOADABLE = msgspec.Meta(extra={"reloadable": True})
"""Marks an option, in Annotated, as one that SIGHUP reads again."""

RELOADS = counters("reloads", "Configurations read again, by what came of it.", outcome=("taken", "refused"))

C = TypeVar("C", bound=Config)
V = TypeVar("V")


class Live(Generic[V]):
    """A value that can change while the service runs; read `value` each time that it is needed."""

    def __init__(self, value: V, owner: object = None) -> None:
        """Hold a first value; `owner` is what replaces it, and lives as long."""
        self.value = value
        self._owner = owner
        self._acts: list[Callable[[V], None]] = []

    def follow(self, act: Callable[[V], None]) -> None:
        """Have `act`, which cannot fail, called with each value that takes this one's place."""
        self._acts.append(act)

    def replace(self, value: V) -> None:
        """Hold another value, and tell those that follow."""
        self.value = value
        for act in self._acts:
            act(value)


class Options(Generic[C]):
    """The configuration of a service, and the values that are made from its reloadable options."""

    def __init__(self, load: Callable[[], C]) -> None:
        """Load the configuration now, and at each reload; raises the LocalError that `load` raises."""
        self.config = load()
        self._load = load
        self._live: list[tuple[Live[Any], Callable[[C], Any]]] = []
        self._acts: list[Callable[[C], None]] = []
        self._refused = False
        SHORTFALLS.watch(self)
        _ALL.add(self)

    def live(self, make: Callable[[C], V]) -> Live[V]:
        """Make a value from the configuration now and at each reload; raises the LocalError that `make` raises.

        At a reload, `make` gets a configuration that differs from the one before in reloadable options only.
        """
        held = Live(make(self.config), self)
        self._live.append((held, make))
        return held

    def on_change(self, act: Callable[[C], None]) -> None:
        """Have `act`, which cannot fail, called with the configuration when a reload has changed an option."""
        self._acts.append(act)

    def reload(self) -> None:
        """Load the configuration again and replace all values; on a LocalError all stay as they are."""
        try:
            merged = _Merged(self.config, self._load())
            values = [make(merged.config) for _, make in self._live]
        except LocalError as error:
            self._refused = True
            RELOADS.labels("refused").inc()
            log.error("configuration refused, the one before stays", extra={"fields": {"reason": str(error)}})
            return
        self._refused, self.config = False, merged.config
        for (held, _), value in zip(self._live, values, strict=True):
            held.replace(value)
        for act in self._acts if merged.taken else ():
            act(self.config)
        RELOADS.labels("taken").inc()
        fields = {"changed": merged.taken, "needs_restart": merged.left}
        log.info("configuration read again", extra={"fields": fields})

    def shortfall(self) -> str:
        """Return a warning if the last reload was refused; otherwise an empty string."""
        return "the changed configuration is refused, the one before stays: see the log" if self._refused else ""


class _Merged(Generic[C]):
    """A configuration with the reloadable options of a new one; the names of those and of others that differ."""

    def __init__(self, old: C, new: C) -> None:
        self.taken: list[str] = []
        self.left: list[str] = []
        self.config = self._merge(old, new, "")

    def _merge(self, old: C, new: C, inside: str) -> C:
        reloadable, changes = reloadable_options(type(old)), {}
        for name in old.__struct_fields__:
            before, after, key = getattr(old, name), getattr(new, name), f"{inside}{name}"
            if before == after:
                continue
            if name in reloadable:
                changes[name] = after
                self.taken.append(key)
            elif isinstance(before, Config) and type(before) is type(after):
                changes[name] = self._merge(before, after, f"{key}.")  # type: ignore[arg-type]
            else:
                self.left.append(key)
        return msgspec.structs.replace(old, **changes)


def reloadable_options(section: type[Config]) -> frozenset[str]:
    """Return the names of a section's options that are declared with RELOADABLE."""
    hints = get_type_hints(section, include_extras=True)
    marked = (name for name, hint in hints.items() if any(each is RELOADABLE for each in get_args(hint)))
    return frozenset(marked)


def reload_all() -> bool:
    """Reload all options of this process; return whether there are any."""
    found = list(_ALL)
    for options in found:
        options.reload()
    return bool(found)


_ALL: "WeakSet[Options[Any]]" = WeakSet()
"""The options of this process that are still in use."""
