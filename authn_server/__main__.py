"""The program `authn-server`."""

import sys

from voice_dpki.shell.entry import enter


def main() -> int:
    """Run the program and return its exit status."""
    return enter("authn_server.main")


if __name__ == "__main__":
    sys.exit(main())
