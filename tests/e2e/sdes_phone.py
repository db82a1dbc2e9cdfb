"""An ordinary telephone with SDES that takes new keys and another codec in a call, as others do not alone."""

import asyncio
from collections.abc import Callable

from voice_dpki.effects import SystemRandom
from voice_dpki.media.any_source import AnySourceSrtp
from voice_dpki.media.codecs import FRAME_S, Codec, codec_named
from voice_dpki.media.pcm import Pcm
from voice_dpki.media.stream import ReceiveStream, SendStream
from voice_dpki.sip.sdes import Crypto, CryptoSuite
from voice_dpki.sip.sdp import SECURE, RtpMap, SessionDescription, audio_description
from voice_dpki.wire.media_ports import listen_pair
from voice_dpki.wire.sip.call import Call
from voice_dpki.wire.sip.line import FinalAnswer
from voice_dpki.wire.sip.user_agent import UserAgent

SUITE = CryptoSuite.AES_CM_128_HMAC_SHA1_80
RATE = 8000


class SdesPhone:
    """Calls, and speaks until its speech is over; `change` offers new keys and, it may be, another codec."""

    def __init__(self, agent: UserAgent, host: str, speech: Pcm) -> None:
        self.call: Call | None = None
        self.answers: list[SessionDescription] = []
        """What the other side has described, each time."""
        self._agent = agent
        self._host = host
        self._speech = speech
        self._random = SystemRandom()
        self._port = 0
        self._version = 0
        self._transports: list[asyncio.DatagramTransport] = []
        self._sending: SendStream | None = None
        self._codec = codec_named("PCMU")
        self._receiving: list[ReceiveStream] = []

    async def dial(self, target: str) -> FinalAnswer:
        self._port, self._transports = await listen_pair(self._host, self._take)
        own = self._key()
        self.call = await self._agent.invite(target, self._described(self._codec, own))
        final = await self.call.answered()
        if final.status == 200:
            self._agree(self._codec, own, final.sdp)
        return final

    async def change(self, codec: str | None = None) -> FinalAnswer:
        assert self.call is not None
        made, own = codec_named(codec) if codec else self._codec, self._key()
        final = await self.call.reinvite(lambda: self._described(made, own))
        if final.status == 200:
            self._agree(made, own, final.sdp)
        return final

    async def speak(self) -> None:
        """Say the speech over and over, in whichever codec is agreed, until the call ends."""
        loop = asyncio.get_running_loop()
        began_s, at_s = loop.time(), 0.0
        assert self.call is not None
        while not self.call.ended.is_set() and self._sending is not None:
            from_s = at_s % self._speech.duration_s
            piece = self._speech.part(from_s, from_s + FRAME_S).resampled(self._codec.clock_rate)
            frame = piece.data.ljust(2 * self._codec.frame_samples, b"\0")[: 2 * self._codec.frame_samples]
            self._transports[0].sendto(self._sending.send(frame)[1], self.answers[-1].audio_address)
            self._play(loop.time())
            at_s += FRAME_S
            await asyncio.sleep(max(0.0, began_s + at_s - loop.time()))

    def heard(self) -> list[Pcm]:
        """What was heard under each of the keys."""
        self._play(float("inf"))
        return [stream.heard().resampled(RATE) for stream in self._receiving]

    def _play(self, now_s: float) -> None:
        """Play what is due: a stream keeps two seconds of what is not."""
        for stream in self._receiving:
            stream.play(now_s)

    def close(self) -> None:
        for transport in self._transports:
            transport.close()

    def _key(self) -> Crypto:
        return Crypto(1, SUITE, self._random.token(SUITE.key_bytes))

    def _described(self, codec: Codec, own: Crypto) -> bytes:
        self._version += 1
        maps = [RtpMap(codec.payload_type, codec.rtpmap)]
        made = audio_description(self._host, self._port, maps, session_id=7, version=self._version)
        text = made.with_protocol(SECURE).serialize().decode() + f"a=crypto:{own.serialize()}\r\n"
        return text.encode()

    def _agree(self, codec: Codec, own: Crypto, answer: bytes) -> None:
        described = SessionDescription.parse(answer)
        theirs = Crypto.parse(described.audio.attributes("crypto")[0])
        srtp = AnySourceSrtp(SUITE, send=own.key, receive=theirs.key)
        number, ssrc = codec.payload_type, int.from_bytes(self._random.token(4), "big")
        self.answers.append(described)
        self._sending, self._codec = SendStream(codec, number, ssrc, srtp, self._random), codec
        self._receiving.append(ReceiveStream(codec, number, None, srtp))

    def _take(self, data: bytes, source: tuple[str, int], is_control: bool) -> None:
        now_s = asyncio.get_running_loop().time()
        streams: list[Callable[[bytes, float], bool]] = [each.receive for each in reversed(self._receiving)]
        if not is_control:
            any(receive(data, now_s) for receive in streams)
