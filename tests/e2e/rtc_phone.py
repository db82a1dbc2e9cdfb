"""An ordinary telephone of a browser's kind: aiortc's RTCPeerConnection for the media, in a process of its own.

It registers at the gateway, then calls `target`, or answers the next call. It prints a line of JSON for each step.
Arguments: the file of its instructions in JSON.
"""

import asyncio
import json
import re
import sys
from pathlib import Path
from typing import Any

import aioice.ice
from aiortc import RTCConfiguration, RTCPeerConnection, RTCSessionDescription
from aiortc.contrib.media import MediaPlayer
from aiortc.mediastreams import MediaStreamError
from av import AudioResampler

from voice_dpki.media.pcm import Pcm, samples_of
from voice_dpki.media.recording import write_wav
from voice_dpki.sip.message import Hop
from voice_dpki.wire.sip.changes import Reinvite
from voice_dpki.wire.sip.user_agent import Account, Call, IncomingCall, UserAgent

RATE = 8000


class RtcPhone:
    def __init__(self, told: dict[str, Any]) -> None:
        self.told = told
        # aioice leaves loopback out, and tests have nothing else.
        aioice.ice.get_host_addresses = lambda use_ipv4, use_ipv6: [told["host"]]
        self.peer = RTCPeerConnection(RTCConfiguration(iceServers=[]))
        self.heard = b""
        self.reading: asyncio.Task[None] | None = None
        self.connected = asyncio.Event()
        track = MediaPlayer(told["say"]).audio
        assert track is not None
        self.peer.addTrack(track)
        self.peer.on("track", self.track)
        self.peer.on("connectionstatechange", self.changed)

    def changed(self) -> None:
        tell(state=self.peer.connectionState)
        if self.peer.connectionState == "connected":
            self.connected.set()

    def track(self, track: Any) -> None:
        self.reading = asyncio.ensure_future(self.read(track))

    async def read(self, track: Any) -> None:
        resampler = AudioResampler(format="s16", layout="mono", rate=RATE)
        try:
            while True:
                for frame in resampler.resample(await track.recv()):
                    self.heard += samples_of(frame)
        except MediaStreamError:
            return

    async def call(self, agent: UserAgent) -> None:
        await self.peer.setLocalDescription(await self.peer.createOffer())
        call = await agent.invite(self.told["target"], self.described())
        final = await call.answered()
        tell(status=final.status, call_info=final.headers.get("Call-Info"), reasons=final.reasons)
        if final.status == 200:
            await self.peer.setRemoteDescription(RTCSessionDescription(final.sdp.decode(), "answer"))
            await self.talk(call)

    async def answer(self, call: IncomingCall) -> None:
        headers = call.request.headers
        tell(from_=call.from_, call_info=headers.get("Call-Info"), asserted=headers.get("P-Asserted-Identity"))
        await self.peer.setRemoteDescription(RTCSessionDescription(call.sdp.decode(), "offer"))
        await self.peer.setLocalDescription(await self.peer.createAnswer())
        await call.ring()
        await call.answer(self.described())
        await self.talk(call)

    async def talk(self, call: Call | IncomingCall) -> None:
        """Talk until the other side hangs up, or for `talk_s`."""
        call.on_reinvite(self.reoffered)
        try:
            await asyncio.wait_for(call.ended.wait(), self.told["talk_s"])
        except TimeoutError:
            await call.bye()
        tell(ended=call.ended_by_peer, reasons=call.end_headers.getlist("Reason"))
        await self.peer.close()
        if self.reading is not None:
            self.reading.cancel()
        Path(self.told["heard"]).write_bytes(write_wav(Pcm(RATE, self.heard)))
        tell(done=True)

    async def reoffered(self, change: Reinvite) -> None:
        await self.peer.setRemoteDescription(RTCSessionDescription(change.sdp.decode(), "offer"))
        await self.peer.setLocalDescription(await self.peer.createAnswer())
        await change.accept(self.described())

    def described(self) -> bytes:
        """Our description; in a lie, the fingerprint is of another certificate."""
        sdp = self.peer.localDescription.sdp
        if self.told.get("lies"):
            sdp = re.sub(r"(?m)^(a=fingerprint:sha-\d+ )..", r"\g<1>00", sdp)
        return sdp.encode()


def tell(**said: Any) -> None:
    print(json.dumps(said), flush=True)


async def main(told: dict[str, Any]) -> None:
    account = Account(told["aor"], told["username"], told["password"])
    agent = UserAgent(account, host=told["host"], port=told["port"], proxy=Hop.parse(told["gateway"]))
    await agent.start()
    done = asyncio.Event()
    phone = RtcPhone(told)

    async def answer(call: IncomingCall) -> None:
        try:
            await phone.answer(call)
        finally:
            done.set()

    agent.on_invite = answer
    await agent.register()
    tell(registered=True)
    if told.get("target"):
        await phone.call(agent)
    else:
        await done.wait()
    await agent.close()


if __name__ == "__main__":
    asyncio.run(main(json.loads(Path(sys.argv[1]).read_text())))
