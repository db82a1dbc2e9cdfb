"""Trace events of IKEv2, beside those of `voice_dpki.shell.trace`.

- `ike`: src, dst ("host:port"), data (base64: the UDP payload), exchange, response, payloads (names), fragment,
  repeated: a datagram, written by its sender only;
- `ask` and `answer`: peer ("host:port"), text, digest: an inquiry and its answer, both written by the inquirer;
- `keys`: an SA's keys, in hexadecimal.
"""

import base64

from voice_dpki.ikev2.crypto import IkeKeys
from voice_dpki.ikev2.events import Datagram, SaName
from voice_dpki.shell.trace import Tracer

NON_ESP_MARKER = bytes(4)
"""Precedes IKE messages on port 4500 (RFC 3948 §2.2)."""


class IkeTracer(Tracer):
    """Traces one IKEv2 actor."""

    def ike(self, datagram: Datagram) -> None:
        """Record a datagram that this actor sends."""
        if self.on:
            data = NON_ESP_MARKER * datagram.path.marked + datagram.data
            self.write(
                "ike",
                src=str(datagram.path.local),
                dst=str(datagram.path.remote),
                data=base64.b64encode(data).decode("ascii"),
                exchange=datagram.exchange,
                response=datagram.is_response,
                payloads=datagram.payloads,
                fragment=datagram.fragment,
                repeated=datagram.repeated,
            )

    def ask(self, peer: str, text: str, **data: object) -> None:
        """Record that `peer` is asked."""
        self.write("ask", peer=peer, text=text, **data)

    def answer(self, peer: str, text: str, **data: object) -> None:
        """Record that `peer` has answered."""
        self.write("answer", peer=peer, text=text, **data)

    def keys(self, name: SaName, keys: IkeKeys) -> None:
        """Record an SA's keys, so that a capture can be decrypted: tracing is for tests and demonstrations."""
        if self.on:
            self.write(
                "keys",
                spi_i=name.spi_i.hex(),
                spi_r=name.spi_r.hex(),
                cipher=keys.suite.cipher.name,
                sk_ei=keys.sk_ei.hex(),
                sk_er=keys.sk_er.hex(),
                sk_ai=keys.sk_ai.hex(),
                sk_ar=keys.sk_ar.hex(),
            )
