"""The umbrella command `voice-dpki`."""

import sys

from voice_dpki.shell.entry import enter


def main() -> int:
    """Run the command and return its exit status."""
    return enter("voice_dpki.shell.cli")


if __name__ == "__main__":
    sys.exit(main())
