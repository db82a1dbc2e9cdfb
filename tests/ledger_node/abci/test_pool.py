"""Members' shares of the mempool."""

from typing import Any

from ledger_node.abci.abci_pb2 import CheckTx
from ledger_node.abci.pool import FULL, Pool


def check(node: Any, transaction: bytes, occasion: Any = CheckTx.NEW) -> int:
    return int(node.application.check_tx(CheckTx.Request(transaction=transaction, occasion=occasion)).code)


def test_a_member_with_its_share_in_the_mempool_has_to_wait_for_a_block(federation: Any, node: Any) -> None:
    node.application._pool = Pool(share=2)
    raws = [federation.submission(federation.certificate()) for _ in range(4)]
    assert [check(node, raw) for raw in raws] == [0, 0, FULL.code, FULL.code]
    assert check(node, raws[0]) == 0, "it is there already"
    node.decide(1, [raws[0]])
    assert check(node, raws[1], CheckTx.RECHECK) == 0
    assert [check(node, raw) for raw in raws[2:]] == [0, FULL.code]


def test_what_is_not_signed_by_its_member_takes_nothing_of_its_share(federation: Any, node: Any) -> None:
    node.application._pool = Pool(share=1)
    der = federation.certificate()
    assert check(node, federation.submission(der)[:-1] + b"\0") not in (0, FULL.code)
    assert check(node, federation.submission(der)) == 0
