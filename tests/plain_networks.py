"""Plain networks, rows for them to learn from, and the updates of torch that numpy is held to."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from impala_redis.common.blocks.trajectory import Trajectory, empty_trajectory
from impala_redis.common.blocks.weights import Weights
from impala_redis.common.learning.torch_inputs import inputs_of, moved
from impala_redis.common.learning.torch_optimizer import Optimizer
from impala_redis.common.loss.impala import Figures, Losses, impala_loss, values_of
from impala_redis.common.run.config import Config
from impala_redis.common.run.spaces import ActionSpec, ObservationSpec, discrete
from impala_redis.common.run.spec import RunSpec, make_spec
from small_networks import lively_network, some_observations

Floats = NDArray[np.float32]

CPU = torch.device("cpu")
T = 6
FLOATS = ObservationSpec((3,), "float32")


def config_of(**changes: Any) -> Config:
    """Small layers of odd widths; `lambda_` is the setting whose key is a word of Python."""
    if "lambda_" in changes:
        changes["lambda"] = changes.pop("lambda_")
    fixed = {"hidden_sizes": (16, 9), "unroll_length": T, "reward_clipping": "none"}
    return Config().replace(fixed | changes)


def spec_of(
    config: Config, action: ActionSpec | None = None, observation: ObservationSpec = FLOATS
) -> RunSpec:
    return make_spec("test", config, observation, action or discrete(4))


def lively_weights(spec: RunSpec) -> Weights:
    """Weights whose outputs differ by more than a fresh network's, with no bias of 0."""
    parameters = lively_network(spec).named_parameters()
    return {name: parameter.detach().numpy().copy() for name, parameter in parameters}


def some_rows(spec: RunSpec, columns: int, seed: int = 0) -> Trajectory:
    """Random but valid rows, a fifth of them fake and a fifth of them terminated."""
    rng = np.random.default_rng(seed)
    rows = empty_trajectory(spec, columns)
    seen = rows.observations.shape[:2]
    rows.observations[...] = some_observations(spec.observation, *seen, seed=seed)
    rows.is_first[...] = False
    if spec.action.kind == "continuous":
        rows.actions[...] = rng.normal(0.0, 1.0, rows.actions.shape)
    else:
        sizes = np.array(spec.action.sizes).reshape(spec.action.shape)
        rows.actions[...] = rng.integers(0, sizes, rows.actions.shape)
    rows.rewards[...] = rng.normal(0.0, 2.0, rows.rewards.shape)
    rows.discounts[...] = rng.random(rows.discounts.shape) < 0.8
    rows.behaviour_log_probs[...] = np.log(rng.uniform(0.1, 0.9, rows.rewards.shape))
    rows.mask[...] = rng.random(rows.mask.shape) < 0.8
    rows.memory[...] = 0.0
    return rows


class TorchUpdates:
    """Updates of a plain network in torch: the loss by autograd, then the step."""

    def __init__(self, spec: RunSpec, config: Config, weights: Weights) -> None:
        self._action, self._config = spec.action, config
        self.network = lively_network(spec)
        self._parameters = dict(self.network.named_parameters())
        for name, parameter in self._parameters.items():
            parameter.data.copy_(torch.from_numpy(weights[name]))
        self.optimizer = Optimizer(self._parameters.items(), config.optimizer)

    def loss(self, rows: Trajectory) -> tuple[Losses, Figures]:
        network_input, loss_input = inputs_of(moved(rows, CPU))
        output = self.network(network_input)
        settings = self._config.loss
        policy, baseline = output.policy[:-1], values_of(output.baseline, loss_input.tasks)
        return impala_loss(
            self._action, policy, baseline, loss_input, settings, settings.entropy_cost
        )

    def gradient(self, rows: Trajectory) -> dict[str, Floats]:
        gradients = torch.autograd.grad(self.loss(rows)[0].total, [*self._parameters.values()])
        return {
            name: gradient.numpy()
            for name, gradient in zip(self._parameters, gradients, strict=True)
        }

    def step(self, rows: Trajectory) -> float:
        """Takes a step; returns the norm of the gradient before the clip."""
        self.loss(rows)[0].total.backward()  # type: ignore[no-untyped-call]
        norm = self.optimizer.step(self._config.optimizer.learning_rate)
        self.network.confine()
        return float(norm)

    def weights(self) -> Weights:
        return {name: p.detach().numpy().copy() for name, p in self._parameters.items()}

    def slots(self) -> dict[str, Floats]:
        return {name: slot.numpy().copy() for name, slot in self.optimizer.state().items()}
