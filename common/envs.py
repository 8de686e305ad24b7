"""Environments: a Gymnasium id in, one vector environment out; a single one is a vector of one.

The rule of resets, stated once: next-step autoreset. The step after an episode's last ignores its
action, gives reward 0 and the new episode's first observation (`common.trajectory`).
"""

import contextlib
import logging
import warnings
from collections.abc import Callable, Collection, Iterator
from math import prod
from typing import Any, NamedTuple

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, VectorEnv
from numpy.typing import NDArray

from common import corridor
from common.errors import ConfigError, EnvironmentFailed, UnsupportedEnvironment
from common.spec import MAX_OBSERVATION_SIZE, OBSERVATION_DTYPES, ObservationSpec, module_of

log = logging.getLogger(__name__)

gymnasium.register_envs(corridor)  # its import has done so: every program knows our own

Wrapper = Callable[[gymnasium.Env[Any, Any]], gymnasium.Env[Any, Any]]

SUPPORTED = "supported are Box or Discrete observations and a Discrete action space"


class StepResult(NamedTuple):
    """What one step of N environments gives."""

    observations: NDArray[np.generic]  # [N, ...]
    rewards: NDArray[np.float32]  # [N]
    terminated: NDArray[np.bool_]  # [N]
    truncated: NDArray[np.bool_]  # [N]


class VectorEnvironment:
    """N environments stepped together, with actions and indices counted from 0."""

    def __init__(self, env_id: str, num_envs: int, recorder: Wrapper | None = None) -> None:
        """Makes them, in the environment's own vector form where it has one.

        A recorder wraps each of them, which then draw pictures and are stepped one by one.
        Raises UnsupportedEnvironment: unknown, not installed, or with spaces we cannot take.
        """
        self._env_id = env_id
        self._env: VectorEnv[Any, Any, Any] = (
            _make(env_id, num_envs) if recorder is None else _record(env_id, num_envs, recorder)
        )
        mode = self._env.metadata.get("autoreset_mode")
        if mode != AutoresetMode.NEXT_STEP:
            raise UnsupportedEnvironment(
                f"{env_id} resets in mode {mode}; its vector form must use next-step autoreset"
            )
        self.num_envs = num_envs
        observations, actions = self._env.single_observation_space, self._env.single_action_space
        self.observation = _observation_spec(env_id, observations)
        if not isinstance(actions, spaces.Discrete):
            raise UnsupportedEnvironment(
                f"{env_id} has the action space {_in_a_line(actions)}; {SUPPORTED}"
            )
        self.num_actions = int(actions.n)
        self._shape = (num_envs, *self.observation.shape)
        self._dtype = np.dtype(self.observation.dtype)
        self._first_action = int(actions.start)
        self._first_value = (
            int(observations.start) if isinstance(observations, spaces.Discrete) else 0
        )

    def reset(self, seed: int) -> NDArray[np.generic]:
        """First observations [N, ...]; environment i plays with a seed derived from `seed`."""
        with self._failures("reset"):
            return self._observations(self._env.reset(seed=seed)[0])

    def step(self, actions: NDArray[np.int64]) -> StepResult:
        """Takes actions [N], each 0 .. num_actions - 1."""
        with self._failures("step"):
            observations, rewards, terminated, truncated, _ = self._env.step(
                actions + self._first_action if self._first_action else actions
            )
            return StepResult(
                self._observations(observations),
                np.asarray(rewards, np.float32).reshape(self.num_envs),
                np.asarray(terminated, np.bool_).reshape(self.num_envs),
                np.asarray(truncated, np.bool_).reshape(self.num_envs),
            )

    def close(self) -> None:
        """Ends the environments; what their own code makes of that is no longer ours."""
        try:
            self._env.close()
        except Exception as error:
            log.debug("%s failed in close: %s", self._env_id, error)

    @contextlib.contextmanager
    def _failures(self, doing: str) -> Iterator[None]:
        """Names the environment whose own code raised."""
        try:
            yield
        except Exception as error:
            raise EnvironmentFailed(
                f"{self._env_id} failed in {doing}: {type(error).__name__}: {_line(error)}"
            ) from error

    def _observations(self, observations: Any) -> NDArray[np.generic]:
        """As the spec says [N, ...]. Raises ValueError: numpy would stretch or cut in silence."""
        array = np.asarray(observations - self._first_value if self._first_value else observations)
        if array.shape != self._shape or array.dtype != self._dtype:
            raise ValueError(
                f"observations are {array.dtype}{list(array.shape)}, not "
                f"{self._dtype}{list(self._shape)}"
            )
        return array


def check_module(env_id: str, trusted: Collection[str]) -> None:
    """Refuses to import a module that only Redis or a checkpoint has named. Raises ConfigError."""
    module = module_of(env_id)
    if module and module not in trusted:
        raise ConfigError(
            f"the run's environment {env_id} is made by the module {module!r}, which nobody here "
            f"has named; if you trust it, add --env-module {module}"
        )


def _make(
    env_id: str, num_envs: int, doing: str = "made", **options: Any
) -> VectorEnv[Any, Any, Any]:
    try:
        with warnings.catch_warnings():
            # Gymnasium warns about spaces and versions; what matters to us is checked below.
            warnings.simplefilter("ignore")
            return gymnasium.make_vec(env_id, num_envs=num_envs, **options)
    except gymnasium.error.DependencyNotInstalled as error:
        raise UnsupportedEnvironment(f"{env_id} lacks a package: {_line(error)}") from error
    except (gymnasium.error.Error, ImportError) as error:
        raise UnsupportedEnvironment(
            f"there is no environment {env_id!r}: {_line(error)}; --env takes a Gymnasium id such "
            "as CartPole-v1, or module:Id to import the module that registers it"
        ) from error
    except Exception as error:  # whatever the environment's own constructor raises
        raise UnsupportedEnvironment(f"{env_id} cannot be {doing}: {_cause(error)}") from error


def _record(env_id: str, num_envs: int, recorder: Wrapper) -> VectorEnv[Any, Any, Any]:
    """The same environments, each drawing pictures inside a recorder."""
    return _make(
        env_id,
        num_envs,
        "recorded",
        vectorization_mode="sync",
        wrappers=[recorder],
        render_mode="rgb_array",
    )


def _cause(error: Exception) -> str:
    if isinstance(error, UnsupportedEnvironment):  # the recorder's own words
        return str(error)
    if isinstance(error, TypeError) and "argument 'render_mode'" in str(error):
        return "it draws no pictures (it takes no render_mode)"
    return f"{type(error).__name__}: {_line(error)}"


def _observation_spec(env_id: str, space: spaces.Space[Any]) -> ObservationSpec:
    if isinstance(space, spaces.Discrete) and 0 < space.n <= 65_536:
        return ObservationSpec((), "int64", int(space.n))
    if isinstance(space, spaces.Box) and str(space.dtype) in OBSERVATION_DTYPES:
        shape = tuple(int(size) for size in space.shape)
        if 0 < prod(shape) <= MAX_OBSERVATION_SIZE:
            return ObservationSpec(shape, str(space.dtype))
    raise UnsupportedEnvironment(
        f"{env_id} has the observation space {_in_a_line(space)}; {SUPPORTED}"
    )


def _in_a_line(space: spaces.Space[Any]) -> str:
    return " ".join(str(space).split())[:200]


def _line(error: Exception) -> str:
    return str(error).strip().splitlines()[0].rstrip(".") if str(error).strip() else "no reason"
