"""Environments: a Gymnasium id in, one vector environment out; a single one is a vector of one.

The rule of resets, stated once: next-step autoreset. The step after an episode's last ignores its
action, gives reward 0 and the new episode's first observation (`common.blocks.trajectory`).
"""

import contextlib
import logging
import warnings
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import gymnasium
import numpy as np
from gymnasium.vector import AutoresetMode, SyncVectorEnv, VectorEnv
from numpy.typing import NDArray

from impala_redis.common.envs import atari, corridor, gridworld, masked_cartpole, user_module
from impala_redis.common.envs.actions import ActionDecoder, action_spec
from impala_redis.common.envs.observations import Array, Encoder, observation_spec
from impala_redis.common.errors import EnvironmentFailed, UnsupportedEnvironment

log = logging.getLogger(__name__)

# Importing our own environments has registered them; these calls only use the imports.
for _module in (corridor, masked_cartpole):
    gymnasium.register_envs(_module)

Wrapper = Callable[[gymnasium.Env[Any, Any]], gymnasium.Env[Any, Any]]


class StepResult(NamedTuple):
    """The result of one step of N environments."""

    observations: NDArray[np.generic]  # [N, ...]
    rewards: NDArray[np.float32]  # [N]
    terminated: NDArray[np.bool_]  # [N]
    truncated: NDArray[np.bool_]  # [N]
    over: NDArray[np.bool_]  # [N] a score is final; the loss of a life ends no score


class VectorEnvironment:
    """N environments stepped together; observations and actions are as in the run's spec."""

    def __init__(
        self, env_id: str, num_envs: int, recorder: Wrapper | None = None, frame_stack: int = 1
    ) -> None:
        """Makes the environments, in their own vector form if they have one.

        Args:
          env_id: Gymnasium's id, or module:Id.
          num_envs: N.
          recorder: wraps each of them; they then draw pictures and are stepped one by one.
          frame_stack: only noted in the observations' spec; the observations are single ones.

        Raises UnsupportedEnvironment: unknown, not installed, or with spaces that do not travel.
        """
        self._env_id = env_id
        user_module.look_in_working_directory(env_id)
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
        self.observation = observation_spec(env_id, observations, frame_stack)
        self.action = action_spec(env_id, actions)
        self._encoder = Encoder(observations, self.observation, num_envs)
        self._decoder = ActionDecoder(actions)
        # Only our own infos are read: in others the same key may mean something else.
        self._reports_game_over = isinstance(self._env, atari.AtariVector)

    def reset(self, seed: int) -> NDArray[np.generic]:
        """First observations [N, ...]; each environment gets a seed derived from `seed`."""
        with self._named_failures("reset"):
            return self._encoder.encode(self._env.reset(seed=seed)[0])

    def step(self, actions: Array) -> StepResult:
        """Plays actions [N, ...] that fit the spec's `action`. Raises EnvironmentFailed."""
        with self._named_failures("step"):
            observations, rewards, ended, cut, infos = self._env.step(self._decoder.decode(actions))
            terminated = np.asarray(ended, np.bool_).reshape(self.num_envs)
            truncated = np.asarray(cut, np.bool_).reshape(self.num_envs)
            return StepResult(
                self._encoder.encode(observations),
                np.asarray(rewards, np.float32).reshape(self.num_envs),
                terminated,
                truncated,
                over=infos["game_over"] if self._reports_game_over else terminated | truncated,
            )

    def close(self) -> None:
        """Closes the environments; an error in their own code is only logged."""
        try:
            self._env.close()
        except Exception as error:
            log.debug("%s failed in close: %s", self._env_id, error)

    @contextlib.contextmanager
    def _named_failures(self, doing: str) -> Iterator[None]:
        """Turns what the environment's own code raises into EnvironmentFailed, with its id."""
        try:
            yield
        except Exception as error:
            raise EnvironmentFailed(
                f"{self._env_id} failed in {doing}: {type(error).__name__}: {_first_line(error)}"
            ) from error


def _make(env_id: str, num_envs: int) -> VectorEnv[Any, Any, Any]:
    """The environments, in their own vector form if they have one."""
    if atari.is_atari(env_id):
        return atari.make(env_id, num_envs)
    wrappers = _wrappers(env_id)
    with _refusals(env_id, "made"):
        # Without a wrapper it may be made in its own vector form.
        return gymnasium.make_vec(env_id, num_envs, wrappers=wrappers)


def _record(env_id: str, num_envs: int, recorder: Wrapper) -> VectorEnv[Any, Any, Any]:
    """The same environments, each inside a recorder and drawing pictures, stepped one by one."""
    wrappers = [recorder, *_wrappers(env_id)]
    with _refusals(env_id, "recorded"):
        if atari.is_atari(env_id):
            games = [lambda: recorder(atari.make_single(env_id, "rgb_array"))] * num_envs
            return SyncVectorEnv(games)
        return gymnasium.make_vec(
            env_id,
            num_envs,
            vectorization_mode="sync",
            wrappers=wrappers,
            render_mode="rgb_array",
        )


def _wrappers(env_id: str) -> list[Any]:
    """The wrappers that an environment of a known family needs."""
    if not gridworld.is_gridworld(env_id):
        return []
    gridworld.register(env_id)
    return [gridworld.CategoryView]


@contextlib.contextmanager
def _refusals(env_id: str, doing: str) -> Iterator[None]:
    """Turns whatever an environment's making raises into UnsupportedEnvironment, one sentence."""
    try:
        with warnings.catch_warnings():
            # Gymnasium warns about spaces and versions; our own checks cover what matters here.
            warnings.simplefilter("ignore")
            yield
    except gymnasium.error.DependencyNotInstalled as error:
        box2d = (
            "Box2D: run pip install 'impala-redis[box2d]', or in a checkout scripts/setup.sh box2d"
        )
        missing = box2d if "Box2D" in str(error) else f"a package: {_first_line(error)}"
        raise UnsupportedEnvironment(f"{env_id} lacks {missing}") from error
    except (gymnasium.error.Error, ImportError) as error:
        raise UnsupportedEnvironment(
            f"there is no environment {env_id!r}: {_first_line(error)}"
            f"{user_module.hidden_neighbours(env_id)}; --env takes a Gymnasium id "
            "such as CartPole-v1, or module:Id to import the module that registers it"
        ) from error
    except Exception as error:  # whatever the environment's own constructor raises
        raise UnsupportedEnvironment(
            f"{env_id} cannot be {doing}: {_why_not_made(error)}"
            f"{user_module.hidden_neighbours(env_id)}"
        ) from error


def _why_not_made(error: Exception) -> str:
    if isinstance(error, UnsupportedEnvironment):  # the recorder's own words
        return str(error)
    if isinstance(error, TypeError) and "argument 'render_mode'" in str(error):
        return "it draws no pictures (it takes no render_mode)"
    return f"{type(error).__name__}: {_first_line(error)}"


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0].rstrip(".") if str(error).strip() else "no reason"
