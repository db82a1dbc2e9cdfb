"""The drawing in docs/architecture.md, made from the imports of the code: `make drawing` writes it again.

A room is a package: each of the library's and of the services', and together the modules that lie in `voice_dpki`
itself. Rooms that import one another in a circle are drawn as one. An arrow that follows from others is left out.
Entry points (`__main__`) are left out, for they start programs and hold nothing.
"""

import ast
from collections.abc import Iterable, Mapping
from importlib.util import find_spec
from pathlib import Path

import grimp

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs/architecture.md"
BEGIN, END = "<!-- drawing: made by `make drawing` -->\n", "<!-- end of the drawing -->\n"

LIBRARY = "voice_dpki"
SERVICES = ("sip_testbed", "authn_server", "verify_server", "ledger_node", "segw_agent")

Arrows = dict[str, set[str]]
"""For each room the others that it imports."""


def drawing() -> str:
    """Return the Mermaid text, and below it what it leaves out."""
    direct = imports()
    circles = circles_of(direct)
    merged = merge(direct, circles)
    drawn = reduce(merged)
    lines = ["```mermaid", "flowchart TD"]
    lines += [f'    {_id(room)}["<b>{room}</b><br/>{_about(room)}"]' for room in sorted(drawn)]
    lines += [f"    {_id(room)} --> {_id(other)}" for room in sorted(drawn) for other in sorted(drawn[room])]
    lines += ["```", "", _caption(direct, merged, drawn)]
    lines += [f"Drawn as one, for they import one another: {_listed(sorted(circle))}." for circle in circles]
    return "\n".join(lines) + "\n"


def imports() -> Arrows:
    """Read from the code which room imports which."""
    graph = grimp.build_graph(LIBRARY, *SERVICES, cache_dir=None)
    packages = {module for module in graph.modules if graph.find_children(module)}
    modules = [module for module in graph.modules if not module.endswith("__main__")]
    arrows: Arrows = {_room(module, packages): set() for module in modules}
    for module in modules:
        room = _room(module, packages)
        arrows[room] |= {_room(other, packages) for other in graph.find_modules_directly_imported_by(module)}
        arrows[room].discard(room)
    return arrows


def circles_of(arrows: Mapping[str, Iterable[str]]) -> list[frozenset[str]]:
    """Return the sets of rooms that all reach one another, those of a service first."""
    reached = {room: _reached(arrows, room) for room in arrows}
    sets = {frozenset(other for other in reached[room] if room in reached[other]) for room in arrows}
    return sorted((circle for circle in sets if len(circle) > 1), key=min)


def merge(arrows: Mapping[str, Iterable[str]], circles: Iterable[frozenset[str]]) -> Arrows:
    """Let each circle be one room, which bears the name that comes first."""
    name = {room: min(circle) for circle in circles for room in circle}
    merged: Arrows = {}
    for room, others in arrows.items():
        one = name.get(room, room)
        merged.setdefault(one, set()).update(name.get(other, other) for other in others)
        merged[one].discard(one)
    return merged


def reduce(arrows: Mapping[str, Iterable[str]]) -> Arrows:
    """Leave out each arrow that leads where a longer way leads, too; `arrows` have no circle."""
    reached = {room: _reached(arrows, room) for room in arrows}
    return {
        room: {other for other in others if not any(other in reached[way] for way in others if way != other)}
        for room, others in arrows.items()
    }


def _reached(arrows: Mapping[str, Iterable[str]], room: str) -> set[str]:
    """Return all rooms that `room` needs, directly or not; itself only if it is in a circle."""
    reached: set[str] = set()
    ahead = list(arrows[room])
    while ahead:
        if (one := ahead.pop()) not in reached:
            reached.add(one)
            ahead += arrows[one]
    return reached


def _room(module: str, packages: set[str]) -> str:
    """Return the room of a module: the package of at most two names that it lies in."""
    two = ".".join(module.split(".")[:2])
    return two if two in packages else two.partition(".")[0]


def _about(room: str) -> str:
    """Say what a room holds: the first sentence of its docstring, or the modules that lie in the library itself."""
    if room == LIBRARY:
        return ", ".join(sorted(path.stem for path in (ROOT / LIBRARY).glob("[a-z]*.py")))
    spec = find_spec(room)
    assert spec is not None
    assert spec.origin is not None
    docstring = ast.get_docstring(ast.parse(Path(spec.origin).read_text())) or ""
    return docstring.partition("\n")[0].removesuffix(".").replace('"', "#quot;").replace("`", "")


def _id(room: str) -> str:
    return room.replace(".", "_")


def _caption(direct: Arrows, merged: Arrows, drawn: Arrows) -> str:
    """Give the numbers of rooms and arrows."""
    rooms, imported, arrows = len(direct), _count(direct), _count(drawn)
    return (
        f"{rooms} rooms, {imported} imports between them. Drawn: {len(drawn)} rooms and the {arrows} arrows from "
        f"which the other {_count(merged) - arrows} follow."
    )


def _count(arrows: Arrows) -> int:
    return sum(map(len, arrows.values()))


def _listed(names: list[str]) -> str:
    return " and ".join(", ".join(f"`{name}`" for name in part) for part in (names[:-1], names[-1:]))


def redrawn(page: str) -> str:
    """Return a page with today's drawing between its two marks."""
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n{drawing()}\n{END}{after}"


if __name__ == "__main__":
    PAGE.write_text(redrawn(PAGE.read_text()))
