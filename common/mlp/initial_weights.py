"""The parameters that a plain network begins with, without torch.

A run begins with the same weights whatever computes its updates: they are those of
`common.networks.network.make_network`, and a test compares. Whoever changes how that one makes its
layers changes this one, too.
"""

import math
from math import prod

import numpy as np

from impala_redis.common.mlp.torch_random import Floats, TorchRandom
from impala_redis.common.run.architecture import NetworkSpec


def initial_weights(spec: NetworkSpec, seed: int, initial_std: float = 1.0) -> dict[str, Floats]:
    """Every parameter by its name, in the order of `spec.parameter_shapes`, float32.

    They are equal to those that torch makes for the seed but for rounding, which the decomposition
    of a square matrix magnifies to some 1e-5.

    Args:
      spec: that of a plain network: "mlp", without a memory.
      seed: from 0 to 2^63 - 1.
      initial_std: the deviation of actions that are numbers.
    """
    assert spec.network == "mlp" and spec.memory_size == 0, "this is no plain network"
    random = TorchRandom(seed)
    weights: dict[str, Floats] = {}
    for name, shape in spec.parameter_shapes().items():
        if name.endswith(".weight"):
            outputs, inputs = shape
            # torch's layers begin with uniform weights and biases, which are then replaced.
            random.skip(outputs * inputs + outputs)
            gain = _GAINS.get(name, 2**0.5)
            weights[name] = gain * _orthogonal(random.normal(prod(shape)).reshape(shape))
        else:
            fill = math.log(initial_std) if name == "log_std" else 0.0
            weights[name] = np.full(shape, fill, np.float32)
    return weights


# Those of the hidden layers are made for a rectifier; small ones make the first policies uniform.
_GAINS = {"policy.weight": 0.01, "baseline.weight": 1.0}


def _orthogonal(normal: Floats) -> Floats:
    """A matrix with orthogonal rows or columns, whichever are fewer, of normal numbers [R, C].

    Every such matrix is as likely as any other (Mezzadri 2007, "How to generate random matrices
    from the classical compact groups").
    """
    tall = normal.T if normal.shape[0] < normal.shape[1] else normal
    q, r = np.linalg.qr(tall)
    q = q * np.sign(np.diag(r))
    return np.ascontiguousarray(q.T if tall is not normal else q)
