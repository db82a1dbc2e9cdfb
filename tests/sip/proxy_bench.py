"""A proxy core between a caller and a callee that the test plays."""

from typing import Any

from sipmessage import Request, Response

from voice_dpki.effects import Random
from voice_dpki.sip.events import Outgoing
from voice_dpki.sip.machines import Timers
from voice_dpki.sip.message import Hop, copy_request, encode, header_values, make_response, parse_message
from voice_dpki.sip.proxy import Answer, Arrival, ProxyCore, Update
from voice_dpki.sip.transaction import TransactionLayer

OWN = Hop("udp", "127.0.0.2", 5060)
CALLER = Hop("udp", "127.0.0.6", 5060)
CALLEE = Hop("udp", "127.0.0.7", 5060)
STRANGER = Hop("udp", "127.0.0.50", 53989)


class Bench:
    """A proxy core on its layer, between a caller and a callee that the test plays."""

    def __init__(self, random: Random, **options: Any) -> None:
        self.layer = TransactionLayer(OWN.address, random=random, timers=Timers())
        self.core = ProxyCore(self.layer, secret=b"key", random=random, **options)
        self.now_s = 100.0
        self.arrivals: list[Arrival] = []
        self.updates: list[Update] = []
        self.answers: list[Answer] = []
        self.sent: list[Outgoing] = []

    def pump(self) -> None:
        while events := self.layer.take_events():
            for event in events:
                found = self.core.handle(event, self.now_s)
                if isinstance(found, Answer):
                    self.answers.append(found)
                elif isinstance(found, Update):
                    self.updates.append(found)
                elif found is not None:
                    self.arrivals.append(found)
        self.sent += self.layer.take_output()

    def receive(self, data: bytes, source: Hop = CALLER) -> None:
        self.layer.receive(data, source, self.now_s)
        self.pump()

    def forward(self, index: int = -1, hop: Hop = CALLEE, **options: Any) -> None:
        arrival = self.arrivals[index]
        self.core.forward(arrival.key, copy_request(arrival.request), hop, self.now_s, **options)
        self.pump()

    def answer(self, status: int, to_tag: str = "callee", **headers: str) -> None:
        """Let the callee answer the request that was forwarded last."""
        request = self.last_request()
        extra = [("Record-Route", value) for value in header_values(request, "Record-Route")]
        response = make_response(request, status, to_tag=to_tag, headers=[*extra, *headers.items()])
        self.receive(encode(response), CALLEE)

    def last_request(self) -> Request:
        return next(m for m in reversed(self.messages()) if isinstance(m, Request) and m.method != "CANCEL")

    def messages(self) -> list[Request | Response]:
        return [parse_message(outgoing.data) for outgoing in self.sent]

    def names(self) -> list[str]:
        return [m.method if isinstance(m, Request) else str(m.code) for m in self.messages()]

    def advance(self, seconds: float) -> None:
        end_s = self.now_s + seconds
        while (due_s := self.layer.next_timer()) is not None and due_s <= end_s:
            self.now_s = due_s
            self.layer.handle_timer(due_s)
            self.pump()
        self.now_s = end_s
