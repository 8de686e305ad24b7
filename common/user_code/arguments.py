"""Arguments of an environment's constructor: those that are refused, and what a run may give."""

import shlex
from collections.abc import Collection
from typing import Any

import gymnasium

from impala_redis.common.errors import ConfigError, printable
from impala_redis.common.settings import json_object
from impala_redis.common.settings.env_id import module_of, name_of

# Gymnasium's own arguments beside those of a constructor, and what to do instead of giving them.
_GYMNASIUMS = {
    "max_episode_steps": "give --max-episode-steps",
    "render_mode": "impala-eval --video draws",
    "num_envs": "give --envs-per-actor",
    "wrappers": "give --wrapper",
} | dict.fromkeys(
    ("id", "disable_env_checker", "vectorization_mode", "vector_kwargs"), "leave it out"
)
# Ids that were registered before any module of a user's was imported: by packages alone.
_OF_PACKAGES = frozenset(gymnasium.registry)


def refuse_gymnasiums_own(kwargs: dict[str, Any]) -> None:
    """Raises ConfigError: an argument is Gymnasium's, and none of the environment's."""
    for name in kwargs:
        if name in _GYMNASIUMS:
            raise ConfigError(
                f"--env-kwargs gives {name}, which is no argument of an environment's own: "
                f"{_GYMNASIUMS[name]}"
            )


def is_gymnasiums_own(name: str) -> bool:
    """Whether an argument of that name is Gymnasium's own."""
    return name in _GYMNASIUMS


def check_arguments(
    env_id: str,
    env_kwargs: str,
    is_known: bool,
    trusted: Collection[str],
    option: str = "--env-module",
) -> None:
    """Refuses arguments from Redis or a checkpoint that may choose a file, or what is imported.

    An environment of a module that the user trusts may be given anything. One that a package has
    registered may not: shimmy's GymV21Environment-v0 imports what its env_id says. Of those whose
    code is known only arguments that may name a file are refused.

    Args:
      env_id: Id or module:Id; whoever calls has checked the module.
      env_kwargs: as `json_object.canonical` has them.
      is_known: whether code of Gymnasium's, ALE's, MiniGrid's or ours makes what has that name.
      trusted: what the user has named by --env-module: modules, their files, or such ids.
      option: that names these.

    Raises ConfigError.
    """
    name, kwargs = name_of(env_id), json_object.arguments(env_kwargs)
    if name in trusted or (module_of(env_id) and name not in _OF_PACKAGES):
        return
    for key, value in kwargs.items():
        if not is_known or _may_name_a_file(key, value):
            raise ConfigError(
                f"the run gives {printable(name)} the argument {printable(repr(key))}, which may "
                "choose a file of this machine or what is imported; if you trust it, add "
                f"{option} {shlex.quote(name)}"
            )


def _may_name_a_file(key: str, value: Any) -> bool:
    is_number = value is None or isinstance(value, int | float)
    return not is_number and any(word in key.lower() for word in ("file", "path", "dir", "env_id"))
