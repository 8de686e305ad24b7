"""The networks: observations in, a policy's outputs and a baseline out. They never sample.

An observation becomes features first (`common.networks.torsos`): each picture goes through
convolutions of its own, if the network has some; the words of a text may have embeddings, which are
added up or go through an LSTM; everything else is flattened beside their outputs, categories
one-hot, numbers divided by their scale, in the observation's order. A picture's colours
are the shorter of its first and last axis, the last axis if both are equal; the frames of a stack
are further channels. Then come the hidden layers, the last action and reward if the network takes
them, an LSTM core if there is one, and two linear heads: the policy's, which is never told the
task, and the baseline's, with an output for each task. An action mask is no input: it takes what is
not allowed from the policy's outputs.
"""

import math
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, nn

from impala_redis.common.networks.lstm import LstmCore
from impala_redis.common.networks.tanh_layer import tanh_layer
from impala_redis.common.networks.torsos import BuiltInTorso, Normalizer
from impala_redis.common.run.architecture import NetworkSpec
from impala_redis.common.run.kinds import kind_of
from impala_redis.common.run.spaces import FORBIDDEN, LOG_STD_LEAST, LOG_STD_MOST, ActionSpec
from impala_redis.common.run.spec import RunSpec

if TYPE_CHECKING:
    from impala_redis.common.networks.own_module import OwnTorso


class NetworkInput(NamedTuple):
    """What goes into the network: R rows of B environments; R is 1 when acting."""

    observations: Tensor  # [R, B, ...] in the run's dtype, [R, B, S, ...] if frames are stacked
    is_first: Tensor  # [R, B] bool: the memory is empty before these rows
    actions: Tensor  # [R-1, B, ...] int64 or float32: what was done after each row but the last
    rewards: Tensor  # [R-1, B] float32: what that brought
    memory: Tensor  # [B, M] float32, before row 0


class NetworkOutput(NamedTuple):
    """What comes out of the network for R rows of B environments."""

    policy: Tensor  # [R, B, P] float32, read by `common.loss.distributions`
    baseline: Tensor  # [R, B, K] float32, of each task
    memory: Tensor  # [B, spec.core_memory_size] float32: the core's state after the last row


class Network(nn.Module):
    """Torso, a core if there is memory, and the heads of policy and baseline."""

    def __init__(self, spec: NetworkSpec) -> None:
        super().__init__()
        self._observation, self._action = spec.observation, spec.action
        self._has_extra_inputs = spec.num_extra_inputs > 0
        self._core_memory_size = spec.core_memory_size
        self._hidden_layer = tanh_layer if spec.activation == "tanh" else _relu_layer
        shapes = spec.parameter_shapes()
        self._travelling = tuple(spec.weight_shapes())
        self.normalizer = (
            Normalizer(spec.network, spec.observation) if spec.normalize_observations else None
        )
        self._seen_by = make_torso(spec, self.normalizer)
        for name, module in self._seen_by.modules.items():
            self.add_module(name, module)
        self.torso = nn.ModuleList(
            _orthogonal(shapes[f"torso.{index}.weight"], gain=2**0.5)
            for index in range(len(spec.hidden_sizes))
        )
        self.core: LstmCore | None = None
        if spec.lstm_size:
            self.core = LstmCore(shapes["core.weight_ih"][1], spec.lstm_size)
        # Small weights make the first policies nearly uniform: the first unrolls explore.
        self.policy = _orthogonal(shapes["policy.weight"], gain=0.01)
        self.baseline = _orthogonal(shapes["baseline.weight"], gain=1.0)
        self.log_std = (
            nn.Parameter(torch.zeros(spec.action.sizes))
            if spec.action.kind == "continuous"
            else None
        )

    def forward(self, inputs: NetworkInput) -> NetworkOutput:
        """Policy and baseline of every row; the core's state is emptied where `is_first`."""
        leading = inputs.is_first.shape
        memory = inputs.memory[:, : self._core_memory_size]
        x, memory = self._seen_by(inputs.observations, inputs.is_first, memory)  # [R * B, F]
        for layer in self.torso:
            assert isinstance(layer, nn.Linear)
            x = self._hidden_layer(x, layer.weight, layer.bias)
        if self._has_extra_inputs:
            x = torch.cat([x, self._extra_inputs(inputs).flatten(0, 1)], -1)
        if self.core is not None:
            h, c = memory.chunk(2, -1)
            x, memory = self.core(x.view(*leading, -1), inputs.is_first, h, c)
            x = x.flatten(0, 1)
        policy = self.policy(x).float()
        if self._observation.mask_part is not None:
            policy = policy - self._penalties(inputs.observations)
        if self._action.bounded:
            # Without it, one large step moves the means to where every action is clipped to the
            # same bound, and there they stay.
            policy = policy.tanh()
        if self.log_std is not None:
            log_std = self.log_std.clamp(LOG_STD_LEAST, LOG_STD_MOST)
            policy = torch.cat([policy, log_std.expand_as(policy)], -1)
        baseline = self.baseline(x).float()
        return NetworkOutput(policy.view(*leading, -1), baseline.view(*leading, -1), memory)

    def travelling(self) -> dict[str, Tensor]:
        """The parameters and statistics by name, the tensors themselves, as they travel."""
        known = {**dict(self.named_parameters()), **dict(self.named_buffers())}
        return {name: known[name].data for name in self._travelling}

    @torch.no_grad()
    def confine(self) -> None:
        """Brings the deviations that an update moved out of their range back into it.

        Outside it they have no gradient, so no other update would.
        """
        if self.log_std is not None:
            self.log_std.clamp_(LOG_STD_LEAST, LOG_STD_MOST)

    def _penalties(self, observations: Tensor) -> Tensor:
        """[R * B, P] what the newest observations' mask subtracts from the policy's outputs."""
        mask = self._observation.mask_part
        assert mask is not None
        rows = observations.flatten(0, 1)  # of bytes
        newest = rows[:, -1] if self._observation.frame_stack > 1 else rows
        return (newest[:, mask.start : mask.start + mask.num_bytes] == 0).float() * FORBIDDEN

    def _extra_inputs(self, inputs: NetworkInput) -> Tensor:
        """[R, B, K]: the last action's features and reward before each row, 0 at a start."""
        before = inputs.memory[None, :, self._core_memory_size :]
        rewards = inputs.rewards.clamp(-1.0, 1.0).unsqueeze(-1)
        within = torch.cat([action_features(self._action, inputs.actions), rewards], -1)
        return torch.cat([before, within]).masked_fill(inputs.is_first.unsqueeze(-1), 0.0)


def make_torso(spec: NetworkSpec, normalizer: Normalizer | None) -> "BuiltInTorso | OwnTorso":
    """What stands between the observations and the hidden layers, whatever the kind.

    Raises ConfigError or SpecMismatch: a network of the user's own cannot be made, or is another.
    """
    if not kind_of(spec.network).is_own:
        return BuiltInTorso(spec, normalizer)
    # Late: only this needs Gymnasium's spaces, and the user's module.
    from impala_redis.common.networks.own_module import OwnTorso

    assert isinstance(spec, RunSpec), "only a run knows the spaces of its environment"
    return OwnTorso(spec, normalizer)


def make_network(spec: NetworkSpec, seed: int, initial_std: float = 1.0) -> Network:
    """A new network; the same seed gives the same weights.

    `initial_std` is the deviation of actions that are numbers.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = Network(spec)
    if network.log_std is not None:
        network.log_std.data.fill_(math.log(initial_std))
    found = [(name, tuple(p.shape)) for name, p in network.named_parameters()]
    assert found == list(spec.parameter_shapes().items()), "the network and the spec's list differ"
    shapes = {name: tuple(tensor.shape) for name, tensor in network.travelling().items()}
    assert shapes == spec.weight_shapes(), "the network and the spec's list of shapes differ"
    return network


def action_features(action: ActionSpec, actions: Tensor) -> Tensor:
    """Actions [...] of a trajectory as features [..., F]: one-hot choices, or the numbers."""
    if action.kind == "continuous":
        return actions
    choices = actions.unsqueeze(-1) if action.kind == "discrete" else actions
    return torch.cat(
        [
            _one_hot(choice, size)
            for choice, size in zip(choices.unbind(-1), action.sizes, strict=True)
        ],
        -1,
    )


def _one_hot(choices: Tensor, size: int) -> Tensor:
    """Choices [...] as [..., size] float32; torch's own function looks at them, and so waits."""
    zeros = torch.zeros(*choices.shape, size, device=choices.device)
    return zeros.scatter_(-1, choices.unsqueeze(-1), 1.0)


def _relu_layer(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return nn.functional.linear(x, weight, bias).relu_()


def _orthogonal(shape: tuple[int, ...], gain: float) -> nn.Linear:
    layer = nn.Linear(shape[1], shape[0])
    nn.init.orthogonal_(layer.weight, gain)
    nn.init.zeros_(layer.bias)
    return layer
