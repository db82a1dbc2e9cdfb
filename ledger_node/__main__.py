"""The program `ledger-node`."""

import sys

from voice_dpki.shell.entry import enter


def main() -> int:
    """Run the program and return its exit status."""
    return enter("ledger_node.command.main")


if __name__ == "__main__":
    sys.exit(main())
