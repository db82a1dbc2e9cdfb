"""Configuration of a user agent: its account, its keys, its speech and its output files."""

import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, TypeVar

import msgspec

from sip_testbed.conversation import DEFAULT_SILENCE_S
from sip_testbed.credentials import KeysConfig, KeysCredentials, load_keys
from sip_testbed.result import Purpose
from voice_dpki.errors import LocalError, MalformedError
from voice_dpki.media.codecs import Codec, codec_named
from voice_dpki.media.pcm import Pcm
from voice_dpki.media.recording import MAX_WAV_BYTES, read_wav
from voice_dpki.mikey.policy import SrtpProfile
from voice_dpki.mikey.shared import MIN_KEY_BYTES
from voice_dpki.shell.config import (
    AdvertisedListen,
    Config,
    PositiveSeconds,
    load_config,
    read_file,
    read_secret,
    resolve,
)
from voice_dpki.shell.tls import ClientTls, optional_client_context
from voice_dpki.shell.trace import CallTraceConfig, TraceTo
from voice_dpki.sip.account import Account
from voice_dpki.sip.message import Hop, parse_uri
from voice_dpki.sip.session_timer import MIN_INTERVAL_S

S = TypeVar("S")
T = TypeVar("T")

EXAMPLE = """\
aor = "sip:+493023125001@a.example"         # the certificate names this URI
password_file = "caller.password"           # for the domain's proxy; the username is the part before the @
proxy = "udp:127.0.0.2:5060"
proxy_only = true                           # refuse requests that do not come from the proxy's address
keep_alive = true                           # keep the way through a NAT open (RFC 5626); over UDP by STUN
instance = "urn:uuid:00000000-0000-1000-8000-000a95a0e128"   # this telephone's own, so that a restart replaces it
codec = "PCMU"                              # or PCMA, opus
srtp = "AES_CM_128_HMAC_SHA1_80"            # or AEAD_AES_128_GCM; "none" sends in clear, and takes nothing else
say = "caller.wav"                          # mono, 16 bits
said = "caller.said.wav"                    # what was said and heard, at the codec's rate
heard = "caller.heard.wav"
# video = true                              # numbered pictures beside the speech, in VP8
# seen = "caller.seen.webm"                 # the pictures that were seen
result = "caller.json"                      # how the call went
# telephone_events = true                   # offer to take the digits that the other side dials (RFC 4733)
# early_s = 3                               # a callee: say so much before the call is answered (a reliable 183)
# comfort_noise = true                      # send the pauses of the speech as comfort noise (RFC 3389)
# session_expires_s = 1800                  # have calls refreshed within this time, or end them (RFC 4028)
# accept_transfers = true                   # the other side of a call may pass us on, or have a third one replace
silence_s = 2                               # a call on which nothing authentic comes for so long is ended

[listen]                                    # SIP, UDP and TCP alike; media have free ports of the same address
host = "127.0.0.6"
port = 5060
# advertise = "192.0.2.6"                   # for Via, Contact and SDP, where host = "0.0.0.0" or "::"

# [tls]                                     # for proxy = "tls:127.0.0.2:5061"
# certificate = "telephone-tls.pem"
# key = "telephone-tls-key.pem"
# servers = ["proxy.pem"]

[keys]                                      # needed unless srtp = "none"
certificate = "telephone.der"               # on P-256: the modern mode of MIKEY; RSA: the others
key = "telephone.pem"
mikey = "modern"                            # or "hybrid", which quantum computers do not break; "dh-sign"; "pke" or
                                            # "rsa-r", where whoever has the key later decrypts recorded calls
least = "modern"                            # weaker offers are refused
ledger_url = "http://127.0.0.2:8083"        # this operator's own ledger node
genesis = "genesis.json"
trust_file = "ledger-trust.json"            # the newest header believed, kept for the next start
max_age_s = 30                              # older answers of the ledger are not relied on
pins = "pins.sqlite"                        # remembers the keys of those who were called; made if it is missing
changed_key = "refuse"                      # a call with another key; "tell" goes on, and says so in the report

# [keys.standard]                           # for peers that know no modern mode: calls from and to their domains
# certificate = "telephone-rsa.der"         # RSA
# key = "telephone-rsa.pem"
# domains = ["c.example"]

# [shared_keys]                             # in place of [keys]: MIKEY under keys shared with other telephones
# mode = "dhhmac"                           # or psk, where whoever has the key later decrypts recorded calls
# [shared_keys.with]
# "sip:+442079460123@b.example" = "callee.psk"   # 16 bytes or more, in hexadecimal

[call]                                      # the caller: calls and ends; without it calls are awaited
target = "sip:+442079460123@b.example"
times = 1                                   # one call after the other, with a pause between them
pause_s = 0.5
# dtmf = "1234#"                            # dialled during the speech: 0 to 9, *, # and A to D
# changes = ["hold", "resume", "rekey"]     # in the middle of the speech, evenly spread; also pcmu, pcma, opus,
                                            # transfer, and attended-transfer after a call to the third one
# transfer_to = "sip:+493023125002@a.example"   # the third one, to whom the other side is passed on

[trace]
file = "caller.jsonl"
"""


Instance = Annotated[str, msgspec.Meta(pattern=r"^urn:uuid:[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$")]


class SharedKeysConfig(Config, frozen=True, kw_only=True, rename={"peers": "with"}):
    """Keys that we share with other telephones, by their URIs."""

    mode: Literal["psk", "dhhmac"] = "dhhmac"
    peers: dict[str, str]
    """The files of the keys, in hexadecimal."""


MAX_DIALLED = 32
"""Most digits that are dialled in a call."""

ChangeName = Literal["hold", "resume", "rekey", "pcmu", "pcma", "opus", "transfer", "attended-transfer"]


class CallConfig(Config, frozen=True, kw_only=True):
    """The target of the calls, their number, and the changes that each goes through."""

    target: str
    times: Annotated[int, msgspec.Meta(ge=1, le=100_000)] = 1
    pause_s: PositiveSeconds = 0.5
    changes: Annotated[tuple[ChangeName, ...], msgspec.Meta(max_length=16)] = ()
    dtmf: Annotated[str, msgspec.Meta(pattern=rf"^[0-9*#A-D]{{0,{MAX_DIALLED}}}\Z")] = ""
    """Digits to dial during the speech of each call, as telephone events."""
    transfer_to: str | None = None
    """URI to which the other side is transferred; needed for a transfer."""


class UserAgentConfig(Config, frozen=True, kw_only=True):
    """The TOML file; see EXAMPLE. File names are relative to it."""

    aor: str
    password_file: str
    proxy: str
    listen: AdvertisedListen
    say: str
    proxy_only: bool = True
    keep_alive: bool = True
    """Whether the flow to the proxy is kept open, and registration repeated if it fails."""
    instance: Instance | None = None
    """Distinguishes this telephone from the user's others, and stays the same after a restart (RFC 5626 §4.1)."""
    codec: str = "PCMU"
    srtp: Literal["AES_CM_128_HMAC_SHA1_80", "AEAD_AES_128_GCM", "none"] = "AES_CM_128_HMAC_SHA1_80"
    said: str | None = None
    heard: str | None = None
    video: bool = False
    """Whether pictures are sent and shown beside the speech, in calls whose other side does so, too."""
    seen: str | None = None
    result: str | None = None
    silence_s: PositiveSeconds = DEFAULT_SILENCE_S
    """Time after the ACK within which authentic media must arrive, if the other side is to send."""
    session_expires_s: Annotated[int, msgspec.Meta(ge=MIN_INTERVAL_S, le=86_400)] | None = None
    """The session interval that our calls ask for (RFC 4028)."""
    early_s: Annotated[float, msgspec.Meta(ge=0, le=60)] = 0.0
    """Seconds of the speech that are sent before a call is answered, to callers that support it (RFC 3262)."""
    telephone_events: bool = False
    """Whether our offers have telephone events (RFC 4733) even if we do not dial. Answers follow the offer."""
    comfort_noise: bool = False
    """Whether pauses of our speech are sent as comfort noise (RFC 3389), where the other side takes it."""
    accept_transfers: bool = False
    """Whether the other side of a call may transfer us to a third one, or another may take its place."""
    keys: KeysConfig | None = None
    shared_keys: SharedKeysConfig | None = None
    tls: ClientTls | None = None
    """For a proxy "tls:...": this telephone's certificate, and the proxy's."""
    call: CallConfig | None = None
    trace: CallTraceConfig = CallTraceConfig()


@dataclass(frozen=True, slots=True, repr=False)
class SharedCredentials:
    """Our URI, and the keys that we share with other telephones, by their URIs. Not shown by repr."""

    uri: str
    profile: SrtpProfile
    mode: Literal["psk", "dhhmac"]
    shared: Mapping[str, bytes]


@dataclass(frozen=True, slots=True)
class TelephoneSetup:
    """A completely checked configuration, with which the user agent can start."""

    account: Account
    listen: AdvertisedListen
    proxy: Hop
    proxy_only: bool
    keep_alive: bool
    instance: str | None
    tls: ssl.SSLContext | None
    codec: Codec
    speech: Pcm
    credentials: KeysCredentials | SharedCredentials | None
    """None: media are sent in clear."""
    call: CallConfig | None
    """None: the user agent waits for calls."""
    said: Path | None
    heard: Path | None
    result: Path | None
    trace: TraceTo
    video: bool = False
    seen: Path | None = None
    silence_s: float = DEFAULT_SILENCE_S
    session_expires_s: int | None = None
    early_s: float = 0.0
    accepts_transfers: bool = False
    telephone_events: bool = False
    """Whether offers have telephone events, even if we do not dial."""
    comfort_noise: bool = False
    """Whether pauses are sent as comfort noise."""
    purpose: Purpose = "call"
    """The purpose of the calls."""

    @property
    def takes_part_in_transfers(self) -> bool:
        """Whether transfers are accepted or made; other telephones do not know their methods."""
        return self.accepts_transfers or (self.call is not None and self.call.transfer_to is not None)


def load_setup(path: Path) -> TelephoneSetup:
    """Read the configuration at `path` and the files that it names; raises LocalError that says what to correct."""
    config = load_config(path, UserAgentConfig)
    config.listen.check(path)
    if config.proxy.startswith("tls:") and config.tls is None:
        raise LocalError(f"{path}: [tls] is missing; it is needed for the proxy {config.proxy}")
    if config.call is not None:
        target = _understood(f"{path}: call.target", parse_uri, config.call.target)
        if target.scheme == "sips" and not config.proxy.startswith("tls:"):
            raise LocalError(f'{path}: call.target: a sips: URI needs a proxy = "tls:..."')
        _check_transfers(path, config.call)
    username = _understood(f"{path}: aor", parse_uri, config.aor).user or ""
    speech = resolve(path, config.say)
    return TelephoneSetup(
        account=Account(config.aor, username, read_secret(resolve(path, config.password_file))),
        listen=config.listen,
        proxy=_understood(f"{path}: proxy", Hop.parse, config.proxy),
        proxy_only=config.proxy_only,
        keep_alive=config.keep_alive,
        instance=config.instance,
        tls=optional_client_context(path, config.tls),
        codec=codec_named(config.codec),
        speech=_understood(str(speech), read_wav, read_file(speech, "speech", MAX_WAV_BYTES)),
        credentials=_credentials(path, config),
        call=config.call,
        said=_optional(path, config.said),
        heard=_optional(path, config.heard),
        video=config.video,
        seen=_optional(path, config.seen),
        result=_optional(path, config.result),
        trace=config.trace.read(path),
        silence_s=config.silence_s,
        session_expires_s=config.session_expires_s,
        early_s=config.early_s,
        accepts_transfers=config.accept_transfers,
        telephone_events=config.telephone_events,
        comfort_noise=config.comfort_noise,
    )


def _check_transfers(path: Path, call: CallConfig) -> None:
    """Check that a call with a transfer says to whom; raises LocalError."""
    if call.transfer_to is not None:
        _understood(f"{path}: call.transfer_to", parse_uri, call.transfer_to)
    elif any("transfer" in name for name in call.changes):
        raise LocalError(f"{path}: call.transfer_to is missing; a transfer needs it")


def _understood(where: str, parse: Callable[[S], T], given: S) -> T:
    """Return `given`, parsed; raises LocalError that names `where` it is."""
    try:
        return parse(given)
    except MalformedError as error:
        raise LocalError(f"{where}: {error}") from None


def _credentials(path: Path, config: UserAgentConfig) -> KeysCredentials | SharedCredentials | None:
    if config.srtp == "none":
        return None
    if config.shared_keys is not None:
        if config.keys is not None:
            raise LocalError(f"{path}: [keys] and [shared_keys] exclude each other: a call is keyed in one way")
        return _shared(path, config, config.shared_keys)
    keys = config.keys
    if keys is None:
        raise LocalError(f'{path}: [keys] or [shared_keys] is missing; one is needed unless srtp = "none"')
    return load_keys(path, config.aor, SrtpProfile(config.srtp), keys)


def _shared(path: Path, config: UserAgentConfig, given: SharedKeysConfig) -> SharedCredentials:
    keys = {uri: _shared_key(resolve(path, name)) for uri, name in given.peers.items()}
    return SharedCredentials(config.aor, SrtpProfile(config.srtp), given.mode, keys)


def _shared_key(file: Path) -> bytes:
    try:
        key = bytes.fromhex(read_secret(file))
    except ValueError:
        raise LocalError(f"{file}: the shared key is not hexadecimal") from None
    if len(key) < MIN_KEY_BYTES:
        raise LocalError(f"{file}: the shared key has {len(key)} bytes, and needs {MIN_KEY_BYTES} or more")
    return key


def _optional(path: Path, name: str | None) -> Path | None:
    return resolve(path, name) if name else None
