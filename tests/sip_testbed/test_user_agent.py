"""The user agent as a program, in a running network of two operators: calls, and what it refuses itself."""

import base64
import json
import re
import signal
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any, ClassVar

import pytest

from sip_testbed.events import SipEvent
from sip_testbed.network import Testbed
from sip_testbed.network_config import DH_SIGN, HYBRID, MODERN, PKE, RSA_R, user_agent_config
from sip_testbed.provision import CALLEE, CALLEE_IMPERSONATED, CALLER, OPERATORS, aor
from sip_testbed.user_agent_config import EXAMPLE, UserAgentConfig, load_setup
from voice_dpki.effects import SystemRandom
from voice_dpki.errors import LocalError
from voice_dpki.media.correlate import correlate
from voice_dpki.media.pcm import Pcm
from voice_dpki.media.recording import read_wav, write_wav
from voice_dpki.mikey.message import Message
from voice_dpki.mikey.payloads import DhValue
from voice_dpki.shell.config import load_config, to_toml
from voice_dpki.stage.events import NoteEvent, ResultEvent
from voice_dpki.stage.processes import Running
from voice_dpki.x509.keys import generate_es256, to_pem
from voice_dpki.x509.profile import build_certificate

CALL_TIMEOUT_S = 30.0
TARGET = aor(CALLEE, OPERATORS[1])


@dataclass
class Ended:
    """How a call went: the caller's exit status, both results, what both noted, and the INVITEs of the caller."""

    status: int
    caller: dict[str, Any]
    callee: dict[str, Any]
    notes: list[str]
    invites: list[SipEvent]


def results(running: Running) -> list[ResultEvent]:
    return [event for event in running.trace.events if isinstance(event, ResultEvent)]


class Telephones:
    """Places calls between telephones whose configurations a test may change."""

    callee_config: ClassVar[dict[str, Any]] = {}

    def __init__(self, testbed: Testbed, out: Path) -> None:
        self.testbed = testbed
        self.out = out

    def config(self, role: str, mikey: str = MODERN, **changes: Any) -> dict[str, Any]:
        speech = self.out / f"{role}.wav"
        pcm = read_wav(files("sip_testbed").joinpath("speech", f"{role}.wav").read_bytes())
        speech.write_bytes(write_wav(Pcm(pcm.rate, pcm.data[:32_000] + bytes(3200))))
        config = user_agent_config(
            self.testbed.site,
            role,
            number=CALLER if role == "caller" else CALLEE,
            codec="PCMU",
            srtp="AES_CM_128_HMAC_SHA1_80",
            say=speech,
            out=self.out,
            target=TARGET if role == "caller" else None,
            mikey=mikey,
        )
        return {**config, "result": str(self.out / f"{role}.json"), **changes}

    def start(self, role: str, **changes: Any) -> Running:
        return self.testbed.launch(role, self.config(role, **changes))

    def awaiting(self, **changes: Any) -> Running:
        """The callee, running with this configuration: started again only where it changes."""
        config = self.config("callee", **changes)
        if "callee" in self.testbed.running and config != self.callee_config:
            self.testbed.end(("callee",))
        if "callee" not in self.testbed.running:
            self.testbed.launch("callee", config).wait_ready()
        Telephones.callee_config = config
        return self.testbed.running["callee"]

    def call(self, caller: dict[str, Any] | None = None, callee: dict[str, Any] | None = None) -> Ended:
        answering = self.awaiting(**(callee or {}))
        before, heard = len(results(answering)), len(answering.trace.events)
        calling = self.start("caller", **(caller or {}))
        try:
            status = calling.wait_end(CALL_TIMEOUT_S)
            answering.wait_for(lambda event: len(results(answering)) > before, "report", CALL_TIMEOUT_S)
        finally:
            events = [*self.testbed.end(("caller",)), *answering.trace.events[heard:]]
        notes = [event.text for event in events if isinstance(event, NoteEvent)]
        sent = [event for event in events if isinstance(event, SipEvent) and event.actor == "caller"]
        invites = [event for event in sent if event.data.startswith(b"INVITE ")]
        return Ended(status, self.result("caller"), self.result("callee"), notes, invites)

    def result(self, role: str) -> dict[str, Any]:
        return json.loads((self.out / f"{role}.json").read_text())

    def likeness(self, said: str, heard: str) -> float:
        read = [read_wav((self.out / f"{name}.wav").read_bytes()) for name in (f"{said}.said", f"{heard}.heard")]
        return correlate(*read).coefficient


@pytest.fixture(scope="module")
def testbed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Testbed]:
    with Testbed(tmp_path_factory.mktemp("logs")) as testbed:
        testbed.start()
        testbed.record_all()
        yield testbed


@pytest.fixture(scope="module")
def telephones(testbed: Testbed, tmp_path_factory: pytest.TempPathFactory) -> Telephones:
    return Telephones(testbed, tmp_path_factory.mktemp("out"))


def test_a_call(telephones: Telephones) -> None:
    ended = telephones.call()
    assert ended.status == 0
    assert ended.caller["established"]
    assert ended.callee["established"]
    assert ended.callee["verstat"] == "TN-Validation-Passed"
    assert ended.caller["setup_ms"] > 0
    assert ended.caller["media"]["received"] == ended.callee["media"]["sent"] > 50
    assert telephones.likeness("caller", "callee") >= 0.99
    assert telephones.likeness("callee", "caller") >= 0.99
    for note in (
        "MIKEY modern, TEK agreed (AES_CM_128_HMAC_SHA1_80)",
        f"certificate of {TARGET} valid on the ledger",
    ):
        assert any(note in text for text in ended.notes)


def test_digits_dialled_at_the_own_domain(telephones: Telephones) -> None:
    """The proxy sends the number on at the callee's domain, and the callee's certificate names it there."""
    ended = telephones.call(caller={"call": {"target": f"sip:+{CALLEE}@{OPERATORS[0].domain}"}})
    assert (ended.status, ended.caller["status"], ended.callee["refused_by"]) == (0, 200, None)
    assert ended.caller["established"]
    assert ended.callee["verstat"] == "TN-Validation-Passed"
    assert any(f"certificate of {TARGET} valid on the ledger" in text for text in ended.notes)


def test_a_caller_that_calls_again(telephones: Telephones) -> None:
    """Each call has keys of its own: a Diffie-Hellman pair serves once."""
    answering = telephones.awaiting()
    before = len(results(answering))
    calling = telephones.start("caller", call={"target": TARGET, "times": 3, "pause_s": 0.2})
    assert calling.wait_end(3 * CALL_TIMEOUT_S) == 0
    assert [result.data["established"] for result in results(calling)] == [True] * 3
    answering.wait_for(lambda event: len(results(answering)) == before + 3, "report", CALL_TIMEOUT_S)
    sent = [event.data for event in telephones.testbed.end(("caller",)) if isinstance(event, SipEvent)]
    invites = [data for data in sent if data.startswith(b"INVITE ")]
    offers = [offer for data in invites for offer in re.findall(rb"a=key-mgmt:mikey (\S+)", data)]
    assert len({Message.parse(base64.b64decode(offer)).one(DhValue).value for offer in offers}) == 3


@pytest.mark.parametrize("srtp", ["AES_CM_128_HMAC_SHA1_80", "AEAD_AES_128_GCM"])
def test_an_invite_with_a_modern_offer_fits_a_datagram(telephones: Telephones, srtp: str) -> None:
    """RFC 3261 §18.1.1: 1300 bytes and more go over TCP; also with the digest that answers the challenge."""
    ended = telephones.call(caller={"srtp": srtp}, callee={"srtp": srtp})
    assert ended.status == 0
    assert any(b"Proxy-Authorization: " in event.data for event in ended.invites)
    assert {event.transport for event in ended.invites} == {"udp"}
    assert max(len(event.data) for event in ended.invites) < 1300


def test_a_hybrid_call_goes_over_tcp(telephones: Telephones) -> None:
    ended = telephones.call(caller={"mikey": HYBRID}, callee={"mikey": HYBRID})
    assert (ended.status, ended.caller["established"], ended.callee["established"]) == (0, True, True)
    assert telephones.likeness("caller", "callee") >= 0.99
    assert telephones.likeness("callee", "caller") >= 0.99
    assert {event.transport for event in ended.invites} == {"tcp"}


def test_dh_sign_between_telephones_of_the_standard(telephones: Telephones) -> None:
    ended = telephones.call(caller={"mikey": DH_SIGN}, callee={"mikey": DH_SIGN})
    assert (ended.status, ended.caller["established"]) == (0, True)
    assert telephones.likeness("caller", "callee") >= 0.99
    assert sum("MIKEY DH-SIGN, TEK agreed" in note for note in ended.notes) == 2


@pytest.mark.parametrize("mode", [PKE, RSA_R])
def test_whoever_encrypts_to_certificates_answers_dh_sign_too(telephones: Telephones, mode: str) -> None:
    ended = telephones.call(caller={"mikey": DH_SIGN}, callee={"mikey": mode})
    assert (ended.status, ended.caller["established"]) == (0, True)
    assert sum("MIKEY DH-SIGN, TEK agreed" in note for note in ended.notes) == 2


@pytest.mark.parametrize(
    ("caller", "callee", "reason"),
    [
        (MODERN, DH_SIGN, "group 241 is not accepted, only OAKLEY 5"),
        (DH_SIGN, MODERN, "OAKLEY_5 is weaker than X25519"),
        (PKE, DH_SIGN, "data type 2 is no offer by DH-SIGN"),
        (RSA_R, PKE, "data type 9 is no offer by DH-SIGN and PKE"),
    ],
)
def test_no_mode_is_tried_after_another(telephones: Telephones, caller: str, callee: str, reason: str) -> None:
    """A caller that is refused does not fall back: whoever stands on the way could make it."""
    ended = telephones.call(caller={"mikey": caller}, callee={"mikey": callee})
    step = "MIKEY HDR" if "data type" in reason else "MIKEY DH"
    assert (ended.status, ended.caller["status"], ended.callee["refused_by"]) == (1, 488, step)
    assert reason in ended.callee["reason"]
    assert reason in ended.caller["reason"]
    offers = {offer for event in ended.invites for offer in re.findall(rb"a=key-mgmt:mikey (\S+)", event.data)}
    assert len(offers) == 1


def test_a_callee_that_asks_for_more_refuses_less(telephones: Telephones) -> None:
    keys = {**telephones.config("callee")["keys"], "least": "hybrid"}
    ended = telephones.call(callee={"keys": keys})
    assert (ended.status, ended.caller["status"], ended.callee["refused_by"]) == (1, 488, "MIKEY DH")
    assert "at least X25519MLKEM768 is accepted" in ended.caller["reason"]


class TestStandardPeers:
    """A telephone of the modern mode, configured to know the domains that have another."""

    def keys(self, telephones: Telephones, role: str, *domains: str) -> dict[str, Any]:
        """With pins of their own, for the testbed's telephones have a key for each mode."""
        site = telephones.testbed.site
        standard = site.standard_caller if role == "caller" else site.standard_callee
        listed = {"certificate": standard.certificate, "key": standard.key, "domains": domains}
        pins = str(telephones.out / f"{role}-{'-'.join(domains)}.sqlite")
        return {**telephones.config(role)["keys"], "standard": listed, "pins": pins}

    def test_a_call_to_one_is_offered_dh_sign(self, telephones: Telephones) -> None:
        ended = telephones.call(
            caller={"keys": self.keys(telephones, "caller", "B.example")}, callee={"mikey": DH_SIGN}
        )
        assert (ended.status, ended.caller["established"]) == (0, True)
        assert telephones.likeness("callee", "caller") >= 0.99
        assert ended.caller["mikey_ms"] > 0

    def test_a_call_from_one_may_offer_it(self, telephones: Telephones) -> None:
        ended = telephones.call(
            caller={"mikey": DH_SIGN}, callee={"keys": self.keys(telephones, "callee", "a.example")}
        )
        assert (ended.status, ended.callee["established"]) == (0, True)

    def test_a_call_from_one_may_offer_more(self, telephones: Telephones) -> None:
        ended = telephones.call(callee={"keys": self.keys(telephones, "callee", "a.example")})
        assert (ended.status, ended.callee["established"]) == (0, True)
        assert any("MIKEY modern, TEK agreed" in note for note in ended.notes)

    def test_a_call_from_elsewhere_may_not(self, telephones: Telephones) -> None:
        ended = telephones.call(
            caller={"mikey": DH_SIGN}, callee={"keys": self.keys(telephones, "callee", "c.example")}
        )
        assert (ended.caller["status"], ended.callee["refused_by"]) == (488, "MIKEY DH")


def test_a_caller_without_keys(telephones: Telephones) -> None:
    ended = telephones.call(caller={"srtp": "none"})
    assert (ended.status, ended.caller["status"], ended.callee["refused_by"]) == (1, 488, "SDP key-mgmt")
    assert "media in clear are refused" in ended.callee["reason"]
    assert "media in clear are refused" in ended.caller["reason"]
    assert ended.caller["refused_by"] is None


def test_no_codec_in_common(telephones: Telephones) -> None:
    ended = telephones.call(caller={"codec": "opus"})
    assert (ended.caller["status"], ended.callee["refused_by"]) == (488, "SDP codec")


def test_no_srtp_profile_in_common(telephones: Telephones) -> None:
    ended = telephones.call(caller={"srtp": "AEAD_AES_128_GCM"})
    assert (ended.caller["status"], ended.callee["refused_by"]) == (488, "MIKEY SP")


def telephone_keys(telephones: Telephones, role: str, uri: str) -> dict[str, Any]:
    """A new key and certificate for `uri`, which nobody has recorded."""
    site, operator = telephones.testbed.site, OPERATORS[0] if role == "caller" else OPERATORS[1]
    signer = generate_es256()
    year_s = 31_536_000
    now_s = int(telephones.testbed.site.genesis.stat().st_mtime)
    der = build_certificate(
        signer,
        organization=operator.organization,
        common_name="telephone",
        uris=[uri],
        not_before_s=now_s - 60,
        not_after_s=now_s + year_s,
        random=SystemRandom(),
    )
    certificate, key = telephones.out / f"{role}.der", telephones.out / f"{role}.pem"
    certificate.write_bytes(der)
    key.write_bytes(to_pem(signer))
    url = f"http://{site.addresses[f'ledger-{operator.letter}']}"
    return {"certificate": certificate, "key": key, "ledger_url": url, "genesis": "genesis.json"}


def test_a_caller_whose_certificate_nobody_recorded(telephones: Telephones) -> None:
    keys = telephone_keys(telephones, "caller", aor(CALLER, OPERATORS[0]))
    ended = telephones.call(caller={"keys": keys})
    assert (ended.status, ended.caller["status"], ended.callee["refused_by"]) == (1, 488, "MIKEY ledger")
    assert "the Initiator's certificate is not recorded on the ledger" in ended.callee["reason"]


def test_a_caller_that_is_stopped(telephones: Telephones) -> None:
    answering = telephones.awaiting()
    before = len(results(answering))
    calling = telephones.start("caller")
    calling.wait_for(lambda event: isinstance(event, NoteEvent) and "TEK agreed" in event.text, "agree on keys", 20)
    calling.send(signal.SIGTERM)
    assert calling.wait_end(CALL_TIMEOUT_S) == 1
    answering.wait_for(lambda event: len(results(answering)) > before, "report", CALL_TIMEOUT_S)
    telephones.testbed.end(("caller",))
    assert not telephones.result("callee")["established"]


def test_a_callee_in_clear(telephones: Telephones) -> None:
    ended = telephones.call(callee={"srtp": "none"})
    assert (ended.caller["status"], ended.callee["refused_by"]) == (488, "SDP key-mgmt")


def test_a_callee_whose_certificate_nobody_recorded(telephones: Telephones) -> None:
    """Somebody on the way answers in the callee's name: the caller ends the call and says why."""
    ended = telephones.call(callee={"keys": telephone_keys(telephones, "callee", TARGET)})
    assert (ended.status, ended.caller["status"], ended.caller["refused_by"]) == (1, 200, "MIKEY ledger")
    assert "the Responder's certificate is not recorded on the ledger" in ended.caller["reason"]
    assert not ended.caller["established"]
    assert not ended.callee["established"]
    assert ended.caller["media"] is None


def test_both_ends_are_told_of_a_second_certificate_at_the_first_call(telephones: Telephones) -> None:
    second, target = telephones.testbed.second_telephone(MODERN), aor(CALLEE_IMPERSONATED, OPERATORS[1])
    ended = telephones.call(caller={"call": {"target": target}}, callee={"aor": target})
    assert (ended.status, ended.caller["peer_key"]) == (0, "first")
    for result in (ended.caller, ended.callee):
        (told,) = (remark for remark in result["remarks"] if "another valid certificate" in remark)
        assert f"for the callee, with another key, which {second.organization} recorded in block " in told
    assert (
        telephones.call(caller={"call": {"target": target}}, callee={"aor": target}).caller["peer_key"] == "known"
    )


@pytest.mark.parametrize("mode", ["psk", "dhhmac"])
def test_telephones_that_do_not_share_the_same_key(telephones: Telephones, mode: str) -> None:
    """Here the callee is the first to notice, and says so; nothing is heard."""
    caller = {"shared_keys": {"mode": mode, "with": {TARGET: str(secret(telephones.out, "a", "11" * 32))}}}
    callee = {
        "shared_keys": {
            "mode": mode,
            "with": {aor(CALLER, OPERATORS[0]): str(secret(telephones.out, "b", "22" * 32))},
        }
    }
    ended = telephones.call(caller={"keys": None, **caller}, callee={"keys": None, **callee})
    assert (ended.status, ended.caller["status"], ended.callee["refused_by"]) == (1, 488, "MIKEY MAC")
    assert "does not verify under the shared key" in ended.caller["reason"]


class TestConfiguration:
    def test_the_example_is_one(self, tmp_path: Path) -> None:
        path = tmp_path / "ua.toml"
        path.write_text(EXAMPLE)
        assert load_config(path, UserAgentConfig).call is not None

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            (lambda config, out: config.pop("keys"), r"\[keys\] or \[shared_keys\] is missing"),
            (lambda config, out: config.update(shared_keys=shared(out, "00" * 16)), "exclude each other"),
            (lambda config, out: share(config, shared(out, "00" * 15)), "telephones.psk: .*15 bytes, and needs 16"),
            (lambda config, out: share(config, shared(out, "0x00")), "telephones.psk: .*not hexadecimal"),
            (lambda config, out: share(config, {"mode": "psk", "with": {"sip:b": "no.psk"}}), "no.psk"),
            (lambda config, out: share(config, {"mode": "rsa", "with": {}}), "shared_keys.mode"),
            (lambda config, out: config["listen"].update(host="0.0.0.0"), "listen.advertise is missing"),
            (lambda config, out: config.update(instance="phone"), "instance"),
            (lambda config, out: config["call"].update(target="sips:+1@b.example"), "call.target: a sips: URI"),
            (lambda config, out: config.update(proxy="tls:127.0.0.2:5061"), r"\[tls\] is missing"),
            (lambda config, out: config.update(codec="G729"), "no such codec: G729"),
            (lambda config, out: config.update(srtp="DES"), "srtp"),
            (lambda config, out: config.update(proxy="127.0.0.2"), "proxy: .*udp:127.0.0.3:5060"),
            (lambda config, out: config.update(aor="nobody"), "broken.toml: aor: not a SIP or TEL URI"),
            (lambda config, out: config.update(say="nothing.wav"), "nothing.wav"),
            (lambda config, out: config.update(say=str(stereo(out))), "stereo.wav: .*mono"),
            (
                lambda config, out: config["keys"].update(key=str(ecdsa(out))),
                r"telephone\.der: .*not for the signing key",
            ),
            (
                lambda config, out: config["keys"].update(mikey="dh-sign"),
                "keys.mikey = .* needs another kind of key",
            ),
            (lambda config, out: config["keys"].update(mikey="dtls"), "keys.mikey"),
            (lambda config, out: config["keys"].update(standard=config["keys"] | {"domains": []}), "keys.standard"),
            (lambda config, out: standard(config, config["keys"]), r"telephone\.der: MIKEY signs with RSA"),
            (lambda config, out: config["keys"].update(rsa(config), least="hybrid"), "keys.least and .*P-256"),
        ],
        ids=[
            "no keys",
            "both kinds of keys",
            "short key",
            "no hexadecimal",
            "no key file",
            "no such mode",
            "all addresses",
            "instance",
            "sips in clear",
            "no tls",
            "codec",
            "srtp",
            "proxy",
            "aor",
            "no speech",
            "stereo",
            "another key",
            "a mode of other keys",
            "no mode",
            "no domains",
            "standard with ecdsa",
            "least with rsa",
        ],
    )
    def test_what_is_wrong_is_named(self, telephones: Telephones, change: Callable[..., Any], message: str) -> None:
        config = telephones.config("caller")
        change(config, telephones.out)
        path = telephones.testbed.folder / "broken.toml"
        path.write_text(to_toml(config))
        with pytest.raises(LocalError, match=message):
            load_setup(path)


def secret(out: Path, name: str, text: str) -> Path:
    path = out / name
    path.write_text(text)
    return path


def shared(out: Path, text: str) -> dict[str, Any]:
    return {"mode": "psk", "with": {TARGET: str(secret(out, "telephones.psk", text))}}


def share(config: dict[str, Any], section: dict[str, Any]) -> None:
    """Key the calls with shared keys in place of certificates."""
    del config["keys"]
    config["shared_keys"] = section


def standard(config: dict[str, Any], given: dict[str, Any]) -> None:
    """Add a certificate for standard peers."""
    pair = {name: given[name] for name in ("certificate", "key")}
    config["keys"] = config["keys"] | {"standard": {**pair, "domains": ["c.example"]}}


def rsa(config: dict[str, Any]) -> dict[str, Any]:
    """The testbed's other certificate, for the mode of the standard."""
    pair = {
        name: str(config["keys"][name]).replace("telephone", "standard-telephone")
        for name in ("certificate", "key")
    }
    return {**pair, "mikey": "dh-sign"}


def stereo(out: Path) -> Path:
    data = bytearray(write_wav(Pcm(8000, bytes(400))))
    data[22:24] = struct.pack("<H", 2)
    path = out / "stereo.wav"
    path.write_bytes(data)
    return path


def ecdsa(out: Path) -> Path:
    path = out / "ec.pem"
    path.write_bytes(to_pem(generate_es256()))
    return path
