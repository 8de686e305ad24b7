"""Chooses the policy that acts for a run: numpy for a small network, torch for all others."""

import numpy as np

from impala_redis.common.acting.numpy_policy import MlpPolicy
from impala_redis.common.acting.policy import Policy
from impala_redis.common.run.architecture import NETWORKS
from impala_redis.common.run.spec import RunSpec


def make_policy(spec: RunSpec, rng: np.random.Generator) -> Policy:
    """The policy of the run's network."""
    if NETWORKS[spec.network].acts_in_numpy and spec.memory_size == 0:
        return MlpPolicy(spec, rng)
    from impala_redis.common.acting.torch_policy import NetworkPolicy

    return NetworkPolicy(spec, rng)
