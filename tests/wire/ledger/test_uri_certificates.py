"""Reading a URI's certificates at each change: nothing is missed when the node fails in between."""

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any, cast

import pytest

from voice_dpki.errors import LocalError
from voice_dpki.ledger.answers import InquiryCode, InquiryError
from voice_dpki.ledger.names import keys_of_uri
from voice_dpki.names import CertDigest
from voice_dpki.wire.ledger.uri_certificates import UriCertificates

URI = "sip:+442079460123@b.example"
OTHERS = frozenset({b"another leaf"})
OURS = frozenset({keys_of_uri(URI)[-1]})


class Node:
    """A client of a node that tells changes in turn, and fails where it is to."""

    def __init__(self, changes: Sequence[frozenset[bytes] | None], failing: Sequence[str] = ()) -> None:
        self.left, self.failing = list(changes), list(failing)
        self.since: list[Any] = []
        self.der: bytes | None = None

    async def changes(self, since: Any, *, wait_s: float) -> tuple[Any, frozenset[bytes] | None]:
        assert wait_s > 0
        self.since.append(since)
        return len(self.since), self.left.pop(0)

    async def listed(self, keys: Sequence[bytes]) -> tuple[Any, ...]:
        assert keys == keys_of_uri(URI)
        if self.failing and self.failing.pop(0):
            raise InquiryError(InquiryCode.UNREACHABLE, "the ledger node does not answer")
        return (SimpleNamespace(digest=CertDigest(bytes(32))),)

    async def resolve(self, digest: CertDigest) -> Any:
        return SimpleNamespace(certificate=self.der)


def reader(node: Node) -> UriCertificates:
    return UriCertificates(cast(Any, node), URI)


async def test_changes_elsewhere_are_passed_over() -> None:
    node = Node([None, OTHERS, frozenset(), OURS])
    certificates = reader(node)
    await certificates.read_changed()
    await certificates.read_changed()
    assert node.since == [None, 1, 2, 3]


async def test_a_change_whose_lists_could_not_be_read_is_told_again() -> None:
    node = Node([None, OURS, OURS], ["", "fails", ""])
    certificates = reader(node)
    await certificates.read_changed()
    with pytest.raises(InquiryError):
        await certificates.read_changed()
    await certificates.read_changed()
    assert node.since == [None, 1, 1]


@pytest.mark.parametrize("der", [None, b"no certificate"])
async def test_a_certificate_that_cannot_be_read_is_told_still(der: bytes | None) -> None:
    node = Node([None])
    node.der = der
    (told,) = await reader(node).read_changed()
    assert (told.profile, told.is_named) == (None, False)


def test_other_text_is_no_uri() -> None:
    with pytest.raises(LocalError, match=r"mailto:a@b\.example: not a sip, sips or tel URI"):
        UriCertificates(cast(Any, Node([])), "mailto:a@b.example")
