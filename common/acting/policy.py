"""The behaviour policy: it acts for a vector of environments and keeps their memory.

A small network acts in numpy (`common.acting.numpy_policy`), three times faster than in torch on a
vector of environments, and its actor starts without importing torch. A network with convolutions or
a memory acts in torch (`common.acting.torch_policy`), as the learner's own.
"""

from abc import ABC, abstractmethod

import numpy as np
from numpy.typing import NDArray

from impala_redis.common.acting.frames import FrameStack, Observations
from impala_redis.common.acting.sampling import Actions, Floats, likeliest, sample
from impala_redis.common.blocks.weights import Weights
from impala_redis.common.run.spec import RunSpec

Flags = NDArray[np.bool_]


class Policy(ABC):
    """Actions for N environments, from the last weights loaded."""

    def __init__(self, spec: RunSpec, rng: np.random.Generator) -> None:
        self._spec, self._rng = spec, rng
        self.version = -1
        self.begin(0)

    def begin(self, num_envs: int) -> None:
        """Forgets everything, and acts for `num_envs` environments from now on."""
        self.memory: Floats = np.zeros((num_envs, self._spec.memory_size), np.float32)  # [N, M]
        self._stack = FrameStack(self._spec.observation, num_envs)

    def load(self, version: int, weights: Weights) -> None:
        """Acts with these weights from now on."""
        self._load(weights)
        self.version = version

    def sample(self, observations: Observations, is_first: Flags) -> tuple[Actions, Floats]:
        """Actions [N, ...] drawn from the policy, and their log-probabilities [N]."""
        return sample(self._spec.action, self.outputs(observations, is_first), self._rng)

    def greedy(self, observations: Observations, is_first: Flags) -> Actions:
        """The likeliest actions [N, ...]."""
        return likeliest(self._spec.action, self.outputs(observations, is_first))

    def outputs(self, observations: Observations, is_first: Flags) -> Floats:
        """The policy head's outputs [N, P] for the next observations [N, ...].

        They may be overwritten by the next call.
        """
        if self._spec.observation.frame_stack > 1:
            observations = self._stack.push(observations, is_first)
        return self._outputs(observations, is_first)

    @property
    def history(self) -> Observations:
        """[H, N, ...]: the observations that the next frame stack needs, without the next one."""
        return self._stack.history

    @abstractmethod
    def remember(self, actions: Actions, rewards: Floats) -> None:
        """Takes the last actions [N, ...] and rewards [N]: extra inputs of some networks."""

    @abstractmethod
    def _load(self, weights: Weights) -> None: ...

    @abstractmethod
    def _outputs(self, inputs: Observations, is_first: Flags) -> Floats: ...
