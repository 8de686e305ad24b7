"""Environments that EnvPool steps in C++, all of them in one call: the extra `envpool`.

`envpool:Id` names one of its own, as in envpool:Pong-v5. MiniGrid's and BabyAI's levels are played
by it, too, where nothing asks for single environments (`common.games.envpool_grid`). EnvPool's rule
of resets is ours, next-step autoreset. It takes two seconds to import, so that is done where the
first of its environments is made.
"""

import difflib
import logging
import warnings
from typing import Any

import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray

from impala_redis.common.errors import UnsupportedEnvironment
from impala_redis.common.settings import json_object
from impala_redis.common.settings.env_id import module_of, name_of
from impala_redis.common.settings.variant import AS_REGISTERED, Variant
from impala_redis.common.user_code.failures import first_line

# What stands in front of the colon; no module of a user's is ever imported by this name.
MODULE = "envpool"
DISTRIBUTION = "envpool"
# Arguments that are ours to give, and what a user gives instead.
_OURS = {
    "num_envs": "give --envs-per-actor",
    "num_threads": "give impala-actor --env-threads",
    "max_episode_steps": "give --max-episode-steps",
    "seed": "give --seed",
} | dict.fromkeys(("batch_size", "max_num_players", "gym_reset_return_info"), "leave it out")

log = logging.getLogger(__name__)

Flags = NDArray[np.bool_]
# Observations, rewards [N], terminated [N], truncated [N], infos.
Outcome = tuple[Any, NDArray[Any], Flags, Flags, dict[str, Any]]


def is_named(env_id: str) -> bool:
    """Whether an id asks for EnvPool, as envpool:Pong-v5 does."""
    return module_of(env_id) == MODULE


def is_installed() -> bool:
    """Whether the package is installed; a file of that name is not the package."""
    from importlib import metadata  # late: it takes some hundredths of a second

    try:
        metadata.version(DISTRIBUTION)
    except metadata.PackageNotFoundError:
        return False
    return True


def knows(env_id: str) -> bool:
    """Whether it has that environment. Raises UnsupportedEnvironment: it cannot be imported."""
    return name_of(env_id) in _package().list_all_envs()


class EnvPoolVector(VectorEnv[Any, NDArray[Any], NDArray[Any]]):
    """N environments of one of EnvPool's ids, with next-step autoreset."""

    metadata: dict[str, Any] = {  # noqa: RUF012
        "render_modes": [],
        "autoreset_mode": AutoresetMode.NEXT_STEP,
    }
    _pool: Any = None  # of the last reset

    def __init__(
        self, env_id: str, num_envs: int, num_threads: int = 1, variant: Variant = AS_REGISTERED
    ) -> None:
        """Makes no environment yet: EnvPool wants the seed for that, and a reset gives it.

        Args:
          env_id: with or without "envpool:".
          num_envs: N.
          num_threads: how many step them.
          variant: arguments and time limit.

        Raises UnsupportedEnvironment: EnvPool is missing, has no such environment, or takes no such
        arguments.
        """
        self._env_id, self._name = env_id, name_of(env_id)
        package = _package()
        if self._name not in package.list_all_envs():
            raise UnsupportedEnvironment(_unknown(self._name, package.list_all_envs()))
        self._arguments: dict[str, Any] = {"num_envs": num_envs, "num_threads": num_threads}
        plain = package.make_spec(self._name, **self._arguments)
        self._arguments |= _checked_arguments(variant, plain.config)
        spec = package.make_spec(self._name, **self._arguments)
        self.num_envs = num_envs
        self.single_observation_space = spec.gymnasium_observation_space
        self.single_action_space = spec.gymnasium_action_space
        self.action_space = batch_space(self.single_action_space, num_envs)

    def reset(
        self, *, seed: int | list[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Makes the environments and begins their first episodes; environment i gets seed + i."""
        assert isinstance(seed, int), "one seed for all environments"
        if self._pool is None:  # whoever asks for the spaces alone plays nothing
            log.info(
                "%s is played by EnvPool; threads: %d",
                *(self._env_id, self._arguments["num_threads"]),
            )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of bounds that EnvPool states in another precision
            self._pool = _package().make_gymnasium(self._name, seed=seed, **self._arguments)
            observations, infos = self._pool.reset()
        return self._seen(observations), infos

    def step(self, actions: NDArray[Any]) -> Outcome:
        """Plays an action in each, or begins the next episode where one was over."""
        self.begin_step(actions)
        return self.end_step()

    def begin_step(self, actions: NDArray[Any]) -> None:
        """Lets the threads play; `end_step` tells what that brought."""
        self._pool.send(actions)

    def end_step(self) -> Outcome:
        """Waits for the threads."""
        observations, rewards, terminated, truncated, infos = self._pool.recv()
        return self._seen(observations), rewards, terminated, truncated, infos

    def _seen(self, observations: Any) -> Any:
        """Observations [N, ...] as the space has them; EnvPool's own are."""
        return observations

    def close_extras(self, **kwargs: Any) -> None:
        """Ends the environments and their threads."""
        self._pool = None


def _package() -> Any:
    """The package. Raises UnsupportedEnvironment: it is missing, or cannot be imported."""
    if not is_installed():
        raise UnsupportedEnvironment(
            "it needs the package envpool: run pip install 'impala-redis[envpool]', or in a "
            "checkout scripts/setup.sh envpool"
        )
    # It imports matplotlib, which tells of its fonts and of a home that cannot be written.
    logging.getLogger("matplotlib").setLevel(logging.ERROR)
    try:
        import envpool
    except Exception as error:  # of a library that is missing, or of matplotlib's settings
        raise UnsupportedEnvironment(
            f"the package envpool cannot be imported: {first_line(error)}; mend that, or uninstall "
            "envpool: levels of MiniGrid are then played by minigrid"
        ) from error
    return envpool


def _unknown(name: str, known: list[str]) -> str:
    """That there is no such environment, and what the nearest one is."""
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.0)[0]
    return f"EnvPool has no environment {name!r}, and the nearest is envpool:{near}"


def _checked_arguments(variant: Variant, config: Any) -> dict[str, Any]:
    """The arguments that a variant gives. Raises UnsupportedEnvironment.

    They are numbers and truth values alone: a text may name a file of this machine.
    """
    given = json_object.arguments(variant.env_kwargs)
    keys = config._fields
    for name, value in given.items():
        if name in _OURS:
            raise UnsupportedEnvironment(f"{name} is not to be given: {_OURS[name]}")
        if name not in keys or not isinstance(getattr(config, name), bool | int | float):
            numbers = [key for key in keys if isinstance(getattr(config, key), bool | int | float)]
            shown = ", ".join(sorted(set(numbers) - _OURS.keys()))
            raise UnsupportedEnvironment(f"it takes no number {name!r}, but {shown}")
        if not isinstance(value, bool | int | float):
            raise UnsupportedEnvironment(f"{name} must be a number, or true or false")
    if variant.max_episode_steps is not None:
        given["max_episode_steps"] = variant.max_episode_steps
    return given
