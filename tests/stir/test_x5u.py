from typing import Any

import pytest

from voice_dpki.errors import MalformedError
from voice_dpki.stir.x5u import digest_in_chain


@pytest.mark.parametrize(("chain", "is_one"), [
    (["AA=="], True), (["AA=="] * 8, True), (["AA=="] * 9, False), ([], False), (["AA==", ""], False),
    (["AA==", 7], False), ("AA==", False), ({"0": "AA=="}, False), (["AA"], False),
])  # fmt: skip
def test_a_chain_names_its_first_certificate(chain: Any, is_one: bool) -> None:
    """RFC 7515 §4.1.6; `openssl dgst -sha256` of one octet 0."""
    if is_one:
        first = "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d"
        assert digest_in_chain([chain[0], *["////"] * (len(chain) - 1)]).hex() == first
        return
    with pytest.raises(MalformedError):
        digest_in_chain(chain)
