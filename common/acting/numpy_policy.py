"""A small network as the behaviour policy, in numpy: three times faster than torch on a vector.

A test holds its outputs to those of the learner's network.
"""

from functools import lru_cache
from typing import cast

import numpy as np

from impala_redis.common.acting.frames import Observations
from impala_redis.common.acting.policy import Flags, Policy
from impala_redis.common.acting.sampling import Actions, Floats
from impala_redis.common.blocks.trajectory import taken_out
from impala_redis.common.blocks.weights import Weights
from impala_redis.common.run.spaces import (
    LOG_STD_LEAST,
    LOG_STD_MOST,
    ObservationPart,
    ObservationSpec,
)


class MlpPolicy(Policy):
    """Hidden layers and the policy head, in numpy."""

    def remember(self, actions: Actions, rewards: Floats) -> None:
        """Does nothing: these networks have no extra inputs."""

    def _load(self, weights: Weights) -> None:
        names = [f"torso.{index}" for index in range(len(self._spec.hidden_sizes))] + ["policy"]
        self._layers = [  # (weight [in, out], bias [out])
            (np.ascontiguousarray(weights[f"{name}.weight"].T), weights[f"{name}.bias"])
            for name in names
        ]
        self._log_stds = None
        if self._spec.action.kind == "continuous":
            self._log_stds = weights["log_std"].clip(LOG_STD_LEAST, LOG_STD_MOST)  # [D]

    def _outputs(self, inputs: Observations, is_first: Flags) -> Floats:
        x = features(self._spec.observation, inputs)
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


def features(spec: ObservationSpec, observations: Observations) -> Floats:
    """Inputs [N, F] of a network without convolutions, from observations [N, ...] or stacks."""
    n = len(observations)
    if not spec.parts:
        return _features(spec.leaves[0], observations.reshape(n, -1))
    return np.hstack(
        [_features(part, taken_out(part, observations).reshape(n, -1)) for part in spec.parts]
    )


def _features(part: ObservationPart, values: Observations) -> Floats:
    """Values [N, E] as [N, F]: categories one-hot, numbers divided by the part's scale."""
    if part.num_values:
        sizes = np.tile(part.num_values, values.shape[1] // len(part.num_values))
        first = np.cumsum(sizes) - sizes
        one_hot = np.zeros((len(values), sizes.sum()), np.float32)
        np.put_along_axis(one_hot, first + values.astype(np.int64), 1.0, axis=1)
        return one_hot
    numbers = cast(Floats, values.astype(np.float32, copy=False))
    if len(part.scale) > 1:  # E is a multiple: the frames of a stack follow each other
        return (numbers.reshape(len(numbers), -1, len(part.scale)) / _table(part.scale)).reshape(
            numbers.shape
        )
    return numbers / np.float32(part.scale[0]) if part.scale else numbers


@lru_cache(maxsize=64)  # it takes longer to make than to use
def _table(scale: tuple[int, ...]) -> Floats:
    return np.array([float(number) for number in scale], np.float32)
