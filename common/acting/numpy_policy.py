"""A small network as the behaviour policy, in numpy: three times faster than torch on a vector.

A test holds its outputs to those of the learner's network.
"""

import numpy as np

from impala_redis.common.acting.frames import Observations
from impala_redis.common.acting.policy import Flags, HostPolicy
from impala_redis.common.acting.sampling import Actions, Floats
from impala_redis.common.blocks.features import (
    Embeddings,
    Normalizer,
    embeddings_of,
    features,
    normalizer_of,
)
from impala_redis.common.blocks.weights import Weights
from impala_redis.common.encoding.masks import penalties
from impala_redis.common.mlp.network import PlainNetwork
from impala_redis.common.mlp.products import Products
from impala_redis.common.run.spaces import LOG_STD_LEAST, LOG_STD_MOST
from impala_redis.common.run.spec import RunSpec


class MlpPolicy(HostPolicy):
    """The hidden layers and the policy's outputs, in numpy."""

    def __init__(self, spec: RunSpec, rng: np.random.Generator) -> None:
        super().__init__(spec, rng)
        self._parameters: dict[str, Floats] = {}  # the arrays of the last weights loaded
        self._normalizer: Normalizer | None = None
        self._embeddings: Embeddings = {}
        self._products: Products | None = None
        self._network: PlainNetwork | None = None  # for as many environments as there were last

    def remember(self, actions: Actions, rewards: Floats) -> None:
        """Does nothing: these networks have no extra inputs."""

    def _load(self, weights: Weights) -> None:
        self._parameters.update(weights)
        self._normalizer = normalizer_of(self._spec, weights)
        self._embeddings = embeddings_of(self._spec, weights)
        if self._products is None:
            self._products = Products(self._spec, self._parameters)
        self._products.refresh()
        self._log_stds = None
        if self._spec.action.kind == "continuous":
            self._log_stds = weights["log_std"].clip(LOG_STD_LEAST, LOG_STD_MOST)  # [D]

    def _values(self, inputs: Observations, is_first: Flags, task: int) -> Floats:
        values: Floats = self._forward(inputs)[task - self._spec.num_tasks].copy()
        return values

    # An infinite sum of a hidden layer has a finite tanh.
    @np.errstate(over="ignore", invalid="ignore")
    def _forward(self, inputs: Observations) -> Floats:
        """What the heads make [P+K, N], overwritten by the next pass."""
        if self._network is None or self._network.num_rows != len(inputs):
            assert self._products is not None  # `load` was called
            self._network = PlainNetwork(self._products, len(inputs), 0)
        made: Floats = self._network.forward(
            features(self._spec.observation, inputs, self._normalizer, self._embeddings)
        )
        return made

    def _outputs(self, inputs: Observations, is_first: Flags) -> Floats:
        outputs = self._forward(inputs)[: -self._spec.num_tasks].T  # without the baselines
        if self._spec.observation.mask:
            newest = inputs[:, -1] if self._spec.observation.frame_stack > 1 else inputs
            outputs -= penalties(self._spec.observation, newest)
        if self._log_stds is None:
            return outputs
        if self._spec.action.bounded:
            outputs = np.tanh(outputs, out=outputs)
        return np.hstack([outputs, np.broadcast_to(self._log_stds, outputs.shape)])
