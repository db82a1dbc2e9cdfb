"""NAT detection: hashes of the addresses that each end sees on a message (RFC 7296 §2.23)."""

import ipaddress

from voice_dpki.ikev2.crypto import nat_detection
from voice_dpki.ikev2.events import Address, Path, SaName
from voice_dpki.ikev2.message import Message
from voice_dpki.ikev2.payloads import Notify
from voice_dpki.ikev2.registry import NotifyType


def nat_notifies(name: SaName, path: Path) -> tuple[Notify, ...]:
    """Return NAT_DETECTION_SOURCE_IP and NAT_DETECTION_DESTINATION_IP for a message sent over `path`."""
    return (
        Notify(NotifyType.NAT_DETECTION_SOURCE_IP, _nat_hash(name, path.local)),
        Notify(NotifyType.NAT_DETECTION_DESTINATION_IP, _nat_hash(name, path.remote)),
    )


def behind_nat(name: SaName, message: Message, path: Path) -> bool:
    """Return whether a message's addresses were changed on the way; False if it lacks the notifies (§2.23)."""
    sources = [each.data for each in message.all(Notify) if each.type == NotifyType.NAT_DETECTION_SOURCE_IP]
    target = message.notify(NotifyType.NAT_DETECTION_DESTINATION_IP)
    if not sources or target is None:
        return False
    return _nat_hash(name, path.remote) not in sources or target.data != _nat_hash(name, path.local)


def _nat_hash(name: SaName, address: Address) -> bytes:
    packed = ipaddress.ip_address(address.host).packed
    return nat_detection(name.spi_i, name.spi_r, packed, address.port)
