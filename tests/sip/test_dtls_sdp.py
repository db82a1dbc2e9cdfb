"""What a browser's stack says of DTLS and ICE, and what is refused in it."""

import pytest

from voice_dpki.errors import MalformedError
from voice_dpki.sip.dtls_sdp import DtlsDescription, Fingerprint, Setup
from voice_dpki.sip.sdp import SessionDescription

# RFC 8122 §5: the fingerprint of its example, by SHA-256 in place of SHA-1's.
SHA_256 = "sha-256 12:DF:3E:5D:49:6B:19:E5:7C:AB:4A:AD:B9:B1:3F:82:18:3B:54:02:12:DF:3E:5D:49:6B:19:E5:7C:AB:4A:AD"
SHA_1 = "SHA-1 4A:AD:B9:B1:3F:82:18:3B:54:02:12:DF:3E:5D:49:6B:19:E5:7C:AB"


def described(*lines: str, session: tuple[str, ...] = ()) -> SessionDescription:
    head = ("v=0", "o=- 1 1 IN IP4 127.0.0.1", "s=-", "t=0 0", *session)
    media = ("m=audio 9 UDP/TLS/RTP/SAVPF 0", "c=IN IP4 127.0.0.1", *lines)
    return SessionDescription.parse(("\r\n".join((*head, *media)) + "\r\n").encode())


ICE = ("a=ice-ufrag:evtj", "a=ice-pwd:VOkJxbRl1RmTxUk/WvJxBt")


def test_what_a_section_says_goes_before_the_session() -> None:
    read = DtlsDescription.read(
        described(f"a=fingerprint:{SHA_256}", "a=setup:passive", *ICE, session=(f"a=fingerprint:{SHA_1}",))
    )
    assert [f.serialize() for f in read.fingerprints] == [SHA_256]
    assert (read.setup, read.ice) == (Setup.PASSIVE, ("evtj", "VOkJxbRl1RmTxUk/WvJxBt"))


def test_the_session_speaks_for_the_section() -> None:
    read = DtlsDescription.read(described(session=(f"a=fingerprint:{SHA_256}", "a=setup:actpass")))
    assert (read.setup, read.ice, len(read.fingerprints)) == (Setup.ACTPASS, None, 1)


def test_a_weak_hash_counts_for_nothing() -> None:
    assert Fingerprint.parse(SHA_1) is None
    with pytest.raises(MalformedError, match="no fingerprint by SHA-256"):
        DtlsDescription.read(described(f"a=fingerprint:{SHA_1}"))
    assert (
        len(DtlsDescription.read(described(f"a=fingerprint:{SHA_1}", f"a=fingerprint:{SHA_256}")).fingerprints) == 1
    )


@pytest.mark.parametrize(
    "lines",
    [
        (),
        (f"a=fingerprint:{SHA_256[:-3]}",),
        ("a=fingerprint:sha-256 zz",),
        (f"a=fingerprint:{SHA_256}",) * 9,
        (f"a=fingerprint:{SHA_256}", "a=setup:holdconn"),
        (f"a=fingerprint:{SHA_256}", "a=setup:active", "a=setup:passive"),
        (f"a=fingerprint:{SHA_256}", ICE[0]),
        (f"a=fingerprint:{SHA_256}", ICE[0], "a=ice-pwd:short"),
        (f"a=fingerprint:{SHA_256}", *ICE, ICE[0]),
    ],
)
def test_what_cannot_be_relied_on_is_refused(lines: tuple[str, ...]) -> None:
    with pytest.raises(MalformedError):
        DtlsDescription.read(described(*lines))
