"""Nodes in network namespaces of their own, on bridges that tests connect and divide; needs root."""

import os
import subprocess
from dataclasses import replace

from ledger_node.command.federation import Processes
from ledger_node.command.federation_folder import OperatorNode
from voice_dpki.stage.processes import Program

NETWORK = f"10.213.{os.getpid() % 250}"
"""Another one each time: what a killed run left behind must not take this run's packets."""

NAME = f"vd{os.getpid() % 10_000}"
"""Begins the names of interfaces (15 characters at most) and namespaces."""


def ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True)


class Network:
    """A namespace for each node, all on one bridge; a second bridge takes those that are cut off."""

    def __init__(self, nodes: int) -> None:
        self.nodes = nodes
        for bridge in ("a", "b"):
            ip("link", "add", f"{NAME}{bridge}", "type", "bridge")
            ip("link", "set", f"{NAME}{bridge}", "up")
        ip("address", "add", f"{NETWORK}.254/24", "dev", f"{NAME}a")
        for number in range(1, nodes + 1):
            space = f"{NAME}-{number}"
            ip("netns", "add", space)
            ip("link", "add", f"{NAME}o{number}", "type", "veth", "peer", "name", "eth0", "netns", space)
            ip("-n", space, "address", "add", f"{NETWORK}.{number}/24", "dev", "eth0")
            ip("-n", space, "link", "set", "eth0", "up")
            ip("-n", space, "link", "set", "lo", "up")
            ip("link", "set", f"{NAME}o{number}", "up")
            self.attach(number, "a")

    def attach(self, number: int, bridge: str) -> None:
        """Put a node's cable into a bridge."""
        ip("link", "set", f"{NAME}o{number}", "master", f"{NAME}{bridge}")

    def remove(self) -> None:
        """Take it all down."""
        links = [f"{NAME}o{number}" for number in range(1, self.nodes + 1)] + [f"{NAME}a", f"{NAME}b"]
        spaces = [f"{NAME}-{number}" for number in range(1, self.nodes + 1)]
        for command in (*(["link", "del", link] for link in links), *(["netns", "del", space] for space in spaces)):
            subprocess.run(["ip", *command], check=False, capture_output=True)


class InNamespaces(Processes):
    """Starts each node in its namespace."""

    def program(self, node: OperatorNode) -> Program:
        number = ord(node.name[-1]) - ord("a") + 1
        return replace(super().program(node), within=within(number))


def within(number: int) -> tuple[str, ...]:
    """Return the words that run a command in a node's namespace; the first node has number 1."""
    return ("ip", "netns", "exec", f"{NAME}-{number}")
