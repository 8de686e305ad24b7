"""The behaviour policy: the network in numpy, for acting without torch.

For the small networks of this file numpy acts three times faster than torch on a vector of
environments, and an actor starts without importing torch; a test holds both to the same outputs.
"""

import numpy as np
from numpy.typing import NDArray

from common.spec import RunSpec
from common.wire import Weights

Floats = NDArray[np.float32]


class Policy:
    """Actions for a vector of observations, from the last weights loaded."""

    def __init__(self, spec: RunSpec, rng: np.random.Generator) -> None:
        self._spec = spec
        self._rng = rng
        self._layers: list[tuple[Floats, Floats]] = []  # (weight [in, out], bias [out])
        self.version = -1

    def load(self, version: int, weights: Weights) -> None:
        """Acts with these weights from now on."""
        names = [f"torso.{index}" for index in range(len(self._spec.hidden_sizes))] + ["policy"]
        self._layers = [
            (np.ascontiguousarray(weights[f"{name}.weight"].T), weights[f"{name}.bias"])
            for name in names
        ]
        self.version = version

    def logits(self, observations: NDArray[np.generic]) -> Floats:
        """Observations [N, ...] to logits [N, A]."""
        x = self._features(observations)
        for weight, bias in self._layers[:-1]:
            x = x @ weight
            x += bias
            x = np.tanh(x, out=x) if self._spec.activation == "tanh" else np.maximum(x, 0, out=x)
        weight, bias = self._layers[-1]
        return x @ weight + bias

    def sample(self, observations: NDArray[np.generic]) -> tuple[NDArray[np.int64], Floats]:
        """Actions [N] drawn from the policy, and their log-probabilities [N]."""
        logits = self.logits(observations)
        logits -= logits.max(axis=-1, keepdims=True)
        odds = np.exp(logits)
        totals = odds.cumsum(axis=-1)
        total = totals[:, -1]
        draws = self._rng.random(len(total), dtype=np.float32) * total
        actions = np.minimum((totals <= draws[:, None]).sum(axis=-1), logits.shape[-1] - 1)
        rows = np.arange(len(actions))
        log_probs = logits[rows, actions] - np.log(total)
        return actions, np.minimum(log_probs, 0.0)

    def greedy(self, observations: NDArray[np.generic]) -> NDArray[np.int64]:
        """The likeliest actions [N]."""
        return np.asarray(self.logits(observations).argmax(axis=-1), np.int64)

    def _features(self, observations: NDArray[np.generic]) -> Floats:
        spec = self._spec.observation
        if spec.num_values is not None:
            one_hot = np.zeros((len(observations), spec.num_values), np.float32)
            one_hot[np.arange(len(observations)), observations.astype(np.int64, copy=False)] = 1.0
            return one_hot
        x = observations.reshape(len(observations), spec.num_features)
        if spec.dtype == "uint8":
            return x.astype(np.float32) / np.float32(255)
        return x.astype(np.float32, copy=False)
