"""Which nodes CometBFT may connect to: those that this operator lists, by id and by address.

CometBFT asks the application about every connection (`filter_peers`). It asks about the address right after it
accepts the connection, so that a stranger holds one of the few places for inbound peers for one query only. It asks
about the node's id once the peer has proved it. The ledger has validators' keys but no addresses, so only operators
know a member's nodes. They list them in the configuration, and in a file of further nodes. The file is read again
when it changes, so that a node is admitted without a restart.

A stranger is refused only after its connection is accepted, and each attempt costs a query. `firewall` writes rules
for the kernel, which drops a stranger's packets unanswered.
"""

import asyncio
import ipaddress
import logging
import re
import socket
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from voice_dpki.errors import LocalError
from voice_dpki.metrics import counters
from voice_dpki.shell.config import Listen, read_file

log = logging.getLogger(__name__)

REFUSED = counters(
    "peers_refused", "Connections of nodes that are not listed, by what told.", by=("id", "addr", "other")
)

FILTER = "/p2p/filter/"
"""How the paths of CometBFT's queries about peers begin."""

MAX_ADMITTED = 1000
MAX_FILE_BYTES = 128 * 1024

RESOLVE_S = 60.0
"""How often peers' host names are resolved again."""

RETRY_S = 5.0
"""How often host names are resolved while one of them has never been found."""

RESOLVE_TIMEOUT_S = 5.0
"""How long one resolution may take; a node starts without the peers that are not found by then."""

LOG_S = 60.0
"""Shortest interval between two logged refusals, so that a stranger's retries cannot flood the log."""

CONNECTIONS_PER_ADDRESS = 8
"""Most connections that the firewall allows each member's address; a node needs two while both sides dial."""

NEW_PER_SECOND = 5
"""Most new connections a second that the firewall allows each member's address; nodes dial every 2 s."""

_ID = r"[0-9a-f]{40}"
_PEER = re.compile(rf"({_ID})@(\S+):[0-9]+", re.ASCII)
_HOST_PORT = re.compile(r"(.{1,100}):[0-9]{1,5}", re.ASCII)
_ADMITTED = re.compile(rf"({_ID})@(\S+)", re.ASCII)

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Address = ipaddress.IPv4Address | ipaddress.IPv6Address

_MAPPED_BITS = 96

_LOCAL = ipaddress.ip_network("127.0.0.1")
"""The address from which a peer on this machine connects, whichever loopback address it listens on."""


@dataclass(frozen=True, slots=True)
class Admitted:
    """Admitted nodes' ids, and the networks from which they connect."""

    ids: frozenset[str] = frozenset()
    networks: frozenset[Network] = frozenset()

    def has_address(self, address: Address) -> bool:
        """Return whether the address is in a network of an admitted node."""
        return any(address in network for network in self.networks)


class Peers:
    """The nodes listed at present; `run` keeps the addresses of host names up to date."""

    def __init__(self, listed: Sequence[str], file: Path | None = None) -> None:
        """Take the configured peers, `ID@HOST:PORT`, and a file of further ones; raises LocalError for bad ones."""
        pairs = [_matched(_PEER, peer, "peers") for peer in listed]
        self._ids = frozenset(name for name, _ in pairs)
        self._hosts = tuple(dict.fromkeys(host.strip("[]") for _, host in pairs))
        self._resolved: dict[str, frozenset[Network]] = {}
        self._file = file
        self._stamp: tuple[int, ...] | None = None
        self._further = Admitted()
        self._refusals = _Refusals()
        if file is not None:
            self._stamp, self._further = _stamp(file), read_admitted(file)

    async def run(self) -> None:
        """Resolve host names periodically until cancelled."""
        while True:
            await asyncio.sleep(RESOLVE_S if self._resolved.keys() == set(self._hosts) else RETRY_S)
            await self.resolve()

    async def resolve(self) -> None:
        """Resolve the peers' host names, for at most RESOLVE_TIMEOUT_S.

        A host that is not found keeps its last addresses.
        """
        await asyncio.gather(*map(self._resolve, self._hosts))

    async def _resolve(self, host: str) -> None:
        try:
            async with asyncio.timeout(RESOLVE_TIMEOUT_S):
                self._resolved[host] = frozenset(await _addresses(host))
        except (OSError, UnicodeError) as error:  # a TimeoutError is one; IDNA cannot encode every name
            reason = str(error) or "no answer in time"
            log.warning("peer-not-found", extra={"fields": {"host": host, "reason": reason}})

    @property
    def admitted(self) -> Admitted:
        """The nodes that are admitted now; none of those in the file if that cannot be read."""
        further = self._read_again()
        networks = further.networks.union(*self._resolved.values())
        return Admitted(self._ids | further.ids, networks)

    def refusal(self, path: str) -> str:
        """Answer CometBFT's query: return why a connection is refused, or "". Anything unclear is refused."""
        kind, _, about = path.removeprefix(FILTER).partition("/")
        admitted = self.admitted
        if kind == "id" and about in admitted.ids:
            return ""
        address = _address(about) if kind == "addr" else None
        if address is not None and admitted.has_address(address):
            return ""
        self._refusals.note(kind if kind in ("id", "addr") else "other", str(address or about[:64]))
        return "this node is not listed here"

    def _read_again(self) -> Admitted:
        if self._file is None or (stamp := _stamp(self._file)) == self._stamp:
            return self._further
        self._stamp = stamp
        try:
            self._further = read_admitted(self._file)
            log.info("peers-read", extra={"fields": {"file": str(self._file), "nodes": len(self._further.ids)}})
        except LocalError as error:
            self._further = Admitted()
            log.error("peers-unreadable", extra={"fields": {"reason": str(error)}})
        return self._further


class _Refusals:
    """Counts all refusals, and logs at most one in LOG_S."""

    def __init__(self) -> None:
        self._count = 0
        self._told_s = -LOG_S

    def note(self, by: str, about: str) -> None:
        REFUSED.labels(by).inc()
        self._count += 1
        now_s = time.monotonic()
        if now_s - self._told_s >= LOG_S:
            fields = {"by": by, "last": about, "count": self._count}
            log.warning("peer-refused", extra={"fields": fields})
            self._told_s, self._count = now_s, 0


def read_admitted(path: Path) -> Admitted:
    """Read a list of nodes: `ID@ADDRESS` or `ID@NETWORK/BITS`, one a line; a `#` begins a comment.

    Raises LocalError that names the file and, for a wrong entry, the line.
    """
    lines = read_file(path, "list of nodes", MAX_FILE_BYTES).decode("utf-8", "replace").splitlines()
    ids: set[str] = set()
    networks: set[Network] = set()
    for number, line in enumerate(lines, 1):
        text = line.partition("#")[0].strip()
        if not text:
            continue
        name, host = _matched(_ADMITTED, text, f"{path}, line {number}")
        try:
            networks.add(_network(host.strip("[]")))
        except ValueError as error:
            raise LocalError(f"{path}, line {number}: {error}; it takes an address or a network") from None
        ids.add(name)
    if len(ids) > MAX_ADMITTED or len(networks) > MAX_ADMITTED:
        raise LocalError(f"{path}: lists more than {MAX_ADMITTED} nodes")
    return Admitted(frozenset(ids), frozenset(networks))


def firewall(admitted: Admitted, ports: Sequence[Listen]) -> str:
    """Return rules for `nft -f` that drop packets to `ports` unless they come from an admitted node's address.

    The rules also limit each admitted address to CONNECTIONS_PER_ADDRESS connections and NEW_PER_SECOND new ones a
    second. Loading them again replaces the old ones.
    """
    four = [str(network) for network in admitted.networks if network.version == 4]
    six = [str(network) for network in admitted.networks if network.version == 6]
    rules = "\n".join(_port_rule(listen) for listen in ports)
    return f"""\
# After each change of peers make these rules again: ledger-node firewall --config NODE.toml | nft -f -
table inet voice_dpki
delete table inet voice_dpki
table inet voice_dpki {{
{_members("members4", "ipv4_addr", four)}
{_members("members6", "ipv6_addr", six)}
{_counts("held4", "ipv4_addr")}
{_counts("held6", "ipv6_addr")}
{_counts("begun4", "ipv4_addr", "timeout 1m; ")}
{_counts("begun6", "ipv6_addr", "timeout 1m; ")}
    chain from_members {{
        ip saddr != @members4 drop
        ip6 saddr != @members6 drop
        ct state established,related accept
        update @begun4 {{ ip saddr limit rate over {NEW_PER_SECOND}/second burst 20 packets }} drop
        update @begun6 {{ ip6 saddr limit rate over {NEW_PER_SECOND}/second burst 20 packets }} drop
        add @held4 {{ ip saddr ct count over {CONNECTIONS_PER_ADDRESS} }} drop
        add @held6 {{ ip6 saddr ct count over {CONNECTIONS_PER_ADDRESS} }} drop
    }}
    chain input {{
        type filter hook input priority filter; policy accept;
{rules}
    }}
}}
"""


def _members(name: str, kind: str, networks: Iterable[str]) -> str:
    listed = ", ".join(sorted(networks))
    elements = f" elements = {{ {listed} }}" if listed else ""
    return f"    set {name} {{ type {kind}; flags interval; auto-merge;{elements} }}"


def _counts(name: str, kind: str, options: str = "") -> str:
    return f"    set {name} {{ type {kind}; flags dynamic; size 65535; {options}}}"


def _port_rule(listen: Listen) -> str:
    """Return the rule that sends packets for a port through the chain, except a node's packets to itself."""
    address = _address(f"{listen.host}:0")
    here = ""
    if address is not None and not address.is_unspecified:
        here = f"{'ip' if address.version == 4 else 'ip6'} daddr {address} "
    return f'        iifname != "lo" {here}tcp dport {listen.port} jump from_members'


async def _addresses(host: str) -> list[Network]:
    """Return the addresses from which a host connects, as networks; raises OSError if it is not found."""
    try:
        found = [host.partition("%")[0]]
        ipaddress.ip_address(host)
    except ValueError:
        answer = await asyncio.get_running_loop().getaddrinfo(host, None, type=socket.SOCK_STREAM)
        found = [str(entry[4][0]).partition("%")[0] for entry in answer]
    networks = [_network(address) for address in found]
    return [*networks, _LOCAL] if any(network.is_loopback for network in networks) else networks


def _network(text: str) -> Network:
    """Parse an address or network, a mapped one (RFC 4291 §2.5.5.2) as IPv4; raises ValueError, also for a zone."""
    if "%" in text:
        raise ValueError(f"{text[:80]!r} has a zone, which only this machine knows")
    network = ipaddress.ip_network(text)
    if isinstance(network, ipaddress.IPv6Network) and network.prefixlen >= _MAPPED_BITS:
        mapped = network.network_address.ipv4_mapped
        return network if mapped is None else ipaddress.IPv4Network((mapped, network.prefixlen - _MAPPED_BITS))
    return network


def _address(text: str) -> Address | None:
    """Parse the address in a HOST:PORT of CometBFT's; None where there is none."""
    found = _HOST_PORT.fullmatch(text)
    try:
        address = ipaddress.ip_address(found[1].strip("[]").partition("%")[0] if found else "")
    except ValueError:
        return None
    return (address.ipv4_mapped or address) if isinstance(address, ipaddress.IPv6Address) else address


def _matched(pattern: re.Pattern[str], text: str, where: str) -> tuple[str, str]:
    found = pattern.fullmatch(text)
    if found is None:
        raise LocalError(
            f"{where}: {text[:80]!r} is no node's id, which has 40 hexadecimal digits, @ and its address"
        )
    return found[1], found[2]


def _stamp(path: Path) -> tuple[int, ...] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_ino, status.st_mtime_ns, status.st_size
