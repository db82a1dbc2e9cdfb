"""Services whose level of logs changes by SIGHUP."""

import logging
from pathlib import Path

from voice_dpki.shell.reload import reload_all


def takes_level(config: Path) -> bool:
    """Whether what was loaded from a configuration without `[log]` takes its level anew; both are put back."""
    root, text = logging.getLogger(), config.read_text()
    before = root.level
    try:
        root.setLevel(logging.INFO)
        config.write_text(f'{text}\n[log]\nlevel = "error"\nform = "text"\n')
        assert reload_all()
        raised = root.level
        config.write_text(text)
        reload_all()
        return (raised, root.level) == (logging.ERROR, logging.INFO)
    finally:
        root.setLevel(before)
