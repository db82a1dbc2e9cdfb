"""Making the changes that a telephone's configuration asks for in the middle of its speech."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence

from sip_testbed.session import ChangeRefusedError, Session
from voice_dpki.errors import LocalError
from voice_dpki.media.codecs import codec_named

log = logging.getLogger(__name__)


async def make_changes(
    session: Session,
    names: Sequence[str],
    within_s: float,
    further: Mapping[str, Callable[[], Awaitable[None]]] | None = None,
) -> None:
    """Make the changes of these names, evenly spread over `within_s` seconds; skip those that are refused.

    `further` has changes by name that are not the session's own.
    """
    acts = {"hold": session.hold, "resume": session.resume, "rekey": session.rekey, **(further or {})}
    for name in names:
        await asyncio.sleep(within_s / (len(names) + 1))
        try:
            await (acts[name]() if name in acts else session.recode(codec_named(name)))
        except (ChangeRefusedError, LocalError) as error:
            log.info("change not made", extra={"fields": {"change": name, "reason": str(error)}})
