"""The digest of a body: what may differ on the path is the ends of lines, and nothing that a telephone acts on."""

import hashlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from voice_dpki.codec import base64url
from voice_dpki.stir.body import SDP_TYPE, body_digest
from voice_dpki.stir.examine import Policy
from voice_dpki.stir.verdict import SdpBinding, Step, VerificationFailed, Verstat

from .conftest import Operator, Verifier

VECTORS = Path(__file__).parent.parent / "vectors/sdp"
OFFER = (
    b"v=0\r\no=- 7 1 IN IP4 127.0.0.2\r\ns=-\r\nc=IN IP4 127.0.0.2\r\nt=0 0\r\na=key-mgmt:mikey AQAFgM3YFvMAAA\r\n"
    b"m=audio 5000 RTP/SAVP 96 0\r\na=rtpmap:96 opus/48000/2\r\na=fmtp:96 useinbandfec=1\r\na=ptime:20\r\n"
    b"a=rtcp:5001\r\na=candidate:1 1 UDP 2130706431 127.0.0.2 5000 typ host\r\na=setup:actpass\r\na=sendrecv\r\n"
    b"m=video 5002 RTP/SAVP 99\r\na=rtpmap:99 VP8/90000\r\na=inactive\r\n"
)


def sdp_digest(body: bytes) -> bytes:
    return body_digest(body, SDP_TYPE)


def test_an_ordinary_body_is_its_own_canonical_form() -> None:
    # printf 'v=0\r\no=- 1 1 IN IP4 127.0.0.6\r\n' | openssl dgst -sha256 -binary | basenc --base64url
    digest = sdp_digest(b"v=0\r\no=- 1 1 IN IP4 127.0.0.6\r\n")
    assert base64url.encode(digest) == "FB_NP44hmpxhKgUZ9lmmRwY1c6coqRxJHkdkOgmi0t4"
    assert sdp_digest(OFFER) == hashlib.sha256(OFFER).digest()


@pytest.mark.parametrize(
    "same",
    [
        OFFER.replace(b"\r\n", b"\n"),
        OFFER.replace(b"\r\n", b"\n", 3),
        OFFER.removesuffix(b"\r\n"),
        OFFER + b"\r\n",
        OFFER + b"\n",
    ],
    ids=["LF", "mixed", "no end", "an empty line", "an empty line by LF"],
)
def test_ends_of_lines_do_not_count(same: bytes) -> None:
    assert sdp_digest(same) == sdp_digest(OFFER)
    assert body_digest(same, " Application/SDP ; charset=utf-8") == sdp_digest(OFFER)


def changed(old: bytes, new: bytes) -> Callable[[bytes], bytes]:
    return lambda body: body.replace(old, new)


CONNECTION = b"c=IN IP4 127.0.0.9\r\n"
KEY = b"a=key-mgmt:mikey AQAFgM3YFvMAAA\r\n"
CHANGES: dict[str, Callable[[bytes], bytes]] = {
    "address": changed(b"c=IN IP4 127.0.0.2", b"c=IN IP4 127.0.0.9"),
    "address family": changed(b"c=IN IP4 127.0.0.2", b"c=IN IP6 ::1"),
    "hold": changed(b"c=IN IP4 127.0.0.2", b"c=IN IP4 0.0.0.0"),
    "a second address, of the media": changed(b"a=rtpmap:96", CONNECTION + b"a=rtpmap:96"),
    "a second address, of the session": changed(b"t=0 0\r\n", CONNECTION + b"t=0 0\r\n"),
    "the address taken away": changed(b"c=IN IP4 127.0.0.2\r\n", b""),
    "port": changed(b"m=audio 5000", b"m=audio 5004"),
    "ports": changed(b"m=audio 5000", b"m=audio 5000/2"),
    "profile": changed(b"RTP/SAVP 96", b"RTP/AVP 96"),
    "formats": changed(b"SAVP 96 0", b"SAVP 0 96"),
    "rtpmap": changed(b"opus/48000/2", b"opus/48000/1"),
    "fmtp": changed(b"useinbandfec=1", b"useinbandfec=0"),
    "ptime": changed(b"ptime:20", b"ptime:60"),
    "rtcp": changed(b"a=rtcp:5001", b"a=rtcp:5003 IN IP4 127.0.0.9"),
    "candidate": changed(b"127.0.0.2 5000 typ host", b"127.0.0.9 5000 typ host"),
    "setup": changed(b"actpass", b"active"),
    "direction": changed(b"a=sendrecv", b"a=recvonly"),
    "crypto added": changed(b"a=rtcp:", b"a=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:AAAA\r\na=rtcp:"),
    "key-mgmt moved into a section": lambda body: body.replace(KEY, b"").replace(b"a=ptime:20\r\n", KEY),
    "key-mgmt taken away": lambda body: body.replace(KEY, b""),
    "origin": changed(b"o=- 7 1", b"o=- 7 2"),
    "sections in another order": lambda body: b"".join(_reordered(body)),
    "a section added": lambda body: body + b"m=audio 6000 RTP/AVP 0\r\n",
    "a line added in the middle": changed(b"s=-\r\n", b"s=-\r\n\r\n"),
    "an unknown line": lambda body: body + b"x=y\r\n",
    "a carriage return within a line": changed(b"a=sendrecv\r\n", b"a=send\rrecv\r\n"),
    "white space at an end": changed(b"a=sendrecv\r\n", b"a=sendrecv \r\n"),
    "stripped": lambda body: b"",
}


def _reordered(body: bytes) -> list[bytes]:
    session, audio, video = body.replace(b"m=", b"\0m=").split(b"\0")
    return [session, video, audio]


@pytest.mark.parametrize("change", CHANGES.values(), ids=list(CHANGES))
def test_every_change_that_a_telephone_could_act_on_is_caught(
    change: Callable[[bytes], bytes], operator: Operator, verifier: Verifier
) -> None:
    call = operator.call(sdp=sdp_digest(OFFER))
    body = change(OFFER)
    assert body != OFFER
    with pytest.raises(VerificationFailed, match="not the one that the caller's operator signed") as failure:
        verifier.verify(replace(call, sdp=sdp_digest(body)), operator.record)
    assert failure.value.step is Step.SDP
    assert (Step.SDP.label, Step.SDP.reasoncode, Step.SDP.verstat) == ("E22 SDP", 438, Verstat.FAILED)
    assert verifier.verify(call, operator.record).sdp is SdpBinding.VERIFIED  # the copy has not used it up


@pytest.mark.parametrize("name", ["sdp-audio-video.sdp", "sdp-inactive.sdp"])
def test_every_line_of_an_offer_counts(name: str) -> None:
    lines = (VECTORS / name).read_bytes().splitlines(keepends=True)
    digests = {sdp_digest(b"".join(lines[:at] + lines[at + 1 :])) for at in range(len(lines))}
    assert len(digests | {sdp_digest(b"".join(lines))}) == len(lines) + 1


def test_a_body_that_is_added_to_a_call_without_one_is_caught(operator: Operator, verifier: Verifier) -> None:
    call = operator.call(key_mgmt=(), sdp=body_digest(b"", None))
    for body, kind in ((OFFER, SDP_TYPE), (b"x", None), (OFFER, "multipart/mixed;boundary=x")):
        with pytest.raises(VerificationFailed) as failure:
            verifier.verify(replace(call, sdp=body_digest(body, kind)), operator.record)
        assert failure.value.step is Step.SDP
    assert body_digest(b"", SDP_TYPE) == body_digest(b"\r\n\r\n", "text/plain") == call.sdp
    assert verifier.verify(call, operator.record).sdp is SdpBinding.VERIFIED


def test_a_body_of_another_type_counts_with_its_type_to_the_byte() -> None:
    body = b"--x\r\nContent-Type: application/sdp\r\n\r\nv=0\r\n--x--\r\n"
    kinds = ("multipart/mixed;boundary=x", "multipart/mixed;boundary=y", "text/plain", None)
    digests = {body_digest(body, kind) for kind in kinds} | {
        sdp_digest(body),
        body_digest(body + b"\r\n", kinds[0]),
    }
    assert len(digests) == len(kinds) + 2


def test_a_description_that_is_not_signed_or_not_told(
    operator: Operator, verifier: Verifier, new_verifier: Callable[..., Verifier]
) -> None:
    told, untold = operator.call(), replace(operator.call(sdp=sdp_digest(OFFER)), sdp=None)
    assert verifier.verify(replace(told, sdp=sdp_digest(OFFER)), operator.record).sdp is SdpBinding.NOT_SIGNED
    assert verifier.verify(untold, operator.record).sdp is SdpBinding.NOT_CHECKED
    strict = new_verifier(Policy(require_sdp=True))
    for call, match in ((replace(told, sdp=bytes(32)), "signed no"), (untold, "did not tell")):
        with pytest.raises(VerificationFailed, match=match) as failure:
            strict.verify(call, operator.record)
        assert failure.value.step is Step.SDP
    assert strict.verify(operator.call(sdp=bytes(32)), operator.record).sdp is SdpBinding.VERIFIED


@given(st.binary(max_size=60), st.none() | st.text(max_size=30))
def test_any_bytes_have_a_digest_that_ends_of_lines_do_not_change(body: bytes, kind: str | None) -> None:
    assert len(body_digest(body, kind)) == 32
    lines = body.replace(b"\r\n", b"\n")
    assert sdp_digest(lines) == sdp_digest(body) == sdp_digest(lines + b"\r\n")
