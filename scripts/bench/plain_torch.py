"""The learner's computation in plain PyTorch, the yardstick of the learner's own.

It has the same network, loss and step, but checks, reports and times nothing, and its inputs lie
ready on the device: features as floats for a plain network (hidden layers, one choice as an
action). Any other network is the project's own `Network`, on the stacks that it takes.
"""

import itertools
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from impala_redis.common.feeding.batch import Batch
from impala_redis.common.learning import torch_inputs
from impala_redis.common.loss.distributions import evaluate_actions
from impala_redis.common.loss.impala import LossInput, shape_rewards
from impala_redis.common.networks.network import NetworkInput, make_network
from impala_redis.common.run.config import Config
from impala_redis.common.run.groups import LossSettings, OptimizerSettings
from impala_redis.common.run.spaces import ActionSpec
from impala_redis.common.run.spec import RunSpec

# A network's outputs for the policy [R, B, P] and values [R, B].
Outputs = tuple[Tensor, Tensor]


def is_plain(spec: RunSpec) -> bool:
    """Whether `BareNetwork` is the run's network."""
    return (
        spec.network == "mlp"
        and spec.memory_size == 0
        and spec.action.kind == "discrete"
        and spec.observation.frame_stack == 1
        and not spec.observation.parts
    )


class BareNetwork(nn.Module):
    """A plain network of `common.networks.network`, its parameters under the same names."""

    def __init__(self, spec: RunSpec) -> None:
        super().__init__()
        sizes = [spec.observation.num_features, *spec.hidden_sizes]
        self._activation = torch.tanh if spec.activation == "tanh" else torch.relu
        self.torso = nn.ModuleList(nn.Linear(a, b) for a, b in itertools.pairwise(sizes))
        self.policy = nn.Linear(sizes[-1], spec.action.sizes[0])
        self.baseline = nn.Linear(sizes[-1], 1)

    def forward(self, features: Tensor) -> Outputs:
        """Features [..., F] to logits [..., A] and values [...]."""
        x = features
        for layer in self.torso:
            x = self._activation(layer(x))
        return self.policy(x), self.baseline(x).squeeze(-1)


class OwnNetwork(nn.Module):
    """The project's own network, of any kind."""

    def __init__(self, spec: RunSpec) -> None:
        super().__init__()
        self.network = make_network(spec, seed=0)

    def forward(self, inputs: NetworkInput) -> Outputs:
        """Its outputs for R rows of B environments."""
        output = self.network(inputs)
        return output.policy, output.baseline[..., 0]


def bare_loss(
    action: ActionSpec, outputs: Tensor, values: Tensor, rows: LossInput, settings: LossSettings
) -> Tensor:
    """The mean of the three losses with V-trace; every row counts.

    Args:
      action: what an action is.
      outputs: [T+1, B, P] of the policy.
      values: [T+1, B]
      rows: the batch.
      settings: costs and discount.
    """
    policy = evaluate_actions(action, outputs[:-1], rows.actions)  # of [T, B]
    with torch.no_grad():
        rhos = (policy.log_probs - rows.behaviour_log_probs).exp().clamp(max=1.0)
        discounts = rows.discounts * settings.discounting
        rewards = shape_rewards(rows.rewards, settings)
        deltas = rhos * (rewards + discounts * values[1:] - values[:-1])
        traces = (discounts * rhos).unbind()
        differences, above = [], torch.zeros_like(deltas[0])
        for delta, trace in zip(reversed(deltas.unbind()), reversed(traces), strict=True):
            above = torch.addcmul(delta, trace, above)
            differences.append(above)
        targets = torch.stack(differences[::-1]) + values[:-1]  # [T, B]
        following = torch.cat([targets[1:], values[-1:]])
        advantages = rhos * (rewards + discounts * following - values[:-1])
    gain = (policy.log_probs * advantages).mean()
    baseline = 0.5 * (targets - values[:-1]).square().mean()
    entropy = policy.entropies.mean()
    return settings.baseline_cost * baseline - gain - settings.entropy_cost * entropy


def plain_optimizer(network: nn.Module, settings: OptimizerSettings) -> torch.optim.Optimizer:
    """PyTorch's fastest optimizer of the kind; a rate of 0 keeps the network as it is."""
    if settings.optimizer == "adam":
        return torch.optim.Adam(network.parameters(), lr=0.0, fused=True)
    return torch.optim.RMSprop(network.parameters(), lr=0.0, foreach=True)


def bare_update(
    spec: RunSpec, config: Config, batches: Sequence[Batch], compiled: bool = False
) -> Callable[[], None]:
    """A function that makes the bare update on the next batch."""
    network = BareNetwork(spec) if is_plain(spec) else OwnNetwork(spec)
    forward = torch.compile(network) if compiled else network
    optimizer = plain_optimizer(network, config.optimizer)
    bound = config.optimizer.grad_norm_clipping
    on_cpu = (
        torch_inputs.inputs_of(torch_inputs.moved(batch.rows, torch.device("cpu")))
        for batch in batches
    )
    ready = itertools.cycle([(inputs_of(spec, inputs), rows) for inputs, rows in on_cpu])

    def update() -> None:
        inputs, rows = next(ready)
        outputs, values = forward(inputs)
        loss = bare_loss(spec.action, outputs, values, rows, config.loss)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        if bound is not None:
            nn.utils.clip_grad_norm_(network.parameters(), bound, foreach=True)
        optimizer.step()

    return update


def inputs_of(spec: RunSpec, inputs: NetworkInput) -> Tensor | NetworkInput:
    """The inputs of the bare update's network."""
    return features_of(spec, inputs.observations) if is_plain(spec) else inputs


def features_of(spec: RunSpec, observations: Tensor) -> Tensor:
    """Observations [..., *shape] as a plain network's inputs [..., F]."""
    if spec.observation.num_values is not None:
        return functional.one_hot(observations.long(), spec.observation.num_values).float()
    x = observations.flatten(observations.dim() - len(spec.observation.shape)).float()
    scale = spec.observation.scale
    return x / torch.tensor([float(number) for number in scale], device=x.device) if scale else x
