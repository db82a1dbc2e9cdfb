"""Examples of configuration sections, written from what the sections declare."""

from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any

import msgspec

from voice_dpki.shell.config import Config, to_toml


def example_of(
    section: type[Config], name: str, *, instead: Mapping[str, object] = MappingProxyType({}), column: int = 39
) -> str:
    """Write the table `name` with every key of a section: its example, and its description from `column` on.

    Both stand in the field's `msgspec.Meta`; `instead` gives other examples. A table inside may be left out, so it
    is commented out. Raises KeyError for a field that lacks either.
    """
    lines = [f"[{name}]"]
    for key, schema in _schemas(section):
        value, description = instead.get(key, schema["examples"][0]), schema["description"]
        if isinstance(value, Mapping):
            lines += [f"{f'# [{name}.{key}]':<{column}}# {description}"]
            lines += [f"# {line}" for line in to_toml(value).splitlines()]
        else:
            lines += [f"{to_toml({key: value}).rstrip():<{column - 1}} # {description}"]
    return "\n".join(lines) + "\n"


def _schemas(section: type[Config]) -> Iterator[tuple[str, dict[str, Any]]]:
    kind = msgspec.inspect.type_info(section)
    assert isinstance(kind, msgspec.inspect.StructType)
    for field in kind.fields:
        told = field.type.extra_json_schema if isinstance(field.type, msgspec.inspect.Metadata) else None
        yield field.encode_name, told or {}
