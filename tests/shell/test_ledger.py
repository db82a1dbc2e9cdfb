from pathlib import Path

import pytest

from voice_dpki.errors import LocalError
from voice_dpki.shell.ledger import read_genesis


@pytest.mark.parametrize("data", [b"", b"{}", b"\xff", b"[" * 100_000])
def test_a_genesis_that_is_none_is_named_once(data: bytes, tmp_path: Path) -> None:
    path = tmp_path / "genesis.json"
    path.write_bytes(data)
    with pytest.raises(LocalError) as error:
        read_genesis(path)
    assert str(error.value).count("genesis.json") == 1


def test_a_genesis_that_is_not_there_is_named_once(tmp_path: Path) -> None:
    with pytest.raises(LocalError) as error:
        read_genesis(tmp_path / "genesis.json")
    assert (
        str(error.value) == f"{tmp_path / 'genesis.json'}: cannot read this genesis file: No such file or directory"
    )
