"""Acting: N environments and the behaviour policy play unrolls. No socket, no file, no thread."""

import time
import zlib
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from impala_redis.common.acting.policies import make_policy
from impala_redis.common.acting.policy import Policy
from impala_redis.common.blocks.checks import MOST_NUMBER
from impala_redis.common.blocks.trajectory import (
    NO_INFOS,
    Block,
    Episode,
    Origin,
    Trajectory,
    empty_trajectory,
)
from impala_redis.common.envs.mixed import MixedEnvironment
from impala_redis.common.envs.vector import VectorEnvironment
from impala_redis.common.run.spec import RunSpec

Number = TypeVar("Number", np.float64, np.int64)

# How far the unroll under way is: steps done, and the seconds that they have taken.
Progress = tuple[int, float]


class Actor:
    """N environments and the behaviour policy: plays unrolls, and knows nothing of Redis."""

    def __init__(
        self,
        spec: RunSpec,
        environment: VectorEnvironment | MixedEnvironment,
        actor: str,
        incarnation: int,
        join: int = 0,
        make_policy: Callable[[RunSpec, np.random.Generator], Policy] = make_policy,
        share: float = 0.0,
    ) -> None:
        """Starts the first episodes; each `join` of a name plays other ones.

        `make_policy` makes the policy from the spec and its source of randomness. `share` is how
        much of the training is done, from 0 to 1.
        """
        self._spec = spec
        self._actor, self._incarnation = actor, incarnation
        # Seeded by name, the actors of a run play different episodes, each the same ones each time.
        sources = [spec.seed, zlib.crc32(actor.encode()), spec.start_frames]
        if spec.resumes or join:
            sources += [spec.resumes, join]
        seeds = np.random.SeedSequence(sources)
        self._environment_seeds, policy_seed = seeds.spawn(2)
        self.policy = make_policy(spec, np.random.Generator(np.random.SFC64(policy_seed)))
        self.frames = 0
        self.episodes = 0
        self.progress: Progress = (0, 0.0)  # other threads may read it
        self._share = share
        self.begin(environment)

    def begin(self, environment: VectorEnvironment | MixedEnvironment) -> None:
        """Starts new episodes in these environments, which replace any earlier ones."""
        self._environment = environment
        environment.set_progress(self._share)
        # A new seed each time: an episode that broke an environment is not repeated.
        (seed,) = self._environment_seeds.generate_state(1)
        self._environment_seeds = self._environment_seeds.spawn(1)[0]
        n = environment.num_envs
        self._observations = environment.reset(int(seed))
        self.policy.begin(n)
        self._is_first = np.ones(n, np.bool_)
        # [T+1, N]: True where the row before ended an episode, which makes this row a fake one.
        self._ended = np.zeros((self._spec.unroll_length + 1, n), np.bool_)
        self._over = np.zeros((self._spec.unroll_length, n), np.bool_)  # where a score is final
        self._returns = np.zeros(n, np.float64)
        self._lengths = np.zeros(n, np.int64)

    def set_progress(self, share: float) -> None:
        """Tells the environments how much of the training is done, from 0 to 1, if it is news.

        Raises EnvironmentFailed.
        """
        if share != self._share:
            self._share = share
            self._environment.set_progress(share)

    @property
    def seed(self) -> int:
        """The seed of the last reset, as the first environment got it."""
        return self._environment.seed

    def unroll(self) -> Block:
        """Plays T steps of every environment with the policy as it is now."""
        started = time.perf_counter()
        spec, ended, policy = self._spec, self._ended, self.policy
        trajectory = empty_trajectory(spec, self._environment.num_envs)
        history = spec.observation.history
        trajectory.memory[0] = policy.memory
        if spec.task_size:
            trajectory.tasks[0, :, 0] = self._environment.tasks
        trajectory.observations[:history] = policy.history
        ended[0] = ended[-1]
        trajectory.is_first[0] = self._is_first
        infos: dict[tuple[int, int], Mapping[str, float]] = {}  # by row and column
        for t in range(spec.unroll_length):
            self.progress = t, time.perf_counter() - started
            # Copied before the step, which may reuse the array.
            trajectory.observations[history + t] = self._observations
            actions, log_probs = policy.sample(self._observations, trajectory.is_first[t])
            step = self._environment.step(actions)
            policy.remember(actions, step.rewards)
            trajectory.actions[t] = actions
            trajectory.rewards[t] = step.rewards
            trajectory.behaviour_log_probs[t] = log_probs
            np.logical_not(step.terminated, out=trajectory.discounts[t], casting="unsafe")
            np.logical_or(step.terminated, step.truncated, out=ended[t + 1])
            trajectory.is_first[t + 1] = ended[t]
            self._over[t] = step.over
            infos.update({(t, i): info for i, info in step.infos.items()})
            self._observations = step.observations
        trajectory.observations[-1] = self._observations
        np.logical_not(ended[:-1], out=trajectory.mask)
        self._is_first = trajectory.is_first[-1]
        episodes = self._follow_episodes(trajectory, infos)
        self.frames += trajectory.frames
        self.episodes += len(episodes)
        origin = Origin(self._actor, self._incarnation, 0, self.policy.version)
        return Block(origin, trajectory, episodes, time.perf_counter() - started)

    def close(self) -> None:
        """Closes the environments."""
        self._environment.close()

    @np.errstate(invalid="ignore")  # a reward may be infinite: the learner leaves its column out
    def _follow_episodes(
        self, trajectory: Trajectory, infos: Mapping[tuple[int, int], Mapping[str, float]]
    ) -> tuple[Episode, ...]:
        """Adds up returns and lengths; the episodes that ended in this unroll, in order."""
        rewards = trajectory.rewards
        if not np.abs(rewards).max() <= MOST_NUMBER:  # true of a NaN, too, which may hide others
            # The learner leaves its column out, and the episode has no return: in a sum it would
            # take the last digits from the next ones.
            rewards = np.where(np.abs(rewards) > MOST_NUMBER, np.float32(np.nan), rewards)
        returns = _running_sums(self._returns, rewards)  # [T, N]
        lengths = _running_sums(self._lengths, trajectory.mask)
        # [N], the parts of these sums that belong to episodes that are over.
        past_return, past_length = np.zeros_like(self._returns), np.zeros_like(self._lengths)
        ends, columns = self._over.nonzero()  # [K] each, in the order of the ends
        until_return, until_length = returns[ends, columns], lengths[ends, columns]
        past_return[columns], past_length[columns] = until_return, until_length  # the last of each
        episode_returns = _since_the_last(until_return, columns)
        for k in np.flatnonzero(~np.isfinite(until_return)):  # the episode before may be the cause
            earlier = ends[:k][columns[:k] == columns[k]]
            if len(earlier):
                own = rewards[earlier[-1] + 1 : ends[k] + 1, columns[k]]
                episode_returns[k] = own.sum(dtype=np.float64)
        episodes = map(
            Episode,
            episode_returns.tolist(),
            _since_the_last(until_length, columns).tolist(),
            columns.tolist(),
            [infos.get(end, NO_INFOS) for end in zip(ends.tolist(), columns.tolist(), strict=True)],
        )
        self._returns, self._lengths = returns[-1] - past_return, lengths[-1] - past_length
        for i in np.flatnonzero(~np.isfinite(past_return)):  # else this sum stays so
            last = np.flatnonzero(self._over[:, i])[-1]
            self._returns[i] = rewards[last + 1 :, i].sum(dtype=np.float64)
        return tuple(episodes)


def _running_sums(start: NDArray[Number], rows: NDArray[Any]) -> NDArray[Number]:
    """Sums [T, N] of rows [T, N] up to each, from `start` [N] on.

    A loop over rows, because numpy's cumsum goes through memory column by column here.
    """
    sums = np.empty(rows.shape, start.dtype)
    for row, sum_after in zip(rows, sums, strict=True):
        start = np.add(start, row, out=sum_after)
    return sums


def _since_the_last(sums: NDArray[Number], columns: NDArray[np.int64]) -> NDArray[Number]:
    """Sums [K] up to the ends of episodes, less those up to the last end in the same column.

    The columns [K] stand in the order of the ends.
    """
    by_column = columns.argsort(kind="stable")
    before, after = by_column[:-1], by_column[1:]
    follows = columns[before] == columns[after]
    found = sums.copy()
    found[after[follows]] -= sums[before[follows]]
    return found
