"""Configuration files: what is wrong is named, by file and key."""

from pathlib import Path

import pytest

from voice_dpki.errors import LocalError
from voice_dpki.shell.config import Config, Listen, load_config, read_secret, read_secrets, resolve


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
        ("[listen]\nport = 'x'\n", r"\$\.listen\.port"),
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
