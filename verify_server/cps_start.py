"""The program `cps-server`."""

import sys

from voice_dpki.shell.entry import enter


def main() -> int:
    """Run the program and return its exit status."""
    return enter("verify_server.cps_main")


if __name__ == "__main__":
    sys.exit(main())
