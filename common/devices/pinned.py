"""Memory that travels between host and GPU in the background: pinned, and in one piece."""

import logging
from collections.abc import Mapping
from functools import cache
from math import prod
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor

from impala_redis.common.devices.device import first_words

log = logging.getLogger(__name__)

# Each array begins at a multiple of this many bytes, as torch's own pools have it.
ALIGNMENT = 512


# A tensor's dtype and shape.
Layout = Mapping[str, tuple[torch.dtype, tuple[int, ...]]]


class Piece:
    """Named tensors in one piece of memory, so that one copy moves them all."""

    def __init__(self, layout: Layout, memory: Tensor) -> None:
        """Cuts the memory, `nbytes_of(layout)` bytes, into these tensors."""
        self.memory, self._layout = memory, layout
        self.tensors: dict[str, Tensor] = {}
        start = 0
        for name, (dtype, shape) in layout.items():
            stop = start + dtype.itemsize * prod(shape)
            self.tensors[name] = memory[start:stop].view(dtype).view(shape)
            start = _aligned(stop)

    def copy(self) -> "Piece":
        """The same in memory of its own, on the same device."""
        return Piece(self._layout, self.memory.clone())


def layout_of(arrays: Mapping[str, NDArray[Any]]) -> Layout:
    """The dtypes and shapes of such arrays."""
    return {name: (torch.from_numpy(a[:0]).dtype, a.shape) for name, a in arrays.items()}


def nbytes_of(layout: Layout) -> int:
    """The size in bytes of a piece of memory for such tensors."""
    return sum(_aligned(dtype.itemsize * prod(shape)) for dtype, shape in layout.values())


def pinned(size: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Memory of the host for `size` values, which the device copies from or to by itself.

    It is memory like any other where the system gives no such, and for a CPU.
    """
    if device.type == "cuda":
        try:
            return torch.empty(size, dtype=dtype, pin_memory=True)
        except RuntimeError as error:
            _say_once(first_words(error))
    return torch.empty(size, dtype=dtype)


@cache
def _say_once(why: str) -> None:
    log.warning("no pinned memory, so copies to the GPU are waited for (%s)", why)


def _aligned(nbytes: int) -> int:
    return -(-nbytes // ALIGNMENT) * ALIGNMENT
