"""The program `sip-testbed`."""

import sys

from voice_dpki.shell.entry import enter


def main() -> int:
    """Run the program and return its exit status."""
    return enter("sip_testbed.main")


if __name__ == "__main__":
    sys.exit(main())
