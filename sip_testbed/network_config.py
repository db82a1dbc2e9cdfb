"""The configurations of the programs in two operators' networks, as `sip_testbed.network` starts them."""

from collections.abc import Sequence
from pathlib import Path

from sip_testbed.provision import (
    CALLEES,
    CALLER,
    OPERATORS,
    SBC_PREFIX,
    THIRD,
    TRANSIT_PREFIX,
    LedgerKind,
    Operator,
    Site,
    aor,
    cometbft_home,
)
from sip_testbed.scenarios import Attack
from voice_dpki.names import Tn
from voice_dpki.stage.site import Credential

Sections = dict[str, object]
"""A program's configuration, by section."""

MODERN, HYBRID, DH_SIGN, PKE, RSA_R = "modern", "hybrid", "dh-sign", "pke", "rsa-r"
"""The modes of MIKEY with certificates, in configurations and on the command line."""

STANDARD = (DH_SIGN, PKE, RSA_R)
"""The modes of the standards, with RSA certificates."""

X5U = "https://certificates.a.example/{digest}.der"
"""Operator A's URL of its certificates; verifiers take the digest from it and ask the ledger."""
X5U_OF_ANSWERS = "https://certificates.b.example/{digest}.der"
"""Operator B's URL of its certificates."""

URL_OF_TELEPHONES = "https://certificates.example/{digest}.der"
"""URL by which telephones name their certificates; nobody fetches anything there."""


def service_configs(site: Site, *, protected: bool = True) -> dict[str, Sections]:
    """Return the configuration of each service by actor; services that others wait for come first.

    Without protection there are only proxies.
    """
    proxies = {"proxy-a": _proxy_a(site), "proxy-b": _proxy_b(site)}
    if not protected:
        secured = ("signing", "verification")
        return {
            actor: {name: value for name, value in sections.items() if name not in secured}
            for actor, sections in proxies.items()
        }
    return {
        **_ordering(site),
        **{f"ledger-{operator.letter}": follower_config(site, operator) for operator in OPERATORS},
        "authn-a": _signer_config(site, OPERATORS[0], site.signer, X5U),
        "authn-b": _signer_config(site, OPERATORS[1], site.answer_signer, X5U_OF_ANSWERS),
        **{f"verify-{operator.letter}": verifier_config(site, operator) for operator in OPERATORS},
        **proxies,
    }


def follower_config(site: Site, operator: Operator) -> Sections:
    """Return the configuration of an operator's own inquiry node, which is its submission node too."""
    actor = f"ledger-{operator.letter}"
    orders = f"validator-{operator.letter}" if site.ledger is LedgerKind.FEDERATION else "engine"
    submission = {
        "organization": operator.organization,
        "endorsing_key": f"{operator.letter}/endorsing.pem",
        "tokens": f"submit-{operator.letter}.token",
    }
    return _ledger_node(site, actor) | {
        "follow": {"url": f"http://{site.addresses[orders]}"},
        "submission": submission,
    }


def _signer_config(site: Site, operator: Operator, credential: Credential, info_url: str) -> Sections:
    """Return the configuration of an operator's authentication server: A's signs calls, B's the answers."""
    return {
        "domain": operator.domain,
        "organization": operator.organization,
        "info_url": info_url,
        "certificate": credential.certificate,
        "key": credential.key,
        "tokens": f"sign-{operator.letter}.token",
        "ledger": _signer_follows(site, operator),
        "listen": site.listen(f"authn-{operator.letter}"),
    }


def verifier_config(site: Site, operator: Operator) -> Sections:
    """Return the configuration of an operator's verification server, which asks that operator's inquiry node."""
    return {
        "domain": operator.domain,
        **_asks(site, operator, f"verify-{operator.letter}"),
        "witnesses": witnesses(site, operator),
        "tokens": f"verify-{operator.letter}.token",
        "listen": site.listen(f"verify-{operator.letter}"),
    }


def user_agent_config(
    site: Site,
    role: str,
    *,
    number: Tn,
    codec: str,
    srtp: str | None,
    mikey: str = MODERN,
    say: Path,
    out: Path,
    target: str | None = None,
    telephone: Credential | None = None,
    changes: Sequence[str] = (),
    early_s: float = 0.0,
    video: bool = False,
    transfers: bool = False,
    dtmf: str = "",
    comfort_noise: bool = False,
) -> Sections:
    """Return the configuration of the caller (with a `target`), the callee, or the third one.

    Without `srtp` media are in clear. If the call `transfers`, the caller transfers the callee to the third one.
    The caller dials the digits of `dtmf`; both send their pauses as `comfort_noise`, or as speech.

    `mikey` is a mode of MIKEY: one with certificates, or one under a key that both telephones share. `telephone`
    replaces the certificate that the user has.
    """
    operator = _operator(role)
    return {
        "aor": aor(number, operator),
        "password_file": site.secret(f"{role}.password", site.passwords[operator.letter]),
        "proxy": f"udp:{site.addresses[f'proxy-{operator.letter}']}",
        "codec": codec,
        "srtp": srtp or "none",
        "say": say,
        "said": out / f"{role}.said.wav",
        "heard": out / f"{role}.heard.wav",
        "listen": site.listen(role),
        **({"early_s": early_s} if early_s else {}),
        **({"comfort_noise": True} if comfort_noise else {}),
        **({"video": True, "seen": out / f"{role}.seen.webm"} if video else {}),
        **(_keyed(site, role, mikey, telephone, target) if srtp else {}),
        **({"accept_transfers": True} if transfers and not target else {}),
        **({"call": _wanted_call(target, changes, transfers, dtmf)} if target else {}),
    }


def _operator(role: str) -> Operator:
    return OPERATORS[1] if role == "callee" else OPERATORS[0]


def _keyed(site: Site, role: str, mikey: str, telephone: Credential | None, target: str | None) -> Sections:
    """Return the section with the credentials for keying: certificates, or a key that both telephones share."""
    if mikey in (MODERN, HYBRID, *STANDARD):
        return {"keys": _keys(site, role, mikey, telephone or _telephone(site, role, mikey))}
    peers = {target or aor(CALLER, OPERATORS[0]), aor(THIRD, OPERATORS[0]), aor(CALLEES[0], OPERATORS[1])}
    return {"shared_keys": {"mode": mikey, "with": dict.fromkeys(sorted(peers), site.shared_key)}}


def _keys(site: Site, role: str, mikey: str, telephone: Credential) -> Sections:
    return {
        "certificate": telephone.certificate,
        "key": telephone.key,
        "mikey": mikey,
        **_asks(site, _operator(role), role),
        **({"certificate_url": URL_OF_TELEPHONES} if mikey == RSA_R else {}),
        "pins": f"pins-{role}{'-standard' if mikey in STANDARD else ''}.sqlite",
    }


def _wanted_call(target: str, changes: Sequence[str], transfers: bool, dtmf: str) -> Sections:
    to = {"transfer_to": aor(THIRD, OPERATORS[0])} if transfers else {}
    return {"target": target, "changes": list(changes), **({"dtmf": dtmf} if dtmf else {}), **to}


def _telephone(site: Site, role: str, mikey: str) -> Credential:
    if mikey in STANDARD:
        return site.standard_caller if role == "caller" else site.standard_callee
    return site.caller if role == "caller" else site.callee


def path_config(site: Site, attack: Attack, stolen: Credential) -> Sections:
    """Return the configuration of the attacker, who signs with the `stolen` key if at all."""
    resign = {
        "key": stolen.key,
        "certificate": stolen.certificate,
        "info_url": X5U,
        "caller": f"+{attack.caller}" if attack.caller else None,
        "age_s": attack.age_s,
    }
    return {
        "mode": attack.mode,
        "listen": site.listen("path"),
        "routes": [
            {"domain": operator.domain, "next_hop": f"tcp:{site.addresses[f'proxy-{operator.letter}']}"}
            for operator in OPERATORS
        ],
        **({"resign": resign} if attack.mode == "resign" else {}),
    }


def witnesses(site: Site, operator: Operator) -> list[str]:
    """Return the other operators' nodes with which `operator` compares its own; none with one engine."""
    if site.ledger is not LedgerKind.FEDERATION:
        return []
    others = (other.letter for other in site.ledger.operators if other != operator)
    return [f"http://{site.addresses[f'validator-{letter}']}" for letter in others]


def _asks(site: Site, operator: Operator, actor: str) -> Sections:
    """Return the settings with which a program of an operator asks the ledger."""
    return {
        "ledger_url": f"http://{site.addresses[f'ledger-{operator.letter}']}",
        "genesis": "genesis.json",
        "trust_file": f"trust-{actor}.json",
    }


def _signer_follows(site: Site, operator: Operator) -> Sections:
    """Return the settings with which an operator's authentication server follows its own certificate."""
    asks = _asks(site, operator, f"authn-{operator.letter}")
    return {"url": asks.pop("ledger_url"), **asks, "witnesses": witnesses(site, operator)}


def _ledger_node(site: Site, actor: str) -> Sections:
    node = {"name": actor, "data_dir": f"data-{actor}", "genesis": "genesis.json"}
    return {"node": node, "listen": site.listen(actor)}


def _ordering(site: Site) -> dict[str, Sections]:
    """Return the configuration of the ordering nodes: one engine with all keys, or each operator's validator."""
    operators = site.ledger.operators
    if site.ledger is LedgerKind.FEDERATION:
        return {f"validator-{operator.letter}": _validator(site, operator) for operator in operators}
    keys = [f"{operator.letter}/validator.pem" for operator in operators]
    return {"engine": _ledger_node(site, "engine") | {"engine": {"validator_keys": keys}}}


def _validator(site: Site, operator: Operator) -> Sections:
    letter = operator.letter
    peers = {f"{node_id}@{site.addresses[f'cometbft-p2p-{peer}']}": peer for peer, node_id in site.node_ids.items()}
    cometbft = {
        "home": cometbft_home(letter),
        "rpc": site.listen(f"cometbft-rpc-{letter}"),
        "p2p": site.listen(f"cometbft-p2p-{letter}"),
        "validator_key": f"{letter}/validator.pem",
        "peers": [address for address, peer in peers.items() if peer != letter],
        "allow_duplicate_ip": True,  # all are on this machine
    }
    return _ledger_node(site, f"validator-{letter}") | {"cometbft": cometbft}


def _proxy_a(site: Site) -> Sections:
    abroad = {"to_domain": OPERATORS[1].domain}
    path, proxy_b = (f"tcp:{site.addresses[actor]}" for actor in ("path", "proxy-b"))
    return {
        "domain": OPERATORS[0].domain,
        "operator": OPERATORS[0].organization,
        "users": site.users("a", CALLER, THIRD),
        "listen": site.listen("proxy-a"),
        "routes": [
            {"prefix": TRANSIT_PREFIX, "next_hop": path, **abroad},
            {"prefix": SBC_PREFIX, "next_hop": path, "rewrites_sdp": True, **abroad},
            {"prefix": "+44", "next_hop": proxy_b, **abroad},
            {"domain": OPERATORS[1].domain, "next_hop": proxy_b},
        ],
        "signing": {**_service(site, "sign", "a"), "answers": True},
        "verification": {**_service(site, "verify", "a"), "answers": True},
    }


def _proxy_b(site: Site) -> Sections:
    return {
        "domain": OPERATORS[1].domain,
        "operator": OPERATORS[1].organization,
        "users": site.users("b", *CALLEES),
        "listen": site.listen("proxy-b"),
        "routes": [{"domain": OPERATORS[0].domain, "next_hop": f"tcp:{site.addresses['proxy-a']}"}],
        "verification": {**_service(site, "verify", "b"), "answers": True},
        "signing": {**_service(site, "sign", "b"), "answers": True},
    }


def _service(site: Site, role: str, letter: str) -> Sections:
    """Return the URL and the token file for an operator's proxy to ask its signing or its verification server."""
    actor = {"sign": "authn", "verify": "verify"}[role]
    return {"url": f"http://{site.addresses[f'{actor}-{letter}']}", "token_file": f"{role}-{letter}.token"}
