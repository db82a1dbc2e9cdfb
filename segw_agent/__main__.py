"""The program `segw-agent`."""

import sys

from voice_dpki.shell.entry import enter


def main() -> int:
    """Run the program and return its exit status."""
    return enter("segw_agent.main")


if __name__ == "__main__":
    sys.exit(main())
