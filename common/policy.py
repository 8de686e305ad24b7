"""The behaviour policy: what acts for a vector of environments, and remembers what it must.

A small network acts in numpy: three times faster than in torch on a vector of environments, and an
actor starts without importing torch; a test holds both to the same outputs. What has convolutions
or a memory acts in torch (`common.network_policy`), with the learner's own network.
"""

from abc import ABC, abstractmethod
from typing import cast

import numpy as np
from numpy.typing import NDArray

from common.architecture import LOG_STD_LEAST, LOG_STD_MOST
from common.frames import FrameStack
from common.sampling import Actions, Floats, likeliest, sample
from common.spaces import ObservationSpec, Part
from common.spec import RunSpec
from common.trajectory import taken_out
from common.wire import Weights

Observations = NDArray[np.generic]
Flags = NDArray[np.bool_]


class Policy(ABC):
    """Actions for N environments, from the last weights loaded."""

    def __init__(self, spec: RunSpec, rng: np.random.Generator) -> None:
        self._spec, self._rng = spec, rng
        self.version = -1
        self.begin(0)

    def begin(self, num_envs: int) -> None:
        """Forgets all: from now on it acts for so many environments."""
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
        """Observations [N, ...] to the policy head's outputs [N, P]; they become the past."""
        if self._spec.observation.frame_stack > 1:
            observations = self._stack.push(observations, is_first)
        return self._outputs(observations, is_first)

    @property
    def history(self) -> Observations:
        """[H, N, ...]: the observations before the next one that a frame stack needs."""
        return self._stack.history

    @abstractmethod
    def remember(self, actions: Actions, rewards: Floats) -> None:
        """What was done [N, ...], and what it brought [N]: for networks that are told."""

    @abstractmethod
    def _load(self, weights: Weights) -> None: ...

    @abstractmethod
    def _outputs(self, seen: Observations, is_first: Flags) -> Floats: ...


def make_policy(spec: RunSpec, rng: np.random.Generator) -> Policy:
    """The policy of the run's network."""
    if spec.network == "mlp" and spec.memory_size == 0:
        return MlpPolicy(spec, rng)
    from common.network_policy import NetworkPolicy

    return NetworkPolicy(spec, rng)


class MlpPolicy(Policy):
    """Hidden layers and the policy head, in numpy."""

    def remember(self, actions: Actions, rewards: Floats) -> None:
        """Nothing: such a network is not told."""

    def _load(self, weights: Weights) -> None:
        names = [f"torso.{index}" for index in range(len(self._spec.hidden_sizes))] + ["policy"]
        self._layers = [  # (weight [in, out], bias [out])
            (np.ascontiguousarray(weights[f"{name}.weight"].T), weights[f"{name}.bias"])
            for name in names
        ]
        self._log_stds = None
        if self._spec.action.kind == "continuous":
            self._log_stds = weights["log_std"].clip(LOG_STD_LEAST, LOG_STD_MOST)  # [D]

    def _outputs(self, seen: Observations, is_first: Flags) -> Floats:
        x = features(self._spec.observation, seen)
        for weight, bias in self._layers[:-1]:
            x = x @ weight
            x += bias
            x = np.tanh(x, out=x) if self._spec.activation == "tanh" else np.maximum(x, 0, out=x)
        weight, bias = self._layers[-1]
        outputs = x @ weight + bias
        if self._log_stds is None:
            return outputs
        if self._spec.action.bounded:
            outputs = np.tanh(outputs, out=outputs)
        return np.hstack([outputs, np.broadcast_to(self._log_stds, outputs.shape)])


def features(observation: ObservationSpec, seen: Observations) -> Floats:
    """What a network without convolutions is told [N, F], of observations [N, ...] or stacks."""
    n = len(seen)
    if not observation.parts:
        return _features(observation.leaves[0], seen.reshape(n, -1))
    return np.hstack(
        [_features(part, taken_out(part, seen).reshape(n, -1)) for part in observation.parts]
    )


def _features(part: Part, values: Observations) -> Floats:
    """Values [N, E] to [N, F]: one-hot categories, bytes as 0 .. 1, other numbers as they are."""
    if part.num_values:
        sizes = np.tile(part.num_values, values.shape[1] // len(part.num_values))
        first = np.cumsum(sizes) - sizes
        one_hot = np.zeros((len(values), sizes.sum()), np.float32)
        np.put_along_axis(one_hot, first + values.astype(np.int64), 1.0, axis=1)
        return one_hot
    if part.dtype == "uint8":
        return values.astype(np.float32) / np.float32(255)
    return cast(Floats, values.astype(np.float32, copy=False))
