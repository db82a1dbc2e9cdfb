"""PASSporTs are JSON Web Signatures: libraries of JOSE accept ours, and we judge theirs by the ledger alone."""

import json
from collections.abc import Callable, Mapping
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from joserfc import jws
from joserfc.jwk import ECKey
from joserfc.registry import HeaderParameter

from tests.recorded import absent
from voice_dpki.names import Tn
from voice_dpki.stir.call import Call
from voice_dpki.stir.identity import IdentityHeader
from voice_dpki.stir.passport import Destinations
from voice_dpki.stir.verdict import Step, VerificationFailed, Verstat
from voice_dpki.x509.keys import to_pem

from .conftest import NOW_S, Operator, Verifier, make_operator

UUID = "5f4e3b1c-7d2a-4b8e-9c1d-2e3f4a5b6c7d"
CLAIMS = {
    "attest": "A",
    "dest": {"tn": ["442079460001"]},
    "iat": NOW_S,
    "orig": {"tn": "493023125001"},
    "origid": UUID,
}
_KNOWN = {"ppt": HeaderParameter("PASSporT type", "str")}
"""The header parameter that PASSporTs have beyond those of JOSE."""

Signing = Callable[[Operator, Mapping[str, Any], Mapping[str, Any]], str]
Verifying = Callable[[Operator, str], Mapping[str, Any]]


def public_pem(operator: Operator) -> bytes:
    key = operator.signer.private_key.public_key()
    return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def by_pyjwt(operator: Operator, header: Mapping[str, Any], claims: Mapping[str, Any]) -> str:
    return jwt.encode(dict(claims), to_pem(operator.signer), algorithm="ES256", headers=dict(header))


def by_joserfc(operator: Operator, header: Mapping[str, Any], claims: Mapping[str, Any]) -> str:
    registry = jws.JWSRegistry(header_registry=_KNOWN)
    key = ECKey.import_key(to_pem(operator.signer))
    return jws.serialize_compact(dict(header), json.dumps(claims), key, registry=registry)


def with_pyjwt(operator: Operator, token: str) -> Mapping[str, Any]:
    """Return the payload of a token that verifies; raises jwt.InvalidTokenError."""
    options: Any = {"verify_iat": False}
    claims: dict[str, Any] = jwt.decode(token, public_pem(operator), algorithms=["ES256"], options=options)
    return claims


def with_joserfc(operator: Operator, token: str) -> Mapping[str, Any]:
    """Return the payload of a token that verifies; raises joserfc's JoseError."""
    registry = jws.JWSRegistry(header_registry=_KNOWN)
    found = jws.deserialize_compact(token, ECKey.import_key(public_pem(operator)), registry=registry)
    claims: dict[str, Any] = json.loads(found.payload)
    return claims


SIGN: Mapping[str, Signing] = {"pyjwt": by_pyjwt, "joserfc": by_joserfc}
VERIFY: Mapping[str, Verifying] = {"pyjwt": with_pyjwt, "joserfc": with_joserfc}


def shown(operator: Operator, token: str) -> Call:
    """A call with a token of another library."""
    identity = f"{token};info=<{operator.credential.info}>;alg=ES256;ppt=shaken"
    return Call(Tn("493023125001"), Destinations((Tn("442079460001"),)), NOW_S, (identity,), (), call_id="c1")


def header_of(operator: Operator) -> dict[str, Any]:
    return {"alg": "ES256", "ppt": "shaken", "typ": "passport", "x5u": operator.credential.info}


@pytest.mark.parametrize("library", VERIFY)
@pytest.mark.parametrize("key_mgmt", [(), ("mikey AQAFgM3YFvMAAAAA",)])
def test_they_accept_ours(operator: Operator, library: str, key_mgmt: tuple[str, ...]) -> None:
    token = IdentityHeader.parse(operator.call(key_mgmt=key_mgmt).identities[0]).token
    claims = VERIFY[library](operator, token)
    assert {name: claims[name] for name in CLAIMS} == CLAIMS
    assert set(claims) - set(CLAIMS) == ({"key-mgmt"} if key_mgmt else set())


@pytest.mark.parametrize("library", VERIFY)
def test_they_refuse_ours_under_another_key(operator: Operator, library: str) -> None:
    token = IdentityHeader.parse(operator.call().identities[0]).token
    with pytest.raises(Exception, match=r"(?i)signature"):
        VERIFY[library](make_operator(), token)


@pytest.mark.parametrize("library", SIGN)
def test_theirs_pass_if_the_key_is_recorded(operator: Operator, verifier: Verifier, library: str) -> None:
    token = SIGN[library](operator, header_of(operator), CLAIMS)
    verdict = verifier.verify(shown(operator, token), operator.record)
    assert (verdict.verstat, verdict.attest, verdict.signer) == (Verstat.PASSED, "A", "Operator A")


@pytest.mark.parametrize("library", SIGN)
def test_theirs_fail_if_it_is_not(operator: Operator, verifier: Verifier, library: str) -> None:
    token = SIGN[library](operator, header_of(operator), CLAIMS)
    with pytest.raises(VerificationFailed) as failure:
        verifier.verify(shown(operator, token), absent(operator.record.digest))
    assert failure.value.step is Step.CERTIFICATE


@pytest.mark.parametrize("library", SIGN)
def test_theirs_fail_under_a_key_that_is_another_s(operator: Operator, verifier: Verifier, library: str) -> None:
    thief = make_operator()
    token = SIGN[library](thief, header_of(operator), CLAIMS)
    with pytest.raises(VerificationFailed) as failure:
        verifier.verify(shown(operator, token), operator.record)
    assert failure.value.step is Step.SIGNATURE
