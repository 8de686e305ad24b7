"""Memory that travels between host and GPU in the background: pinned, and in one piece."""

import logging
from collections.abc import Mapping
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor

from impala_redis.common.devices.device import first_words

log = logging.getLogger(__name__)

# Each array begins at a multiple of this many bytes, as torch's own pools have it.
ALIGNMENT = 512


class Piece:
    """Named tensors in one piece of memory, so that one copy moves them all."""

    def __init__(self, like: Mapping[str, NDArray[Any]], memory: Tensor) -> None:
        """Cuts the memory, `nbytes_of(like)` bytes, into tensors of these dtypes and shapes."""
        self.memory = memory
        self._like = like
        self.tensors: dict[str, Tensor] = {}
        start = 0
        for name, array in like.items():
            dtype = torch.from_numpy(array[:0]).dtype
            cut = memory[start : start + array.nbytes].view(dtype)
            self.tensors[name] = cut.view(array.shape)
            start += _aligned(array.nbytes)

    def copy(self) -> "Piece":
        """The same in memory of its own, on the same device."""
        return Piece(self._like, self.memory.clone())


def nbytes_of(arrays: Mapping[str, NDArray[Any]]) -> int:
    """The size in bytes of a piece of memory for such arrays."""
    return sum(_aligned(array.nbytes) for array in arrays.values())


def pinned(size: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Memory of the host for `size` values, which the device copies from or to by itself.

    It is memory like any other where the system gives no such, and for a CPU.
    """
    if device.type == "cuda":
        try:
            return torch.empty(size, dtype=dtype, pin_memory=True)
        except RuntimeError as error:
            log.warning("no pinned memory, so updates wait for copies (%s)", first_words(error))
    return torch.empty(size, dtype=dtype)


def _aligned(nbytes: int) -> int:
    return -(-nbytes // ALIGNMENT) * ALIGNMENT
