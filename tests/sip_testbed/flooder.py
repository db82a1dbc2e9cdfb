"""A stranger in a process of its own, so that it does not wait for those whom it floods.

    python flooder.py udp HOST PORT SECONDS SOURCE...   REGISTER without credentials, RATE a second
    python flooder.py tcp HOST PORT COUNT SOURCE...     so many connections that say nothing, until killed

It prints a line once it has sent the first datagrams, or opened all connections; udp prints the number at its end.
"""

import errno
import itertools
import socket
import sys
import time

BATCH = 50
RATE = 20_000
PASSING = (errno.EAGAIN, errno.ECONNREFUSED, errno.ENOBUFS)


def register(source: str, port: int, number: int) -> bytes:
    """Write a REGISTER that nobody has sent before."""
    return (
        f"REGISTER sip:a.example SIP/2.0\r\nVia: SIP/2.0/UDP {source}:{port};branch=z9hG4bK{number}\r\n"
        "Max-Forwards: 70\r\nFrom: <sip:+493023125001@a.example>;tag=1\r\nTo: <sip:+493023125001@a.example>\r\n"
        f"Call-ID: {number}\r\nCSeq: 1 REGISTER\r\nContact: <sip:x@{source}:{port}>\r\nContent-Length: 0\r\n\r\n"
    ).encode()


def flood(target: tuple[str, int], seconds: float, sources: list[str]) -> None:
    """Send for so long; answers are not read."""
    sockets = []
    for source in sources:
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        sock.bind((source, 0))
        sockets.append((sock, source, sock.getsockname()[1]))
    began_s, numbers, sent = time.monotonic(), itertools.count(), 0
    while (passed_s := time.monotonic() - began_s) < seconds:
        if sent > RATE * passed_s:
            time.sleep(0.001)
            continue
        for sock, source, port in sockets:
            for _ in range(BATCH):
                try:
                    sent += bool(sock.sendto(register(source, port, next(numbers)), target))
                except OSError as error:
                    if error.errno not in PASSING:
                        raise
        if sent and sent <= BATCH * len(sockets):
            print("begun", flush=True)
    print(sent, flush=True)


def hold(target: tuple[str, int], count: int, sources: list[str]) -> None:
    """Open so many connections, and keep them."""
    held = []
    for number in range(count):
        held.append(socket.create_connection(target, source_address=(sources[number % len(sources)], 0)))
    print("begun", flush=True)
    while True:
        time.sleep(60)


def main() -> None:
    """Do what the arguments say."""
    kind, host, port, amount, *sources = sys.argv[1:]
    if kind == "udp":
        flood((host, int(port)), float(amount), sources)
    else:
        hold((host, int(port)), int(amount), sources)


if __name__ == "__main__":
    main()
