"""Acting: N environments and the behaviour policy play unrolls. No network, no file, no thread."""

import time
import zlib
from typing import Any

import numpy as np

from common.envs import VectorEnvironment
from common.policy import Policy
from common.spec import RunSpec
from common.trajectory import Block, Episode, Origin, empty_trajectory


class Actor:
    """N environments and the behaviour policy: plays unrolls, and knows nothing of Redis."""

    def __init__(
        self, spec: RunSpec, environment: VectorEnvironment, actor: str, incarnation: int
    ) -> None:
        self._spec = spec
        self._actor, self._incarnation = actor, incarnation
        # By its name every actor of a run plays other episodes, and the same ones each time.
        name = zlib.crc32(actor.encode())
        seeds = np.random.SeedSequence([spec.seed, name, spec.start_frames])
        self._environment_seeds, policy_seed = seeds.spawn(2)
        self.policy = Policy(spec, np.random.Generator(np.random.SFC64(policy_seed)))
        self.frames = 0
        self.episodes = 0
        self.begin(environment)

    def begin(self, environment: VectorEnvironment) -> None:
        """Starts new episodes in these environments: the first ones, or others in their place."""
        self._environment = environment
        # Another one each time: the episode that broke an environment is not repeated.
        (seed,) = self._environment_seeds.generate_state(1)
        self._environment_seeds = self._environment_seeds.spawn(1)[0]
        n = environment.num_envs
        self._observations = environment.reset(int(seed))
        self._is_first = np.ones(n, np.bool_)
        self._ended = np.zeros(n, np.bool_)  # the next row is a fake one
        self._returns = np.zeros(n, np.float64)
        self._lengths = np.zeros(n, np.int64)

    def unroll(self) -> Block:
        """Plays T steps of every environment with the policy as it is now."""
        started = time.perf_counter()
        spec = self._spec
        rows = empty_trajectory(
            spec.unroll_length,
            self._environment.num_envs,
            spec.observation.shape,
            spec.observation.dtype,
        )
        episodes: list[Episode] = []
        for t in range(spec.unroll_length):
            rows.observations[t] = self._observations  # before the step, which may reuse the memory
            rows.is_first[t] = self._is_first
            actions, log_probs = self.policy.sample(self._observations)
            step = self._environment.step(actions)
            rows.actions[t] = actions
            rows.rewards[t] = step.rewards
            rows.discounts[t] = ~step.terminated
            rows.behaviour_log_probs[t] = log_probs
            rows.mask[t] = ~self._ended
            self._observations, self._is_first = step.observations, self._ended
            self._follow_episodes(step.rewards, step.terminated | step.truncated, episodes)
        rows.observations[-1] = self._observations
        rows.is_first[-1] = self._is_first
        self.frames += rows.frames
        self.episodes += len(episodes)
        origin = Origin(self._actor, self._incarnation, 0, self.policy.version)
        return Block(origin, rows, tuple(episodes), time.perf_counter() - started)

    def close(self) -> None:
        """Ends the environments."""
        self._environment.close()

    def _follow_episodes(self, rewards: Any, ended: Any, episodes: list[Episode]) -> None:
        """Adds up returns and lengths, and notes the episodes that end here."""
        self._returns += rewards
        self._lengths += ~self._ended
        self._ended = ended
        if ended.any():
            for i in np.flatnonzero(ended):
                episodes.append(Episode(float(self._returns[i]), int(self._lengths[i])))
            self._returns[ended] = 0.0
            self._lengths[ended] = 0
