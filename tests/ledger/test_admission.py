"""Judgements about certificates are made once, wherever they were made, and forgotten when nothing waits."""

from typing import Any

import pytest

from voice_dpki.ledger import admission, signatures
from voice_dpki.ledger.admission import forget_judgements, judge, read_admitted, remember
from voice_dpki.ledger.refusals import Refusal, Refused
from voice_dpki.ledger.state import forget_verdicts


@pytest.fixture
def judged(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """The certificates that were read, in turn."""
    read = list[bytes]()
    forget_judgements()

    def counted(der: bytes) -> Any:
        read.append(der)
        return judge(der)

    monkeypatch.setattr(admission, "judge", counted)
    return read


def test_a_certificate_is_read_once(federation: Any, judged: list[bytes]) -> None:
    der = federation.certificate()
    assert read_admitted(der) is read_admitted(der)
    assert judged == [der]
    forget_verdicts()
    read_admitted(der)
    assert judged == [der, der]


def test_what_another_process_has_judged_is_not_read_again(federation: Any, judged: list[bytes]) -> None:
    der, bad = federation.certificate(), b"no certificate"
    found, refusal = judge(der), judge(bad)
    assert not isinstance(found, str)
    remember(der, found)
    assert read_admitted(der) is found
    assert judged == []
    remember(bad, refusal)
    with pytest.raises(Refused) as caught:
        read_admitted(bad)
    assert caught.value.refusal is Refusal[str(refusal)]
    assert admission._remembered == {}


def test_a_judgement_that_is_known_already_is_not_kept_twice(federation: Any) -> None:
    der = federation.certificate()
    read_admitted(der)
    remember(der, judge(der))
    assert admission._remembered == {}


def test_verdicts_about_signatures_are_forgotten_too(federation: Any) -> None:
    forget_verdicts()
    key = federation.keys["Operator A"]
    signature = key.sign(b"body")
    assert signatures.verify.cache_info().currsize == 0
    signatures.verify(key.public_key_der, b"body", signature)
    assert signatures.verify.cache_info().currsize == 1
    forget_verdicts()
    assert signatures.verify.cache_info().currsize == 0
