"""Environments: a Gymnasium id in, one vector environment out; a single one is a vector of one.

The rule of resets, stated once: next-step autoreset. The step after an episode's last ignores its
action, gives reward 0 and the new episode's first observation (`common.blocks.trajectory`).
"""

import logging
from collections.abc import Iterator, Mapping
from functools import partial
from types import MappingProxyType
from typing import Any, NamedTuple

import gymnasium
import numpy as np
from numpy.typing import NDArray

from impala_redis.common.encoding.actions import ActionDecoder, action_spec
from impala_redis.common.encoding.fitting import Array
from impala_redis.common.encoding.observations import Encoder, observation_spec
from impala_redis.common.encoding.space_text import text_of
from impala_redis.common.envs import making
from impala_redis.common.envs.masks import check_masks
from impala_redis.common.envs.pooling import findable, is_pooled
from impala_redis.common.envs.processes import InProcesses
from impala_redis.common.envs.single import Info, Single, numbers_in_vector, reward_refusal
from impala_redis.common.envs.wanted import Wanted, Wrapper
from impala_redis.common.errors import UnsupportedEnvironment
from impala_redis.common.games import atari
from impala_redis.common.games.atari_rules import is_atari
from impala_redis.common.games.envpool_vector import EnvPoolVector
from impala_redis.common.settings.variant import AS_REGISTERED, Variant
from impala_redis.common.tasks.dealing import TaskNumbers
from impala_redis.common.user_code import failures

log = logging.getLogger(__name__)

_NO_INFOS: Mapping[int, Info] = MappingProxyType({})


class StepResult(NamedTuple):
    """The result of one step of N environments."""

    observations: NDArray[np.generic]  # [N, ...]
    rewards: NDArray[np.float32]  # [N]
    terminated: NDArray[np.bool_]  # [N]
    truncated: NDArray[np.bool_]  # [N]
    over: NDArray[np.bool_]  # [N] a score is final; the loss of a life ends no score
    # Numbers of the last infos of the episodes that ended, by the environment's index.
    infos: Mapping[int, Info] = _NO_INFOS


class VectorEnvironment:
    """N environments stepped together; observations and actions are as in the run's spec."""

    seed: int  # of the last reset, as the first environment got it
    _actions: Array  # of the step under way, as the environment takes them
    _processes: InProcesses | None = None

    def __init__(
        self,
        env_id: str,
        num_envs: int,
        recorder: Wrapper | None = None,
        frame_stack: int = 1,
        info_keys: tuple[str, ...] = (),
        num_threads: int | None = None,
        variant: Variant = AS_REGISTERED,
        num_processes: int = 0,
        one_by_one: bool = False,
    ) -> None:
        """Makes the environments, in their own vector form if they have one.

        Args:
          env_id: Gymnasium's id, module:Id, or path/to/module.py:Id.
          num_envs: N.
          recorder: wraps each of them; they then draw pictures and are stepped one by one.
          frame_stack: only noted in the observations' spec; the observations are single ones.
          info_keys: what is wanted of an episode's last info, beside its `episode_info`.
          num_threads: how many step them, if their vector form has any; else its own number, and
            for games of Atari 1.
          variant: arguments, wrappers, time limit, and where masks come from.
          num_processes: how many processes step them, one by one in each; 0: this one does.
          one_by_one: even if they have a vector form.

        Raises UnsupportedEnvironment: unknown, not installed, or with spaces that do not travel.
        Raises ConfigError: a wrapper cannot be imported.
        """
        env_id = findable(env_id)
        self._env_id, self._info_keys = env_id, info_keys
        self._resetting = failures.Named(env_id, "reset")
        self._stepping = failures.Named(env_id, "step")
        self._telling = failures.Named(env_id, "set_progress")
        self.num_envs = num_envs
        wanted = Wanted(env_id, num_envs, variant, recorder, info_keys, num_threads, one_by_one)
        num_processes = _usable_processes(wanted, num_processes)
        if num_processes:  # one of them, for its spaces
            wanted = wanted._replace(num_envs=1, num_threads=None, one_by_one=True)
        self._env = making.make(wanted)
        self._take_spaces(frame_stack, has_masks=bool(variant.mask_from))
        # Only our own infos tell of it: in others the same key may mean something else.
        self._reports_game_over = isinstance(self._env, atari.AtariVector)
        self._pool = self._env if isinstance(self._env, EnvPoolVector) else None
        self._singles: list[Single] = []
        self._listeners: list[Any] = []
        if num_processes:
            self._processes = self._in_processes(wanted, num_processes)
        else:
            self._find_listeners()

    def _find_listeners(self) -> None:
        """Notes single environments, and all that want to know how far the training is."""
        with failures.refusals(self._env_id, "asked for its method set_progress"):
            self._singles = [e for e in getattr(self._env, "envs", ()) if isinstance(e, Single)]
            self._listeners = list(_listeners(self._singles or [self._env.unwrapped]))

    def _take_spaces(self, frame_stack: int, has_masks: bool) -> None:
        """Notes how observations and actions travel. Raises UnsupportedEnvironment: they do not."""
        observations, actions = self._env.single_observation_space, self._env.single_action_space
        self.action = action_spec(self._env_id, actions)
        masked = self.action if has_masks else None
        self.observation = observation_spec(self._env_id, observations, frame_stack, masked)
        self.spaces = text_of(observations, actions)
        self._encoder = Encoder(observations, self.observation, self.num_envs)
        self._decoder = ActionDecoder(actions)

    def _in_processes(self, wanted: Wanted, num_processes: int) -> InProcesses:
        """All environments in processes, in place of the one that has shown its spaces."""
        self.close()
        make = partial(
            VectorEnvironment,
            wanted.env_id,
            frame_stack=self.observation.frame_stack,
            info_keys=wanted.info_keys,
            variant=wanted.variant,
            one_by_one=True,
        )
        row = np.zeros(self.observation.shape, self.observation.dtype)
        return InProcesses(make, wanted.env_id, self.num_envs, num_processes, row)

    def reset(self, seed: int) -> NDArray[np.generic]:
        """First observations [N, ...]; each environment gets a seed derived from `seed`."""
        self.seed = usable_seed(seed, self.num_envs)
        if self._processes is not None:
            return self._processes.reset(self.seed)
        with self._resetting:
            return self._encoded(self._env.reset(seed=self.seed)[0])

    def step(self, actions: Array) -> StepResult:
        """Plays actions [N, ...] that fit the spec's `action`. Raises EnvironmentFailed."""
        self.begin_step(actions)
        return self.end_step()

    def begin_step(self, actions: Array) -> None:
        """Begins to play actions, and does not wait for processes or EnvPool's threads.

        Nothing but `end_step` or `close` may follow. Raises EnvironmentFailed.
        """
        if self._processes is not None:
            self._processes.begin_step(np.asarray(actions))
            return
        with self._stepping:
            self._actions = self._decoder.decode(actions)
            if self._pool is not None:
                self._pool.begin_step(self._actions)

    def end_step(self) -> StepResult:
        """The result of the step that was begun. Raises EnvironmentFailed."""
        if self._processes is not None:
            rows, earned, ended, cut, found = self._processes.end_step()
            return StepResult(rows, earned, ended, cut, over=ended | cut, infos=found)
        with self._stepping:
            outcome = (
                self._pool.end_step() if self._pool is not None else self._env.step(self._actions)
            )
            observations, rewards, ended, cut, infos = outcome
            if rewards is None or np.size(rewards) != self.num_envs:
                raise UnsupportedEnvironment(reward_refusal(self._env_id, rewards))
            terminated = np.asarray(ended, np.bool_).reshape(self.num_envs)
            truncated = np.asarray(cut, np.bool_).reshape(self.num_envs)
            over = terminated | truncated
            return StepResult(
                self._encoded(observations, over),
                np.asarray(rewards, np.float32).reshape(self.num_envs),
                terminated,
                truncated,
                over=infos["game_over"] if self._reports_game_over else over,
                infos=self._last_infos(infos, over) if over.any() else _NO_INFOS,
            )

    def _encoded(
        self, observations: Any, over: NDArray[np.bool_] | None = None
    ) -> NDArray[np.generic]:
        """Observations as in the spec [N, ...]; after a step with the episodes [N] that it ends."""
        encoded = self._encoder.encode(observations)
        if self.observation.mask:
            check_masks(self.observation, self.action, encoded, over)
        return encoded

    @property
    def steps_elsewhere(self) -> bool:
        """Whether processes or threads of their own step the environments."""
        return self._processes is not None or self._pool is not None

    @property
    def tasks(self) -> TaskNumbers:
        """The number of each environment's task [N]: all of them play the same."""
        return np.zeros(self.num_envs, np.int16)

    @property
    def listens(self) -> bool:
        """Whether any environment wants to know how far the training is."""
        return bool(self._listeners) or (self._processes is not None and self._processes.listens)

    def set_progress(self, share: float) -> None:
        """Tells environments that have such a method how far the training is, from 0 to 1.

        Raises EnvironmentFailed.
        """
        if self._processes is not None and self._processes.listens:
            self._processes.set_progress(share)
        with self._telling:
            for listener in self._listeners:
                listener.set_progress(share)

    def _last_infos(self, infos: Any, over: NDArray[np.bool_]) -> Mapping[int, Info]:
        """The wanted numbers of the episodes that are over, without those that have none."""
        has_none = isinstance(infos, dict) and not infos and not self._singles
        if self._reports_game_over or has_none:
            return _NO_INFOS
        found = {
            i: self._singles[i].numbers
            if self._singles
            else numbers_in_vector(infos, i, self._info_keys)
            for i in np.flatnonzero(over).tolist()
        }
        return {i: info for i, info in found.items() if info}

    def close(self) -> None:
        """Closes the environments; an error in their own code is only logged."""
        try:
            (self._processes or self._env).close()
        except Exception as error:
            log.debug("%s failed in close: %s", self._env_id, error)


def usable_seed(seed: int, num_envs: int) -> int:
    """The seed for N environments: the given one if it is below 2**31 - 1 - N, else one that is.

    Environment i gets this seed + i, and code in C takes a seed as an int of 32 bits with a sign.
    """
    return seed % (2**31 - 1 - num_envs)


def _usable_processes(wanted: Wanted, num_processes: int) -> int:
    """How many processes step the environments; 0 where they do not suit, which the log says.

    Raises UnsupportedEnvironment: their module cannot be imported.
    """
    if not num_processes or wanted.recorder is not None:
        return 0
    if is_atari(wanted.env_id) and not wanted.variant.wrapper:
        log.warning(
            "%s is played in the actor's own process: its games have threads (--env-threads)",
            wanted.env_id,
        )
        return 0
    with failures.refusals(wanted.env_id, "made"):
        if is_pooled(wanted):
            log.warning(
                "%s is played in the actor's own process: EnvPool has threads (--env-threads)",
                wanted.env_id,
            )
            return 0
        making.import_module(wanted.env_id)
    num_processes = min(num_processes, wanted.num_envs)
    if making.has_vector_form(wanted.env_id) and making.has_single_form(wanted.env_id):
        log.warning(
            "%s is stepped one by one in %d processes, not in its own vector form",
            *(wanted.env_id, num_processes),
        )
    return num_processes


def _listeners(envs: list[Any]) -> Iterator[Any]:
    """All among these and what they wrap that have a method `set_progress`."""
    for env in envs:
        one = env
        while one is not None:
            method = getattr(one, "set_progress", None)
            # A wrapper may hand on what it lacks: the method is that of what it wraps then.
            if callable(method) and getattr(method, "__self__", one) is one:
                yield one
            one = one.env if isinstance(one, gymnasium.Wrapper) else None
