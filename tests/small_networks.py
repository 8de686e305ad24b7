"""Small networks of every kind, and rows for them to see."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from impala_redis.common.acting.policies import make_policy
from impala_redis.common.acting.policy import Policy
from impala_redis.common.learning.torch_inputs import stacked
from impala_redis.common.networks.network import Network, NetworkInput, make_network
from impala_redis.common.run.spaces import ActionSpec, ObservationPart, ObservationSpec, discrete
from impala_redis.common.run.spec import RunSpec

FLOATS = ObservationSpec((3,), "float32")
PIXELS = ObservationSpec((4, 5, 2), "uint8", scale=(255,))
INDEX = ObservationSpec((), "int64", 7)
# Two pictures, one with its colours first and one without any; categories; bytes; numbers.
PARTS = ObservationSpec(
    (3224,),
    "uint8",
    parts=(
        ObservationPart("speed", (2,), "float64", start=0),
        ObservationPart("front", (3, 20, 36), "uint8", start=16, scale=(255,)),
        ObservationPart("bag", (2, 2), "int8", (3, 2, 4, 1), start=2176),
        ObservationPart("lamps", (3,), "uint8", start=2180, scale=(1, 20, 255)),
        ObservationPart("heading", (), "float32", start=2184),
        ObservationPart("map", (20, 36), "uint8", start=2188, scale=(10,)),
        ObservationPart("room", (), "int64", (5,), start=2912),
    ),
)

ACTIONS = {
    "one choice": discrete(4),
    "several choices": ActionSpec("multi_discrete", (3, 2)),
    "numbers": ActionSpec("continuous", (3,)),
    "bounded numbers": ActionSpec("continuous", (3,), bounded=True),
}


def make_spec(observation: ObservationSpec = FLOATS, **changes: Any) -> RunSpec:
    fields: dict[str, Any] = {
        "run": "test",
        "env": "Test-v0",
        "observation": observation,
        "action": discrete(4),
        "hidden_sizes": (16, 8),
        "activation": "tanh",
        "unroll_length": 5,
        "envs_per_actor": 2,
        "queue_blocks": 4,
        "max_policy_age_s": 600.0,
        "seed": 0,
    }
    return RunSpec(**(fields | changes))


def some_observations(
    observation: ObservationSpec, *leading: int, seed: int = 3
) -> NDArray[np.generic]:
    rng = np.random.default_rng(seed)
    if not observation.parts:
        return _some_values(observation.leaves[0], leading, rng)
    rows = np.zeros((*leading, *observation.shape), np.uint8)
    for part in observation.parts:
        values = np.ascontiguousarray(_some_values(part, leading, rng)).reshape(*leading, -1)
        rows[..., part.start : part.start + part.num_bytes] = values.view(np.uint8)
    return rows


def _some_values(
    part: ObservationPart, leading: tuple[int, ...], rng: np.random.Generator
) -> NDArray[np.generic]:
    shape = (*leading, *part.shape)
    if part.num_values:
        limits = np.array(part.num_values).reshape(part.shape)
        return np.asarray(rng.integers(0, limits, shape)).astype(part.dtype)
    if part.dtype == "uint8":
        return rng.integers(0, 256, shape).astype(np.uint8)
    return np.asarray(rng.normal(0.0, 2.0, shape)).astype(part.dtype)


def some_actions(action: ActionSpec, *leading: int, seed: int = 4) -> NDArray[np.generic]:
    rng = np.random.default_rng(seed)
    if action.kind == "continuous":
        return rng.normal(0.0, 1.0, (*leading, *action.sizes)).astype(np.float32)
    limits = np.array(action.sizes).reshape(action.shape)
    return np.asarray(rng.integers(0, limits, (*leading, *action.shape)))


def seen_by(
    spec: RunSpec, observations: NDArray[np.generic], is_first: NDArray[np.bool_] | None = None
) -> NetworkInput:
    """Rows `[H + R, B, ...]` with actions and rewards of no matter and an empty memory."""
    rows, columns = len(observations) - spec.observation.history, observations.shape[1]
    flags = torch.zeros(rows, columns, dtype=torch.bool)
    if is_first is not None:
        flags = torch.from_numpy(is_first)
    return NetworkInput(
        stacked(torch.from_numpy(observations), flags),
        flags,
        torch.from_numpy(some_actions(spec.action, rows - 1, columns)),
        torch.zeros(rows - 1, columns),
        torch.zeros(columns, spec.memory_size),
    )


def lively_network(spec: RunSpec) -> Network:
    """A network whose outputs differ by more than a fresh one's, with no bias of 0."""
    network = make_network(spec, seed=0)
    generator = torch.Generator().manual_seed(5)
    for name, parameter in network.named_parameters():
        if parameter.dim() < 2 or name.startswith(("policy", "baseline", "torso")):
            width = parameter.shape[-1] if parameter.dim() > 1 else 4
            parameter.data.normal_(0.0, width**-0.5, generator=generator)
    return network


def statistics_of(network: Network) -> dict[str, Tensor]:
    """What travels and is no parameter, by name: the tensors themselves."""
    parameters = dict(network.named_parameters())
    return {name: t for name, t in network.travelling().items() if name not in parameters}


def policy_of(network: Network, spec: RunSpec, seed: int = 0) -> Policy:
    policy = make_policy(spec, np.random.default_rng(seed))
    tensors = network.travelling()
    policy.load(1, {name: tensor.detach().numpy() for name, tensor in tensors.items()})
    return policy
