"""Chooses the policy that acts for a run: numpy for a small network, torch for all others."""

import numpy as np

from impala_redis.common.acting.numpy_policy import MlpPolicy
from impala_redis.common.acting.policy import HostPolicy, Policy
from impala_redis.common.run.kinds import TEXTS, kind_of
from impala_redis.common.run.spec import RunSpec


def make_policy(spec: RunSpec, rng: np.random.Generator, device: str = "cpu") -> Policy:
    """The policy of the run's network, on the device of that name: "cpu" or "cuda".

    Raises ConfigError or DeviceFull for a GPU that cannot be used.
    """
    if device != "cpu":
        from impala_redis.common.acting.device_policy import DevicePolicy
        from impala_redis.common.devices.device import choose_device

        return DevicePolicy(spec, rng, choose_device(device))
    return make_host_policy(spec, rng)


def make_host_policy(spec: RunSpec, rng: np.random.Generator) -> HostPolicy:
    """The policy of the run's network on the CPU, which also tells the values of states."""
    plain = kind_of(spec.network).acts_in_numpy and not TEXTS[spec.text].lstm_size
    if plain and spec.memory_size == 0:
        return MlpPolicy(spec, rng)
    from impala_redis.common.acting.torch_policy import NetworkPolicy

    return NetworkPolicy(spec, rng)
