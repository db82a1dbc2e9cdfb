"""A transaction layer with a clock, between peers that the test plays."""

from sipmessage import URI, Request

from voice_dpki.effects import Random
from voice_dpki.sip.events import Event, Outgoing, RequestReceived, TransactionKey
from voice_dpki.sip.message import Hop, encode, make_response, parse_message
from voice_dpki.sip.transaction import TransactionLayer

UDP = Hop("udp", "127.0.0.6", 5060)
TCP = Hop("tcp", "127.0.0.6", 40000)
PEER = Hop("udp", "127.0.0.9", 5060)


class Bench:
    """A layer with a clock: what it sends and tells is kept."""

    def __init__(self, random: Random, **options: object) -> None:
        self.layer = TransactionLayer("127.0.0.2:5060", random=random, **options)  # type: ignore[arg-type]
        self.now_s = 100.0
        self.sent: list[tuple[float, Outgoing]] = []
        self.events: list[Event] = []

    def collect(self) -> None:
        self.events += self.layer.take_events()
        self.sent += [(self.now_s, outgoing) for outgoing in self.layer.take_output()]

    def receive(self, data: bytes, source: Hop = UDP) -> None:
        self.layer.receive(data, source, self.now_s)
        self.collect()

    def send(self, method: str = "INVITE", hop: Hop = PEER, body: bytes = b"") -> TransactionKey:
        request = Request(method, URI.parse("sip:+442079460123@b.example"), body)
        for name, value in (
            ("From", "<sip:a@a.example>;tag=caller"),
            ("To", "<sip:b@b.example>"),
            ("Call-ID", "call-1"),
            ("CSeq", f"1 {method}"),
            ("Route", "<sip:127.0.0.9;lr>"),
        ):
            request.headers.set(name, value)
        key = self.layer.send_request(request, hop, self.now_s)
        self.collect()
        return key

    def respond(self, key: TransactionKey, status: int) -> None:
        request = next(e.request for e in self.events if isinstance(e, RequestReceived) and e.key == key)
        self.layer.respond(key, make_response(request, status, to_tag="callee"), self.now_s)
        self.collect()

    def answer(self, status: int, to_tag: str = "callee", index: int = 0) -> None:
        """Let the peer answer the request that was sent as number `index`."""
        request = parse_message(self.sent[index][1].data)
        assert isinstance(request, Request)
        self.receive(encode(make_response(request, status, to_tag=to_tag)), PEER)

    def advance(self, seconds: float) -> None:
        """Let time pass, from timer to timer."""
        end_s = self.now_s + seconds
        while (due_s := self.layer.next_timer()) is not None and due_s <= end_s:
            self.now_s = due_s
            self.layer.handle_timer(due_s)
            self.collect()
        self.now_s = end_s

    def methods(self) -> list[str]:
        messages = [parse_message(outgoing.data) for _, outgoing in self.sent]
        return [m.method if isinstance(m, Request) else str(m.code) for m in messages]

    def times(self) -> list[float]:
        return [round(at_s - 100, 6) for at_s, _ in self.sent]

    def told(self, kind: type) -> int:
        return sum(isinstance(event, kind) for event in self.events)
