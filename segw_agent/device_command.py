"""The command `voice-dpki device`: provision devices, and attach one."""

from collections.abc import Callable, Mapping

from segw_agent import attach, provision
from voice_dpki.errors import LocalError

COMMANDS: Mapping[str, Callable[[list[str]], int]] = {
    "attach": attach.command,
    "provision": provision.command,
}

HELP = """\
Usage: voice-dpki device COMMAND ...

  attach      attach a device to a gateway on this machine, by the ledger's word, and show it
  provision   make keys and certificates for a list of devices, and have them recorded

Each explains itself with --help."""


def command(argv: list[str]) -> int:
    """Provision devices, or attach one to a security gateway (device attach, device provision)."""
    if not argv or argv[0] in ("-h", "--help"):
        print(HELP)
        return 0
    if argv[0] not in COMMANDS:
        raise LocalError(f"there is no command {argv[0][:32]!r}; there are: {', '.join(COMMANDS)}")
    return COMMANDS[argv[0]](argv[1:])
