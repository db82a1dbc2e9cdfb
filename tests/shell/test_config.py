"""Configuration files: what is wrong is named, by file and key."""

import os
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from voice_dpki.errors import LocalError
from voice_dpki.shell.config import (
    Config,
    Listen,
    load_config,
    read_private_secret,
    read_secret,
    read_secrets,
    resolve,
    to_toml,
)


class Example(Config, frozen=True, kw_only=True):
    """A service's configuration."""

    listen: Listen
    name: str = "a"


def _write(folder: Path, text: str) -> Path:
    file = folder / "service.toml"
    file.write_text(text)
    return file


def test_a_good_file(tmp_path: Path) -> None:
    config = load_config(_write(tmp_path, 'name = "b"\n[listen]\nport = 5060\n'), Example)
    assert config == Example(name="b", listen=Listen(port=5060))
    assert config.listen.host == "127.0.0.1"


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("", "listen"),
        ("[listen]\n", "port"),
        ("[listen]\nport = 'x'\n", "toml: listen.port: Expected"),
        ("[listen]\nport = 70000\n", "65535"),
        ("nmae = 'b'\n[listen]\nport = 1\n", "nmae"),
        ("[listen\n", "not TOML"),
    ],
)
def test_a_bad_file_is_named_with_its_key(tmp_path: Path, text: str, named: str) -> None:
    with pytest.raises(LocalError, match=named) as caught:
        load_config(_write(tmp_path, text), Example)
    assert "service.toml" in str(caught.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(LocalError, match=r"gone\.toml.*No such file"):
        load_config(tmp_path / "gone.toml", Example)


def test_secrets(tmp_path: Path) -> None:
    file = tmp_path / "tokens"
    file.write_text("# proxies\nfirst \n\nsecond\n")
    assert read_secrets(file) == ("first", "second")
    assert read_secret(resolve(tmp_path / "service.toml", "tokens")) == "first"
    file.write_text("\n# none\n")
    with pytest.raises(LocalError, match="holds no secret"):
        read_secrets(file)


def test_what_is_written_reads_back() -> None:
    sections = {
        "name": 'a "quoted" é\n',
        "count": 3,
        "ratio": 0.5,
        "on": True,
        "keys": ["a", "b"],
        "listen": {"host": "127.0.0.1", "port": 0},
        "routes": [{"prefix": "+1"}, {"prefix": "+2"}],
        "Operator B": "x",
        "by name": {"Operator B": {"Ö": 1}, "a.b": [{"c d": 1}]},
        "nested": {"deeper": {"deepest": {"x": 1}}, "routes": [{"to": {"y": 2}}]},
        "none": None,
        "path": Path("/x"),
    }
    expected = {name: value for name, value in sections.items() if value is not None} | {"path": "/x"}
    assert tomllib.loads(to_toml(sections)) == expected


GROUP = 54321


@pytest.fixture
def _as_a_service() -> Iterator[None]:
    """Have the group of a service, as under systemd."""
    if os.geteuid() != 0:
        pytest.skip("only root can take another group")
    os.setegid(GROUP)
    yield
    os.setegid(0)


@pytest.mark.usefixtures("_as_a_service")
@pytest.mark.parametrize(
    ("owner", "group", "mode", "is_taken"),
    [
        (0, GROUP, 0o640, True),  # as tmpfiles.conf of the Debian package makes them
        (0, GROUP, 0o440, True),
        (GROUP, GROUP, 0o600, True),
        (0, GROUP, 0o660, False),
        (0, GROUP, 0o644, False),
        (0, GROUP + 1, 0o640, False),
        (0, 0, 0o640, False),
        (GROUP, GROUP, 0o640, False),  # only what root keeps is known to be meant so
    ],
)
def test_a_secret_of_roots_is_read_by_the_service_whose_group_it_has(
    tmp_path: Path, owner: int, group: int, mode: int, is_taken: bool
) -> None:
    secret = tmp_path / "pin"
    secret.write_text("4711\n")
    os.chown(secret, owner, group)
    secret.chmod(mode)
    if is_taken:
        assert read_private_secret(secret) == "4711"
    else:
        with pytest.raises(LocalError, match="others than its owner may read"):
            read_private_secret(secret)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_a_secret_of_roots_own_group_is_not_exempt(tmp_path: Path) -> None:
    (tmp_path / "pin").write_text("4711\n")
    (tmp_path / "pin").chmod(0o640)
    with pytest.raises(LocalError, match="others than its owner may read"):
        read_private_secret(tmp_path / "pin")
