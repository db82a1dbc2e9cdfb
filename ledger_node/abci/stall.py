"""The validators whose votes CometBFT lacks when it makes no block."""

from ledger_node.abci.rpc import Rpc, RpcError
from ledger_node.keep.chain import Chain
from voice_dpki.errors import MalformedError
from voice_dpki.ledger.directory import members_of
from voice_dpki.ledger.validators import validator_sets

MAX_NAMED = 8
"""Most validators named; the others are only counted."""


class MissingVotes:
    """Asks a node's CometBFT which validators' votes are missing."""

    def __init__(self, chain: Chain, rpc: Rpc) -> None:
        self._chain = chain
        self._rpc = rpc

    async def tell(self) -> str:
        """Return in a few words whose votes are missing, or that CometBFT does not say."""
        try:
            voted = await self._rpc.voters()
        except (RpcError, MalformedError) as error:
            return f"and CometBFT does not tell whose votes are missing: {error}"
        with self._chain.snapshot() as view:
            keys = [validator.public_key for validator in validator_sets(view)[0].validators]
            owners = {key: member.organization for member in members_of(view) for key in member.validators}
        return waiting_for([(owners.get(key, "nobody"), key) for key in keys], voted)


def waiting_for(validators: list[tuple[str, bytes]], voted: frozenset[int]) -> str:
    """Return whose votes are missing: of `validators`, each with its owner, those not at a place in `voted`."""
    missing = sorted(each for place, each in enumerate(validators) if place not in voted)
    if not missing:
        return "though all validators vote"
    named = [f"{owner} ({key.hex()[:12]})" for owner, key in missing[:MAX_NAMED]]
    more = [f"{len(missing) - MAX_NAMED} more"] if len(missing) > MAX_NAMED else []
    return f"waiting for votes of {', '.join([*named, *more])}: {len(missing)} of {len(validators)} validators"
