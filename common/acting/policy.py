"""The behaviour policy: it acts for a vector of environments and keeps their memory.

A small network acts in numpy (`common.acting.numpy_policy`), three times faster than in torch on a
vector of environments, and its actor starts without importing torch. A network with convolutions or
a memory acts in torch (`common.acting.torch_policy`), as the learner's own. An actor that computes
on a GPU has any network there (`common.acting.device_policy`).
"""

from abc import ABC, abstractmethod

import numpy as np
from numpy.typing import NDArray

from impala_redis.common.acting.frames import FrameStack, Observations
from impala_redis.common.acting.sampling import Actions, Floats, likeliest, sample
from impala_redis.common.blocks.weights import Weights
from impala_redis.common.encoding.masks import penalties
from impala_redis.common.run.spec import RunSpec

Flags = NDArray[np.bool_]


class Policy(ABC):
    """Actions for N environments, from the last weights loaded."""

    def __init__(self, spec: RunSpec, rng: np.random.Generator) -> None:
        self._spec, self._rng = spec, rng
        self.version = -1
        self.begin(0)

    def load(self, version: int, weights: Weights) -> None:
        """Acts with these weights from now on."""
        self._load(weights)
        self.version = version

    def sample(self, observations: Observations, is_first: Flags) -> tuple[Actions, Floats]:
        """Actions [N, ...] drawn from the policy, and their log-probabilities [N].

        Where outputs are not finite, the probability is not a number, and the learner leaves it
        out; the action is one that is allowed all the same.
        """
        outputs = self.outputs(observations, is_first)
        odd = self._made_playable(outputs, observations)
        actions, log_probs = sample(self._spec.action, outputs, self._rng)
        if odd is not None:
            log_probs[odd] = np.nan
        return actions, log_probs

    def greedy(self, observations: Observations, is_first: Flags) -> Actions:
        """The likeliest actions [N, ...]."""
        outputs = self.outputs(observations, is_first)
        self._made_playable(outputs, observations)
        return likeliest(self._spec.action, outputs)

    def _made_playable(self, outputs: Floats, observations: Observations) -> Flags | None:
        """Leaves nothing but the mask of outputs that are not finite; which they are, if any."""
        seen = self._spec.observation
        if not seen.mask:
            return None
        odd: Flags = np.logical_not(np.isfinite(outputs).all(axis=1))
        if not odd.any():
            return None
        outputs[odd] = -penalties(seen, observations[odd])
        return odd

    @property
    @abstractmethod
    def memory(self) -> Floats:
        """[N, M] float32: what the network remembers, and its extra inputs.

        It is that before the next observation.
        """

    @property
    @abstractmethod
    def history(self) -> Observations:
        """[H, N, ...]: the observations that the next frame stack needs, without the next one."""

    @abstractmethod
    def begin(self, num_envs: int) -> None:
        """Forgets everything, and acts for `num_envs` environments from now on."""

    @abstractmethod
    def outputs(self, observations: Observations, is_first: Flags) -> Floats:
        """The policy head's outputs [N, P] for the next observations [N, ...].

        They may be overwritten by the next call.
        """

    @abstractmethod
    def remember(self, actions: Actions, rewards: Floats) -> None:
        """Takes the last actions [N, ...] and rewards [N]: extra inputs of some networks."""

    @abstractmethod
    def _load(self, weights: Weights) -> None: ...


class HostPolicy(Policy):
    """A policy that computes on the CPU: memory and frame stacks are numpy's."""

    def begin(self, num_envs: int) -> None:
        """Forgets everything, and acts for `num_envs` environments from now on."""
        self._memory: Floats = np.zeros((num_envs, self._spec.memory_size), np.float32)
        self._stack = FrameStack(self._spec.observation, num_envs)

    @property
    def memory(self) -> Floats:
        """[N, M] float32, which the next step changes in place."""
        return self._memory

    @property
    def history(self) -> Observations:
        """[H, N, ...]: a view, valid until the next step."""
        return self._stack.history

    def outputs(self, observations: Observations, is_first: Flags) -> Floats:
        """The policy head's outputs [N, P] for the next observations [N, ...]."""
        if self._spec.observation.frame_stack > 1:
            observations = self._stack.push(observations, is_first)
        return self._outputs(observations, is_first)

    def values(self, observations: Observations, is_first: Flags, task: int = 0) -> Floats:
        """The baselines [N] of the next observations [N, ...], of which nothing is remembered.

        They are those of the task of that number.
        """
        if self._spec.observation.frame_stack > 1:
            observations = self._stack.with_next(observations, is_first)
        return self._values(observations, is_first, task)

    @abstractmethod
    def _outputs(self, inputs: Observations, is_first: Flags) -> Floats: ...

    @abstractmethod
    def _values(self, inputs: Observations, is_first: Flags, task: int) -> Floats: ...
