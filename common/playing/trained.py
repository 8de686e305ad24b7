"""A trained policy in three lines: `impala_redis.load("runs/x")`, and then `act`.

A small network plays in numpy: neither torch nor a client of Redis is imported for it.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from impala_redis.common.acting.policies import make_host_policy
from impala_redis.common.acting.sampling import Actions
from impala_redis.common.blocks.weights import VersionedWeights
from impala_redis.common.encoding import given_masks
from impala_redis.common.encoding.actions import ActionDecoder
from impala_redis.common.encoding.batching import batched, size_of_batch
from impala_redis.common.encoding.fitting import Array, Space
from impala_redis.common.encoding.masks import allowed, empty_choice, nothing_left
from impala_redis.common.encoding.observations import Encoder
from impala_redis.common.errors import ConfigError, SpecMismatch
from impala_redis.common.playing import saved
from impala_redis.common.playing.own_spaces import spaces_of
from impala_redis.common.run.spec import RunSpec
from impala_redis.common.tasks.listing import told
from impala_redis.common.user_code.modules import check_trusted

Reading = Callable[[], tuple[RunSpec, VersionedWeights]]
# Modules by their names or files, one alone or several.
Modules = str | Path | Sequence[str | Path]


def load(
    run: str | Path,
    *,
    redis_url: str | None = None,
    redis_password_file: str | Path | None = None,
    env_modules: Modules = (),
    network_modules: Modules = (),
    seed: int = 0,
) -> "Policy":
    """A run's policy, ready to act.

    The weights of a checkpoint are the mean over the last updates, as `impala-eval` plays them;
    those of a live run are the newest.

    Args:
      run: a run directory, a checkpoint's file, or NAME for runs/NAME; with `redis_url` the name of
        a live run on that server.
      redis_url: address of the server, in the forms of --redis-url.
      redis_password_file: file whose first line is the password, for an address without one.
      env_modules: modules, or their files, that may be imported to ask an environment for its
        spaces. Only a run that was begun before 0.2 needs that.
      network_modules: modules, or their files, that may be imported for a network of one's own.
      seed: of the actions that are drawn.

    Raises ImpalaError, whose subclasses and their words are those of the programs: CheckpointError,
    RunMissing, RedisUnreachable, SpecMismatch, ConfigError and others.
    """
    if redis_url is None:
        if redis_password_file is not None:
            raise ConfigError("redis_password_file is for a live run: give redis_url, too")
        place = saved.place_of(run)
        read: Reading = lambda: saved.from_checkpoint(place)  # noqa: E731
    else:
        url = saved.with_password_in(redis_url, redis_password_file)
        read = lambda: saved.from_live_run(url, str(run))  # noqa: E731
    return Policy(read, _several(env_modules), _several(network_modules), seed)


class Policy:
    """A trained policy. It takes observations of the environment's space, and returns its actions.

    What a recurrent network remembers, and a stack of the last observations, are kept from call to
    call until `reset`.

    Attributes:
      observation_space: Gymnasium's space of one observation.
      action_space: Gymnasium's space of one action.
      env_id: the environment that it was trained in; of several tasks the first one's.
      run: the name of the run.
    """

    def __init__(
        self,
        read: Reading,
        env_modules: Sequence[str] = (),
        network_modules: Sequence[str] = (),
        seed: int = 0,
    ) -> None:
        """Reads spec and weights by `read`; see `load`, which is the way to make one."""
        self._read = read
        self._spec, weights = spec, _ = read()
        self.env_id, self.run = spec.env, spec.run
        self._space, self.action_space = spaces_of(spec, env_modules)
        self._masks_are_given = spec.mask_from == "info"
        self.observation_space: Space = self._space
        if self._masks_are_given:
            self.observation_space = given_masks.own_space(self._space)
        check_trusted(spec.network, network_modules, "network", "to network_modules:")
        self._acting = make_host_policy(spec, np.random.default_rng(seed))
        self._acting.load(weights.version, weights.weights)
        self._decoder = ActionDecoder(self.action_space)
        self._keeps = spec.memory_size > 0 or spec.observation.frame_stack > 1
        self._encoder = Encoder(self._space, spec.observation, 1)
        self._encoded = 1  # how many observations the encoder takes
        self._actions: Actions | None = None  # the last ones, of N episodes
        self.reset()

    def __repr__(self) -> str:
        """Which policy it is."""
        what = told(self.env_id, self._spec.tasks)
        return f"<Policy of {what}, run {self.run}, version {self.version}>"

    @property
    def version(self) -> int:
        """The version of the weights: it grows by one with every update of the learner."""
        return self._acting.version

    def act(
        self, observation: Any, deterministic: bool = True, *, action_mask: ArrayLike | None = None
    ) -> Any:
        """The action for one observation, as the environment's `step` takes it.

        It is an int for a Discrete space, and else an array of the space's shape and dtype, also
        where it is one number without a dimension.

        Args:
          observation: one of `observation_space`, as the environment gives it.
          deterministic: take the likeliest action (of numbers, their mean), or draw one.
          action_mask: what is allowed, 1 or 0 for each choice; only where the run was trained with
            masks from infos.

        Raises ValueError: the observation is not of the space; its mask allows nothing; or it acted
        for several before, and was not reset.
        """
        mask = None if action_mask is None else np.asarray(action_mask)[None]
        actions = self._act(batched(self.observation_space, [observation]), deterministic, mask)
        if self._spec.action.kind == "discrete":
            return int(actions[0])
        return np.asarray(actions[0], self.action_space.dtype)

    def act_batch(
        self,
        observations: Any,
        deterministic: bool = True,
        *,
        action_masks: ArrayLike | None = None,
    ) -> NDArray[Any]:
        """The actions [N, ...] for N observations of as many environments.

        Args:
          observations: a list of observations, or a batch as Gymnasium's vector environments give
            it: an array [N, ...], a dict or tuple of batches, a tuple of texts.
          deterministic: as for `act`.
          action_masks: [N, choices], as for `act`.

        Raises ValueError: as `act`.
        """
        if isinstance(observations, list):
            observations = batched(self.observation_space, observations)
        masks = None if action_masks is None else np.asarray(action_masks)
        return self._act(observations, deterministic, masks)

    def value(
        self, observation: Any, *, action_mask: ArrayLike | None = None, task: str | None = None
    ) -> float:
        """What the network expects of rewards from one observation on, as the learner counts them.

        They are discounted, scaled and clipped as the run's settings say, and `task` is the name of
        the task that they are of, where there are several. Nothing is remembered of the
        observation.

        Raises ValueError: as `act`; there is no such task; or the run is live and has --popart.
        """
        number = saved.task_number(self._spec, task)
        mask = None if action_mask is None else np.asarray(action_mask)[None]
        encoded = self._encode(batched(self.observation_space, [observation]), mask)
        is_fresh = not len(self._is_first)
        if self._keeps:
            self._begin(1)
        is_first = self._is_first if self._keeps else np.ones(1, np.bool_)
        value = float(self._acting.values(encoded, is_first, number)[0])
        if is_fresh:  # as it was: the next call may be for several
            self.reset()
        return value

    def remember(self, reward: ArrayLike) -> None:
        """Takes the reward of the last action, or rewards [N] of the last N actions.

        Only a network with extra_inputs = "last_action_reward" looks at it; for others it does
        nothing. Without it the last reward counts as 0. Raises ValueError: there was no such
        action.
        """
        rewards = np.asarray(reward, np.float32).reshape(-1)
        if self._actions is None or len(rewards) != len(self._actions):
            acted = 0 if self._actions is None else len(self._actions)
            raise ValueError(f"{len(rewards)} rewards were given for {acted} actions")
        self._acting.remember(self._actions, rewards)

    def reset(self, ended: ArrayLike | None = None) -> None:
        """Forgets what is remembered: the next observation is the first of a new episode.

        Args:
          ended: [N] which of the N episodes of `act_batch` begin again; without it all do, and the
            next call may be for another number of observations.

        Raises ValueError: there are not N episodes.
        """
        if ended is None:
            self._is_first, self._actions = np.ones(0, np.bool_), None
            self._acting.begin(0)
            return
        flags = np.asarray(ended, np.bool_).reshape(-1)
        if len(flags) != len(self._is_first):
            raise ValueError(
                f"{len(flags)} flags were given for {len(self._is_first)} episodes; call reset() "
                "without any to forget all"
            )
        self._is_first = self._is_first | flags

    def refresh(self) -> bool:
        """Reads the newest weights of the live run or run directory; whether there were newer ones.

        What is remembered stays. Raises SpecMismatch: another run is there now; and as `load`.
        """
        spec, weights = self._read()
        if difference := self._spec.difference(spec):
            raise SpecMismatch(f"another run is there now: {difference}; load it anew")
        self._spec = spec
        if weights.version == self.version:
            return False
        self._acting.load(weights.version, weights.weights)
        return True

    def _act(self, observations: Any, deterministic: bool, masks: Array | None) -> Array:
        encoded = self._encode(observations, masks)
        self._begin(len(encoded))
        actions: Actions
        if deterministic:
            actions = self._acting.greedy(encoded, self._is_first).copy()
        else:
            actions, _ = self._acting.sample(encoded, self._is_first)
        self._is_first, self._actions = np.zeros(len(encoded), np.bool_), actions
        self._acting.remember(actions, np.zeros(len(encoded), np.float32))
        return self._decoder.decode(actions)

    def _encode(self, observations: Any, masks: Array | None) -> Array:
        """The observations [N, ...] as the network sees them. Raises ValueError."""
        if self._masks_are_given:
            observations = given_masks.with_mask(self._space, observations, masks)
        elif masks is not None:
            raise ValueError(
                "action_mask is for a run with --mask-from info; this one has none, or sees its "
                "masks as a part of the observation"
            )
        number = size_of_batch(self._space, observations)
        if number != self._encoded:
            self._encoder = Encoder(self._space, self._spec.observation, number)
            self._encoded = number
        encoded = self._encoder.encode(observations)
        if self._spec.observation.mask:
            _check_masks(self._spec, encoded)
        return encoded

    def _begin(self, number: int) -> None:
        """Acts for that many episodes. Raises ValueError: it remembers those of another number."""
        if number == len(self._is_first):
            return
        if self._keeps and len(self._is_first):
            raise ValueError(
                f"this policy remembers {len(self._is_first)} episodes and was given {number} "
                "observations; call reset() to forget them"
            )
        self._acting.begin(number)
        self._is_first = np.ones(number, np.bool_)


def _check_masks(spec: RunSpec, rows: Array) -> None:
    """Raises ValueError: a mask in observations [N, bytes] leaves nothing of a choice."""
    sizes, masks = spec.action.sizes, allowed(spec.observation, rows)
    if nothing_left(masks, sizes).any():
        which = empty_choice(masks, sizes)
        raise ValueError(
            f"the action_mask allows nothing{which}; ask for no action where the episode is over, "
            "and else allow one"
        )


def _several(modules: Modules) -> tuple[str, ...]:
    """Modules as texts, also where one alone is given."""
    several = [modules] if isinstance(modules, str | Path) else modules
    return tuple(map(str, several))
