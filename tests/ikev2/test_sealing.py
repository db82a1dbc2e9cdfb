"""How messages and their keys are protected, octet by octet: ECDH, both ciphers, cookies, fragments."""

from functools import partial

import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from voice_dpki.ikev2 import proposals
from voice_dpki.ikev2.cookies import Cookies
from voice_dpki.ikev2.crypto import AesCbcHmac, AesGcm, IkeKeys, KeyPair, ProtectionError, prf
from voice_dpki.ikev2.failures import Failure
from voice_dpki.ikev2.message import Header, Message
from voice_dpki.ikev2.payloads import (
    Encrypted,
    EncryptedFragment,
    Notify,
)
from voice_dpki.ikev2.proposals import (
    CBC_128,
    GCM_128,
    IKE_SUITES,
    IkeSuite,
)
from voice_dpki.ikev2.protect import Opener, seal
from voice_dpki.ikev2.registry import Group, NotifyType

from .conftest import CountingRandom
from .test_bounds import SA, Draws, refused

# --- keys and protection ------------------------------------------------------------------------------------------

G = {
    Group.ECP_256: "6b17d1f2e12c4247f8bce6e563a440f277037d812deb33a0f4a13945d898c296"
    "4fe342e2fe1a7f9b8ee7eb4a7c0f9e162bce33576b315ececbb6406837bf51f5",
    Group.ECP_384: "aa87ca22be8b05378eb1c71ef320ad746e1d3b628ba79b98"
    "59f741e082542a385502f25dbf55296c3a545e3872760ab7"
    "3617de4a96262c6f5d9e98bf9292dc29f8f41dbd289a147ce9da3113b5f0b8c00a60b1ce1d7e819d7a431d7c90ea0e5f",
}
"""The base points (SP 800-186 §3.2.1.3, §3.2.1.4), x and y."""
ORDER = {
    Group.ECP_256: 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551,
    Group.ECP_384: (1 << 384) - 0x389CB27E0BC8D220A7E5F24DB74F58851313E695333AD68D,
}


@pytest.mark.parametrize("group", Group)
def test_a_private_key_is_drawn_from_1_to_the_order_less_1(group: Group) -> None:
    """FIPS 186-4, appendix B.4.1: 64 bits more than the order has, modulo n - 1, plus 1."""
    base = bytes.fromhex(G[group])
    size = len(base) // 2 + 8
    for drawn in (0, ORDER[group] - 1, 2 * (ORDER[group] - 1)):
        assert KeyPair(group, Draws(drawn.to_bytes(size, "big"))).public_value == base
    last = KeyPair(group, Draws((ORDER[group] - 2).to_bytes(size, "big"))).public_value
    assert last[: len(base) // 2] == base[: len(base) // 2], "its point is that of -1"
    assert last != base


def test_ecdh_of_p384_by_hand() -> None:
    """RFC 5903 §8.2: x of the common point. With the private key 1 it is that of the other's own point."""
    one, other = KeyPair(Group.ECP_384, Draws(bytes(56))), KeyPair(Group.ECP_384, CountingRandom("other"))
    assert one.shared(other.public_value) == other.public_value[:48]
    for size in (95, 97, 64, 0):
        refused(Failure.KE_VALUE, partial(one.shared, (other.public_value + b"\0")[:size]))


def test_authentic_content_without_padding_is_refused() -> None:
    """RFC 7296 §3.14: the pad length is always there. Both ciphers, with the peer's own keys."""
    gcm = AesGcm(bytes(20))
    empty = bytes(8) + gcm._aead.encrypt(gcm._salt + bytes(8), b"", b"header")
    with pytest.raises(ProtectionError):
        gcm.open(b"header", empty)
    cbc = AesCbcHmac(bytes(16), bytes(32), CountingRandom("iv"))
    for size in (0, 15, 16, 17, 31, 33):
        sealed = bytes(size)
        with pytest.raises(ProtectionError):
            cbc.open(b"header", sealed + prf(bytes(32), b"header" + sealed)[:16])


@pytest.mark.parametrize("size", [0, 14, 15, 16, 31])
def test_the_octets_of_aes_cbc_with_hmac(size: int) -> None:
    """RFC 7296 §3.14: IV, content, padding and pad length in whole blocks; RFC 4868 §2.1: 16 octets of HMAC."""
    cbc = AesCbcHmac(b"k" * 32, b"i" * 32, Draws(b"v" * 16))
    sealed = cbc.seal(b"header", b"c" * size)
    decryptor = Cipher(algorithms.AES(b"k" * 32), modes.CBC(b"v" * 16)).decryptor()
    plain = decryptor.update(sealed[16:-16])
    pad = 15 - size % 16
    assert sealed[:16] == b"v" * 16
    assert plain == b"c" * size + bytes(pad) + bytes((pad,))
    assert sealed[-16:] == prf(b"i" * 32, b"header" + sealed[:-16])[:16]
    assert len(sealed) == cbc.sealed_bytes(size)


def test_the_octets_of_aes_gcm() -> None:
    """RFC 5282 §3, §4: the key's last 4 octets are the salt, the IV has 8, the tag 16."""
    gcm = AesGcm(b"k" * 16 + b"salt")
    gcm.seal(b"", b"")
    sealed = gcm.seal(b"header", b"content")
    cipher = Cipher(algorithms.AES(b"k" * 16), modes.GCM(b"salt" + sealed[:8], sealed[-16:])).decryptor()
    cipher.authenticate_additional_data(b"header")
    assert cipher.update(sealed[8:-16]) + cipher.finalize() == b"content\0"
    assert sealed[:8] == b"\0" * 7 + b"\1"
    assert len(sealed) == gcm.sealed_bytes(7) == 8 + 7 + 1 + 16


def test_cookies_octet_by_octet() -> None:
    """RFC 7296 §2.6: the secret's number and a hash of the secret, Ni, IPi and SPIi; two secrets are known."""
    secrets = [bytes((at % 251,)) * 32 for at in range(300)]
    cookies = Cookies(Draws(*secrets))
    request = b"nonce", "192.0.2.1", b"\3" * 8

    def expected(at: int) -> bytes:
        return bytes((at % 256,)) + prf(secrets[at], b"nonce" + bytes((192, 0, 2, 1)) + b"\3" * 8)

    assert cookies.make(*request, 1000.0) == expected(0)
    assert cookies.make(*request, 1059.9) == expected(0)
    for at in range(1, 260):
        now_s = 1000.0 + 60 * at
        assert cookies.make(*request, now_s) == expected(at)
        assert cookies.holds(expected(at - 1), *request, now_s)
        assert at < 2 or not cookies.holds(expected(at - 2), *request, now_s)
        assert not cookies.holds(expected(at + 1), *request, now_s)


def test_a_secret_that_is_two_lives_old_is_forgotten() -> None:
    for age_s, known in ((119.9, True), (120.0, False)):
        cookies = Cookies(CountingRandom("cookies"))
        made = cookies.make(b"nonce", "2001:db8::1", b"spi", 0.0)
        assert cookies.holds(made, b"nonce", "2001:db8::1", b"spi", age_s) is known


# --- messages in fragments ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("cipher", [GCM_128, CBC_128], ids=lambda cipher: cipher.name)
def test_fragments_are_as_long_as_they_may_be(cipher: proposals.CipherSuite) -> None:
    """RFC 7383 §2.5: a message that fits goes whole, and otherwise each fragment but the last is filled."""
    keys = IkeKeys.derive(IkeSuite(cipher, Group.ECP_256), b"shared", (b"i", b"r"), SA)
    sender, most = keys.cipher(CountingRandom("iv"), of_initiator=True), 200
    for size in range(90, 400):
        notify = Notify(NotifyType.COOKIE, bytes(size))
        content = size + 8
        sent = seal(Header(*SA, 37, 2, True, False), (notify,), sender, most)
        whole = 28 + 4 + sender.sealed_bytes(content) <= most
        assert (len(sent) == 1) is whole
        payloads = [Message.parse(each).payloads[-1] for each in sent]
        if whole:
            assert isinstance(payloads[0], Encrypted)
            continue
        assert max(map(len, sent)) <= most
        room = max(room for room in range(200) if 28 + 8 + sender.sealed_bytes(room) <= most)
        assert len(sent) == -(-content // room)
        fragments = [each for each in payloads if isinstance(each, EncryptedFragment)]
        assert [(each.number, each.total) for each in fragments] == [
            (at, len(sent)) for at in range(1, len(sent) + 1)
        ]
        assert [each.first for each in fragments] == [41] + [0] * (len(sent) - 1)
        opener = Opener(keys.cipher(CountingRandom("iv"), of_initiator=True))
        assert [opener.open(Message.parse(each)) for each in sent] == [None] * (len(sent) - 1) + [(notify,)]


def test_without_a_size_nothing_is_cut() -> None:
    keys = IkeKeys.derive(IKE_SUITES[0], b"shared", (b"i", b"r"), SA)
    sender = keys.cipher(CountingRandom("iv"), of_initiator=True)
    (sent,) = seal(Header(*SA, 37, 2, True, False), (Notify(1, bytes(5000)),), sender, None)
    assert len(sent) == 28 + 4 + 8 + 5008 + 1 + 16


def test_fragments_of_two_messages_make_none() -> None:
    keys = IkeKeys.derive(IKE_SUITES[0], b"shared", (b"i", b"r"), SA)
    sender = keys.cipher(CountingRandom("iv"), of_initiator=True)
    opener, notify = Opener(sender), Notify(NotifyType.COOKIE, bytes(300))
    one, two = (seal(Header(*SA, 37, at, True, False), (notify,), sender, 250) for at in (2, 3))
    assert len(one) == len(two) == 2
    for each in (one[0], two[1], one[1]):
        assert opener.open(Message.parse(each)) is None
    assert opener.open(Message.parse(one[0])) == (notify,)
    # A whole message between them ends what was begun.
    (whole,) = seal(Header(*SA, 37, 4, True, False), (), sender, None)
    assert opener.open(Message.parse(two[0])) is None
    assert opener.open(Message.parse(whole)) == ()
    assert opener.open(Message.parse(two[1])) is None


@pytest.mark.parametrize(("total", "read"), [(128, True), (129, False)])
def test_how_many_fragments_a_message_has(total: int, read: bool) -> None:
    opener = Opener(AesGcm(bytes(20)))
    fragment = EncryptedFragment(0, 1, total, b"")
    if read:
        assert opener._join(2, fragment, b"") is None
    else:
        refused(Failure.FRAGMENT, lambda: opener._join(2, fragment, b""))
