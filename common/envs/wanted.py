"""What environments are to be made, and how."""

from collections.abc import Callable
from typing import Any, NamedTuple

import gymnasium

from impala_redis.common.settings import json_object
from impala_redis.common.settings.variant import AS_REGISTERED, Variant

Env = gymnasium.Env[Any, Any]
Wrapper = Callable[[Env], Env]


class Wanted(NamedTuple):
    """What is to be made."""

    env_id: str  # without a path
    num_envs: int  # N
    variant: Variant = AS_REGISTERED
    recorder: Wrapper | None = None  # the outermost wrapper of each; draws pictures
    info_keys: tuple[str, ...] = ()
    num_threads: int | None = None
    one_by_one: bool = False  # even if there is a vector form

    @property
    def kwargs(self) -> dict[str, Any]:
        """The arguments of the constructor."""
        return json_object.arguments(self.variant.env_kwargs)

    @property
    def takes_single_ones(self) -> str:
        """The option that takes single environments, not a vector form; empty if none does."""
        if self.variant.wrapper:
            return "--wrapper"
        if self.variant.mask_from == "info":
            return "--mask-from info"
        if self.one_by_one:
            return "--env-processes"
        return "a video" if self.recorder is not None else ""
