"""Acting with the learner's own network in torch: for convolutions, memory and extra inputs."""

import numpy as np
import torch

from impala_redis.common.acting.frames import Observations
from impala_redis.common.acting.policy import Flags, HostPolicy
from impala_redis.common.acting.sampling import Actions, Floats
from impala_redis.common.blocks.weights import Weights
from impala_redis.common.networks.network import (
    NetworkInput,
    NetworkOutput,
    action_features,
    make_network,
)
from impala_redis.common.run.spec import RunSpec


class NetworkPolicy(HostPolicy):
    """Acts with one row of the network at a time; the learner's pass begins with its memory."""

    def __init__(self, spec: RunSpec, rng: np.random.Generator) -> None:
        super().__init__(spec, rng)
        self._network = make_network(spec, seed=0).eval()  # its weights are loaded before it acts

    @torch.inference_mode()
    def remember(self, actions: Actions, rewards: Floats) -> None:
        """Keeps the last actions and rewards if they are inputs of the network."""
        if self._spec.extra_inputs == "none":
            return
        last = action_features(self._spec.action, torch.from_numpy(np.ascontiguousarray(actions)))
        self._memory[:, self._spec.core_memory_size : -1] = last.numpy()
        self._memory[:, -1] = np.clip(rewards, -1.0, 1.0)
        inputs = self._memory[:, self._spec.core_memory_size :]
        inputs[~np.isfinite(inputs)] = 0.0  # only the column that holds them is left out

    def _load(self, weights: Weights) -> None:
        for name, tensor in self._network.travelling().items():
            tensor.copy_(torch.from_numpy(weights[name].copy()))

    @torch.inference_mode()
    def _forward(self, inputs: Observations, is_first: Flags) -> NetworkOutput:
        n = len(inputs)
        output: NetworkOutput = self._network(
            NetworkInput(
                observations=torch.from_numpy(np.require(inputs, requirements=["C", "W"])[None]),
                is_first=torch.from_numpy(is_first[None]),
                actions=torch.empty(0, n, *self._spec.action.shape, dtype=torch.int64),
                rewards=torch.empty(0, n),
                memory=torch.from_numpy(self._memory),
            )
        )
        return output

    def _values(self, inputs: Observations, is_first: Flags, task: int) -> Floats:
        values: Floats = self._forward(inputs, is_first).baseline[0, :, task].numpy()
        return values

    def _outputs(self, inputs: Observations, is_first: Flags) -> Floats:
        output = self._forward(inputs, is_first)
        core = output.memory.numpy()
        # One observation that is not finite must not last: a memory made of it begins again.
        core[~np.isfinite(core).all(axis=1)] = 0.0
        self._memory[:, : self._spec.core_memory_size] = core
        outputs: Floats = output.policy[0].numpy()
        return outputs
