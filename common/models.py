"""The networks: observations in, policy logits and a baseline out. They never sample."""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from common.layers import tanh_layer
from common.spec import RunSpec


class ModelOutput(NamedTuple):
    """Leading dimensions are the observations'."""

    logits: Tensor  # [..., A]
    baseline: Tensor  # [...]


class MlpModel(nn.Module):
    """Hidden layers shared by two linear heads, on a flattened or one-hot observation."""

    def __init__(self, spec: RunSpec) -> None:
        super().__init__()
        self._observation = spec.observation
        self._activated = tanh_layer if spec.activation == "tanh" else _relu_layer
        width = spec.observation.num_features
        layers: list[nn.Linear] = []
        for size in spec.hidden_sizes:
            layers.append(_orthogonal(nn.Linear(width, size), gain=2**0.5))
            width = size
        self.torso = nn.ModuleList(layers)
        # A small policy head starts near uniform: the first unrolls explore.
        self.policy = _orthogonal(nn.Linear(width, spec.num_actions), gain=0.01)
        self.baseline = _orthogonal(nn.Linear(width, 1), gain=1.0)

    def forward(self, observations: Tensor) -> ModelOutput:
        """Observations `[..., *shape]` in the run's dtype to logits and baseline, float32."""
        leading = observations.shape[: observations.dim() - len(self._observation.shape)]
        # One flat batch: a layer is then a single fused product.
        x = self._features(observations)  # [rows, F]
        for layer in self.torso:
            assert isinstance(layer, nn.Linear)
            x = self._activated(x, layer.weight, layer.bias)
        logits = self.policy(x).reshape(*leading, -1)
        return ModelOutput(logits, self.baseline(x).reshape(leading))

    def _features(self, observations: Tensor) -> Tensor:
        spec = self._observation
        if spec.num_values is not None:
            indices = observations.reshape(-1).long()
            return nn.functional.one_hot(indices, spec.num_values).float()
        x = observations.reshape(-1, spec.num_features).float()
        return x / 255.0 if spec.dtype == "uint8" else x


def make_model(spec: RunSpec, seed: int) -> MlpModel:
    """A new network of the run's spec; the same seed gives the same weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = MlpModel(spec)
    found = {name: tuple(p.shape) for name, p in model.named_parameters()}
    assert found == spec.parameter_shapes(), "the network and the spec's list of it differ"
    return model


def _relu_layer(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return nn.functional.linear(x, weight, bias).relu_()


def _orthogonal(layer: nn.Linear, gain: float) -> nn.Linear:
    nn.init.orthogonal_(layer.weight, gain)
    nn.init.zeros_(layer.bias)
    return layer
