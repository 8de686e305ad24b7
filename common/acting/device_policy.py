"""Acting on a GPU, for hundreds of environments with one forward pass of any network.

Weights, frame stacks, the core's memory and the extra inputs live on the device. For a step only
the newest observations, the flags of beginnings and, for a network with extra inputs, the last
actions and rewards go there, through memory that the GPU copies from by itself; the policy's
outputs come back in one copy, which is all that a step waits for. What is drawn from them is drawn
in numpy, by the same generator as on a CPU, so that an actor plays the same games on both, up to
rounding. On a CPU the very same code runs, which is how it is tested.
"""

from math import prod
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from impala_redis.common.acting.frames import Observations
from impala_redis.common.acting.policy import Flags, Policy
from impala_redis.common.acting.sampling import Actions, Floats
from impala_redis.common.blocks.weights import Weights
from impala_redis.common.devices.device import enough_memory, fastest_methods, round_factors
from impala_redis.common.devices.pinned import pinned
from impala_redis.common.networks.network import NetworkInput, action_features, make_network
from impala_redis.common.run.spec import RunSpec


class DevicePolicy(Policy):
    """Acts with one row of the network at a time, on a device of torch's."""

    @enough_memory()
    def __init__(self, spec: RunSpec, rng: np.random.Generator, device: torch.device) -> None:
        """A policy whose weights are loaded before it acts. Raises DeviceFull."""
        self._device = device
        # Else the log-probabilities that travel would not be those of the network as the learner
        # has it, and V-trace would weigh them wrongly.
        round_factors(False)
        self._network = network = make_network(spec, seed=0).to(device).eval()
        if spec.own is None:  # a module of the user's own may need its tensors as it made them
            network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        super().__init__(spec, rng)

    @enough_memory()
    def begin(self, num_envs: int) -> None:
        """Forgets everything, and acts for `num_envs` environments from now on."""
        spec, n = self._spec, num_envs
        observation, action = spec.observation, spec.action
        dtype = getattr(torch, observation.dtype)
        of_actions = torch.float32 if action.kind == "continuous" else torch.int64
        self._ferries = {
            "observations": _Ferry((n, *observation.shape), dtype, self._device),
            "is_first": _Ferry((n,), torch.bool, self._device),
            "actions": _Ferry((n, *action.shape), of_actions, self._device),
            "rewards": _Ferry((n,), torch.float32, self._device),
        }
        # [N, ..., S], the oldest first: a pixel's frames lie side by side, as convolutions like it.
        shape = (n, *observation.shape, observation.frame_stack)
        self._stack = torch.zeros(shape, dtype=dtype, device=self._device)
        self._core = torch.zeros(n, spec.core_memory_size, device=self._device)
        extra = spec.memory_size - spec.core_memory_size
        self._extra = torch.zeros(n, extra, device=self._device)
        # What was done after each row but the last: there is one row.
        self._no_actions = torch.empty(0, n, *action.shape, dtype=of_actions, device=self._device)
        self._no_rewards = torch.empty(0, n, device=self._device)

    @property
    def memory(self) -> Floats:
        """[N, M] float32, fetched from the device."""
        fetched: Floats = torch.cat([self._core, self._extra], 1).cpu().numpy()
        return fetched

    @property
    def history(self) -> Observations:
        """[H, N, ...], fetched from the device."""
        fetched: Observations = self._stack[..., 1:].movedim(-1, 0).cpu().numpy()
        return fetched

    @enough_memory()
    @torch.inference_mode()
    def outputs(self, observations: Observations, is_first: Flags) -> Floats:
        """The policy head's outputs [N, P] for the next observations [N, ...].

        Raises DeviceFull.
        """
        begins = self._ferries["is_first"].bring(is_first)
        seen = self._ferries["observations"].bring(observations)
        if self._spec.observation.frame_stack > 1:
            seen = self._stacked(seen, begins)
        inputs = NetworkInput(
            observations=seen[None],
            is_first=begins[None],
            actions=self._no_actions,
            rewards=self._no_rewards,
            memory=torch.cat([self._core, self._extra], 1),
        )
        with fastest_methods():
            output = self._network(inputs)
        # One observation that is not finite must not last: a memory made of it begins again.
        fit = output.memory.isfinite().all(1, keepdim=True)
        self._core = torch.where(fit, output.memory, 0.0)
        outputs: Floats = output.policy[0].cpu().numpy()
        return outputs

    @enough_memory()
    @torch.inference_mode()
    def remember(self, actions: Actions, rewards: Floats) -> None:
        """Keeps the last actions [N, ...] and rewards [N] if they are inputs of the network.

        Raises DeviceFull.
        """
        if self._spec.extra_inputs == "none":
            return
        last = action_features(self._spec.action, self._ferries["actions"].bring(actions))
        clipped = self._ferries["rewards"].bring(rewards).clamp(-1.0, 1.0)
        extra = torch.cat([last, clipped[:, None]], 1)
        self._extra = torch.where(extra.isfinite(), extra, 0.0)

    @enough_memory()
    def _load(self, weights: Weights) -> None:
        """Brings all weights in one copy, from which each tensor takes its own on the device."""
        tensors = self._network.travelling()
        flat = np.concatenate([weights[name].reshape(-1) for name in tensors])
        brought = torch.from_numpy(flat).to(self._device)
        parts = torch.split(brought, [tensor.numel() for tensor in tensors.values()])
        for tensor, part in zip(tensors.values(), parts, strict=True):
            tensor.copy_(part.view(tensor.shape))

    def _stacked(self, seen: Tensor, begins: Tensor) -> Tensor:
        """Adds observations [N, ...] to the stacks; these [N, S, ...], by the rule of `frames`."""
        before = self._stack[..., 1:]
        kept = before.masked_fill(begins.view(-1, *[1] * (before.dim() - 1)), 0)
        self._stack = torch.cat([kept, seen[..., None]], -1)
        return self._stack.movedim(-1, 1)


class _Ferry:
    """Arrays of one shape on their way to a device, step after step.

    They pass through one buffer, so the one before must have been used when the next is brought:
    each step's outputs are waited for.
    """

    def __init__(self, shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> None:
        self._device = device
        self._buffer = pinned(prod(shape), dtype, device).view(shape)
        self._array = self._buffer.numpy()

    def bring(self, array: NDArray[Any]) -> Tensor:
        """The array on the device, valid until the next one. Does not wait for a GPU's copy."""
        self._array[...] = array
        return self._buffer.to(self._device, non_blocking=True)
