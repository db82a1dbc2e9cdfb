"""A testbed in which some programs run inside a module of the tests, which alters what they do."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from sip_testbed.network import Testbed
from voice_dpki.stage.processes import Running

ROOT = Path(__file__).parents[2]


class Altered(Testbed):
    """A network whose `altered` actors start by a module of the tests.

    It has the module and its first arguments by actor; then come the program's own module and arguments.
    """

    __test__ = False
    altered: Mapping[str, tuple[str, ...]] = {}

    def start_program(
        self, actor: str, module: str, arguments: Sequence[str], sections: Mapping[str, object]
    ) -> Running:
        if actor not in self.altered:
            return super().start_program(actor, module, arguments, sections)
        wrapper, *first = self.altered[actor]
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("PYTHONPATH", str(ROOT))  # programs look for their modules in no current folder
            return super().start_program(actor, wrapper, (*first, module, *arguments), sections)
