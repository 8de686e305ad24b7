"""What a run says of a network of the user's own: all that its weights' names and shapes are.

Names and shapes come from the module itself, in the learner. Everyone else only compares.
"""

import hashlib
from dataclasses import dataclass
from math import prod
from typing import Any

from impala_redis.common.errors import SpecMismatch
from impala_redis.common.run.spaces import MAX_DIMENSIONS
from impala_redis.common.run.spaces_json import text_from, whole_number_from

# The most features or numbers of a memory. The length of a spec bounds how many tensors there are.
MAX_WIDTH = 1_048_576
# The largest side of a tensor; how large all may be together is checked with the whole spec.
MAX_SIDE = 2**31

Tensors = tuple[tuple[str, tuple[int, ...]], ...]


@dataclass(frozen=True, kw_only=True)
class OwnNetwork:
    """The outside of a network of the user's own; names are those in the user's module."""

    features_dim: int  # numbers that it makes of one observation
    memory_size: int = 0  # numbers that it remembers of each environment
    parameters: Tensors = ()  # name and shape, in the module's order
    buffers: Tensors = ()  # the persistent ones

    def __str__(self) -> str:
        numbers = sum(prod(shape) for _, shape in self.parameters)
        digest = hashlib.sha256(repr(self).encode()).hexdigest()[:8]
        memory = f", a memory of {self.memory_size:,}" if self.memory_size else ""
        return (
            f"a network of {self.features_dim:,} features{memory}, {numbers:,} parameters in "
            f"{len(self.parameters)} tensors and {len(self.buffers)} buffers ({digest})"
        )


def own_network_from(document: Any) -> OwnNetwork | None:
    """The network of the user's own in a spec's JSON. Raises SpecMismatch: there is none in it."""
    if document is None:
        return None
    names = {"features_dim", "memory_size", "parameters", "buffers"}
    if not isinstance(document, dict) or set(document) != names:
        raise SpecMismatch(f"the run's spec has own without {', '.join(sorted(names))}")
    return OwnNetwork(
        features_dim=whole_number_from("features_dim", document["features_dim"], 1, MAX_WIDTH),
        memory_size=whole_number_from("memory_size", document["memory_size"], 0, MAX_WIDTH),
        parameters=_tensors_from("parameters", document["parameters"]),
        buffers=_tensors_from("buffers", document["buffers"]),
    )


def _tensors_from(name: str, value: Any) -> Tensors:
    if not isinstance(value, list):
        raise SpecMismatch(f"the run's spec has own.{name} {str(value)[:60]}, not a list")
    tensors = tuple(_tensor_from(name, pair) for pair in value)
    if len(dict(tensors)) < len(tensors):
        raise SpecMismatch(f"the run's spec has two of its own.{name} under one name")
    return tensors


def _tensor_from(name: str, pair: Any) -> tuple[str, tuple[int, ...]]:
    if not isinstance(pair, list) or len(pair) != 2 or not isinstance(pair[1], list):
        raise SpecMismatch(f"the run's spec has own.{name} {str(pair)[:60]}, not a name and shape")
    if len(pair[1]) > MAX_DIMENSIONS:
        raise SpecMismatch(f"the run's spec has own.{name} of {len(pair[1])} dimensions")
    shape = tuple(whole_number_from(f"own.{name}", side, 1, MAX_SIDE) for side in pair[1])
    return text_from(f"own.{name}", pair[0]), shape
