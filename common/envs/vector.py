"""Environments: a Gymnasium id in, one vector environment out; a single one is a vector of one.

The rule of resets, stated once: next-step autoreset. The step after an episode's last ignores its
action, gives reward 0 and the new episode's first observation (`common.blocks.trajectory`).
"""

import importlib
import logging
import re
from collections.abc import Callable, Mapping
from functools import partial
from types import MappingProxyType
from typing import Any, NamedTuple

import gymnasium
import numpy as np
from gymnasium.vector import AutoresetMode, SyncVectorEnv, VectorEnv
from numpy.typing import NDArray

from impala_redis.common.encoding.actions import ActionDecoder, action_spec
from impala_redis.common.encoding.fitting import Array
from impala_redis.common.encoding.observations import Encoder, observation_spec
from impala_redis.common.encoding.space_text import text_of
from impala_redis.common.envs import (
    atari,
    corridor,
    gridworld,
    masked_cartpole,
)
from impala_redis.common.envs.masks import MaskFromInfo, check_masks
from impala_redis.common.envs.single import Info, Single, numbers_in_vector, reward_refusal
from impala_redis.common.errors import UnsupportedEnvironment
from impala_redis.common.settings.env_id import module_of, name_of
from impala_redis.common.settings.variant import AS_REGISTERED, Variant
from impala_redis.common.user_code import failures, modules

log = logging.getLogger(__name__)

# Importing our own environments has registered them; these calls only use the imports.
for _module in (corridor, masked_cartpole):
    gymnasium.register_envs(_module)

_KNOWN_MODULES = ("gymnasium.envs.", "impala_redis.")

Wrapper = Callable[[gymnasium.Env[Any, Any]], gymnasium.Env[Any, Any]]
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

    def __init__(
        self,
        env_id: str,
        num_envs: int,
        recorder: Wrapper | None = None,
        frame_stack: int = 1,
        info_keys: tuple[str, ...] = (),
        num_threads: int | None = None,
        variant: Variant = AS_REGISTERED,
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
          variant: how each of them is made, beside its id.

        Raises UnsupportedEnvironment: unknown, not installed, or with spaces that do not travel.
        """
        env_id = modules.make_findable(env_id)
        self._env_id, self._info_keys = env_id, info_keys
        self._resetting = failures.Named(env_id, "reset")
        self._stepping = failures.Named(env_id, "step")
        self._env = _make(env_id, num_envs, recorder, info_keys, num_threads, variant)
        self.num_envs = num_envs
        observations, actions = self._env.single_observation_space, self._env.single_action_space
        self.action = action_spec(env_id, actions)
        masked = self.action if variant.mask_from else None
        self.observation = observation_spec(env_id, observations, frame_stack, masked)
        self.spaces = text_of(observations, actions)
        self._encoder = Encoder(observations, self.observation, num_envs)
        self._decoder = ActionDecoder(actions)
        # Only our own infos tell of it: in others the same key may mean something else.
        self._reports_game_over = isinstance(self._env, atari.AtariVector)
        self._singles = [e for e in getattr(self._env, "envs", ()) if isinstance(e, Single)]

    def reset(self, seed: int) -> NDArray[np.generic]:
        """First observations [N, ...]; each environment gets a seed derived from `seed`."""
        self.seed = usable_seed(seed, self.num_envs)
        with self._resetting:
            return self._encoded(self._env.reset(seed=self.seed)[0])

    def step(self, actions: Array) -> StepResult:
        """Plays actions [N, ...] that fit the spec's `action`. Raises EnvironmentFailed."""
        with self._stepping:
            observations, rewards, ended, cut, infos = self._env.step(self._decoder.decode(actions))
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
            self._env.close()
        except Exception as error:
            log.debug("%s failed in close: %s", self._env_id, error)


def usable_seed(seed: int, num_envs: int) -> int:
    """The seed for N environments: the given one if it is below 2**31 - 1 - N, else one that is.

    Environment i gets this seed + i, and code in C takes a seed as an int of 32 bits with a sign.
    """
    return seed % (2**31 - 1 - num_envs)


def is_known(env_id: str) -> bool:
    """Whether it is made by code of ours, Gymnasium's, ALE's or MiniGrid's alone."""
    if atari.is_atari(env_id) or gridworld.is_gridworld(env_id):
        return module_of(env_id) in ("", "ale_py", "minigrid")
    spec = gymnasium.registry.get(env_id)  # an id with a module is not in it
    made_by = spec.entry_point if spec is not None and not spec.additional_wrappers else None
    return isinstance(made_by, str) and made_by.startswith(_KNOWN_MODULES)


def _make(
    env_id: str,
    num_envs: int,
    recorder: Wrapper | None,
    info_keys: tuple[str, ...],
    num_threads: int | None,
    variant: Variant,
) -> VectorEnv[Any, Any, Any]:
    """The environments, in their own vector form if that suits.

    They are stepped one by one in a recorder, and where masks are read from their infos.
    """
    if atari.is_atari(env_id):
        if variant.mask_from == "info":
            raise UnsupportedEnvironment(
                f"{env_id} is a game of Atari, which gives no masks; leave out --mask-from info"
            )
        if recorder is None:
            return atari.make(env_id, num_envs, num_threads=num_threads or 1)
        with failures.refusals(env_id, "recorded"):
            games = [lambda: recorder(atari.make_single(env_id, "rgb_array"))] * num_envs
            return SyncVectorEnv(games)
    wrappers = _wrappers(env_id)
    with failures.refusals(env_id, "made" if recorder is None else "recorded"):
        _refuse_raw_frames(env_id)
        is_single = wrappers or recorder or variant.mask_from == "info"
        own = None if is_single else _in_own_vector_form(env_id, num_envs, num_threads)
        if own is not None:
            return own
        _note_one_thread(env_id, num_threads)
        wrappers = [*([recorder] if recorder else []), *wrappers]
        arguments: dict[str, Any] = {"render_mode": "rgb_array"} if recorder else {}

        def make_single() -> Single:
            env = gymnasium.make(env_id, disable_env_checker=True, **arguments)
            for wrapper in wrappers:
                env = wrapper(env)
            if variant.mask_from == "info":
                env = MaskFromInfo(env, env_id)
            return Single(env, env_id, info_keys)

        return SyncVectorEnv([make_single] * num_envs)


def _refuse_raw_frames(env_id: str) -> None:
    """Raises UnsupportedEnvironment: an older name of a game of Atari, without any treatment."""
    module = module_of(env_id)
    if module not in ("", "gym", "atari_py"):
        importlib.import_module(module)
    spec = gymnasium.registry.get(name_of(env_id))
    if spec is None:
        older = module in ("", "ale_py", "gym", "gymnasium", "atari_py")
    else:
        older = str(spec.entry_point).startswith("ale_py") and not spec.additional_wrappers
    if older and (new := atari.modern_id(env_id)):
        raise UnsupportedEnvironment(
            f"it is an older name of a game of Atari; give --env {new}, which is played as in the "
            "paper: 4 frames to an action, 84x84 grey pictures"
        )


def _note_one_thread(env_id: str, num_threads: int | None) -> None:
    """Leaves a line in the log if more threads are wanted than step the environments."""
    if (num_threads or 1) > 1:
        log.warning(
            "%s is stepped by one thread, not by %d: that is for games of Atari and vector forms "
            "that take num_threads",
            *(env_id, num_threads),
        )


def _in_own_vector_form(
    env_id: str, num_envs: int, num_threads: int | None
) -> VectorEnv[Any, Any, Any] | None:
    """The environments in a form that steps all at once; None if single ones are to be stepped.

    Raises UnsupportedEnvironment: it has no other form, and this one does not suit.
    """
    spec = gymnasium.registry.get(name_of(env_id))
    if spec is None or spec.vector_entry_point is None:
        return None
    try:
        made = _made_as_one(spec, num_envs, num_threads)
        mode = made.metadata.get("autoreset_mode")
        if mode == AutoresetMode.NEXT_STEP:
            return made
        made.close()
        why = f"its vector form resets in mode {mode}, and must use next-step autoreset"
    except TypeError as error:
        found = re.search("unexpected keyword argument '(.+?)'", str(error))
        if found is None:
            raise
        why = f"its vector form does not take the {found[1]} that the environment has"
    if spec.entry_point is None:
        raise UnsupportedEnvironment(f"{why}; change that, or register a single form, too")
    log.warning("%s is stepped one by one: %s", env_id, why)
    return None


def _made_as_one(spec: Any, num_envs: int, num_threads: int | None) -> VectorEnv[Any, Any, Any]:
    """The environments in their vector form, with that many threads if it takes a number."""
    make = partial(gymnasium.make_vec, spec, num_envs, vectorization_mode="vector_entry_point")
    if num_threads is not None:
        try:
            return make(num_threads=num_threads)
        except TypeError as error:
            if "unexpected keyword argument 'num_threads'" not in str(error):
                raise
        _note_one_thread(spec.id, num_threads)
    return make()


def _wrappers(env_id: str) -> list[Any]:
    """The wrappers that an environment of a known family needs."""
    if not gridworld.is_gridworld(env_id):
        return []
    gridworld.register(env_id)
    return [gridworld.CategoryView]
