"""The variant of an environment that a run plays: what else than its id says how it is made."""

from typing import NamedTuple

from impala_redis.common.settings.json_object import EMPTY


class Variant(NamedTuple):
    """How an environment is made, beside its id: the same on every machine of a run."""

    env_kwargs: str = EMPTY  # arguments of its constructor, as `json_object.canonical` has them
    wrapper: tuple[str, ...] = ()  # module:callable each, the innermost first
    max_episode_steps: int | None = None  # None: as it was registered
    # Where action masks come from: "observation" or "info"; empty: none are looked for.
    mask_from: str = "observation"


AS_REGISTERED = Variant()
