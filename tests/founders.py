"""Three or more operators that found a federation by docs/founding.md, each in its own folder."""

import shutil
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from tests.guides import Reader, Step, steps_of, until

NUMBERS = (
    '{ start = "493023125000", count = 1000 }',
    '{ start = "442079460000", count = 1000 }',
    '{ start = "33199000000", count = 10000 }',
    '{ start = "12025550100", count = 100 }',
)


class Founders:
    """The operators; `network` gives each an address, the last number of which is the operator's."""

    def __init__(self, folder: Path, operators: int = 3, network: str = "127.0.31", delay_s: int = 86_400) -> None:
        letters = "abcdefgh"[:operators]
        self.readers = [
            Reader(folder / letter, self._words(at, letter, network, delay_s)) for at, letter in enumerate(letters)
        ]
        self.urls = [f"http://{network}.{at}:26680" for at in range(1, operators + 1)]
        for reader in self.readers:
            reader.folder.mkdir(parents=True)

    @staticmethod
    def _words(at: int, letter: str, network: str, delay_s: int) -> dict[str, str]:
        own = f"{network}.{at + 1}"
        return {
            'Operator A"': f'Operator {letter.upper()}"',
            "signature of Operator A": f"signature of Operator {letter.upper()}",
            'domains = ["a.example"]': f'domains = ["{letter}.example"]',
            NUMBERS[0]: NUMBERS[at],
            "/a.toml": f"/{letter}.toml",
            "operator-a": f"operator-{letter}",
            "http://127.0.0.1:26680": f"http://{own}:26680",
            "192.0.2.1": own,
            "2026-12-01T12:00:00Z": datetime.now(UTC).strftime("%Y-%m-%dT00:00:00Z"),
            "delay_s = 86400": f"delay_s = {delay_s}",
        }

    def found(self, *, check: bool = True) -> Sequence[Step]:
        """Follow the guide up to the start of the nodes; return the steps from there on."""
        steps, rest = until(steps_of("founding.md"), lambda step: "genesis configure" in step.command)
        for step in steps:
            for reader in self.readers:
                reader.follow(step, check=check)
            for shared in ("offers", "signatures"):
                if f"--out {shared}/" in step.command:
                    self.hand_over(shared)
        return rest

    def hand_over(self, shared: str) -> None:
        """Give each operator's file in a folder to all others."""
        for reader in self.readers:
            for other in self.readers:
                for file in (reader.folder / shared).glob("*.toml"):
                    if not (other.folder / shared / file.name).exists():
                        shutil.copy(file, other.folder / shared)
