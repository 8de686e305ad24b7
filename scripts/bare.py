"""The learner's computation in plain PyTorch, as one would write it down: what it is measured by.

The same network, loss and step; nothing is checked, told or timed.
"""

import itertools
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from common.batch import Batch
from common.config import Config, LossSettings, OptimizerSettings
from common.losses import Rows, shape_rewards
from common.spec import RunSpec


class BareNetwork(nn.Module):
    """The network of `common.models`, its parameters under the same names."""

    def __init__(self, spec: RunSpec) -> None:
        super().__init__()
        sizes = [spec.observation.num_features, *spec.hidden_sizes]
        self._activation = torch.tanh if spec.activation == "tanh" else torch.relu
        self.torso = nn.ModuleList(nn.Linear(a, b) for a, b in itertools.pairwise(sizes))
        self.policy = nn.Linear(sizes[-1], spec.action.sizes[0])
        self.baseline = nn.Linear(sizes[-1], 1)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Features [..., F] to logits [..., A] and values [...]."""
        x = features
        for layer in self.torso:
            x = self._activation(layer(x))
        return self.policy(x), self.baseline(x).squeeze(-1)


def bare_loss(logits: Tensor, values: Tensor, rows: Rows, settings: LossSettings) -> Tensor:
    """The sum of the three losses with V-trace; every row counts."""
    log_policy = functional.log_softmax(logits[:-1], -1)  # [T, B, A]
    log_probs = log_policy.gather(-1, rows.actions.unsqueeze(-1)).squeeze(-1)  # [T, B]
    with torch.no_grad():
        rhos = (log_probs - rows.behaviour_log_probs).exp().clamp(max=1.0)
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
    policy = -(log_probs * advantages).mean()
    baseline = 0.5 * (targets - values[:-1]).square().mean()
    negative_entropy = (log_policy.exp() * log_policy).sum(-1).mean()
    return policy + settings.baseline_cost * baseline + settings.entropy_cost * negative_entropy


def plain_optimizer(network: nn.Module, settings: OptimizerSettings) -> torch.optim.Optimizer:
    """The fastest that PyTorch has of the kind; a rate of 0 keeps the network as it is."""
    if settings.optimizer == "adam":
        return torch.optim.Adam(network.parameters(), lr=0.0, fused=True)
    return torch.optim.RMSprop(network.parameters(), lr=0.0, foreach=True)


def bare_update(
    spec: RunSpec, config: Config, batches: Sequence[Batch], compiled: bool = False
) -> Callable[[], None]:
    """A function that makes the bare update on the next batch."""
    network = BareNetwork(spec)
    forward = torch.compile(network) if compiled else network
    optimizer = plain_optimizer(network, config.optimizer)
    bound = config.optimizer.grad_norm_clipping
    on_cpu = (batch.on(torch.device("cpu")) for batch in batches)
    ready = itertools.cycle([(features_of(spec, seen), rows) for seen, rows in on_cpu])

    def update() -> None:
        features, rows = next(ready)
        logits, values = forward(features)
        loss = bare_loss(logits, values, rows, config.loss)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        if bound is not None:
            nn.utils.clip_grad_norm_(network.parameters(), bound, foreach=True)
        optimizer.step()

    return update


def features_of(spec: RunSpec, observations: Tensor) -> Tensor:
    """Observations [..., *shape] as the network's inputs [..., F]."""
    if spec.observation.num_values is not None:
        return functional.one_hot(observations.long(), spec.observation.num_values).float()
    x = observations.flatten(observations.dim() - len(spec.observation.shape)).float()
    return x / 255.0 if spec.observation.dtype == "uint8" else x
